"""Which findings blame the device for what other batches, or other numbers of iterations, explain as well."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from emacheck.judge.choice import MEANS, RANKS
from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.numbering import numbered_otherwise
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.rules.equivalence import Equivalence
from emacheck.judge.verdict import Finding, Outcome
from emacheck.oddity import OddityKind

INTEGRITY = "integrity"
WHICH_RUN = (OddityKind.SHORT_LAST_RUN, OddityKind.MIXED)
"""Oddities that leave open which records of a log are meant."""
BY_NUMBER = (*MEANS, RANKS, "coverage", "schedule", "equivalence", "envelope", "first_iterations", "final_metric")
"""The default rules that rest on pairs of equal numbers, or on the span that these have in common."""


def without_blame_for_data(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make mean errors INCONCLUSIVE that other batches explain as well as a wrong device.

    That is so where it is not known whether the runs are paired, and their levels are the same within the limit of
    ``equivalence``: paired runs would FAIL, runs that are not paired would PASS. Rules that the user named stay.
    """
    rules = {*MEANS, RANKS}.difference(named)
    blamed = [f for f in findings if f.rule in rules and f.outcome is Outcome.FAIL]
    if not blamed or pairing_of(comparison).pairing is not Pairing.UNKNOWN:
        return list(findings)
    levels = {f.metric: f for f in Equivalence().check(comparison) if f.outcome is Outcome.PASS}
    # A rank whose own level is wrong is so whatever its batches are.
    wrong = _wrong_ranks(comparison) if any(f.rule == RANKS for f in blamed) else frozenset()
    settled = []
    for finding in findings:
        excused = finding in blamed and finding.metric in levels
        if excused and not (finding.rule == RANKS and finding.metric in wrong):
            settled.append(_undecided(finding, levels[finding.metric]))
        else:
            settled.append(finding)
    return settled


def without_blame_for_numbers(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make INCONCLUSIVE what FAILs through pairs of records of which nothing tells that they belong together.

    ``integrity`` says why. Rules that the user named stay, and all of them where ``integrity`` is named.
    """
    records = (comparison.reference, comparison.candidate)
    doubtful = any(each.kind in WHICH_RUN for record in records for each in record.oddities)
    if INTEGRITY in named or not (doubtful or numbered_otherwise(comparison)):
        return list(findings)
    blameless = {*BY_NUMBER}.difference(named)
    return [
        replace(
            each, outcome=Outcome.INCONCLUSIVE, message=f"of pairs that may be wrong, see {INTEGRITY}; {each.message}"
        )
        if each.rule in blameless and each.outcome is Outcome.FAIL
        else each
        for each in findings
    ]


def _wrong_ranks(comparison: Comparison) -> frozenset[str]:
    """Return the metrics of which any rank ends at another level than it does in the reference."""
    found = (each for rank in comparison.ranks for each in Equivalence().check(comparison.of_rank(rank)))
    return frozenset(each.metric for each in found if each.outcome is Outcome.FAIL)


def _undecided(finding: Finding, level: Finding) -> Finding:
    message = (
        "over its limit if the runs are paired, which nothing tells (say --paired); if they are not (say --unpaired), "
        f"their levels are the same within {level.would_pass_at:.2g}; {finding.message}"
    )
    return replace(finding, outcome=Outcome.INCONCLUSIVE, message=message)
