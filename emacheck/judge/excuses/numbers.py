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
