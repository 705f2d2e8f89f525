"""Do both records average over the same iterations?"""

from dataclasses import dataclass
from typing import ClassVar

from emacheck.judge.advice import option
from emacheck.judge.comparison import Comparison
from emacheck.judge.verdict import Finding, Outcome


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
        message = "both records average alike"
        if not passed:
            accept = option(self.name, len(different))
            message = f"the records average differently: {'; '.join(different)} (if they do not, accept with {accept})"
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
