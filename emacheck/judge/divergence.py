"""Where two records first part, and what that suggests: a hint for a person, never a verdict."""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from emacheck.curve import Floats
from emacheck.judge.comparison import EMPTY, Comparison, PairedCurve
from emacheck.judge.envelope import distinct_repeats, fit_band
from emacheck.judge.first_iterations import AMPLIFICATION, ROUNDOFF, SATURATION, resolution, rounding

# How many times the largest rounding seen may be rounding still; the default limit of the rule `first_iterations`.
MARGIN = 10.0
# Factor by which benign differences grow from one iteration to the next until they saturate: from 1e-5 at iteration 3
# to 1e-2 at iteration 10 in the fastest of five benign runs of the smoke preset.
GROWTH = 3.0
# Iterations in which paired runs still fluctuate together, whatever the device does wrong.
TOGETHER = 20


class Kind(str, Enum):
    """What a divergence suggests."""

    IDENTICAL = "identical"
    ROUNDING = "benign chaos: rounding that grows"
    FORWARD = "forward pass, loss or initial state"
    BACKWARD = "backward pass, optimizer or buffers"
    LATER = "data order, schedule or resume"
    NOT_FINITE = "a value that is NaN or infinite"
    UNPAIRED = "different experiments"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The first iteration at which two records part, and what that suggests.

    Attributes:
        iteration: The first one beyond noise; for benign chaos the first unequal one; None where there is none.
        kind: What it suggests.
        evidence: The numbers behind it, in a sentence or two.
    """

    iteration: int | None
    kind: Kind
    evidence: str


def diagnose(comparison: Comparison, metric: str = "loss") -> Divergence:
    """Name the first iteration that differs beyond noise and the class of causes that it suggests.

    Noise is what the envelope of the repeats allows where there are two or more, else MARGIN times the rounding that
    was seen in the first iterations, growing by GROWTH per iteration until it saturates, and what printing hides.

    Args:
        comparison: What was measured; its repeats sharpen the hint.
        metric: The metric to look at.

    Returns:
        The divergence.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def run(*values):
        ...     return Record(name="", format="", curves={"loss": Curve(name="loss", iterations=[1, 2], values=values)})
        >>> found = diagnose(compare(run(4.0, 3.9), run(4.0, 3.8)))
        >>> found.iteration, str(found.kind)
        (2, 'backward pass, optimizer or buffers')
    """
    paired = comparison.curve(metric)
    if not paired.iterations.size:
        return Divergence(iteration=None, kind=Kind.UNKNOWN, evidence=f"no iteration of {metric} is in both")
    size = _size(paired)
    unequal = np.flatnonzero(~(size == 0))
    if not unequal.size:
        return _identical(comparison, paired)
    if comparison.paired is False or (comparison.paired is None and paired_by_curves(comparison) is False):
        return _unpaired(comparison, paired)
    onset = int(unequal[0])
    noise = _noise(comparison, paired)
    noise[onset] = min(noise[onset], _first_rounding(comparison, paired, onset))
    beyond = np.flatnonzero(~(size <= noise))
    if not beyond.size:
        return Divergence(
            iteration=int(paired.iterations[onset]), kind=Kind.ROUNDING, evidence=_growth(paired, size, onset)
        )
    at = int(beyond[0])
    if not np.isfinite([paired.reference[at], paired.candidate[at]]).all():
        evidence = f"iteration {paired.iterations[at]}: {metric} {_values(paired, at)}."
        return Divergence(iteration=int(paired.iterations[at]), kind=Kind.NOT_FINITE, evidence=evidence)
    return _classify(comparison, paired, noise, onset, at)


def paired_by_curves(comparison: Comparison) -> bool | None:
    """Decide from the first iterations whether two records start from the same weights and see the same data.

    They do where the first three iterations agree in every judged metric within MARGIN times rounding and printing.
    They do not where iteration 1 differs and the curves do not fluctuate together either: the correlation of their
    changes from one iteration to the next, over the first 20 or fewer, at least 10, is not above 0 with 99 %
    confidence. A device that is wrong from the first iteration on still sees the same data and fluctuates together, so
    such a pair stays undecided.

    Args:
        comparison: What was measured.

    Returns:
        True, False, or None where that is unknown: means over a window, no early iterations, or too few.

    Source: confidence by R. A. Fisher's transformation of a correlation, Metron 1 (1921), 3: atanh(r) has a standard
    error of 1 / sqrt(n - 3).

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> loss = Curve(name="loss", iterations=[1, 2, 3], values=[4.1, 4.0, 3.8])
        >>> one = Record(name="", format="", curves={"loss": loss})
        >>> paired_by_curves(compare(one, one))
        True
    """
    agree = []
    for metric in comparison.metrics:
        curves = [record.curves.get(metric, EMPTY) for record in (comparison.reference, comparison.candidate)]
        paired = comparison.curve(metric)
        early = rounding(metric, paired.iterations, _precision(comparison))
        first = np.flatnonzero(np.isfinite(early))
        if not first.size or first[0] != 0 or any(curve.window != 1 for curve in curves):
            return None
        size = _size(paired)[first]
        within = size <= MARGIN * early[first] + _printed(comparison, paired)[first]
        agree.append(bool(np.all(within)))
        if not within[0] and _fluctuate_together(paired) is False:
            return False
    telling = all(_printed(comparison, comparison.curve(metric))[0] <= SATURATION for metric in comparison.metrics)
    return True if agree and all(agree) and telling else None


def _fluctuate_together(paired: PairedCurve) -> bool | None:
    """Return whether both curves' changes correlate, None where too few iterations follow each other to tell."""
    consecutive = np.flatnonzero(np.diff(paired.iterations[:TOGETHER]) == 1)
    with np.errstate(all="ignore"):
        changes = np.array([np.diff(values[:TOGETHER])[consecutive] for values in (paired.reference, paired.candidate)])
        usable = np.all(np.isfinite(changes)) and changes.shape[1] >= 10 and np.all(np.std(changes, axis=1) > 0)
        if not usable:
            return None
        correlation = float(np.corrcoef(changes)[0, 1])
    if not math.isfinite(correlation):
        return None
    bound = math.tanh(2.326 / math.sqrt(changes.shape[1] - 3))
    return correlation > bound


def _size(paired: PairedCurve) -> Floats:
    """Return |relative difference|; 0 where both are the same infinity or both NaN."""
    same = (paired.reference == paired.candidate) | (np.isnan(paired.reference) & np.isnan(paired.candidate))
    return np.where(same, 0.0, np.abs(paired.relative_difference))


def _printed(comparison: Comparison, paired: PairedCurve) -> Floats:
    """Return the relative difference that printed decimals hide."""
    records = (comparison.reference, comparison.candidate)
    hidden = resolution(*(record.curves.get(paired.metric, EMPTY) for record in records))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(hidden > 0, hidden / np.abs(paired.reference), 0.0)


def _saturation(metric: str) -> float:
    """Return the relative difference at which benign runs level off, gradients five times above losses."""
    return MARGIN * SATURATION * (1 if "loss" in metric.lower() else 5)


def _noise(comparison: Comparison, paired: PairedCurve) -> Floats:
    """Return the relative difference that is noise, for each iteration."""
    metric = paired.metric
    repeats = distinct_repeats(comparison, metric)
    band = fit_band(comparison, metric, 0.01) if len(repeats) >= 2 else None
    if band is not None and math.isfinite(band.limit) and np.array_equal(band.iterations, paired.iterations):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return band.limit * band.scale / np.abs(paired.reference)
    seen = rounding(metric, paired.iterations, _precision(comparison))
    start = 0 if paired.iterations[0] == 0 else 1
    later = np.clip(paired.iterations - start - 2, 0, 60)
    last = float(rounding(metric, np.array([1, 2, 3]), _precision(comparison))[-1])
    grown = np.where(np.isnan(seen), last * GROWTH**later, seen)
    # What printing hides grows as well: the true difference may be half a quantum one iteration before it shows.
    return np.minimum(MARGIN * grown + 2 * _printed(comparison, paired), _saturation(metric))


def _precision(comparison: Comparison) -> str:
    return comparison.precision if comparison.precision in ROUNDOFF else "fp32"


def _first_rounding(comparison: Comparison, paired: PairedCurve, onset: int) -> float:
    """Return the relative difference that is noise where all values before were equal: it had no time to grow."""
    if onset < len(AMPLIFICATION["loss"]):
        return math.inf
    gap = min(int(paired.iterations[onset] - paired.iterations[onset - 1]), 60)
    last = float(rounding(paired.metric, np.array([1, 2, 3]), _precision(comparison))[-1])
    return MARGIN * (last + float(_printed(comparison, paired)[onset])) * GROWTH**gap


def _classify(comparison: Comparison, paired: PairedCurve, noise: Floats, onset: int, beyond: int) -> Divergence:
    """Say what a difference beyond noise suggests."""
    iteration = int(paired.iterations[beyond])
    start = 0 if paired.iterations[0] == 0 else 1
    what = f"iteration {iteration}: {_pair(paired, beyond)}, where noise stays below {noise[beyond]:.2g}"
    windows = {record.curves[paired.metric].window for record in (comparison.reference, comparison.candidate)}
    if beyond == 0 and (iteration != start or windows != {1}):
        why = "these may be means over a window" if windows != {1} else f"the records begin at iteration {iteration}"
        return Divergence(iteration=iteration, kind=Kind.UNKNOWN, evidence=f"{what}; {why}, so its origin is hidden.")
    if beyond == 0:
        loss = comparison.curve("loss")
        backward = paired.metric != "loss" and loss.iterations.size and loss.iterations[0] == iteration
        if backward and _size(loss)[0] <= _noise(comparison, loss)[0]:
            evidence = f"{what}, although the loss agrees there: {_pair(loss, 0)}."
            return Divergence(iteration=iteration, kind=Kind.BACKWARD, evidence=evidence)
        return Divergence(iteration=iteration, kind=Kind.FORWARD, evidence=f"{what}.")
    before = f"; iteration {paired.iterations[beyond - 1]} still agrees: {_pair(paired, beyond - 1)}."
    if iteration - start < len(AMPLIFICATION["loss"]) and windows == {1}:
        return Divergence(iteration=iteration, kind=Kind.BACKWARD, evidence=what + before)
    if onset == beyond or _jumps(paired, beyond):
        return Divergence(iteration=iteration, kind=Kind.LATER, evidence=what + before)
    return Divergence(iteration=iteration, kind=Kind.BACKWARD, evidence=f"{what}; it grew faster than rounding does.")


def _jumps(paired: PairedCurve, at: int) -> bool:
    """Return whether a difference is more than twice GROWTH per iteration above all before it."""
    size = _size(paired)
    gap = min(int(paired.iterations[at] - paired.iterations[at - 1]), 60)
    return not size[at] <= 2 * GROWTH**gap * float(np.max(size[:at]))


def _pair(paired: PairedCurve, at: int) -> str:
    """Describe the values and the relative difference at one place."""
    return f"{paired.metric} {_values(paired, at)}, relative difference {paired.relative_difference[at]:.2g}"


def _values(paired: PairedCurve, at: int) -> str:
    return f"{paired.candidate[at]:.7g} against {paired.reference[at]:.7g}"


def _identical(comparison: Comparison, paired: PairedCurve) -> Divergence:
    records = (comparison.reference, comparison.candidate)
    digits = "in every printed digit" if any(r.curves[paired.metric].quantum for r in records) else "bit for bit"
    count = len(paired.iterations)
    evidence = f"{paired.metric} is equal {digits} in {count} iteration{'' if count == 1 else 's'}."
    return Divergence(iteration=None, kind=Kind.IDENTICAL, evidence=evidence)


def _unpaired(comparison: Comparison, paired: PairedCurve) -> Divergence:
    reference, candidate = comparison.reference, comparison.candidate
    iteration = int(paired.iterations[0])
    if comparison.paired is None:
        why = "the losses differ from the start and do not fluctuate together"
    elif reference.initial_state != candidate.initial_state:
        why = "the runs start from different weights"
    else:
        pairs = zip(reference.batches, candidate.batches, strict=False)
        iteration = next(i for i, (r, c) in enumerate(pairs, 1) if r != c)
        why = f"the runs see different batches from iteration {iteration} on"
    evidence = f"{why}; iteration {paired.iterations[0]}: {_pair(paired, 0)}."
    return Divergence(iteration=iteration, kind=Kind.UNPAIRED, evidence=evidence)


def _growth(paired: PairedCurve, size: Floats, onset: int) -> str:
    largest = int(np.argmax(size))
    first, last = paired.iterations[onset], paired.iterations[largest]
    return (
        f"the first unequal value is at iteration {first}: {_pair(paired, onset)}; at most {size[largest]:.2g} "
        f"at iteration {last}, which is what rounding grows to."
    )
