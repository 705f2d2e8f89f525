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
        metric = comparison.metrics[0]
        means = means_of_script(comparison)
        if means is None:
            return (self._finding(Outcome.INCONCLUSIVE, math.nan, metric, "there is no value that it can see"),)
        passed = self.passes(means.relative, means.absolute)
        message = "\n".join(self.lines(means.relative, means.absolute, passed=passed))
        if passed and not self.passes(means.unsigned_relative, means.unsigned_absolute):
            message += (
                "\nThis passes only because the errors are signed: unsigned, the mean relative error is "
                f"{means.unsigned_relative:.6g} and the mean absolute error {means.unsigned_absolute:.6g}."
            )
        outcome = Outcome.PASS if passed else Outcome.FAIL
        return (self._finding(outcome, means.relative, metric, message),)

    def passes(self, relative: float, absolute: float) -> bool:
        """Tell whether either of two means is within its limit."""
        return relative <= self.limit or absolute <= self.absolute_limit

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The figures of a model-zoo card: signed as the script prints them, and without their signs.

    Attributes:
        relative: mean((c - r) / r).
        absolute: mean(c - r), in the metric's unit.
        unsigned_relative: mean(|c - r| / |r|).
        unsigned_absolute: mean(|c - r|), in the metric's unit.
        count: How many values that is over, at most LAST.
        unseen: How many values of both records the script cannot see.
    """

    relative: float
    absolute: float
    unsigned_relative: float
    unsigned_absolute: float
    count: int
    unseen: int = 0


def means_of_script(comparison: Comparison) -> Means | None:
    """Return what the script makes of the first judged metric; None if it sees no value of one of the records.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def record(*values):
        ...     loss = Curve(name="loss", iterations=[1, 2], values=values)
        ...     return Record(name="", format="", curves={"loss": loss})
        >>> means_of_script(compare(record(4.0, 2.0), record(5.0, 1.5)))
        Means(relative=0.0, absolute=0.25, unsigned_relative=0.25, unsigned_absolute=0.75, count=2, unseen=0)
    """
    comparison = comparison.rank_0 or comparison
    records = (comparison.reference, comparison.candidate)
    whole = [each.curves.get(comparison.metrics[0], EMPTY).values for each in records]
    reference, candidate = (seen_by_script(values) for values in whole)
    unseen = sum(map(len, whole)) - len(reference) - len(candidate)
    length = min(len(reference), len(candidate))
    if length == 0:
        return None
    # The script cuts both lists to the shorter one first and keeps the last 50 of what is left.
    reference, candidate = reference[:length][-LAST:], candidate[:length][-LAST:]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        relative = (candidate - reference) / reference
        return Means(
            relative=float(relative.mean()),
            absolute=float((candidate - reference).mean()),
            unsigned_relative=float(np.abs(relative).mean()),
            unsigned_absolute=float(np.abs(candidate - reference).mean()),
            count=len(reference),
            unseen=unseen,
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
