"""Is every number of both records a finite one?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.forensics.broken import broken_metrics, broken_validation
from emacheck.judge.verdict import Finding, Outcome
from emacheck.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Finite:
    """No NaN and no infinity: the number of non-finite values must be <= limit.

    Looks at every judged metric and every loss component, over all iterations of each record, and of each of its
    ranks, and not only the common ones. Non-finite values of the candidate are FAIL; of the reference alone
    INCONCLUSIVE, because a broken reference proves nothing. So are those of losses and scores in validations, each in a
    finding of its own. Any other metric of the candidate that is not finite where the reference's is, such as a
    gradient norm, is INCONCLUSIVE; steps that a scaler of fp16 left out are not, see
    :func:`emacheck.judge.forensics.broken.broken_metrics`.

    Attributes:
        limit: Allowed number of non-finite values.
    """

    limit: float = 0.0
    name: ClassVar[str] = "finite"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Count non-finite values in both records."""
        broken: dict[str, tuple[int, int | None, str, int | None]] = {}
        for side, record in (("candidate", comparison.candidate), ("reference", comparison.reference)):
            total, first, where, whose = 0, None, "", None
            for metric in comparison.losses:
                count, at, rank = _not_finite(record, metric)
                total += count
                if at is not None and (first is None or at < first):
                    first, where, whose = at, metric, rank
            broken[side] = (total, first, where, whose)
        side = "candidate" if not broken["candidate"][0] <= self.limit else "reference"
        count, first, where, whose = broken[side]
        if count <= self.limit:
            outcome, message = Outcome.PASS, "every loss value is a finite number"
        else:
            outcome = Outcome.FAIL if side == "candidate" else Outcome.INCONCLUSIVE
            also = "; so has the reference" if side == "candidate" and broken["reference"][0] else ""
            of = "" if whose is None else f" of rank {whose}"
            message = (
                f"the {side} has {count} NaN or infinite values, the first in {where}{of} at iteration {first}{also}"
            )
        return (
            Finding(
                rule=self.name,
                outcome=outcome,
                observed=float(count),
                limit=self.limit,
                unit="values",
                iteration=first,
                message=message,
                would_pass_at=float(max(total for total, *_ in broken.values())),
                metric=where or comparison.metrics[0],
            ),
            *self._unjudged(comparison),
        )

    def _unjudged(self, comparison: Comparison) -> Iterator[Finding]:
        """Find what is broken in validations, and in metrics beside the losses."""
        fatal = {"candidate": Outcome.FAIL, "reference": Outcome.INCONCLUSIVE}
        broken = [(each, fatal[each.side]) for each in broken_validation(comparison)]
        broken += [(each, Outcome.INCONCLUSIVE) for each in broken_metrics(comparison)]
        for each, outcome in broken:
            if not each.count <= self.limit:
                yield Finding(
                    rule=self.name,
                    outcome=outcome,
                    observed=float(each.count),
                    limit=self.limit,
                    unit="values",
                    iteration=each.iteration,
                    message=each.message,
                    would_pass_at=float(each.count),
                    metric=each.metric,
                )


def _not_finite(record: Record, metric: str) -> tuple[int, int | None, int | None]:
    """Count the iterations at which a metric is not finite, in the mean or in any rank; with the first and its rank."""
    found = []
    for rank, curves in (*record.of_ranks.items(), (None, record.curves)):
        curve = curves.get(metric, EMPTY)
        bad = curve.iterations[~np.isfinite(curve.values)]
        if len(bad):
            found.append((bad, rank))
    if not found:
        return 0, None, None
    first, whose = min(((int(bad[0]), rank) for bad, rank in found), key=lambda each: each[0])
    return len(np.unique(np.concatenate([bad for bad, _ in found]))), first, whose
