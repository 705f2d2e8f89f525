"""Runs that were asked for different things, such as another precision: they say nothing about a device."""

from collections.abc import Iterator

from emacheck.experiment import differences
from emacheck.judge.comparison import Comparison
from emacheck.judge.reasons.reason import Reason, listed
from emacheck.judge.verdict import Outcome


def other_experiments(comparison: Comparison) -> Iterator[Reason]:
    """Name what the two were asked for differently, as far as both say it and it may not differ."""
    reference, candidate = (dict(record.provenance.get("experiment") or {}) for _, record in comparison.sides)
    # Equal batches are proof enough of equal data; runs of other seeds are compared as such.
    free = {"name", "data_hash" if comparison.paired else "seed"}
    stated = (reference.keys() & candidate.keys()) - free
    found = differences({key: reference[key] for key in stated}, {key: candidate[key] for key in stated})
    if found:
        message = f"the two were asked for different things: {listed(found)}"
        yield Reason(outcome=Outcome.INCONCLUSIVE, message=message)
