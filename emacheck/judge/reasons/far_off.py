"""What is far off beside the judged metrics: components of the loss, gradient norms, scores, losses of validations."""

from collections.abc import Iterable, Iterator

import numpy as np

from emacheck.curve import Floats
from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import Comparison, pair
from emacheck.judge.forensics.beside import components
from emacheck.judge.forensics.metric_names import is_gradient_norm, is_score
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.noise.rounding import resolution
from emacheck.judge.reasons.reason import Reason
from emacheck.judge.verdict import Outcome

GROSS = 0.5
"""Mean difference of a loss component, relative to its level, that is no noise between paired runs."""
LATEST = 3
"""So many of the last validations are asked whether their loss is far off."""
COUNTS = 0.01
"""Part of the judged metric that the difference of a component must amount to, for it to count."""


def far_off_components(comparison: Comparison) -> Iterator[Reason]:
    """Say which components of the loss are far off.

    mean(|c - r|) must be over GROSS * mean(|r|), beyond printed decimals, and over COUNTS of the judged metric's level:
    a component that has fallen to almost nothing may differ by any factor.
    """
    outcome = Outcome.INCONCLUSIVE if pairing_of(comparison).pairing is Pairing.PAIRED else None
    for message in _far_off(comparison, components(comparison), _least(comparison)):
        yield Reason(outcome=outcome, message=message)


def far_off_others(comparison: Comparison) -> Iterator[Reason]:
    """Say which gradient norms and scores of trainings that may be paired are far off."""
    if pairing_of(comparison).pairing is Pairing.UNPAIRED:
        return
    others = (name for name in comparison.reference.curves if name not in comparison.metrics)
    for message in _far_off(comparison, (each for each in others if is_gradient_norm(each) or is_score(each)), 0.0):
        yield Reason(message=message)


def far_off_validation(comparison: Comparison) -> Iterator[Reason]:
    """Say which losses of validations are far off.

    The median of |c - r| over the last LATEST common validations must be over GROSS * |r|, beyond printed decimals, and
    over COUNTS of the judged metric's level. The first validations of a run may be anywhere.
    """
    outcome = None if pairing_of(comparison).pairing is Pairing.UNPAIRED else Outcome.INCONCLUSIVE
    ours, theirs = comparison.reference.validation, comparison.candidate.validation
    for name in (name for name in ours if "loss" in name.lower() and name in theirs):
        paired = pair(name, ours[name], theirs[name])
        finite = np.flatnonzero(np.isfinite(paired.reference) & np.isfinite(paired.candidate))[-LATEST:]
        if not finite.size:
            continue
        hidden = resolution(ours[name], theirs[name])
        off = _median(np.maximum(np.abs(paired.difference[finite]) - hidden, 0))
        level = _median(np.abs(paired.reference[finite]))
        if off > max(GROSS * level, _least(comparison)):
            r, c = (each[finite[-1]] for each in (paired.reference, paired.candidate))
            at = paired.iterations[finite[-1]]
            message = f"{name} in validation is far off: {c:.4g} against {r:.4g} at iteration {at}"
            yield Reason(outcome=outcome, message=message)


def _median(sizes: Floats) -> float:
    with np.errstate(over="ignore"):  # of two that are almost too large for a float
        return float(np.median(sizes))


def _far_off(comparison: Comparison, names: Iterable[str], least: float) -> Iterator[str]:
    for name in names:
        paired = comparison.curve(name)
        finite = np.isfinite(paired.reference) & np.isfinite(paired.candidate)
        if not finite.any():
            continue
        hidden = resolution(comparison.reference.curves[name], comparison.candidate.curves[name])
        off = average(np.maximum(np.abs(paired.difference[finite]) - hidden, 0))
        level = _level(comparison, name)
        if off > max(GROSS * level, least):
            yield f"{name} is off by {off:.3g} on average, its level in the reference is {level:.3g}"


def _least(comparison: Comparison) -> float:
    """Return the difference that a component must have at least, for it to count."""
    return COUNTS * max(_level(comparison, metric) for metric in comparison.metrics)


def _level(comparison: Comparison, metric: str) -> float:
    """Return the mean |reference| of the common iterations, 0 without any."""
    values = comparison.curve(metric).reference
    values = np.abs(values[np.isfinite(values)])
    return average(values) if values.size else 0.0
