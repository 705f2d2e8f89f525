"""What is not finite beside the losses, as far as it speaks against a run: validations, gradients, other metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from emacheck.counted import counted
from emacheck.curve import Curve, Integers
from emacheck.judge.comparison import EMPTY, Comparison, precision_of
from emacheck.judge.forensics.metric_names import class_score, is_gradient_norm, is_rate, is_score
from emacheck.judge.verdict import Finding
from emacheck.record import Record

LASTING = 3
"""Values at the end, none of which is finite, that no step which a scaler left out explains."""
HALVINGS, EVERY = 32, 1000
"""Steps that a scaler leaves out: it halves its scale from at most 2^32, and doubles it every 1000 steps or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """Values of one metric that are not finite.

    Attributes:
        side: Whose they are, ``reference`` or ``candidate``.
        metric: The metric's name.
        count: How many they are.
        iteration: The first of them.
        message: What they are, as a clause.
    """

    side: str
    metric: str
    count: int
    iteration: int
    message: str


def broken_validation(comparison: Comparison) -> Iterator[Broken]:
    """Find the losses and scores of validations that are not finite, the candidate's before the reference's.

    The score of a class that the data lack is NaN: one that is NaN throughout in both records is left out.
    """
    sides = {"candidate": comparison.candidate.validation, "reference": comparison.reference.validation}
    for side, validation in sides.items():
        for metric, curve in validation.items():
            bad = ~np.isfinite(curve.values)
            if not bad.any() or not ("loss" in metric.lower() or is_score(metric)) or of_no_class(comparison, metric):
                continue
            count, first = int(bad.sum()), int(curve.iterations[np.argmax(bad)])
            message = (
                f"{metric} in validation of the {side} is NaN or infinite {count} times, first at iteration {first}"
            )
            yield Broken(side=side, metric=metric, count=count, iteration=first, message=message)


def of_no_class(comparison: Comparison, metric: str) -> bool:
    """Tell whether a metric is the score of a class that the data lack: NaN at every validation of both records."""
    curves = [record.validation.get(metric, EMPTY) for _, record in comparison.sides]
    return bool(class_score(metric) and all(len(curve) and np.all(np.isnan(curve.values)) for curve in curves))


def broken_metrics(comparison: Comparison) -> Iterator[Broken]:
    """Find metrics beside the losses that the candidate has as NaN or infinite where the reference has numbers.

    A gradient norm is infinite or NaN wherever a scaler of fp16 leaves a step out. That is as it should be up to the
    number of steps that the candidate's record says were left out, else, if it does not say fp32, tf32 or bf16, up to
    what a scaler does, and up to the number of the reference. It never explains an end at which nothing is finite any
    more.
    """
    reference, candidate = comparison.reference.curves, comparison.candidate.curves
    losses = frozenset(comparison.losses)
    for metric in candidate:
        if metric in losses or metric not in reference or is_rate(metric):
            continue
        paired = comparison.curve(metric)
        bad = np.isfinite(paired.reference) & ~np.isfinite(paired.candidate)
        if not bad.any():
            continue
        count, first = int(bad.sum()), int(paired.iterations[np.argmax(bad)])
        at_end = _at_end(bad)
        lasting = at_end >= min(LASTING, bad.size)
        like = int(np.sum(~np.isfinite(reference[metric].values)))
        if not lasting and count <= _left_out(comparison, comparison.candidate, metric, like=like):
            continue
        message = (
            f"{metric} of the candidate is NaN or infinite {counted(count, 'time')} where that of the reference is a "
            f"number, first at iteration {first}"
        )
        if lasting:
            message += f", and from iteration {paired.iterations[bad.size - at_end]} on to the end"
        yield Broken(side="candidate", metric=metric, count=count, iteration=first, message=message)


def without_steps_left_out(comparison: Comparison, metric: str) -> Comparison:
    """Return a comparison without the iterations at which a scaler of fp16 left a step out, if it does so of a metric.

    There a gradient norm is infinite or NaN, or missing where the record counts such a step, in either record or a
    repeat. All of it stays where one of them has more of these than a scaler explains, or where nothing but the
    candidate's own values tells of a scaler.
    """
    records = (comparison.reference, comparison.candidate, *comparison.repeats)
    gone = [_without_step(record, metric) for record in records]
    told = precision_of(comparison.candidate) or comparison.stated_precision or "skipped_steps" in records[1].curves
    if len(gone[1]) and not (told or any(map(len, (gone[0], *gone[2:])))):
        return comparison
    for record, bad in zip(records, gone, strict=True):
        if not len(bad):
            continue
        most = _left_out(comparison, record, metric, like=len(gone[0]) if record is comparison.candidate else 0)
        there = np.union1d(record.curves.get(metric, EMPTY).iterations, bad)
        if len(bad) > most or _at_end(np.isin(there, bad)) >= min(LASTING, len(there)):
            return comparison

    places = np.unique(np.concatenate(gone))

    def kept(curves: Mapping[str, Curve]) -> dict[str, Curve]:
        return {name: _without(curve, places) if name == metric else curve for name, curve in curves.items()}

    def rest(record: Record) -> Record:
        ranks = {rank: kept(curves) for rank, curves in record.of_ranks.items()}
        return replace(record, curves=kept(record.curves), of_ranks=ranks)

    reference, candidate, *repeats = map(rest, records)
    return replace(comparison, reference=reference, candidate=candidate, repeats=tuple(repeats))


def told_of_steps_left_out(finding: Finding, comparison: Comparison, judged: Comparison) -> Finding:
    """Return a finding that says at how many iterations of a comparison its metric was not judged, if at any."""
    gone = len(_iterations(comparison, finding.metric)) - len(_iterations(judged, finding.metric))
    if not gone:
        return finding
    note = f"{finding.metric} is not judged at {counted(gone, 'iteration')} at which a scaler left the step out"
    message = f"{finding.message}; limited by: {note}"
    return replace(finding, limited_by=(*finding.limited_by, note), message=message)


def _iterations(comparison: Comparison, metric: str) -> Integers:
    """Return the iterations at which either record has a metric."""
    reference, candidate = (record.curves.get(metric, EMPTY).iterations for _, record in comparison.sides)
    return np.union1d(reference, candidate)


def _without_step(record: Record, metric: str) -> Integers:
    """Return the iterations at which a metric is not finite, or missing where a record counts a step left out."""
    curve, skipped = record.curves.get(metric, EMPTY), record.curves.get("skipped_steps", EMPTY)
    # Where gradients are accumulated, it is missing wherever no step was due as well.
    left_out = skipped.iterations[np.diff(skipped.values, prepend=0.0) > 0]
    lacking = np.setdiff1d(left_out, curve.iterations, assume_unique=True)
    return np.union1d(curve.iterations[~np.isfinite(curve.values)], lacking)


def _without(curve: Curve, places: Integers) -> Curve:
    """Return a curve without some iterations."""
    stay = ~np.isin(curve.iterations, places)
    return replace(curve, iterations=curve.iterations[stay], values=curve.values[stay])


def _at_end(bad: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> int:
    """Return how many values at the end are bad."""
    return bad.size if bad.all() else int(np.argmin(bad[::-1]))


def _left_out(comparison: Comparison, record: Record, metric: str, *, like: int) -> int:
    """Return how many values of a metric may be infinite because a scaler left the step out, as in one like it."""
    if not is_gradient_norm(metric):
        return 0
    skipped = record.curves.get("skipped_steps", EMPTY).values
    skipped = skipped[np.isfinite(skipped)]
    if skipped.size:
        return int(skipped.max())
    if (precision_of(record) or comparison.stated_precision or "fp16") != "fp16":
        return 0
    iterations = record.curves[metric].iterations
    return max(HALVINGS + int(iterations[-1] - iterations[0]) // EVERY, like)
