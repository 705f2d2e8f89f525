"""Rules about the records themselves: whether what they hold may be compared at all."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from emacheck.judge.comparison import Comparison
from emacheck.judge.verdict import Finding, Outcome

RATES = ("lr", "base_lr", "learning_rate")
# Schedules are computed in double precision; two devices agree to the last digits.
RATE_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """Both records average over the same window: the number of metrics that do not must be <= limit.

    Means of ten iterations and raw values of one are different quantities, however good the device is, so a difference
    is INCONCLUSIVE.

    Attributes:
        limit: Allowed number of metrics with different windows.
    """

    limit: float = 0.0
    name: ClassVar[str] = "smoothing"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Compare the windows of each judged metric."""
        different = []
        for metric in comparison.metrics:
            curves = [side.curves.get(metric) for side in (comparison.reference, comparison.candidate)]
            windows = [curve.window for curve in curves if curve is not None]
            if len(set(windows)) > 1:
                shown = " against ".join("an unknown window" if w == 0 else f"a window of {w}" for w in windows)
                different.append(f"{metric}: {shown}")
        passed = len(different) <= self.limit
        message = "both records average alike" if passed else "the records average differently: " + "; ".join(different)
        return (
            Finding(
                rule=self.name,
                outcome=Outcome.PASS if passed else Outcome.INCONCLUSIVE,
                observed=float(len(different)),
                limit=self.limit,
                unit="metrics with different windows",
                iteration=None,
                message=message,
                would_pass_at=float(len(different)),
                metric=comparison.metrics[0],
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Same learning rates: max(|c - r| / |r|) over the common iterations must be <= limit, beyond printed decimals.

    Runs that are proven to be the same experiment FAIL, because then the device has changed the schedule; other records
    with different learning rates are different experiments and INCONCLUSIVE. Without learning rates on both sides there
    is nothing to compare and the rule passes, saying so.

    Attributes:
        limit: Largest allowed relative difference.
    """

    limit: float = RATE_TOLERANCE
    name: ClassVar[str] = "schedule"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Compare the recorded learning rates."""
        sides = (comparison.reference, comparison.candidate)
        name = next((rate for rate in RATES if all(rate in side.curves for side in sides)), None)
        if name is None:
            return (self._finding(Outcome.PASS, 0.0, None, "no learning rates on both sides to compare", comparison),)
        paired = comparison.curve(name)
        quantum = sum(side.curves[name].quantum for side in sides)
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.maximum(np.abs(paired.difference) - quantum, 0)
            off = np.where(excess == 0, 0.0, excess / np.abs(paired.reference))
        if not off.size:
            return (self._finding(Outcome.PASS, 0.0, None, f"{name}: no iteration is in both", comparison),)
        worst = int(np.argmax(off))
        observed = float(off[worst])
        if observed <= self.limit:
            message = f"{name} is the same in {off.size} iterations"
            return (self._finding(Outcome.PASS, observed, None, message, comparison),)
        iteration = int(paired.iterations[np.flatnonzero(~(off <= self.limit))[0]])
        outcome = Outcome.FAIL if comparison.paired else Outcome.INCONCLUSIVE
        message = (
            f"{name} differs from iteration {iteration} on, at worst {paired.candidate[worst]:.6g} against "
            f"{paired.reference[worst]:.6g} at iteration {paired.iterations[worst]}"
        )
        return (self._finding(outcome, observed, iteration, message, comparison),)

    def _finding(
        self, outcome: Outcome, observed: float, iteration: int | None, message: str, comparison: Comparison
    ) -> Finding:
        return Finding(
            rule=self.name,
            outcome=outcome,
            observed=observed,
            limit=self.limit,
            unit="of the reference's learning rate",
            iteration=iteration,
            message=message,
            would_pass_at=observed if math.isfinite(observed) else None,
            metric=comparison.metrics[0],
        )
