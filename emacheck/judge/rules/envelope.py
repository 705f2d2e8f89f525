"""The envelope: how far further runs of the reference stray from it, and whether the candidate strays farther."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from emacheck.counted import counted
from emacheck.errors import UsageError
from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import EMPTY, Comparison, differing_hashes
from emacheck.judge.forensics.broken import told_of_steps_left_out, without_steps_left_out
from emacheck.judge.forensics.headers import asked_otherwise, different_data
from emacheck.judge.forensics.pairing import Pairing, drawn_on_device, paired_by_curves, pairing_of
from emacheck.judge.forensics.standstill import standstill
from emacheck.judge.noise.band import Band, fit_band
from emacheck.judge.noise.growth import MARGIN
from emacheck.judge.noise.repeats import distinct_repeats, on_candidates_device, two_groups
from emacheck.judge.noise.rounding import SATURATION, known_precision, rounding, unsaid_precision
from emacheck.judge.rules.means import MeanRelativeError
from emacheck.judge.verdict import Finding, Outcome
from emacheck.record import Record

GROUPS = 4.0
"""How many times farther from each other than within themselves two groups of runs are that are not of one kind."""
NAMED = 3
"""So many repeats are named at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """max over iterations of |candidate - reference| / scale(iteration) must be <= what the repeats allow.

    The repeats are further runs of the reference that differ from it in benign ways only. Their differences from the
    reference give the scale, which grows with the iteration as the differences do, so that the first iterations count
    with the weight that they have: there the scale is smallest.

    Repeats that are no benign variations would excuse anything: one that stands still, is not paired with the
    reference, was asked for something else, such as another precision, or was trained on the candidate's device makes
    the finding INCONCLUSIVE, and so do runs that fall into two groups, and a scale that in the first iterations is
    beyond rounding and SATURATION.

    Attributes:
        alpha: Probability of FAIL for a benign candidate, over all metrics together (each gets its share).
        limit: Largest allowed ratio to the scale; 0 derives it from the repeats and ``alpha``.
        minimum: Fewest distinct repeats, at least 2.
        also: Metrics that are judged beside those of the comparison where all records have them; but not at iterations
            at which a scaler of fp16 left a step out, which `finite` looks at.

    Raises:
        UsageError: If ``alpha`` is not between 0 and 0.5, or ``minimum`` is below 2.

    Source: this project; see :func:`emacheck.judge.noise.band.excess_limit` and
    :func:`emacheck.judge.noise.band.benign_scale` for the methods it joins.

    Example:
        >>> Envelope().check(Comparison(reference=Record(name="", format="", curves={}), candidate=Record(
        ...     name="", format="", curves={})))[0].message
        'there are 0 repeats of the reference that vary loss, and it needs 2'
    """

    alpha: float = 0.01
    limit: float = 0.0
    minimum: int = 2
    also: tuple[str, ...] = ("grad_norm",)
    name: ClassVar[str] = "envelope"
    unit: ClassVar[str] = "times the repeats' difference"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"rule 'envelope': alpha must be between 0 and 0.5, found {self.alpha!r}.")
        if self.minimum < 2:
            raise UsageError(f"rule 'envelope': minimum must be at least 2, found {self.minimum!r}.")

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Hold each metric's differences against the scale of the repeats."""
        records = (comparison.reference, comparison.candidate, *comparison.repeats)
        also = [metric for metric in self.also if all(metric in record.curves for record in records)]
        also = [metric for metric in also if metric not in comparison.metrics]
        metrics = (*comparison.metrics, *also)
        share = self.alpha / len(metrics)
        return (
            *(self._check(comparison, metric, share) for metric in comparison.metrics),
            *(self._without_steps_left_out(comparison, metric, share) for metric in also),
        )

    def _without_steps_left_out(self, comparison: Comparison, metric: str, false_alarms: float) -> Finding:
        """Judge a metric that nobody asked for where no scaler of fp16 left the step out, and say where one did."""
        rest = without_steps_left_out(comparison, metric)
        return told_of_steps_left_out(self._check(rest, metric, false_alarms), comparison, rest)

    def _check(self, comparison: Comparison, metric: str, false_alarms: float) -> Finding:
        repeats = distinct_repeats(comparison, metric)
        obstacle = self._obstacle(comparison, metric, repeats) or _not_benign(comparison, metric, repeats)
        if not obstacle and drawn_on_device(comparison) and pairing_of(comparison).pairing is not Pairing.PAIRED:
            obstacle = "a run drew random numbers on its device, and each device draws others"
        if not obstacle and len(repeats) < self.minimum:
            message = f"{metric} is equal in both and in the repeats: nothing varies it"
            return Finding.of(replace(self, limit=1.0), metric, Outcome.PASS, message, observed=0.0)
        band = None if obstacle else fit_band(comparison, metric, false_alarms)
        if band is None:
            return Finding.of(self, metric, Outcome.INCONCLUSIVE, obstacle or "no iteration is in all records")
        if not (np.all(np.isfinite(band.reference)) and math.isfinite(band.limit)):
            broken = "reference or a repeat has values that are NaN or infinite"
            return Finding.of(self, metric, Outcome.INCONCLUSIVE, f"the {broken}")
        if unlike := _too_wide(comparison, metric, band) or _in_two_groups(comparison, metric, repeats):
            return Finding.of(self, metric, Outcome.INCONCLUSIVE, unlike)
        if self.limit > 0:
            band = replace(band, limit=self.limit)
        # argmax returns the first NaN if there is one, which is the worst iteration indeed.
        ratio = band.ratio
        worst = int(np.argmax(ratio))
        observed = float(ratio[worst])
        outcome = Outcome.PASS if observed <= band.limit else Outcome.FAIL
        message, iteration = _describe(metric, band, worst, len(repeats)), int(band.iterations[worst])
        held = replace(self, limit=band.limit)
        return Finding.of(held, metric, outcome, message, observed=observed, iteration=iteration)

    def _obstacle(self, comparison: Comparison, metric: str, repeats: tuple[Record, ...]) -> str | None:
        """Say why nothing can be decided, if so."""
        reference, candidate = comparison.reference, comparison.candidate
        if len(repeats) < self.minimum and not self._nothing_varies(comparison, metric, repeats):
            same = sum(_same(repeat, candidate, metric) for repeat in comparison.repeats)
            but = f"; {same} of the candidate's own numbers {'does' if same == 1 else 'do'} not count" if same else ""
            one = len(repeats) == 1
            found = (
                f"there {'is' if one else 'are'} {counted(len(repeats), 'repeat')} of the reference that "
                f"{'varies' if one else 'vary'} {metric}"
            )
            if any(_same(repeat, reference, metric) for repeat in comparison.repeats):
                but += "; one that equals the reference shows nothing: give runs with other threads, or none"
            return f"{found}, and it needs {self.minimum}{but}"
        windows = {r.curves[metric].window for r in (reference, candidate, *repeats) if metric in r.curves}
        if len(windows) > 1:
            return f"the records average over windows of {', '.join(map(str, sorted(windows)))} iterations"
        both = comparison.curve(metric).iterations
        for repeat in repeats:
            if lacking := np.setdiff1d(both, repeat.curves[metric].iterations).size:
                return f"the repeat {repeat.name} lacks {lacking} of the {both.size} iterations that both records have"
        for record in (candidate, *repeats):
            if differing_hashes(reference, record)[1]:
                return f"{record.name} saw other batches than the reference"
        states = {repeat.initial_state for repeat in repeats}
        if comparison.paired is False and states <= {reference.initial_state, None}:
            return "the candidate starts from different weights than the reference and its repeats"
        return None

    def _nothing_varies(self, comparison: Comparison, metric: str, distinct: tuple[Record, ...]) -> bool:
        """Tell whether the candidate equals the reference, as do so many repeats that too few differ."""
        reference, candidate = comparison.reference, comparison.candidate
        equal = sum(_same(repeat, reference, metric) for repeat in comparison.repeats)
        finite = np.all(np.isfinite(reference.curves.get(metric, EMPTY).values))
        return bool(finite and _same(candidate, reference, metric) and equal + len(distinct) >= self.minimum)


def _same(repeat: Record, candidate: Record, metric: str) -> bool:
    ours, theirs = (record.curves.get(metric, EMPTY) for record in (repeat, candidate))
    return bool(len(ours)) and all(
        np.array_equal(getattr(ours, part), getattr(theirs, part)) for part in ("iterations", "values")
    )


def _not_benign(comparison: Comparison, metric: str, repeats: tuple[Record, ...]) -> str | None:
    """Say which repeat is no benign variation of the reference, if one is not."""
    reference = comparison.reference
    stretches = "loss" in metric.lower()
    moves = standstill(reference.curves.get(metric, EMPTY), stretches=stretches) is None
    for repeat in repeats:
        still = standstill(repeat.curves[metric], stretches=stretches) if moves else None
        if still is not None:
            return f"{metric} of the repeat {repeat.name} {still}, while the reference's moves: it is no repeat of it"
        if on_candidates_device(comparison, repeat):
            return f"the repeat {repeat.name} was trained on the device of the candidate, not on that of the reference"
        if different := different_data(reference, repeat):
            return f"the repeat {repeat.name} is not paired with the reference: {', '.join(different)}"
        # Its weights may have other last bits, so that only the batches tell whether the data is the same.
        if asked := asked_otherwise(reference, repeat, paired=bool(reference.batches and repeat.batches)):
            return f"the repeat {repeat.name} was asked for something else: {'; '.join(asked[:NAMED])}"
        if _apart(Comparison(reference=reference, candidate=repeat, metrics=(metric,))):
            return (
                f"the repeat {repeat.name} is not paired with the reference: {metric} differs from the first iteration "
                "on, and the two do not fluctuate together"
            )
    return None


def _in_two_groups(comparison: Comparison, metric: str, repeats: tuple[Record, ...]) -> str | None:
    """Say that some of reference and repeats are far from the others, while those of each group are close, if so.

    Runs that share a fault, such as those of the candidate's device, are such a group. Of repeats that are within the
    limits of the means nothing is excused, so their groups do not matter.
    """
    curves = [record.curves[metric] for record in (comparison.reference, *repeats)]
    common = comparison.curve(metric).iterations
    values = np.array([curve.values[np.isin(curve.iterations, common)] for curve in curves])
    if len(values) < 3 or not common.size or not np.all(np.isfinite(values)):
        return None
    between, within, others = two_groups(values)
    level = average(np.abs(values[0]))
    if not (between > MeanRelativeError().limit * level and between > GROUPS * within):
        return None
    named = ", ".join(repeats[run - 1].name for run in others[:NAMED]) + ", ..." * (len(others) > NAMED)
    return (
        f"{metric} of reference and repeats falls into two groups, on average {between:.2g} from each other and up to "
        f"{within:.2g} within, so not all of them are benign variations of one run: on the other side than the "
        f"reference {'are' if len(others) > 1 else 'is'} {named}"
    )


def _apart(comparison: Comparison) -> bool:
    """Tell whether a repeat is farther from the reference at iteration 1 than rounding gets in three, and unpaired."""
    (metric,) = comparison.metrics
    paired = comparison.curve(metric)
    most = MARGIN * float(rounding(metric, np.array([1, 2, 3]), known_precision(comparison)).max())
    far = bool(paired.iterations.size) and not abs(paired.relative_difference[0]) <= most
    return far and paired_by_curves(comparison) is False


def _too_wide(comparison: Comparison, metric: str, band: Band) -> str | None:
    """Say where the repeats differ in the first iterations by more than benign variations do, if so."""
    precision = known_precision(replace(comparison, candidate=comparison.reference))
    # Beyond the third iteration nothing is known; no comparison with NaN is true.
    allowed = np.maximum(rounding(metric, band.iterations, precision), SATURATION) * np.abs(band.reference)
    # A scale that never falls is pulled down by all that is closer later, as where the loss falls.
    differing = np.maximum(band.apart, band.scale)
    beyond = np.flatnonzero(differing > allowed)
    if not beyond.size:
        return None
    at = beyond[0]
    hint = ", or say --precision if all computed in another" if unsaid_precision(comparison) else ""
    return (
        f"the repeats differ from the reference by {differing[at]:.2g} in {metric} at iteration "
        f"{band.iterations[at]}, benign variations stay below {allowed[at]:.2g} there: "
        f"give repeats that differ in benign ways only{hint}"
    )


def _describe(metric: str, band: Band, worst: int, repeats: int) -> str:
    difference, scale = band.difference[worst], float(band.scale[worst])
    where = f"iteration {band.iterations[worst]}"
    values = f"({band.candidate[worst]:.7g} against {band.reference[worst]:.7g})"
    if not math.isfinite(difference):
        return f"{where}: {metric} is not a finite number {values}"
    beyond = np.flatnonzero(~(band.ratio <= band.limit))
    first = f"; beyond that from iteration {band.iterations[beyond[0]]} on" if beyond.size and beyond[0] < worst else ""
    return (
        f"{where}: difference {difference:.2g} in {metric} {values}, benign variations stay below "
        f"{scale * band.limit:.2g} there (typically {scale:.2g}, {counted(repeats, 'repeat')}){first}"
    )
