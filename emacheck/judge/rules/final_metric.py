"""Does the candidate end at the same validation metrics, such as mIoU?"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from emacheck.counted import counted
from emacheck.curve import Curve
from emacheck.judge.advice import option
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.forensics.broken import of_no_class
from emacheck.judge.forensics.metric_names import class_score, is_score
from emacheck.judge.noise.repeats import distinct_repeats, on_candidates_device
from emacheck.judge.verdict import Finding, Outcome

# A fraction of 1 may be printed, and summed, a little too high.
LARGEST_FRACTION = 1.001


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalMetric:
    """|candidate - reference| of the last validation of each score must be <= limit.

    Scores are what validation records call IoU, accuracy, dice, F1, F-score, precision, recall, AUC, top-k or AP. Both
    records must have validated last at the same iteration: a score after other training is another score. Too high
    counts like too low. Printed decimals leave the difference uncertain by half a quantum of each record; where that
    uncertainty reaches across the limit the outcome is INCONCLUSIVE.

    A score that still moves by more than the limit from one validation to the next, in either record, has not settled,
    and one validation cannot show that it has. There the seed alone moves a score far, so that a difference over the
    limit is INCONCLUSIVE, and FAIL only beyond ``unsettled`` times the limit.

    Where ``minimum`` distinct repeats or more were validated last at the same iteration, the largest difference between
    any two of the reference and them is what a good run may differ: it counts as the limit where it is larger, but not
    beyond ``unsettled`` times the limit.

    A score is in percent where any value of it in either record is over 1, or, if it is that of a single class, where
    one of its kind is, else it is a fraction. Where that can be read otherwise, only what holds for both readings is
    decided: a record of which no score is over 1 may hold fractions where the other one holds percentages, and a score
    that is never over 1 may be a very low percentage where other scores are percentages.

    Attributes:
        limit: Largest allowed difference of scores in percent, in percentage points.
        fraction_limit: Largest allowed difference of scores that are fractions.
        unsettled: How many times the limit a score that has not settled may differ before that is FAIL.
        minimum: Fewest distinct repeats that show how far good runs differ, at least 2.

    Example:
        >>> from emacheck import Record, compare
        >>> def record(score):
        ...     loss = Curve(name="loss", iterations=[1, 2], values=[4.0, 3.0])
        ...     miou = Curve(name="mIoU", iterations=[1000, 2000], values=[69.5, score], quantum=0.01)
        ...     return Record(name="cpu", format="example", curves={"loss": loss}, validation={"mIoU": miou})
        >>> finding = FinalMetric().check(compare(record(70.02), record(68.5)))[0]
        >>> print(finding.outcome, round(finding.observed, 4), finding.limit, finding.iteration)
        FAIL -1.52 1.0 2000
    """

    limit: float = 1.0
    fraction_limit: float = 0.01
    unsettled: float = 10.0
    minimum: int = 2
    name: ClassVar[str] = "final_metric"
    unit: ClassVar[str] = "percentage points, signed"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Compare the last validation of every score that either record holds, but of classes that the data lack."""
        reference, candidate = (
            {
                name: curve
                for name, curve in record.validation.items()
                if len(curve) and is_score(name) and not of_no_class(comparison, name)
            }
            for record in (comparison.reference, comparison.candidate)
        )
        names = list(dict.fromkeys([*reference, *candidate]))
        if not names:
            return (self._undecided(comparison.metrics[0], "no validation records of a score in either of the two"),)
        findings = []
        for name in names:
            if name in reference and name in candidate:
                benign = self._benign(comparison, name)
                readings = [replace(each, benign=benign) for each in self._readings(name, reference, candidate)]
                findings.append(self._check(name, reference[name], candidate[name], readings))
            else:
                holder, lacking = ("reference", "candidate") if name in reference else ("candidate", "reference")
                message = f"only the {holder} has validation records of {name}, the {lacking} has none"
                findings.append(self._undecided(name, message))
        return tuple(findings)

    def _benign(self, comparison: Comparison, name: str) -> tuple[float, ...]:
        """Return the last scores of the repeats that were validated last when the reference was; none if too few."""
        at = comparison.reference.validation[name].iterations[-1]
        repeats = distinct_repeats(comparison, comparison.metrics[0])
        curves = (r.validation.get(name, EMPTY) for r in repeats if not on_candidates_device(comparison, r))
        last = tuple(float(c.values[-1]) for c in curves if len(c) and c.iterations[-1] == at)
        return last if len(last) >= max(self.minimum, 2) and all(map(math.isfinite, last)) else ()

    def _readings(self, name: str, reference: Mapping[str, Curve], candidate: Mapping[str, Curve]) -> list["_Reading"]:
        """Return how a score can be read, the likely way first."""
        small = [_all_fractions(scores) for scores in (reference, candidate)]
        if any(_in_percent(name, scores) for scores in (reference, candidate)):
            percent = _Reading(limit=self.limit)
            worth = (100 if small[0] else 1, 100 if small[1] else 1)
            mixed = replace(percent, worth=worth, why="one of them may be a fraction where the other is a percentage")
            return [percent, mixed]
        fraction = _Reading(limit=self.fraction_limit, percent=False)
        as_others = _Reading(limit=self.limit, why="it may be a very low percentage, for other scores are percentages")
        return [fraction, fraction if all(small) else as_others]

    def _check(self, name: str, reference: Curve, candidate: Curve, readings: list["_Reading"]) -> Finding:
        iteration, other = int(reference.iterations[-1]), int(candidate.iterations[-1])
        if iteration != other:
            return self._undecided(
                name,
                f"the reference was validated last at iteration {iteration}, the candidate at iteration {other}: "
                "scores after different training cannot be compared",
            )
        r, c = float(reference.values[-1]), float(candidate.values[-1])
        if not math.isfinite(c):
            return self._undecided(name, f"the last {name} of the candidate is {c}", Outcome.FAIL)
        if not math.isfinite(r):
            return self._undecided(name, f"the last {name} of the reference is {r}")
        likely, other_reading = readings[0], readings[-1]
        outcome = likely.outcome(reference, candidate, self.unsettled)
        message = f"the last {name}, at iteration {iteration}, is {c:.6g} against {r:.6g}"
        needed = abs(c - r) + likely.rounding(reference, candidate)
        accept = f"accept with {option(f'{self.name}.fraction_limit', needed)}"
        if outcome is not other_reading.outcome(reference, candidate, self.unsettled):
            fix = "write both logs alike" if likely.percent else f"if it is a fraction, {accept}"
            return self._undecided(name, f"{message}, and {other_reading.why}: {fix}")
        message += likely.remarks(reference, candidate, outcome, self.unsettled)
        if outcome is Outcome.INCONCLUSIVE and not likely.benign:
            message += "; validated repeats of the reference would show how far good runs differ"
        if outcome is not Outcome.PASS and not likely.percent:
            message += f" (a fraction; {accept})"
        # A PASS that a narrower limit would not give is to be known.
        wide = outcome is Outcome.PASS and needed > likely.limit
        return Finding(
            rule=self.name,
            outcome=outcome,
            observed=c - r,
            limit=likely.allowed(reference, self.unsettled),
            unit=self.unit if likely.percent else "of 1, signed",
            iteration=iteration,
            message=message,
            would_pass_at=needed,
            metric=name,
            limited_by=(f"{name} passes as far off as repeats of the reference are from each other",) if wide else (),
        )

    def _undecided(self, metric: str, message: str, outcome: Outcome = Outcome.INCONCLUSIVE) -> Finding:
        return Finding.of(self, metric, outcome, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """How the numbers of a score can be read.

    Attributes:
        limit: Largest allowed difference.
        percent: Whether they are percentages, else fractions.
        worth: What one of reference and candidate each is multiplied by.
        why: Why they may be read so.
        benign: The last scores of enough repeats of the reference; none otherwise.
    """

    limit: float
    percent: bool = True
    worth: tuple[int, int] = (1, 1)
    why: str = ""
    benign: tuple[float, ...] = ()

    def spread(self, reference: Curve) -> float:
        """Return the largest difference between any two of the reference and its repeats."""
        scores = (float(reference.values[-1]), *self.benign)
        return (max(scores) - min(scores)) * self.worth[0]

    def allowed(self, reference: Curve, unsettled: float) -> float:
        """Return the limit, or how far good runs differ where that is more."""
        return max(self.limit, min(self.spread(reference), self.limit * max(unsettled, 1.0)))

    def rounding(self, reference: Curve, candidate: Curve) -> float:
        """Return how far printed decimals leave the difference uncertain."""
        return (reference.quantum * self.worth[0] + candidate.quantum * self.worth[1]) / 2

    def moved(self, reference: Curve, candidate: Curve) -> float:
        """Return how far the score moved at most between its last two validations; infinite where there are not two."""
        moves = [
            abs(float(curve.values[-1]) - float(curve.values[-2])) * worth if len(curve) > 1 else math.inf
            for curve, worth in zip((reference, candidate), self.worth, strict=True)
        ]
        return math.inf if any(map(math.isnan, moves)) else max(moves)

    def outcome(self, reference: Curve, candidate: Curve, unsettled: float) -> Outcome:
        """Say what the difference is, of which printed decimals leave a part uncertain."""
        difference = abs(float(candidate.values[-1]) * self.worth[1] - float(reference.values[-1]) * self.worth[0])
        rounding = self.rounding(reference, candidate)
        allowed = self.allowed(reference, unsettled)
        if difference + rounding <= allowed:
            return Outcome.PASS
        settled = self.moved(reference, candidate) <= self.limit
        failing = allowed if settled else self.limit * max(unsettled, 1.0)
        return Outcome.FAIL if difference - rounding > failing else Outcome.INCONCLUSIVE

    def remarks(self, reference: Curve, candidate: Curve, outcome: Outcome, unsettled: float) -> str:
        """Return what explains an outcome."""
        rounding, moved = self.rounding(reference, candidate), self.moved(reference, candidate)
        found = ""
        if self.allowed(reference, unsettled) > self.limit:
            count = counted(len(self.benign), "repeat")
            found = f"; the reference and {count} of it differ by up to {self.spread(reference):.3g} among themselves"
        found += f"; printed decimals leave it uncertain by {rounding:.2g}" if rounding else ""
        if outcome is Outcome.INCONCLUSIVE and moved > self.limit:
            found += (
                f"; it has not settled: it moved by {moved:.3g} from the validation before"
                if math.isfinite(moved)
                else "; one validation alone does not show whether it has settled"
            )
        return found


def _in_percent(name: str, scores: Mapping[str, Curve]) -> bool:
    """Tell whether a record holds a score in percent; small scores of single classes are told by their kind."""
    kind = class_score(name)
    alike: Iterable[str] = (name,) if kind is None else (each for each in scores if kind in each.lower())
    return any(bool(np.any(np.abs(scores[each].values) > LARGEST_FRACTION)) for each in alike)


def _all_fractions(scores: Mapping[str, Curve]) -> bool:
    """Tell whether all scores of a record may be fractions."""
    return not any(bool(np.any(np.abs(curve.values) > 1)) for curve in scores.values())
