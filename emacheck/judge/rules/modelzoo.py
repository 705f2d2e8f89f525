"""The rule of the model zoo's own loss script, reproduced to the digit so that its verdicts can be understood."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from emacheck.curve import Floats
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.verdict import Finding, Outcome

LAST = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelZoo:
    r"""mean((c - r) / r) <= limit or mean(c - r) <= absolute_limit, both signed, over the last 50 values.

    Faithful to the script that model-zoo cards are made with: rank 0, the longer list cut to the length of the shorter,
    the last 50 values kept, paired by *position*, signed means in float64. Values that its regular expression
    ``[\d\.e-]+`` cannot see (NaN, infinity, negative numbers, exponents with a plus sign) are skipped as it skips them.

    Attributes:
        limit: Largest allowed signed mean relative error.
        absolute_limit: Largest allowed signed mean absolute error.

    Source: the loss.py that accompanies the models contributed to Tecorigin's public ModelZoo (run_scripts/loss.py).
    """

    limit: float = 0.05
    absolute_limit: float = 0.0002
    name: ClassVar[str] = "modelzoo"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Judge the first judged metric as the script would."""
        comparison = comparison.rank_0 or comparison
        metric = comparison.metrics[0]
        reference = seen_by_script(comparison.reference.curves.get(metric, EMPTY).values)
        candidate = seen_by_script(comparison.candidate.curves.get(metric, EMPTY).values)
        length = min(len(reference), len(candidate))
        if length == 0:
            return (self._finding(Outcome.INCONCLUSIVE, math.nan, metric, "there is no value that it can see"),)
        # The script cuts both lists to the shorter one first and keeps the last 50 of what is left.
        reference, candidate = reference[:length][-LAST:], candidate[:length][-LAST:]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            relative = (candidate - reference) / reference
            signed_relative = float(relative.mean())
            signed_absolute = float((candidate - reference).mean())
            unsigned_relative = float(np.abs(relative).mean())
            unsigned_absolute = float(np.abs(candidate - reference).mean())
        passed = signed_relative <= self.limit or signed_absolute <= self.absolute_limit
        message = "\n".join(self.lines(signed_relative, signed_absolute, passed=passed))
        if passed and not (unsigned_relative <= self.limit or unsigned_absolute <= self.absolute_limit):
            message += (
                "\nThis passes only because the errors are signed: unsigned, the mean relative error is "
                f"{unsigned_relative:.6g} and the mean absolute error {unsigned_absolute:.6g}."
            )
        outcome = Outcome.PASS if passed else Outcome.FAIL
        return (self._finding(outcome, signed_relative, metric, message),)

    def lines(self, relative: float, absolute: float, *, passed: bool) -> tuple[str, str, str, str]:
        """Return the four lines that the script prints (with plain floats, as numpy 1 showed them)."""
        name, value = ("mean_relative_error", relative) if relative <= absolute else ("mean_absolute_error", absolute)
        return (
            f"MeanRelativeError: {relative}",
            f"MeanAbsoluteError: {absolute}",
            f"Rule,{name} {value}",
            f"{'pass' if passed else 'fail'} mean_relative_error={relative} <= {self.limit} or "
            f"mean_absolute_error={absolute} <= {self.absolute_limit}",
        )

    def _finding(self, outcome: Outcome, observed: float, metric: str, message: str) -> Finding:
        return Finding(
            rule=self.name,
            outcome=outcome,
            observed=observed,
            limit=self.limit,
            unit="of the reference, signed, last 50",
            iteration=None,
            message=message,
            would_pass_at=observed if math.isfinite(observed) else None,
            metric=metric,
        )


def seen_by_script(values: Floats) -> Floats:
    """Return the values that the script's regular expression would have matched.

    Example:
        >>> import numpy as np
        >>> seen_by_script(np.array([4.0, np.nan, 1e20, 1e-7, -1.0])).tolist()
        [4.0, 1e-07]
    """
    written_with_plus = np.abs(values) >= 1e16
    return values[np.isfinite(values) & (values >= 0) & ~written_with_plus]
