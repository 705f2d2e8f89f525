"""The first iterations, where rounding has not grown yet, against what the precision allows."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from emacheck.curve import Curve, Floats, Integers
from emacheck.errors import UsageError
from emacheck.judge.advice import rounded_up
from emacheck.judge.comparison import EMPTY, Comparison, PairedCurve
from emacheck.judge.forensics.metric_names import is_gradient_norm
from emacheck.judge.noise.rounding import (
    ROUNDOFF,
    SATURATION,
    claimed_precision,
    known_precision,
    resolution,
    rounding,
    rounding_of_repeats,
    unsaid_precision,
)
from emacheck.judge.verdict import Finding, Outcome

FIRST = np.array([1, 2, 3])


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstIterations:
    """(|candidate - reference| - quantum) / (rounding * |reference|) must be <= limit in the first iterations.

    Chaos has not grown there, so a difference is the device's own. Where gradient norms of both are infinite or NaN, as
    where a scaler of fp16 leaves a step out, nothing is judged. Rounding is what the precision's unit roundoff
    becomes in that iteration, as eight or more repeats show it or else as measured on benign runs of the smoke preset;
    see :func:`emacheck.judge.noise.rounding.rounding_of_repeats`. Iterations where the limit would exceed SATURATION
    tell nothing and are left out. A candidate that lacks one of the others, which the reference has, does not pass.

    Attributes:
        limit: Largest allowed difference, in multiples of what rounding was seen to cause.
        count: How many iterations from the first on are judged, at most 3.
        precision: The precision in which the candidate computes: fp32, tf32, fp16 or bf16; what its provenance says if
            empty, else what the user says, and fp32 where neither does or the reference's says nothing.
        also: Metrics that are judged beside those of the comparison where both records have them and precision, printed
            digits and the iterations that they hold leave anything to be told; else the first finding says so.

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
        also = [name for name in self.also if all(name in of for of in curves) and name not in comparison.metrics]
        also = [name for name in also if self._shows_anything(comparison, name)]
        left = {name: why for name in also if (why := self._unjudged(comparison, name))}
        first, *others = (self._check(comparison, name) for name in (*comparison.metrics, *also) if name not in left)
        notes = tuple(f"{name}: {why}, so its first iterations are not judged" for name, why in left.items())
        if notes:
            first = replace(first, limited_by=notes, message=f"{first.message}; limited by: {'; '.join(notes)}")
        return (first, *others)

    def _shows_anything(self, comparison: Comparison, metric: str) -> bool:
        """Tell whether a scaler of fp16 left any step of the first iterations, if there are such, to be judged."""
        paired = comparison.curve(metric)
        early = _left_out_alike(paired)[: self.count]
        return not (early.size and early.all())

    def _unjudged(self, comparison: Comparison, metric: str) -> str:
        """Say why no first iteration shows a fault of a metric that nobody asked for, as if it were lacking."""
        reference, candidate = (r.curves[metric] for r in (comparison.reference, comparison.candidate))
        judged, allowed = self._judged(comparison, metric)
        if judged.size or _obstacle(comparison, reference, candidate):
            return ""
        precision = self._precision(comparison)
        # Where no early iteration is in both, as behind steps that a scaler left out, the precision alone says it.
        early = allowed[~np.isnan(allowed)] if np.any(~np.isnan(allowed)) else rounding(metric, FIRST, precision)
        if np.all(self.limit * early[: self.count] > SATURATION):
            return f"in {precision} rounding alone may move it by as much as a fault would"
        return _nothing_to_judge(comparison.curve(metric), allowed, precision)

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
        return np.flatnonzero((np.arange(len(allowed)) < self.count) & telling & ~_left_out_alike(paired)), allowed

    def _lacking(self, comparison: Comparison, metric: str) -> list[int]:
        """Return first iterations that could tell rounding from a fault and that the candidate alone leaves out."""
        if metric not in comparison.metrics:
            return []  # nobody asked for it: a scaler of fp16 may have left the step out
        theirs, ours = (r.curves.get(metric, EMPTY).iterations for r in (comparison.reference, comparison.candidate))
        allowed = rounding(metric, theirs, self._precision(comparison))
        telling = (np.arange(len(theirs)) < self.count) & (self.limit * allowed <= SATURATION)
        return [int(each) for each in theirs[telling & ~np.isin(theirs, ours)]]

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
        lacking = self._lacking(comparison, metric)
        if outcome is Outcome.PASS and lacking:
            which = f"iteration{'s' * (len(lacking) > 1)} {' and '.join(map(str, lacking))}"
            missing = f"the candidate lacks {which}, which the reference has: nothing was held against rounding there"
            return Finding.of(self, metric, Outcome.INCONCLUSIVE, f"{missing}; {message}", iteration=lacking[0])
        claimed = "" if self.precision else claimed_precision(comparison)
        if outcome is Outcome.FAIL and claimed:
            outcome = Outcome.INCONCLUSIVE
            message += (
                f"; that it was computed in {claimed} only the candidate says, and its word alone widens no limit "
                f"(if both were, say --precision {claimed})"
            )
        elif outcome is Outcome.FAIL and not self.precision and unsaid_precision(comparison):
            message += "; no log says its precision, so fp32 is taken: if both computed in another, say --precision"
        finding = Finding.of(self, metric, outcome, message, observed=observed, iteration=iteration)
        if outcome is Outcome.FAIL and math.isfinite(observed):
            accepting = replace(self, limit=rounded_up(observed))
            if not accepting._judged(comparison, metric)[0].size:
                # With a limit that wide, no iteration is left that could tell rounding from a fault.
                return replace(finding, would_pass_at=None)
        return finding


def _left_out_alike(paired: PairedCurve) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Return where neither is finite, as gradient norms are where a scaler of fp16 leaves a step out."""
    neither = ~np.isfinite(paired.reference) & ~np.isfinite(paired.candidate)
    return np.asarray(neither & is_gradient_norm(paired.metric))


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
