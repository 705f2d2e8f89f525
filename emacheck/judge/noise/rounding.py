"""How large rounding is in the first iterations of a training, and what printed decimals hide."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from emacheck.curve import Curve, Floats, Integers
from emacheck.judge.comparison import Comparison, precision_of
from emacheck.judge.noise.repeats import distinct_repeats

# Unit roundoff 2^-p of a format with p significant bits. Source: IEEE 754-2019, table 3.5 (fp32, fp16); NVIDIA A100
# Tensor Core GPU Architecture, 2020 (tf32 and bf16).
ROUNDOFF = {"fp32": 2.0**-24, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}

# Largest |relative difference| / 2^-24 of iterations 1, 2 and 3 over eight benign repeats of the smoke preset, rounded
# up, each at least 4, two float32 neighbours. From the stock initialisation (benchmarks/recorded); and from that and
# two trained states, where rounding grows faster (the calibration set of benchmarks/results/starting_points.json).
STOCK_AMPLIFICATION = {"loss": (4.0, 4.0, 230.0), "grad_norm": (100.0, 3700.0, 16000.0)}
AMPLIFICATION = {"loss": (4.0, 64.0, 272.0), "grad_norm": (900.0, 13600.0, 28100.0)}
# So many repeats show what their own starting point amplifies.
ENOUGH_REPEATS = 8
# Where the differences end up whatever caused them: larger limits would tell nothing.
SATURATION = 0.02


def rounding(
    metric: str,
    iterations: Integers,
    precision: str = "fp32",
    amplification: Mapping[str, Sequence[float]] = AMPLIFICATION,
) -> Floats:
    """Return the relative difference that rounding alone was seen to cause in the first iterations.

    amplification(metric, position) * 2^-p, where the position is 1 for iteration 1, or for iteration 0 in a log that
    counts from 0. Metrics with 'loss' in their name have the loss's amplification, all others the gradient norm's.

    Args:
        metric: The metric's name.
        iterations: Iteration numbers, shape (n,), increasing.
        precision: fp32, tf32, fp16 or bf16.
        amplification: What to assume of losses and of gradient norms in the first iterations.

    Returns:
        A dimensionless ratio for each iteration, shape (n,); NaN beyond the third.

    Example:
        >>> rounding("loss", np.array([1, 2, 3, 4])).round(9).tolist()
        [2.38e-07, 3.815e-06, 1.6212e-05, nan]
    """
    table = np.array([*amplification["loss" if "loss" in metric.lower() else "grad_norm"], math.nan])
    start = 0 if iterations.size and iterations[0] == 0 else 1
    position = np.clip(iterations - start, 0, len(table) - 1)
    return ROUNDOFF[precision] * np.asarray(table[position], dtype=np.float64)


def rounding_of_repeats(comparison: Comparison, metric: str, precision: str) -> Floats:
    """Return the rounding to expect in the first iterations: what eight or more repeats show, else the largest known.

    The largest |relative difference| of a repeat from the reference, but no less than from the stock initialisation and
    no more than from any starting point that was measured. Repeats in another precision tell nothing.

    Args:
        comparison: What was measured, with its repeats.
        metric: The metric's name.
        precision: fp32, tf32, fp16 or bf16: what the candidate computes in.

    Returns:
        A dimensionless ratio for each iteration of the comparison's curve, shape (n,); NaN beyond the third.
    """
    reference = replace(comparison, candidate=comparison.reference)
    iterations = comparison.curve(metric).iterations
    largest = rounding(metric, iterations, precision)
    judged = iterations[~np.isnan(largest)]
    seen = []
    for repeat in distinct_repeats(comparison, metric):
        curve = replace(comparison, candidate=repeat).curve(metric)
        if np.isin(judged, curve.iterations).all():
            seen.append(np.abs(curve.relative_difference[np.isin(curve.iterations, judged)]))
    if len(seen) < ENOUGH_REPEATS or known_precision(reference) != precision:
        return largest
    least = rounding(metric, iterations, precision, STOCK_AMPLIFICATION)
    shown = np.full_like(largest, np.nan)
    shown[: len(judged)] = np.max(seen, axis=0)
    # fmin and fmax pass over what is not a number.
    return np.where(np.isnan(largest), np.nan, np.fmin(largest, np.fmax(least, shown)))


def known_precision(comparison: Comparison) -> str:
    """Return the candidate's precision; fp32 if its roundoff is not known or the reference does not say its own."""
    return comparison.precision if comparison.precision in ROUNDOFF and not claimed_precision(comparison) else "fp32"


def claimed_precision(comparison: Comparison) -> str:
    """Return a precision that only the candidate speaks of, empty if there is none: its own word widens no limit.

    Example:
        >>> from emacheck import Record
        >>> said = Record(name="", format="", curves={}, provenance={"experiment": {"precision": "bf16"}})
        >>> claimed_precision(Comparison(reference=Record(name="", format="", curves={}), candidate=said))
        'bf16'
        >>> claimed_precision(Comparison(reference=said, candidate=said))
        ''
    """
    told = precision_of(comparison.reference) or comparison.stated_precision
    return "" if told or comparison.precision == "fp32" else comparison.precision


def unsaid_precision(comparison: Comparison) -> bool:
    """Tell whether neither record nor the user says in which precision was computed, so that fp32 is taken."""
    return not (comparison.stated_precision or any(precision_of(record) for _, record in comparison.sides))


def resolution(reference: Curve, candidate: Curve) -> float:
    """Return the largest difference that printing alone can cause: half a quantum on either side."""
    # Two decimal numbers one quantum apart differ by a little more than it in binary.
    return (reference.quantum + candidate.quantum) / 2 * (1 + 1e-6)
