"""The rule that holds each rank against the same rank of the reference, for a mean over ranks hides what cancels."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from emacheck.counted import and_so_on
from emacheck.judge.comparison import Comparison
from emacheck.judge.rules.alternatives import either_suffices
from emacheck.judge.rules.means import MeanAbsoluteError, MeanRelativeError
from emacheck.judge.verdict import Finding, Outcome

_GRAVITY = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL)
LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """max over ranks k of mean(|c_k - r_k| / |r_k|) must be <= limit, or mean(|c_k - r_k|) <= absolute_limit.

    Each rank is judged as ``mean_relative_error`` and ``mean_absolute_error`` judge a record, at the iterations that
    this rank has in both records; for each rank either of the two suffices. Needs the same ranks, and at least two, on
    both sides.

    Attributes:
        limit: Largest allowed mean of a rank, a dimensionless ratio.
        absolute_limit: Largest allowed mean of a rank in the metric's unit.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def run(*ranks):
        ...     losses = [Curve(name="loss", iterations=[1, 2], values=values) for values in ranks]
        ...     mean = Curve(name="loss", iterations=[1, 2], values=sum(loss.values for loss in losses) / len(ranks))
        ...     each = {rank: {"loss": loss} for rank, loss in enumerate(losses)}
        ...     return Record(name="", format="", curves={"loss": mean}, ranks=len(ranks), of_ranks=each)
        >>> (finding,) = Ranks().check(compare(run([4.0, 3.0], [4.0, 3.0]), run([4.4, 3.3], [3.6, 2.7])))
        >>> str(finding.outcome), round(finding.observed, 3)
        ('FAIL', 0.1)
    """

    limit: float = 0.05
    absolute_limit: float = 0.0002
    name: ClassVar[str] = "ranks"
    unit: ClassVar[str] = "of the reference"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Judge each rank, and return the finding of the worst one for each judged metric."""
        return tuple(self._worst(comparison, metric) for metric in comparison.metrics)

    def _worst(self, comparison: Comparison, metric: str) -> Finding:
        ranks = dict(self._of_each(comparison, metric))
        if not ranks:
            return self._nothing(comparison, metric)
        worst = max(ranks, key=lambda rank: (_GRAVITY.index(ranks[rank].outcome), _size(ranks[rank])))
        message = f"of {len(ranks)} ranks the worst is rank {worst}: {ranks[worst].message}"
        return replace(ranks[worst], rule=self.name, message=message)

    def _of_each(self, comparison: Comparison, metric: str) -> Iterator[tuple[int, Finding]]:
        """Return what is found of each rank that has the metric on either side."""
        rules = (MeanRelativeError(limit=self.limit), MeanAbsoluteError(limit=self.absolute_limit))
        for rank in comparison.ranks:
            alone = replace(comparison.of_rank(rank), metrics=(metric,))
            if metric in alone.reference.curves or metric in alone.candidate.curves:
                relative, _ = either_suffices(alone, [finding for rule in rules for finding in rule.check(alone)])
                yield rank, relative

    def _nothing(self, comparison: Comparison, metric: str) -> Finding:
        held = "; ".join(
            f"the {side} {and_so_on([*record.of_ranks], LISTED) or 'none'}" for side, record in comparison.sides
        )
        message = f"there are no ranks to hold against each other; several with {metric} are in: {held}"
        return Finding.of(self, metric, Outcome.INCONCLUSIVE, message)


def _size(finding: Finding) -> float:
    return math.inf if math.isnan(finding.observed) else abs(finding.observed)
