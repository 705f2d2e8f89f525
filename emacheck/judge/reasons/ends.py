"""Runs that are not paired and part in their last iterations, which the mean over their last part hardly shows."""

import math
from collections.abc import Iterator

import numpy as np

from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.noise.scatter import scatter
from emacheck.judge.reasons.reason import Reason
from emacheck.judge.verdict import Outcome

END, SHORTEST = 10, 30
"""Values at the end that are looked at by themselves, and fewest of all."""
APART, ERRORS = 0.1, 3.0
"""How far such an end may be off, as in `worst_window`, and standard errors of its mean beside that."""


def parting_ends(comparison: Comparison) -> Iterator[Reason]:
    """Say where runs that are not paired end apart: their level is a mean that hardly shows the last iterations."""
    if pairing_of(comparison).pairing is not Pairing.UNPAIRED:
        return
    for metric in comparison.metrics:
        paired = comparison.curve(metric)
        values = np.array([paired.reference, paired.candidate])
        if values.shape[1] < SHORTEST or not (
            np.all(np.isfinite(values)) and (np.all(values > 0) or np.all(values < 0))
        ):
            continue
        reference, candidate = (average(each[-END:]) for each in values)
        off = candidate / reference - 1
        # Slow noise is not allowed for: where it is, an end that is half off is hardly told from it, and would pass.
        if abs(off) > APART + ERRORS * scatter(paired.reference) * math.sqrt(2 / END):
            message = f"the last {END} values of {metric} are {off:+.0%} off those of the reference on average"
            yield Reason(
                outcome=Outcome.INCONCLUSIVE, message=message, iteration=int(paired.iterations[-END]), metric=metric
            )
