"""Where two records first part, and what that suggests: a hint for a person, never a verdict."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from emacheck.counted import counted
from emacheck.curve import Floats
from emacheck.judge.comparison import Comparison, PairedCurve, differing_hashes
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.noise.growth import GROWTH, first_rounding, noise, size
from emacheck.judge.noise.rounding import AMPLIFICATION
from emacheck.judge.rules.schedule import Schedule
from emacheck.judge.verdict import Finding, Outcome, Verdict


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


# Rules whose FAIL says that differences which are small one by one are not those of rounding.
MEANS = ("mean_relative_error", "mean_absolute_error", "bias", "worst_window", "ranks", "equivalence")
WITHIN_NOISE = frozenset({Kind.IDENTICAL, Kind.ROUNDING, Kind.UNKNOWN})


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

    What is noise between paired runs says :func:`emacheck.judge.noise.growth.noise`.

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
    off = size(paired)
    unequal = np.flatnonzero(~(off == 0))
    if not unequal.size:
        return _identical(comparison, paired)
    known = pairing_of(comparison)
    if known.pairing is Pairing.UNPAIRED:
        return _unpaired(comparison, paired, known.why)
    onset = int(unequal[0])
    allowed = noise(comparison, paired)
    allowed[onset] = min(allowed[onset], first_rounding(comparison, paired, onset))
    beyond = np.flatnonzero(~(off <= allowed))
    if not beyond.size:
        return Divergence(
            iteration=int(paired.iterations[onset]), kind=Kind.ROUNDING, evidence=_growth(paired, off, onset)
        )
    at = int(beyond[0])
    if not np.isfinite([paired.reference[at], paired.candidate[at]]).all():
        evidence = f"iteration {paired.iterations[at]}: {metric} {_values(paired, at)}."
        return Divergence(iteration=int(paired.iterations[at]), kind=Kind.NOT_FINITE, evidence=evidence)
    return _classify(comparison, paired, allowed, at)


def hint(verdict: Verdict) -> Divergence:
    """Return the earliest divergence beyond noise in the first judged metric and in the metrics that FAIL.

    A gradient norm may show at once what the loss shows only later, or never.

    Args:
        verdict: What was decided.

    Returns:
        The divergence; that of the first judged metric where none is beyond noise.
    """
    comparison = verdict.comparison
    failing = [finding for finding in verdict.findings if finding.outcome is Outcome.FAIL]
    metrics = dict.fromkeys((comparison.metrics[0], *(finding.metric for finding in failing)))
    found = [diagnose(comparison, metric) for metric in metrics]
    beyond = [each for each in found if each.kind not in WITHIN_NOISE]
    nearest = min(beyond, key=lambda each: each.iteration or 0, default=found[0])
    rate = next((each for each in verdict.findings if each.rule == Schedule.name and each.iteration is not None), None)
    if rate is not None and nearest.kind not in (Kind.UNPAIRED, Kind.NOT_FINITE) and _not_after(rate, nearest):
        said = rate.message.partition("; ")[0].partition(" (accept")[0]
        return Divergence(iteration=rate.iteration, kind=Kind.LATER, evidence=f"{said}.")
    means = [finding.rule for finding in failing if finding.metric == comparison.metrics[0] and finding.rule in MEANS]
    if nearest.kind is Kind.ROUNDING and means:
        evidence = f"no single iteration is beyond noise, but {', '.join(means)} FAIL: {nearest.evidence}"
        return Divergence(iteration=nearest.iteration, kind=Kind.UNKNOWN, evidence=evidence)
    return nearest


def _not_after(rate: Finding, nearest: Divergence) -> bool:
    """Tell whether the learning rate differs by the iteration at which the curves part."""
    return nearest.kind in WITHIN_NOISE or (rate.iteration or 0) <= (nearest.iteration or 0)


def _classify(comparison: Comparison, paired: PairedCurve, allowed: Floats, beyond: int) -> Divergence:
    """Say what a difference beyond noise suggests."""
    iteration = int(paired.iterations[beyond])
    start = 0 if paired.iterations[0] == 0 else 1
    what = f"iteration {iteration}: {_pair(paired, beyond)}, where noise stays below {allowed[beyond]:.2g}"
    windows = {record.curves[paired.metric].window for record in (comparison.reference, comparison.candidate)}
    if beyond == 0 and (iteration != start or windows != {1}):
        why = "these may be means over a window" if windows != {1} else f"the records begin at iteration {iteration}"
        return Divergence(iteration=iteration, kind=Kind.UNKNOWN, evidence=f"{what}; {why}, so its origin is hidden.")
    if beyond == 0:
        loss = comparison.curve("loss")
        loss_is_there = loss.iterations.size and loss.iterations[0] == iteration
        if loss_is_there and size(loss)[0] <= noise(comparison, loss)[0]:
            evidence = f"{what}, although the loss agrees there: {_pair(loss, 0)}."
            return Divergence(iteration=iteration, kind=Kind.BACKWARD, evidence=evidence)
        return Divergence(iteration=iteration, kind=Kind.FORWARD, evidence=f"{what}.")
    before = f"; iteration {paired.iterations[beyond - 1]} still agrees: {_pair(paired, beyond - 1)}."
    if iteration - start < len(AMPLIFICATION["loss"]) and windows == {1}:
        return Divergence(iteration=iteration, kind=Kind.BACKWARD, evidence=what + before)
    if _jumps(paired, beyond):
        return Divergence(iteration=iteration, kind=Kind.LATER, evidence=what + before)
    return Divergence(iteration=iteration, kind=Kind.BACKWARD, evidence=f"{what}; it grew faster than rounding does.")


def _jumps(paired: PairedCurve, at: int) -> bool:
    """Return whether a difference is more than twice GROWTH per iteration above all before it."""
    off = size(paired)
    gap = min(int(paired.iterations[at] - paired.iterations[at - 1]), 60)
    return not off[at] <= 2 * GROWTH**gap * float(np.max(off[:at]))


def _pair(paired: PairedCurve, at: int) -> str:
    """Describe the values and the relative difference at one place."""
    return f"{paired.metric} {_values(paired, at)}, relative difference {paired.relative_difference[at]:.2g}"


def _values(paired: PairedCurve, at: int) -> str:
    return f"{paired.candidate[at]:.7g} against {paired.reference[at]:.7g}"


def _identical(comparison: Comparison, paired: PairedCurve) -> Divergence:
    records = (comparison.reference, comparison.candidate)
    digits = "in every printed digit" if any(r.curves[paired.metric].quantum for r in records) else "bit for bit"
    evidence = f"{paired.metric} is equal {digits} in {counted(len(paired.iterations), 'iteration')}."
    return Divergence(iteration=None, kind=Kind.IDENTICAL, evidence=evidence)


def _unpaired(comparison: Comparison, paired: PairedCurve, why: str) -> Divergence:
    reference, candidate = comparison.reference, comparison.candidate
    iteration = int(paired.iterations[0])
    state, batches = differing_hashes(reference, candidate)
    if state:
        why = "the runs start from different weights"
    elif batches:
        iteration = batches[0]
        why = f"the runs see different batches from iteration {iteration} on"
    evidence = f"{why}; iteration {paired.iterations[0]}: {_pair(paired, 0)}."
    return Divergence(iteration=iteration, kind=Kind.UNPAIRED, evidence=evidence)


def _growth(paired: PairedCurve, off: Floats, onset: int) -> str:
    largest = int(np.argmax(off))
    first, last = paired.iterations[onset], paired.iterations[largest]
    return (
        f"the first unequal value is at iteration {first}: {_pair(paired, onset)}; at most {off[largest]:.2g} "
        f"at iteration {last}, which is what rounding grows to."
    )
