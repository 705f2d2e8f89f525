"""Runs that were asked for different things, such as another precision: they say nothing about a device."""

from collections.abc import Iterator

from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.headers import asked_otherwise
from emacheck.judge.reasons.reason import Reason, listed
from emacheck.judge.verdict import Outcome


def other_experiments(comparison: Comparison) -> Iterator[Reason]:
    """Name what the two were asked for differently, as far as both say it and it may not differ."""
    found = asked_otherwise(comparison.reference, comparison.candidate, paired=bool(comparison.paired))
    if found:
        message = f"the two were asked for different things: {listed(found)}"
        yield Reason(outcome=Outcome.INCONCLUSIVE, message=message)
