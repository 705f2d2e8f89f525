"""The first iterations, where rounding has not grown yet, against what the precision allows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from emacheck.curve import Curve, Floats, Integers
from emacheck.errors import UsageError
from emacheck.judge.comparison import EMPTY, Comparison, PairedCurve
from emacheck.judge.repeats import distinct_repeats
from emacheck.judge.verdict import Finding, Outcome

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
    """Return the candidate's precision, fp32 if its roundoff is not known."""
    return comparison.precision if comparison.precision in ROUNDOFF else "fp32"


def resolution(reference: Curve, candidate: Curve) -> float:
    """Return the largest difference that printing alone can cause: half a quantum on either side."""
    # Two decimal numbers one quantum apart differ by a little more than it in binary.
    return (reference.quantum + candidate.quantum) / 2 * (1 + 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstIterations:
    """(|candidate - reference| - quantum) / (rounding * |reference|) must be <= limit in the first iterations.

    Chaos has not grown there, so a difference is the device's own. Rounding is what the precision's unit roundoff
    becomes in that iteration, as eight or more repeats show it or else as measured on benign runs of the smoke preset;
    see :func:`rounding_of_repeats`. Iterations where the limit would exceed SATURATION tell nothing and are left out.

    Attributes:
        limit: Largest allowed difference, in multiples of what rounding was seen to cause.
        count: How many iterations from the first on are judged, at most 3.
        precision: The precision in which the candidate computes: fp32, tf32, fp16 or bf16; what its provenance says if
            empty, and fp32 where it says nothing.
        also: Metrics that are judged beside those of the comparison where both records have them.

    Raises:
        UsageError: If there is no such precision, or ``count`` is not 1, 2 or 3.

    Source: this project; the amplification is measured, see AMPLIFICATION.

    Example:
        >>> from emacheck import Record, compare
        >>> def run(*values):
        ...     return Record(name="", format="", curves={"loss": Curve(name="loss", iterations=[1, 2], values=values)})
        >>> finding = FirstIterations().check(compare(run(4.0, 3.9), run(4.0, 3.91)))[0]
        >>> str(finding.outcome), finding.iteration
        ('FAIL', 2)
    """

    limit: float = 10.0
    count: int = 3
    precision: str = ""
    also: tuple[str, ...] = ("grad_norm",)
    name: ClassVar[str] = "first_iterations"
    unit: ClassVar[str] = "times rounding"

    def __post_init__(self) -> None:
        if self.precision and self.precision not in ROUNDOFF:
            raise UsageError(
                f"rule 'first_iterations': there is no precision {self.precision!r}. Precisions: {', '.join(ROUNDOFF)}."
            )
        if self.count not in (1, 2, 3):
            raise UsageError(f"rule 'first_iterations': count must be 1, 2 or 3, found {self.count!r}.")

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Hold the first differences of each metric against rounding."""
        curves = (comparison.reference.curves, comparison.candidate.curves)
        also = (metric for metric in self.also if all(metric in each for each in curves))
        return tuple(self._check(comparison, metric) for metric in dict.fromkeys((*comparison.metrics, *also)))

    def can_tell(self, comparison: Comparison) -> bool:
        """Tell whether the records have first iterations, raw and fine enough, for every judged metric."""
        for metric in comparison.metrics:
            reference, candidate = (r.curves.get(metric, EMPTY) for r in (comparison.reference, comparison.candidate))
            if _obstacle(comparison, reference, candidate) or not self._judged(comparison, metric)[0].size:
                return False
        return True

    def _precision(self, comparison: Comparison) -> str:
        return self.precision or known_precision(comparison)

    def _judged(self, comparison: Comparison, metric: str) -> tuple[Integers, Floats]:
        """Return the places of the iterations that can tell rounding from a fault, and the rounding at every one."""
        reference, candidate = (r.curves.get(metric, EMPTY) for r in (comparison.reference, comparison.candidate))
        paired = comparison.curve(metric)
        allowed = rounding_of_repeats(comparison, metric, self._precision(comparison))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            printed = resolution(reference, candidate) / np.abs(paired.reference)
            telling = self.limit * allowed + np.where(np.isfinite(printed), printed, 0.0) <= SATURATION
        return np.flatnonzero((np.arange(len(allowed)) < self.count) & telling), allowed

    def _check(self, comparison: Comparison, metric: str) -> Finding:
        reference, candidate = (r.curves.get(metric, EMPTY) for r in (comparison.reference, comparison.candidate))
        paired = comparison.curve(metric)
        judged, allowed = self._judged(comparison, metric)
        obstacle = _obstacle(comparison, reference, candidate) or (
            None if judged.size else _nothing_to_judge(paired, allowed, self._precision(comparison))
        )
        if obstacle:
            return Finding.of(self, metric, Outcome.INCONCLUSIVE, obstacle)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            excess = np.abs(paired.difference[judged]) - resolution(reference, candidate)
            ratio = np.where(excess <= 0, 0.0, excess / (allowed[judged] * np.abs(paired.reference[judged])))
        # argmax returns the first NaN if there is one, which is the worst iteration indeed.
        at = int(np.argmax(ratio))
        worst, observed = int(judged[at]), float(ratio[at])
        if not np.all(np.isfinite(paired.reference[judged])):
            broken = "the reference has values that are NaN or infinite in the first iterations"
            return Finding.of(self, metric, Outcome.INCONCLUSIVE, broken)
        iteration = int(paired.iterations[worst])
        message = (
            f"iteration {iteration}: relative difference {paired.relative_difference[worst]:.2g} in {metric} "
            f"({paired.candidate[worst]:.7g} against {paired.reference[worst]:.7g}), "
            f"{self._precision(comparison)} rounding was seen to cause {allowed[worst]:.2g} there"
        )
        outcome = Outcome.PASS if observed <= self.limit else Outcome.FAIL
        return Finding.of(self, metric, outcome, message, observed=observed, iteration=iteration)


def _nothing_to_judge(paired: PairedCurve, allowed: Floats, precision: str) -> str:
    if not paired.iterations.size:
        return "no iteration is in both"
    if math.isnan(allowed[0]):
        return f"the first iteration in both is {paired.iterations[0]}: chaos has grown by then"
    return f"in {precision} and as printed, even the first iterations cannot tell rounding from a fault"


def _obstacle(comparison: Comparison, reference: Curve, candidate: Curve) -> str | None:
    """Say why nothing can be decided, if so."""
    windows = [curve.window for curve in (reference, candidate) if len(curve)]
    if any(window != 1 for window in windows):
        window = next(window for window in windows if window != 1)
        means = f"means over {window} iterations" if window else "possibly means over several iterations"
        return f"the values are {means}, which hide the first ones"
    if comparison.paired is False:
        return "the runs start from different weights or saw different batches"
    return None
