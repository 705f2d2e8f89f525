"""What is noise between two runs of one experiment: rounding that grows, and what printing hides."""

import math

import numpy as np

from emacheck.curve import Floats
from emacheck.judge.arithmetic import quotient
from emacheck.judge.comparison import EMPTY, Comparison, PairedCurve
from emacheck.judge.noise.band import fit_band
from emacheck.judge.noise.repeats import distinct_repeats
from emacheck.judge.noise.rounding import (
    AMPLIFICATION,
    SATURATION,
    known_precision,
    resolution,
    rounding,
    rounding_of_repeats,
)

# How many times the largest rounding seen may be rounding still; the default limit of the rule `first_iterations`.
MARGIN = 10.0
# Factor by which benign differences grow from one iteration to the next until they saturate: from 1e-5 at iteration 3
# to 1e-2 at iteration 10 in the fastest of five benign runs of the smoke preset.
GROWTH = 3.0


def size(paired: PairedCurve) -> Floats:
    """Return |relative difference|, shape (n,); 0 where both are the same infinity or both NaN."""
    same = (paired.reference == paired.candidate) | (np.isnan(paired.reference) & np.isnan(paired.candidate))
    return np.where(same, 0.0, np.abs(paired.relative_difference))


def printed(comparison: Comparison, paired: PairedCurve) -> Floats:
    """Return the relative difference that printed decimals hide, shape (n,)."""
    records = (comparison.reference, comparison.candidate)
    hidden = resolution(*(record.curves.get(paired.metric, EMPTY) for record in records))
    return quotient(hidden, np.abs(paired.reference))


def noise(comparison: Comparison, paired: PairedCurve) -> Floats:
    """Return the relative difference that is noise between paired runs, for each iteration.

    It is MARGIN times the rounding that was seen in the first iterations, and what printing hides. After these it is
    what the envelope of the repeats allows where there are two or more, else that rounding growing by GROWTH per
    iteration until it saturates.

    Args:
        comparison: What was measured, with its repeats.
        paired: One metric of it, with at least one iteration.

    Returns:
        A dimensionless ratio for each iteration, shape (n,).
    """
    metric = paired.metric
    precision = known_precision(comparison)
    seen = rounding_of_repeats(comparison, metric, precision)
    # What printing hides grows as well: the true difference may be half a quantum one iteration before it shows.
    with np.errstate(over="ignore"):
        hidden = 2 * printed(comparison, paired)
    band = fit_band(comparison, metric, 0.01) if len(distinct_repeats(comparison, metric)) >= 2 else None
    if band is not None and math.isfinite(band.limit) and np.array_equal(band.iterations, paired.iterations):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # fmin passes over the iterations for which no rounding is known.
            return np.fmin(band.limit * band.scale / np.abs(paired.reference), MARGIN * seen + hidden)
    start = 0 if paired.iterations[0] == 0 else 1
    later = np.clip(paired.iterations - start - 2, 0, 60)
    grown = np.where(np.isnan(seen), _last_rounding(metric, precision) * GROWTH**later, seen)
    return np.minimum(MARGIN * grown + hidden, _saturation(metric))


def first_rounding(comparison: Comparison, paired: PairedCurve, onset: int) -> float:
    """Return the relative difference that is noise where all values before were equal: it had no time to grow."""
    if onset < len(AMPLIFICATION["loss"]):
        return math.inf
    gap = min(int(paired.iterations[onset] - paired.iterations[onset - 1]), 60)
    last = _last_rounding(paired.metric, known_precision(comparison))
    return MARGIN * (last + float(printed(comparison, paired)[onset])) * GROWTH**gap


def _last_rounding(metric: str, precision: str) -> float:
    return float(rounding(metric, np.array([1, 2, 3]), precision)[-1])


def _saturation(metric: str) -> float:
    """Return the relative difference at which benign runs level off, gradients five times above losses."""
    return MARGIN * SATURATION * (1 if "loss" in metric.lower() else 5)
