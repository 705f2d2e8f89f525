"""Did both train with the same learning rates?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from emacheck.curve import Floats
from emacheck.judge.advice import option
from emacheck.judge.arithmetic import quotient
from emacheck.judge.comparison import Comparison, PairedCurve, pair
from emacheck.judge.forensics.metric_names import is_rate
from emacheck.judge.verdict import Finding, Outcome

RATES = ("lr", "base_lr", "learning_rate")
NO_RATES = "no learning rates on both sides to compare"
# Schedules are computed in double precision; two devices agree to the last digits.
RATE_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Same learning rates: max(|c - r| / |r|) over the common iterations must be <= limit, beyond printed decimals.

    Every learning rate that both records have is compared, such as lr and lr_backbone; where they share none of lr,
    base_lr and learning_rate, the first of these that either has is compared with that of the other. Runs that are
    proven to be the same experiment FAIL, because then the device has changed the schedule; other records with
    different learning rates are different experiments and INCONCLUSIVE. Without learning rates on both sides there is
    nothing to compare and the rule passes, saying so.

    Attributes:
        limit: Largest allowed relative difference.
    """

    limit: float = RATE_TOLERANCE
    name: ClassVar[str] = "schedule"
    unit: ClassVar[str] = "of the reference's learning rate"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Compare the recorded learning rates."""
        rates, metric = list(_rates(comparison)), comparison.metrics[0]
        if not rates:
            return (Finding.of(self, metric, Outcome.PASS, NO_RATES, observed=0.0),)
        # The worst of NaN and numbers is NaN, which passes no limit.
        found = [(float(np.max(off, initial=0.0)), paired, off) for paired, off in rates]
        observed, paired, off = next(
            (each for each in found if math.isnan(each[0])), max(found, key=lambda each: each[0])
        )
        if observed <= self.limit:
            counts = {each.metric: len(each.iterations) for each, _ in rates}
            same = [name for name, count in counts.items() if count]
            parts = [
                f"{', '.join(same)} {'is' if len(same) == 1 else 'are'} the same in {max(counts.values())} iterations"
            ]
            parts = parts * bool(same) + [f"{name}: no iteration is in both" for name in counts if name not in same]
            return (Finding.of(self, metric, Outcome.PASS, "; ".join(parts), observed=observed),)
        worst = int(np.argmax(off))
        iteration = int(paired.iterations[np.flatnonzero(~(off <= self.limit))[0]])
        outcome = Outcome.FAIL if comparison.paired else Outcome.INCONCLUSIVE
        message = (
            f"{paired.metric} differs from iteration {iteration} on, at worst {paired.candidate[worst]:.6g} against "
            f"{paired.reference[worst]:.6g} at iteration {paired.iterations[worst]}"
        )
        if outcome is Outcome.INCONCLUSIVE:
            message += "; no fingerprints prove that both were to train alike, so the device or the settings did that"
        if math.isfinite(observed):
            message += f" (accept with {option(self.name, observed)})"
        return (Finding.of(self, metric, outcome, message, observed=observed, iteration=iteration),)

    def can_tell(self, comparison: Comparison) -> bool:
        """Tell whether both records have a learning rate at the same iteration."""
        return any(len(paired.iterations) for paired, _ in _rates(comparison))


def _rates(comparison: Comparison) -> Iterator[tuple[PairedCurve, Floats]]:
    """Return each learning rate that both records have, and by how much it is off at each common iteration."""
    reference, candidate = comparison.reference.curves, comparison.candidate.curves
    shared = [name for name in RATES if name in reference and name in candidate]
    ours, theirs = ([name for name in RATES if name in curves] for curves in (reference, candidate))
    names = dict(zip(shared, shared, strict=True)) or dict(zip(ours[:1], theirs[:1], strict=False))
    names |= {name: name for name in reference if name in candidate and is_rate(name)}
    for one, other in names.items():
        paired = pair(one if one == other else f"{one} ({other} of the candidate)", reference[one], candidate[other])
        quantum = reference[one].quantum + candidate[other].quantum
        excess = np.maximum(np.abs(paired.difference) - quantum, 0)
        yield paired, quotient(excess, np.abs(paired.reference))
