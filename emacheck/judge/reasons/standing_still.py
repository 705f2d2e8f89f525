"""What stands still while the other record moves: a loss that does not move is no evidence of a training."""

from collections.abc import Iterator

import numpy as np

from emacheck.curve import Curve
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.forensics.beside import components, gradient_norms
from emacheck.judge.forensics.metric_names import is_rate
from emacheck.judge.forensics.standstill import Standstill, Still, longest_zeros, standstill
from emacheck.judge.reasons.reason import Reason
from emacheck.judge.verdict import Outcome

AS_LONG = 2
"""How many times as many zeros in a row as the reference has are no death: a hinge loss may be zero now and then."""


def standing_still(comparison: Comparison) -> Iterator[Reason]:
    """Find judged metrics that stand still, in the mean of the ranks or else in single ones, which the mean hides."""
    for metric in comparison.metrics:
        if is_rate(metric):
            continue
        reference, candidate = (side.curves.get(metric, EMPTY) for _, side in comparison.sides)
        reason = _still(metric, reference, candidate) or _rank_still(comparison, metric)
        if reason is not None:
            yield reason


def _still(metric: str, reference: Curve, candidate: Curve, of: str = "") -> Reason | None:
    """Return the reason that a curve stands still where the other moves, if one does."""
    # An accuracy may well be 100 % for a while; only a loss has to move all the time.
    stretches = "loss" in metric.lower()
    ours, theirs = (standstill(curve, stretches=stretches) for curve in (reference, candidate))
    if ours is not None:
        both = f"; that of the candidate {theirs}" if theirs is not None else ""
        message = f"{metric} of {of}the reference {ours}{both}: there is nothing to hold against"
        return Reason(outcome=Outcome.INCONCLUSIVE, message=message, iteration=ours.first, metric=metric)
    if (
        theirs is not None
        and theirs.kind is Still.ZERO
        and theirs.count <= AS_LONG * (zeros := longest_zeros(reference))
    ):
        message = f"{metric} of {of}the candidate {theirs}, that of the reference up to {zeros} times in a row"
        return Reason(outcome=Outcome.INCONCLUSIVE, message=message, iteration=theirs.first, metric=metric)
    if theirs is not None and _moves(reference, theirs):
        message = f"{metric} of {of}the candidate {theirs}"
        return Reason(outcome=Outcome.FAIL, message=message, iteration=theirs.first, metric=metric)
    if theirs is not None and theirs.kind is Still.CONSTANT and stretches:
        message = f"{metric} of {of}the candidate {theirs}, in digits too few to tell how the reference moves"
        return Reason(outcome=Outcome.INCONCLUSIVE, message=message, iteration=theirs.first, metric=metric)
    return None


def _rank_still(comparison: Comparison, metric: str) -> Reason | None:
    """Return the reason that a rank of the candidate stands still; the mean of all ranks hides it."""
    reference, candidate = comparison.reference, comparison.candidate
    found = (
        _still(
            metric,
            reference.of_ranks.get(rank, reference.curves).get(metric, EMPTY),
            curves[metric],
            f"rank {rank} of ",
        )
        for rank, curves in sorted(candidate.of_ranks.items())
        if metric in curves
    )
    reasons = [reason for reason in found if reason is not None]
    return next((reason for reason in reasons if reason.outcome is Outcome.FAIL), next(iter(reasons), None))


def beside_standing_still(comparison: Comparison) -> Iterator[Reason]:
    """Say which gradient norms and components of the candidate stand still where those of the reference move."""
    for metric in (*components(comparison), *gradient_norms(comparison)):
        reference, candidate = (side.curves.get(metric, EMPTY) for _, side in comparison.sides)
        still = standstill(candidate)
        if still is not None and standstill(reference) is None and _moves(reference, still):
            yield Reason(message=f"{metric} of the candidate {still}")


def _moves(reference: Curve, still: Standstill) -> bool:
    """Tell whether the reference moves, beyond printed digits, where the candidate stands still; True if unknown."""
    there = (reference.iterations >= still.first) & (reference.iterations <= still.last)
    values = reference.values[there & np.isfinite(reference.values)]
    if not len(values):
        return True
    with np.errstate(over="ignore"):
        return bool(np.max(np.abs(values - still.value)) > reference.quantum + still.unit)
