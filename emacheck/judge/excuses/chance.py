"""Whether the noise of the differences explains a bias."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import Comparison
from emacheck.judge.noise.standard_error import FEWEST_VALUES, mean_by_chance
from emacheck.judge.rules.means import Bias
from emacheck.judge.verdict import Finding, Outcome

FEWEST_IN_HALF, CHANCE = 30, 0.01
"""Values in the last half of which a bias is asked as well as of all, and how often chance may explain neither."""


def without_blame_for_chance(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make a bias INCONCLUSIVE that the noise of the differences explains as well as a wrong device.

    Paired runs come apart by chaos, which has no sign but whose mean over few iterations, or over slow ones, is not 0.
    It must explain the mean over the last half as well, if that has 30 values: there a difference that grew, or set in,
    has a level by which it is told from noise. A rule that the user named stays.
    """
    if Bias.name in named:
        return list(findings)
    return [
        _by_chance(comparison, each) if each.rule == Bias.name and each.outcome is Outcome.FAIL else each
        for each in findings
    ]


def _by_chance(comparison: Comparison, finding: Finding) -> Finding:
    differences = comparison.curve(finding.metric).relative_difference
    if not np.all(np.isfinite(differences)):
        return finding
    half = differences[len(differences) // 2 :]
    parts = (differences, half) if len(half) >= FEWEST_IN_HALF else (differences,)
    # Two looks share what chance may do.
    reaches = [mean_by_chance(part, 1 - CHANCE / 2) for part in parts]
    if any(not abs(average(part)) <= max(finding.limit, reach) for part, reach in zip(parts, reaches, strict=True)):
        return finding
    reach = reaches[0]
    why = f"it may be {reach:.2g} by chance, with {1 - CHANCE / 2:.1%} confidence"
    if math.isinf(reach):
        few = len(differences) < FEWEST_VALUES
        why = "the differences " + (
            "are too few" if few else "change so slowly that they are worth fewer than 4 independent ones"
        )
    more = "give more repeats" if comparison.repeats else "show by --repeat how far benign runs are"
    message = f"over its limit, but {why}: train longer, or {more}; {finding.message}"
    return replace(finding, outcome=Outcome.INCONCLUSIVE, message=message)
