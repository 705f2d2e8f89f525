"""Numbers of iterations that mean something else in each record, so that pairs of them say nothing."""

from collections.abc import Iterator

from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.numbering import numbered_otherwise
from emacheck.judge.reasons.reason import Reason
from emacheck.judge.verdict import Outcome


def other_numbers(comparison: Comparison) -> Iterator[Reason]:
    """Say that one record was counted and the other is numbered otherwise."""
    if unlike := numbered_otherwise(comparison):
        yield Reason(outcome=Outcome.INCONCLUSIVE, message=unlike)
