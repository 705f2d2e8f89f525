"""Is the level of the last part of two curves the same within a margin? For runs that are not paired."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from emacheck.counted import counted
from emacheck.curve import Curve, Floats
from emacheck.errors import UsageError
from emacheck.judge.advice import rounded_up
from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.noise.standard_error import (
    autoregressive_error,
    block_error,
    block_length,
    correlation_time,
    student,
)
from emacheck.judge.verdict import Finding, Outcome

FEWEST_BLOCKS = 5
MOST_BLOCKS = 10
TIMES_PER_BLOCK = 1.5
POWER = 0.8
NEGLIGIBLE = 1e-12
LARGEST = 1e100  # of the reference's level: squares of what is larger overflow
# Without a standard error, levels are apart where this many values or more are off by this many limits, all one way.
FEWEST_APART, APART = 10, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalence:
    """Two one-sided tests of (mean(candidate) - mean(reference)) / |mean(reference)| against ±limit.

    Level means the average over the last part of the iterations that both records span, so that a loss that still
    falls is averaged over the same stretch of its fall on both sides. The interval around the difference is

        difference ± (t(1 - alpha, blocks - 1) * standard error + rounding)

    with a standard error that accounts for neighbouring losses being alike (:func:`measured`), and with half a quantum
    of each record for its printed decimals. The interval within ±limit is PASS: at most a share of alpha of the pairs
    whose levels truly differ by the limit get there. To PASS, the noise is granted the memory that it shows over the
    whole span, because the last part alone may be too short to show it. The interval outside of ±limit is FAIL.
    Everything else is INCONCLUSIVE, too few values and too few independent blocks of values included, unless each of 10
    or more values is off by more than twice the limit in the same direction, which is FAIL. Of several metrics each has
    to PASS at alpha, which keeps the probability that all do; to FAIL, each gets its share of alpha.

    It speaks of these two runs. How far another seed would have moved the level, two runs cannot tell.

    Attributes:
        limit: Largest difference of the levels that still counts as the same, as a share of the reference's level.
        last: Share of the common span that is judged, counted from its end, in (0, 1].
        alpha: Largest probability of a PASS when the levels truly differ by the limit, in (0, 0.5).
        minimum: Fewest values in the last part on which anything may be decided.

    Source: D. J. Schuirmann, A comparison of the two one-sided tests procedure and the power approach for assessing
    the equivalence of average bioavailability, J. Pharmacokinet. Biopharm. 15 (1987) 657-680.

    Example:
        >>> from emacheck import Record, compare
        >>> def record(level):
        ...     values = [level + 0.1 * (-1) ** i for i in range(100)]
        ...     return Record(name="cpu", format="example", curves={
        ...         "loss": Curve(name="loss", iterations=range(1, 101), values=values)})
        >>> [str(Equivalence().check(compare(record(4.0), record(4.0 * f)))[0].outcome) for f in (1.0, 1.01, 1.2)]
        ['PASS', 'PASS', 'FAIL']
    """

    limit: float = 0.05
    last: float = 0.5
    alpha: float = 0.05
    minimum: int = 30
    name: ClassVar[str] = "equivalence"
    unit: ClassVar[str] = "of the reference's level, signed"

    def __post_init__(self) -> None:
        if not 0 < self.last <= 1:
            raise UsageError(f"rule {self.name!r}: last must be over 0 and at most 1, found {self.last!r}.")
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"rule {self.name!r}: alpha must be over 0 and under 0.5, found {self.alpha!r}.")

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Test the level of each judged metric."""
        return tuple(
            self._check(metric, comparison, self.alpha / len(comparison.metrics)) for metric in comparison.metrics
        )

    def _check(self, metric: str, comparison: Comparison, share: float) -> Finding:
        reference, candidate = (
            record.curves.get(metric, EMPTY) for record in (comparison.reference, comparison.candidate)
        )
        if not np.all(np.isfinite(candidate.values)):
            return self._undecided(metric, "the candidate has values that are NaN or infinite", Outcome.FAIL)
        if not np.all(np.isfinite(reference.values)):
            return self._undecided(metric, "the reference has values that are NaN or infinite")
        part, whole = (last_part(reference, candidate, share) for share in (self.last, 1.0))
        return self._decided(metric, part, whole, share)

    def _decided(self, metric: str, part: "LastPart", whole: "LastPart", share: float) -> Finding:
        count = len(part.reference)
        minimum = max(self.minimum, FEWEST_BLOCKS)
        if count < minimum:
            return self._too_little(
                metric,
                part,
                f"{counted(count, 'value')} in the last {self.last:.3g} of the iterations that both records span "
                f"{'is' if count == 1 else 'are'} too few to estimate a level, {minimum} are needed: train "
                "longer, or log more often",
            )
        if not (np.all(part.reference > 0) or np.all(part.reference < 0)):
            return self._undecided(metric, "the reference changes sign or is zero: a ratio of levels means nothing")
        with np.errstate(over="ignore", invalid="ignore"):
            largest = max(float(np.max(np.abs(values))) for values in (whole.reference, whole.candidate))
            if not largest <= LARGEST * abs(float(np.mean(part.reference))) < math.inf:
                return self._too_little(metric, part, "the values are too far apart in size to average")
            level = measured(part, whole)
        if level.blocks < FEWEST_BLOCKS or not math.isfinite(level.error):
            return self._too_little(
                metric,
                part,
                f"the {count} values drift so slowly around each other that they are worth less than {FEWEST_BLOCKS} "
                "independent ones, too few to estimate a level: train longer",
            )
        return self._judged(metric, part, level, share)

    def _judged(self, metric: str, part: "LastPart", level: "Level", share: float) -> Finding:
        freedom = level.blocks - 1
        least = abs(level.difference) - student(1 - share, freedom) * level.error - level.rounding
        needed = abs(level.difference) + student(1 - self.alpha, freedom) * level.cautious + level.rounding
        outcome = Outcome.PASS if needed <= self.limit else Outcome.INCONCLUSIVE
        if least > self.limit:
            outcome = Outcome.FAIL
        error = level.error if outcome is Outcome.FAIL or math.isinf(level.cautious) else level.cautious
        reach = student(1 - self.alpha, freedom) * error + level.rounding
        lower, upper = level.difference - reach, level.difference + reach
        seen = (student(1 - self.alpha, freedom) + student(POWER, freedom)) * error + level.rounding
        confidence = f"with {1 - 2 * self.alpha:.0%} confidence between {lower:+.4g} and {upper:+.4g}"
        message = (
            f"over iterations {part.first} to {part.last} the level of {metric} is {level.candidate:.6g} against "
            f"{level.reference:.6g}, a difference of {level.difference:+.4g}, {confidence}; the smallest difference "
            f"that these {len(part.reference)} values could have shown is {seen:.2g}"
        )
        if outcome is Outcome.INCONCLUSIVE and max(-lower, upper) <= self.limit:
            message += "; over all iterations the two drift too slowly around each other, or apart, to rely on that"
        if outcome is Outcome.FAIL and math.isfinite(needed) and needed > max(-lower, upper):
            message += (
                f"; a PASS also counts how slowly the two drift over all iterations, and needs {rounded_up(needed):.4g}"
            )
        found = Finding.of(self, metric, outcome, message, observed=level.difference)
        return replace(found, would_pass_at=needed if math.isfinite(needed) else None)

    def _too_little(self, metric: str, part: "LastPart", why: str) -> Finding:
        """Decide without a standard error: FAIL if every value is far off in one direction, else undecided."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            off = (part.candidate - part.reference) / np.abs(part.reference)
        least = float(np.min(np.abs(off), initial=math.inf))
        one_way = bool(np.all(off > 0) or np.all(off < 0))
        apart = len(off) >= FEWEST_APART and one_way and least > APART * self.limit
        if not apart:
            return self._undecided(metric, why)
        message = (
            f"over iterations {part.first} to {part.last} every one of the {len(off)} values of {metric} is off by "
            f"more than {least:.2g} of the reference in the same direction ({why})"
        )
        return replace(self._undecided(metric, message, Outcome.FAIL), observed=average(off))

    def _undecided(self, metric: str, message: str, outcome: Outcome = Outcome.INCONCLUSIVE) -> Finding:
        return Finding.of(self, metric, outcome, message)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LastPart:
    """The last part of two curves, averaged over the same stretches of iterations.

    Attributes:
        first: The first iteration of the part.
        last: The last iteration of the part.
        reference: The reference's values, one for each stretch, shape (n,).
        candidate: The candidate's values, one for each stretch, shape (n,).
        window: Number of neighbouring values that share iterations because the logs are means of several.
        quantum: Spacing of the printed decimals, of both records together.
    """

    first: int
    last: int
    reference: Floats
    candidate: Floats
    window: int
    quantum: float


def last_part(reference: Curve, candidate: Curve, last: float) -> LastPart:
    """Cut the last part out of what two curves have in common and bring it on one grid.

    A value that is a mean of several iterations stands for their middle. The grid is as fine as the coarser of the two
    logs: where both log the same iterations each stretch holds one value of each, where one log is raw and the other
    smoothed the raw one is averaged over the same stretch. Stretches that one of the two lacks are left out.

    Args:
        reference: The reference's curve.
        candidate: The candidate's curve.
        last: Share of the common span, counted from its end.

    Returns:
        The last part, with no values where the curves have nothing in common.

    Example:
        >>> raw = Curve(name="loss", iterations=range(1, 101), values=range(100, 0, -1))
        >>> means = [95.5, 85.5, 75.5, 65.5, 55.5]
        >>> smooth = Curve(name="loss", iterations=[10, 20, 30, 40, 50], values=means, window=10)
        >>> part = last_part(raw, smooth, 0.5)
        >>> part.reference.tolist(), part.candidate.tolist(), part.first, part.last
        ([75.5, 65.5, 55.5], [75.5, 65.5, 55.5], 26, 46)
    """
    curves = (reference, candidate)
    quantum = (reference.quantum + candidate.quantum) / 2
    nothing = np.empty(0)
    if min(map(len, curves)) < 2:
        return LastPart(first=0, last=0, reference=nothing, candidate=nothing, window=1, quantum=quantum)
    times = [curve.iterations - (max(curve.window, 1) - 1) / 2 for curve in curves]
    # Iterations beyond 2^53 are not told apart by the numbers of a time.
    spacing = max(1.0, *(float(np.median(np.diff(time))) for time in times))
    end, start = min(time[-1] for time in times), max(time[0] for time in times)
    grids, means = zip(
        *(_stretches((t - end) / spacing, curve.values) for t, curve in zip(times, curves, strict=True)), strict=True
    )
    common, at_reference, at_candidate = np.intersect1d(grids[0], grids[1], assume_unique=True, return_indices=True)
    keep = common > -last * ((end - start) / spacing + 1)
    span = end + common[keep] * spacing if keep.any() else np.zeros(1)
    return LastPart(
        first=math.ceil(span[0]),
        last=math.ceil(span[-1]),
        reference=means[0][at_reference][keep],
        candidate=means[1][at_candidate][keep],
        window=math.ceil(max(curve.window for curve in curves) / spacing),
        quantum=quantum,
    )


def _stretches(positions: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Average the values whose positions round to the same whole number."""
    places, inverse = np.unique(np.floor(positions + 0.5), return_inverse=True)
    with np.errstate(invalid="ignore", over="ignore"):
        return places, np.bincount(inverse, weights=values) / np.bincount(inverse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The levels of two curves and how well their difference is known.

    Attributes:
        reference: The reference's mean, in the metric's unit.
        candidate: The candidate's mean, in the metric's unit.
        difference: Their difference, as a share of |reference|.
        error: Its standard error, likewise.
        cautious: The same with the memory that the noise shows over the whole span, likewise; at least ``error``.
        rounding: How far printed decimals can have moved it, likewise.
        blocks: Number of independent blocks behind the standard error.
    """

    reference: float
    candidate: float
    difference: float
    error: float
    cautious: float
    rounding: float
    blocks: float


def measured(part: LastPart, whole: LastPart | None = None) -> Level:
    """Measure the level of both curves and the standard error of their relative difference.

    The ratio of the means is linearised: its error is that of the mean of (c - ratio * r) / |mean(r)|. A trend that
    both curves share cancels in it, and so does noise that they share because they see the same batches.

    The standard error is the larger of two. The block bootstrap assumes nothing about how neighbours are alike, but
    is too small where a series is short for its memory. The error of a first-order autoregression with the same,
    bias-corrected correlation of neighbours holds there. Blocks are a tenth of the series or longer, and 1.5 times the
    correlation time or longer.

    Args:
        part: The last part of both curves.
        whole: All of both curves, which ends with the part; None for nothing but the part.

    Returns:
        The levels.

    Example:
        >>> values = np.linspace(2.0, 1.0, 50)
        >>> part = LastPart(first=1, last=50, reference=values, candidate=1.1 * values, window=1, quantum=0.0)
        >>> round(measured(part).difference, 6), round(measured(part).error, 6)
        (0.1, 0.0)
    """
    reference, candidate = float(np.mean(part.reference)), float(np.mean(part.candidate))

    def influence_of(of: LastPart) -> Floats:
        influence: Floats = (of.candidate - candidate / reference * of.reference) / abs(reference)
        influence[np.abs(influence) < NEGLIGIBLE] = 0.0
        return influence

    influence = influence_of(part)
    shortest = max(part.window, round(TIMES_PER_BLOCK * correlation_time(influence)), len(influence) // MOST_BLOCKS)
    block = max(block_length(influence), shortest)
    error = max(block_error(influence, block), autoregressive_error(influence))
    return Level(
        reference=reference,
        candidate=candidate,
        difference=(candidate - reference) / abs(reference),
        error=error,
        cautious=error if whole is None else max(error, autoregressive_error(influence, influence_of(whole))),
        rounding=part.quantum / abs(reference),
        blocks=len(influence) / block,
    )
