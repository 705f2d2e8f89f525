"""The envelope: how far further runs of the reference stray from it, and whether the candidate strays farther."""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from emacheck.curve import Curve, Floats, Integers
from emacheck.errors import UsageError
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.verdict import Finding, Outcome
from emacheck.record import Record

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
        scale: What the repeats' differences amount to, never falling, in the metric's unit, shape (n,).
        limit: Largest allowed difference / scale.
    """

    iterations: Integers
    reference: Floats
    candidate: Floats
    difference: Floats
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
    largest = differences.max(axis=0)
    levels: list[float] = []
    widths: list[int] = []
    for level in np.log(largest) + 0.5 * np.log(np.mean((differences / largest) ** 2, axis=0)):
        levels.append(float(level))
        widths.append(1)
        while len(levels) > 1 and levels[-2] > levels[-1]:
            above, width = levels.pop(), widths.pop()
            levels[-1] = (levels[-1] * widths[-1] + above * width) / (widths[-1] + width)
            widths[-1] += width
    return np.asarray(np.exp(np.repeat(levels, widths)), dtype=np.float64)


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


def distinct_repeats(comparison: Comparison, metric: str) -> tuple[Record, ...]:
    """Return the repeats that have a metric and whose numbers differ from the reference's and from each other's."""
    seen = {_numbers(comparison.reference.curves.get(metric, EMPTY))}
    distinct = []
    for repeat in comparison.repeats:
        numbers = _numbers(repeat.curves.get(metric, EMPTY))
        if len(repeat.curves.get(metric, EMPTY)) and numbers not in seen:
            seen.add(numbers)
            distinct.append(repeat)
    return tuple(distinct)


def _numbers(curve: Curve) -> tuple[bytes, bytes]:
    return curve.iterations.tobytes(), curve.values.tobytes()


def fit_band(comparison: Comparison, metric: str, false_alarms: float) -> Band | None:
    """Fit the band of benign differences around the reference.

    Args:
        comparison: What was measured, with the repeats.
        metric: The metric's name.
        false_alarms: Probability that a further benign run leaves the band somewhere.

    Returns:
        The band, or None where fewer than 2 distinct repeats or no common iteration allow none.

    Example:
        >>> from emacheck.judge.comparison import compare
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
        floor = SPACING * np.abs(values[0]) + max(curve.quantum for curve in curves)
    equal = values[1] == values[0]
    differences = np.maximum(differences, np.maximum(floor, np.finfo(np.float64).tiny))
    benign = differences[1:]
    usable = bool(np.all(np.isfinite(benign)))
    return Band(
        iterations=common,
        reference=values[0],
        candidate=values[1],
        difference=np.where(equal, 0.0, differences[0]),
        scale=benign_scale(benign) if usable else np.full(common.shape, math.nan),
        limit=excess_limit(benign, false_alarms) if usable else math.nan,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """max over iterations of |candidate - reference| / scale(iteration) must be <= what the repeats allow.

    The repeats are further runs of the reference that differ from it in benign ways only. Their differences from the
    reference give the scale, which grows with the iteration as the differences do, so that the first iterations count
    with the weight that they have: there the scale is smallest.

    Attributes:
        alpha: Probability of FAIL for a benign candidate, over all metrics together (each gets its share).
        limit: Largest allowed ratio to the scale; 0 derives it from the repeats and ``alpha``.
        minimum: Fewest distinct repeats, at least 2.
        also: Metrics that are judged beside those of the comparison where all records have them.

    Raises:
        UsageError: If ``alpha`` is not between 0 and 0.5, or ``minimum`` is below 2.

    Source: this project; see :func:`excess_limit` and :func:`benign_scale` for the methods it joins.

    Example:
        >>> Envelope().check(Comparison(reference=Record(name="", format="", curves={}), candidate=Record(
        ...     name="", format="", curves={})))[0].message
        'there are 0 repeats of the reference that vary loss, and it needs 2'
    """

    alpha: float = 0.01
    limit: float = 0.0
    minimum: int = 2
    also: tuple[str, ...] = ("grad_norm",)
    name: ClassVar[str] = "envelope"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"rule 'envelope': alpha must be between 0 and 0.5, found {self.alpha!r}.")
        if self.minimum < 2:
            raise UsageError(f"rule 'envelope': minimum must be at least 2, found {self.minimum!r}.")

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Hold each metric's differences against the scale of the repeats."""
        records = (comparison.reference, comparison.candidate, *comparison.repeats)
        also = (metric for metric in self.also if all(metric in record.curves for record in records))
        metrics = tuple(dict.fromkeys((*comparison.metrics, *also)))
        return tuple(self._check(comparison, metric, self.alpha / len(metrics)) for metric in metrics)

    def _check(self, comparison: Comparison, metric: str, false_alarms: float) -> Finding:
        repeats = distinct_repeats(comparison, metric)
        obstacle = self._obstacle(comparison, metric, repeats)
        band = None if obstacle else fit_band(comparison, metric, false_alarms)
        if band is None:
            return self._finding(Outcome.INCONCLUSIVE, metric, obstacle or "no iteration is in all records")
        if not (np.all(np.isfinite(band.reference)) and math.isfinite(band.limit)):
            broken = "reference or a repeat has values that are NaN or infinite"
            return self._finding(Outcome.INCONCLUSIVE, metric, f"the {broken}")
        if self.limit > 0:
            band = replace(band, limit=self.limit)
        # argmax returns the first NaN if there is one, which is the worst iteration indeed.
        ratio = band.ratio
        worst = int(np.argmax(ratio))
        observed = float(ratio[worst])
        outcome = Outcome.PASS if observed <= band.limit else Outcome.FAIL
        return Finding(
            rule=self.name,
            outcome=outcome,
            observed=observed,
            limit=band.limit,
            unit="times the repeats' difference",
            iteration=int(band.iterations[worst]),
            message=_describe(metric, band, worst, len(repeats)),
            would_pass_at=observed if math.isfinite(observed) else None,
            metric=metric,
        )

    def _obstacle(self, comparison: Comparison, metric: str, repeats: tuple[Record, ...]) -> str | None:
        """Say why nothing can be decided, if so."""
        reference, candidate = comparison.reference, comparison.candidate
        if len(repeats) < self.minimum:
            return f"there are {len(repeats)} repeats of the reference that vary {metric}, and it needs {self.minimum}"
        windows = {r.curves[metric].window for r in (reference, candidate, *repeats) if metric in r.curves}
        if len(windows) > 1:
            return f"the records average over windows of {', '.join(map(str, sorted(windows)))} iterations"
        both = comparison.curve(metric).iterations
        for repeat in repeats:
            if lacking := np.setdiff1d(both, repeat.curves[metric].iterations).size:
                return f"the repeat {repeat.name} lacks {lacking} of the {both.size} iterations that both records have"
        for record in (candidate, *repeats):
            if any(r != c for r, c in zip(reference.batches, record.batches, strict=False)):
                return f"{record.name} saw other batches than the reference"
        states = {repeat.initial_state for repeat in repeats}
        if comparison.paired is False and states <= {reference.initial_state, None}:
            return "the candidate starts from different weights than the reference and its repeats"
        return None

    def _finding(self, outcome: Outcome, metric: str, message: str) -> Finding:
        return Finding(
            rule=self.name,
            outcome=outcome,
            observed=math.nan,
            limit=self.limit,
            unit="times the repeats' difference",
            iteration=None,
            message=message,
            metric=metric,
        )


def _describe(metric: str, band: Band, worst: int, repeats: int) -> str:
    difference, scale = band.difference[worst], float(band.scale[worst])
    where = f"iteration {band.iterations[worst]}"
    values = f"({band.candidate[worst]:.7g} against {band.reference[worst]:.7g})"
    if not math.isfinite(difference):
        return f"{where}: {metric} is not a finite number {values}"
    beyond = np.flatnonzero(~(band.ratio <= band.limit))
    first = f"; beyond that from iteration {band.iterations[beyond[0]]} on" if beyond.size and beyond[0] < worst else ""
    return (
        f"{where}: difference {difference:.2g} in {metric} {values}, benign variations stay below "
        f"{scale * band.limit:.2g} there (typically {scale:.2g}, {repeats} repeats){first}"
    )
