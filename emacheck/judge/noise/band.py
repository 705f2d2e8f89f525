"""The band around a reference in which its benign repeats stay, and how far one more of them may stick out of it."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from emacheck.curve import Floats, Integers
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.near_zero import CLOSE
from emacheck.judge.noise.repeats import distinct_repeats

# Spacing of float32 numbers relative to their size: a loss cannot differ by less without being equal.
SPACING = 2.0**-23
# What is assumed of the spread of log10(excess) before any repeat is seen, and how many repeats that assumption weighs.
# Eight repeats of the smoke preset spread by 0.11 for the loss and 0.16 for the gradient norm (benchmarks/recorded).
PRIOR_SPREAD, PRIOR_WEIGHT = 0.2, 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Band:
    """One metric's differences from the reference, held against those of the repeats.

    Attributes:
        iterations: The iterations that all records have in common, shape (n,).
        reference: The reference's values there, shape (n,).
        candidate: The candidate's values there, shape (n,).
        difference: |candidate - reference|, 0 or at least what the numbers can resolve, shape (n,).
        apart: The root of the mean square of the repeats' differences, in the metric's unit, shape (n,).
        scale: The same on a curve that never falls, shape (n,).
        limit: Largest allowed difference / scale.
    """

    iterations: Integers
    reference: Floats
    candidate: Floats
    difference: Floats
    apart: Floats
    scale: Floats
    limit: float

    @property
    def ratio(self) -> Floats:
        """Quotient difference / scale, shape (n,); NaN where the candidate is not a number."""
        with np.errstate(over="ignore"):
            return self.difference / self.scale


def benign_scale(differences: Floats) -> Floats:
    """Return how large the differences of several runs are at each iteration, on a curve that never falls.

    The root of the mean square over the runs, in logarithms, fitted by the closest sequence that never falls
    (isotonic regression by pooling adjacent violators). A step from one iteration to the next stays a step: what is
    small early is not raised by what is large later.

    Args:
        differences: Positive absolute differences, shape (runs, n).

    Returns:
        The scale, in the unit of the differences, shape (n,).

    Source: R. E. Barlow, D. J. Bartholomew, J. M. Bremner and H. D. Brunk, Statistical Inference under Order
    Restrictions, Wiley 1972.

    Example:
        >>> benign_scale(np.array([[1e-7, 1e-5, 1e-3, 1e-5]])).round(7).tolist()
        [1e-07, 1e-05, 0.0001, 0.0001]
    """
    levels: list[float] = []
    widths: list[int] = []
    for level in np.log(_root_mean_square(differences)):
        levels.append(float(level))
        widths.append(1)
        while len(levels) > 1 and levels[-2] > levels[-1]:
            above, width = levels.pop(), widths.pop()
            levels[-1] = (levels[-1] * widths[-1] + above * width) / (widths[-1] + width)
            widths[-1] += width
    return np.asarray(np.exp(np.repeat(levels, widths)), dtype=np.float64)


def _root_mean_square(differences: Floats) -> Floats:
    largest = differences.max(axis=0)
    return np.asarray(largest * np.sqrt(np.mean((differences / largest) ** 2, axis=0)), dtype=np.float64)


def student_quantile(tail: float, freedom: int) -> float:
    """Return the number that Student's t exceeds with a given probability.

    Args:
        tail: The probability, 0 < tail < 1/2.
        freedom: Degrees of freedom, a positive integer.

    Returns:
        The quantile, to about ten digits.

    Source: M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4, solved by bisection.

    Example:
        >>> [round(student_quantile(0.01, freedom), 3) for freedom in (1, 2, 5, 30)]
        [31.821, 6.965, 3.365, 2.457]
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        if _central(angle, freedom) < 1 - 2 * tail:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan(low)


def _central(angle: float, freedom: int) -> float:
    """Return P(|t| <= sqrt(freedom) tan(angle)) for an integer number of degrees of freedom."""
    term = math.cos(angle) if freedom % 2 else 1.0
    total = 0.0
    for factor in range(3 if freedom % 2 else 2, freedom + 1, 2):
        total += term
        term *= (factor - 1) / factor * math.cos(angle) ** 2
    if freedom % 2:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def excess_limit(differences: Floats, false_alarms: float) -> float:
    """Return how far one further benign run may stick out of the scale of the given ones.

    Each run is held against the scale of the others: T = log10(max(difference / scale of the others)). A further run
    of the same kind is expected below mean(T) + g t s sqrt(1 + 1/k), the upper prediction limit of a normal sample but
    for g. There, s^2 joins the spread of the k values of T with the one that is assumed beforehand, which counts like
    PRIOR_WEIGHT further degrees of freedom, t is Student's quantile with k - 1 + PRIOR_WEIGHT of them, and g is the
    ratio of the quantiles of a Gumbel and a normal distribution of the same spread, because T is the logarithm of a
    maximum, whose upper tail is a Gumbel distribution's where the differences have heavy tails.

    Args:
        differences: Positive absolute differences of at least 2 benign runs from the reference, shape (k, n).
        false_alarms: Probability that a further benign run exceeds the limit.

    Returns:
        The limit of max(difference / scale), a ratio of at least 1.

    Source: prediction limit, G. J. Hahn and W. Q. Meeker, Statistical Intervals, Wiley 1991, section 4.7; moderated
    spread, G. K. Smyth, Linear models and empirical Bayes methods, Stat. Appl. Genet. Mol. Biol. 3 (2004), 3; Gumbel
    distribution, E. J. Gumbel, Statistics of Extremes, Columbia 1958. Joining them so is this project's own.

    Example:
        >>> growing = 1e-7 * 2.0 ** np.arange(12)
        >>> excess_limit(np.array([growing, growing]), 0.01) < excess_limit(np.array([growing, 90 * growing]), 0.01)
        True
    """
    runs = len(differences)
    excess = np.array(
        [
            np.max(np.log10(differences[run]) - np.log10(benign_scale(np.delete(differences, run, axis=0))))
            for run in range(runs)
        ]
    )
    freedom = runs - 1 + PRIOR_WEIGHT
    spread = math.sqrt((PRIOR_WEIGHT * PRIOR_SPREAD**2 + float(np.sum((excess - excess.mean()) ** 2))) / freedom)
    gumbel = (-math.log(-math.log1p(-false_alarms)) - np.euler_gamma) * math.sqrt(6) / math.pi
    quantile = student_quantile(false_alarms, freedom) * gumbel / -NormalDist().inv_cdf(false_alarms)
    return float(10 ** min(max(excess.mean() + quantile * spread * math.sqrt(1 + 1 / runs), 0.0), 300.0))


def fit_band(comparison: Comparison, metric: str, false_alarms: float) -> Band | None:
    """Fit the band of benign differences around the reference.

    Args:
        comparison: What was measured, with the repeats.
        metric: The metric's name.
        false_alarms: Probability that a further benign run leaves the band somewhere.

    Returns:
        The band, or None where fewer than 2 distinct repeats or no common iteration allow none.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def run(*values):
        ...     return Record(name="", format="", curves={"loss": Curve(name="loss", iterations=[1, 2], values=values)})
        >>> one = compare(run(4.0, 3.0), run(4.0, 3.5), repeats=[run(4.000001, 3.0001), run(3.999999, 3.0002)])
        >>> fit_band(one, "loss", 0.01).ratio.round(1).tolist()
        [0.0, 3162.3]
    """
    records = (comparison.reference, comparison.candidate, *distinct_repeats(comparison, metric))
    curves = [record.curves.get(metric, EMPTY) for record in records]
    common = curves[0].iterations
    for curve in curves[1:]:
        common = np.intersect1d(common, curve.iterations, assume_unique=True)
    if len(curves) < 4 or not common.size:
        return None
    values = np.array([curve.values[np.searchsorted(curve.iterations, common)] for curve in curves])
    with np.errstate(invalid="ignore", over="ignore"):
        differences = np.abs(values[1:] - values[0])
        sizes = np.abs(values[0])
        # Where all are 0 nothing differs, and the logarithm of that would pull down the scale of all other iterations.
        floor = SPACING * np.fmax(sizes, CLOSE * np.sum(sizes / sizes.size)) + max(curve.quantum for curve in curves)
    equal = values[1] == values[0]
    differences = np.maximum(differences, np.maximum(floor, np.finfo(np.float64).tiny))
    benign = differences[1:]
    usable = bool(np.all(np.isfinite(benign)))
    unknown = np.full(common.shape, math.nan)
    return Band(
        iterations=common,
        reference=values[0],
        candidate=values[1],
        difference=np.where(equal, 0.0, differences[0]),
        apart=_root_mean_square(benign) if usable else unknown,
        scale=benign_scale(benign) if usable else unknown,
        limit=excess_limit(benign, false_alarms) if usable else math.nan,
    )
