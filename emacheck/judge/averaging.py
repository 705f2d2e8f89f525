"""Two curves of which one is smoothed more, as means over the same iterations."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from emacheck.curve import Curve, Integers
from emacheck.judge.comparison import EMPTY, Comparison

MMENGINES = 10
"""Iterations over which mmengine averages unless it is configured otherwise."""


def averaged_otherwise(comparison: Comparison, metric: str) -> bool:
    """Tell whether the two records average a metric over windows of unlike lengths."""
    records = (comparison.reference, comparison.candidate)
    return len({each.curves[metric].window for each in records if metric in each.curves}) > 1


def averaged_alike(reference: Curve, candidate: Curve) -> tuple[Curve, Curve] | None:
    """Return two curves as means over the same iterations: the shortest windows that both can be joined to.

    Args:
        reference: The reference's curve.
        candidate: The candidate's curve.

    Returns:
        Both at the common iterations at which each has all values of such a window, which is that of the coarser curve
        wherever the other one divides it; None where the windows are equal or not known.

    Example:
        >>> raw = Curve(name="loss", iterations=range(1, 31), values=range(1, 31))
        >>> means = Curve(name="loss", iterations=[10, 20, 30], values=[5.0, 15.0, 25.0], window=10)
        >>> [curve.values.tolist() for curve in averaged_alike(raw, means)]
        [[5.5, 15.5, 25.5], [5.0, 15.0, 25.0]]
    """
    if 0 in (reference.window, candidate.window) or reference.window == candidate.window:
        return None
    window = math.lcm(reference.window, candidate.window)
    ends = np.intersect1d(reference.iterations, candidate.iterations, assume_unique=True)
    for curve in (reference, candidate):
        start, stop = _parts(curve, ends, window)
        ends = ends[(stop - start == window // curve.window) & np.isin(ends - window + curve.window, curve.iterations)]
    return _joined(reference, ends, window), _joined(candidate, ends, window)


def _parts(curve: Curve, ends: Integers, window: int) -> tuple[Integers, Integers]:
    """Return where the values of the windows with these ends begin and stop."""
    start = np.searchsorted(curve.iterations, ends - window + curve.window)
    return start, np.searchsorted(curve.iterations, ends, side="right")


def _joined(curve: Curve, ends: Integers, window: int) -> Curve:
    places = zip(*(each.tolist() for each in _parts(curve, ends, window)), strict=True)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array([np.mean(curve.values[start:stop]) for start, stop in places], dtype=np.float64)
    return replace(curve, iterations=ends, values=values, window=window)


def with_equal_windows(comparison: Comparison) -> Iterator[Comparison]:
    """Return a comparison whose judged metrics are averaged alike wherever that can be done, of each rank as well.

    Where a window is not known there is one for each that it may be: mmengine's own, and all iterations between two
    records.
    """
    unknown = [curve for curve in _judged(comparison) if curve.window == 0 and len(curve) > 1]
    intervals = [int(np.median(np.diff(curve.iterations))) for curve in unknown]
    for window in dict.fromkeys([MMENGINES, *intervals] if unknown else [0]):
        yield _averaged_alike(comparison, window)


def _judged(comparison: Comparison) -> Iterator[Curve]:
    for _, side in comparison.sides:
        yield from (side.curves.get(metric, EMPTY) for metric in comparison.metrics)


def _averaged_alike(comparison: Comparison, unknown: int) -> Comparison:
    """Average judged metrics alike, taking a window that is not known for this one."""
    sides = (comparison.reference, comparison.candidate)
    curves = [dict(side.curves) for side in sides]
    ranks = [{rank: dict(each) for rank, each in side.of_ranks.items()} for side in sides]
    pairs = [(curves[0], curves[1]), *((ranks[0][rank], ranks[1][rank]) for rank in comparison.ranks)]
    for metric in comparison.metrics:
        for ours, theirs in pairs:
            known = (
                replace(each, window=each.window or unknown)
                for each in (its.get(metric, EMPTY) for its in (ours, theirs))
            )
            alike = averaged_alike(*known)
            if alike is not None:
                ours[metric], theirs[metric] = alike
    reference, candidate = (
        replace(side, curves=its, of_ranks=each) for side, its, each in zip(sides, curves, ranks, strict=True)
    )
    return replace(comparison, reference=reference, candidate=candidate)
