"""Do both runs start from the same weights, and see the same batches?"""

import math
from dataclasses import dataclass
from typing import ClassVar

from emacheck.judge.comparison import Comparison, differing_hashes
from emacheck.judge.verdict import Finding, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """Same initial state and same batches: the number of differing fingerprints must be <= limit.

    Without this the two runs are different experiments and no difference between them says anything about the
    device, so a difference is INCONCLUSIVE.

    Attributes:
        limit: Allowed number of differing fingerprints.
    """

    limit: float = 0.0
    name: ClassVar[str] = "fingerprints"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Compare the recorded hashes of the initial state and of every batch."""
        reference, candidate = comparison.reference, comparison.candidate
        iteration = None
        if comparison.paired is None:
            observed, outcome = math.nan, Outcome.INCONCLUSIVE
            message = (
                "not both records carry fingerprints of the initial state and of every batch: nothing proves that they "
                "are paired"
            )
        else:
            state, differing = differing_hashes(reference, candidate)
            observed = float(state + len(differing))
            outcome = Outcome.PASS if observed <= self.limit else Outcome.INCONCLUSIVE
            iteration = 1 if state else (differing[0] if differing else None)
            if outcome is Outcome.PASS:
                message = "initial state and every batch are identical"
            elif state:
                message = "the runs start from different weights: they are different experiments"
            else:
                message = f"the runs see different batches from iteration {iteration} on"
        return (
            Finding(
                rule=self.name,
                outcome=outcome,
                observed=observed,
                limit=self.limit,
                unit="differing hashes",
                iteration=iteration,
                message=message,
                would_pass_at=None,
                metric=comparison.metrics[0],
            ),
        )
