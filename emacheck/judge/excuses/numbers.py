"""Whether records may be paired that do not belong together, because nothing tells what their numbers count."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from emacheck.judge.choice import MEANS, RANKS
from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.numbering import numbered_otherwise
from emacheck.judge.verdict import Finding, Outcome
from emacheck.oddity import OddityKind

INTEGRITY = "integrity"
WHICH_RUN = (OddityKind.SHORT_LAST_RUN, OddityKind.MIXED)
"""Oddities that leave open which records of a log are meant."""
BY_NUMBER = (*MEANS, RANKS, "coverage", "schedule", "equivalence", "envelope", "first_iterations", "final_metric")
"""The default rules that rest on pairs of equal numbers, or on the span that these have in common."""


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


def without_blame_for_zero(
    findings: Sequence[Finding], from_one: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make INCONCLUSIVE what FAILs where one record counts from 0 and the other from 1, and not where both do from 1.

    Rules that the user named stay.

    Args:
        findings: What was found with the numbers as they are.
        from_one: What is found where both count from 1; ``coverage`` says how to ask for that.
        named: The rules that somebody asked for or set a limit of.
    """
    failing = {(each.rule, each.metric) for each in from_one if each.outcome is Outcome.FAIL}
    blameless = {*BY_NUMBER}.difference(named)
    return [
        replace(each, outcome=Outcome.INCONCLUSIVE, message=f"of pairs that may be wrong, see coverage; {each.message}")
        if each.outcome is Outcome.FAIL and each.rule in blameless and (each.rule, each.metric) not in failing
        else each
        for each in findings
    ]
