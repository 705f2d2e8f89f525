"""The rule about completeness: both records hold the same iterations."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from emacheck.counted import counted
from emacheck.curve import Curve, Integers
from emacheck.judge.advice import option
from emacheck.judge.comparison import EMPTY, Comparison, PairedCurve
from emacheck.judge.forensics.numbering import one_counts_from_zero
from emacheck.judge.verdict import Finding, Outcome
from emacheck.oddity import OddityKind
from emacheck.record import Record

# Fewest records that show at which interval a log was written.
SHOW_INTERVAL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Both records hold the same iterations: missing / (iterations of either) must be <= limit.

    Iterations that the candidate lacks are FAIL (a run that died early); iterations that only the reference lacks, no
    common iteration at all, or fewer than ``minimum`` common ones are INCONCLUSIVE. So are iterations at which a record
    is there, but the metric is not in it or cannot be read, and records of which one counts from 0 and the other one
    from 1. Where the records log at unlike intervals, a record
    lacks only what it would have logged, and the finding says that the rest was not compared.

    Attributes:
        limit: Allowed share of iterations that are not in both records.
        minimum: Fewest common iterations on which anything may be decided.
    """

    limit: float = 0.0
    minimum: int = 10
    name: ClassVar[str] = "coverage"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Count the iterations that are not in both records, for each judged metric."""
        return tuple(self._check(metric, comparison) for metric in comparison.metrics)

    def _check(self, metric: str, comparison: Comparison) -> Finding:
        paired = comparison.curve(metric)
        records = (comparison.reference, comparison.candidate)
        unread = (
            unreadable(comparison.reference, metric, paired.only_candidate),
            unreadable(comparison.candidate, metric, paired.only_reference),
        )
        reference, candidate = (side.curves.get(metric, EMPTY) for side in records)
        lacks, extra, limits = without_interval(paired, reference, candidate, unread)
        common = len(paired.iterations)
        share = (len(lacks) + len(extra)) / max(common + len(lacks) + len(extra), 1)
        observed, limit, unit = share, self.limit, "share of iterations missing"
        would_pass_at: float | None = share if common else None
        iteration = min((int(each[0]) for each in (lacks, extra) if len(each)), default=None)
        if metric not in comparison.candidate.curves:
            names = ", ".join(sorted(comparison.candidate.curves)) or "nothing"
            outcome, message = Outcome.FAIL, f"the candidate has no metric {metric!r}; it has {names}"
        elif not share <= self.limit and (otherwise := one_counts_from_zero(reference, candidate)):
            outcome, would_pass_at, message = Outcome.INCONCLUSIVE, None, otherwise
        elif common == 0:
            outcome = Outcome.INCONCLUSIVE
            theirs, ours = _span(paired.only_reference), _span(paired.only_candidate)
            message = f"no iteration is in both: the reference has {theirs}, the candidate has {ours}"
        elif not share <= self.limit:
            gone, absent = np.setdiff1d(lacks, unread[1]), np.setdiff1d(extra, unread[0])
            outcome = Outcome.FAIL if len(gone) else Outcome.INCONCLUSIVE
            iteration = int(gone[0]) if len(gone) else iteration
            sides = (("candidate", gone), ("reference", absent))
            parts = [f"the {side} lacks {_span(missing)}" for side, missing in sides if len(missing)]
            parts += _unread(metric, zip(("reference", "candidate"), records, unread, strict=True))
            accepted = option(self.name, share)
            if common < self.minimum:  # no limit alone lets it pass
                accepted, would_pass_at = f"{accepted} --limit {self.name}.minimum={common}", None
            message = f"{counted(common, 'iteration')} in both; {' and '.join(parts)} (accept with {accepted})"
        elif common < self.minimum:
            outcome = Outcome.INCONCLUSIVE
            observed, limit, unit, would_pass_at = common, self.minimum, "common iterations needed", float(common)
            message = (
                f"{counted(common, 'iteration')} in common is too little to decide on, {self.minimum} are needed "
                f"(lower this with --limit coverage.minimum={common})"
            )
        else:
            outcome, message = Outcome.PASS, "; ".join((f"{counted(common, 'iteration')} in both", *limits))
        return Finding(
            rule=self.name,
            outcome=outcome,
            observed=float(observed),
            limit=float(limit),
            unit=unit,
            iteration=iteration,
            message=message,
            would_pass_at=would_pass_at,
            metric=metric,
            limited_by=limits if common else (),
            too_few=common < self.minimum,
        )


def _unread(metric: str, sides: Iterable[tuple[str, Record, Integers]]) -> list[str]:
    """Say at which iterations a record is there and the metric is not in it, or cannot be read."""
    return [
        f"the {side} has records without a {metric} that can be read at {_span(there)}{_instead(record, metric)}"
        for side, record, there in sides
        if len(there)
    ]


def _span(iterations: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> str:
    """Describe some iterations in a few words."""
    if not len(iterations):
        return "none"
    first, last = int(iterations[0]), int(iterations[-1])
    if len(iterations) == 1:
        return f"iteration {first}"
    if last - first + 1 == len(iterations):
        return f"iterations {first} to {last}"
    return f"{len(iterations)} iterations between {first} and {last}"


def unreadable(record: Record, metric: str, missing: Integers) -> Integers:
    """Return at which iterations that lack a metric there is a record all the same, in which it should be.

    Such a record is blank, or holds a metric that accompanies this one in most of its records. Validations and means of
    an epoch are records of their own.

    Args:
        record: The record.
        metric: The metric.
        missing: The iterations that lack it.

    Example:
        >>> def curve(name, *iterations):
        ...     return Curve(name=name, iterations=iterations, values=iterations)
        >>> curves = {"loss": curve("loss", 1, 3, 5), "lr": curve("lr", 1, 2, 3, 5), "iou": curve("iou", 4)}
        >>> unreadable(Record(name="", format="", curves=curves), "loss", np.array([2, 4, 6]))
        array([2])
    """
    its = record.curves.get(metric, EMPTY).iterations
    there = np.isin(missing, record.blank)
    others = [curve for name, curve in record.curves.items() if name != metric] + [*record.validation.values()]
    for curve in others if len(missing) else ():
        if 2 * np.count_nonzero(np.isin(its, curve.iterations)) > len(its):
            there |= np.isin(missing, curve.iterations)
    return missing[there]


def _instead(record: Record, metric: str) -> str:
    """Return what the log says of values that are no number, in parentheses."""
    known = (str(each) for each in record.oddities if each.kind is OddityKind.UNREADABLE)
    said = next((text for text in known if text.startswith(f"values of {metric} ")), "")
    return f" ({said})" if said else ""


def without_interval(
    paired: PairedCurve,
    reference: Curve,
    candidate: Curve,
    unread: tuple[Integers, Integers] = (EMPTY.iterations, EMPTY.iterations),
) -> tuple[Integers, Integers, tuple[str, ...]]:
    """Return what each record lacks beyond what its logging interval explains.

    Args:
        paired: One metric of both records.
        reference: Its curve in the reference.
        candidate: Its curve in the candidate.
        unread: Where the reference and the candidate have a record in which it cannot be read: no interval explains it.

    Returns:
        The iterations that the candidate lacks, those that the reference lacks, and what was not compared, in words.

    Example:
        >>> from emacheck.judge.comparison import pair
        >>> fine, coarse = (Curve(name="loss", iterations=range(k, 101, k), values=range(k, 101, k)) for k in (10, 20))
        >>> without_interval(pair("loss", fine, coarse), fine, coarse)[2]
        ('the candidate logs every 20 iterations, the reference every 10 iterations: only common ones were compared',)
    """
    lacks, extra = paired.only_reference, paired.only_candidate
    intervals = [
        _interval(np.union1d(curve.iterations, known))
        for curve, known in zip((reference, candidate), unread, strict=True)
    ]
    if 0 in intervals or intervals[0] == intervals[1]:
        return lacks, extra, ()
    coarse, other = ("reference", "candidate") if intervals[0] > intervals[1] else ("candidate", "reference")
    interval = max(intervals)
    lacks = _on_grid(lacks, candidate, intervals[1], unread[1])
    extra = _on_grid(extra, reference, intervals[0], unread[0])
    finer = "iteration" if min(intervals) == 1 else f"{min(intervals)} iterations"
    said = f"the {coarse} logs every {interval} iterations, the {other} every {finer}: only common ones were compared"
    return lacks, extra, (said,)


def _on_grid(missing: Integers, curve: Curve, interval: int, known: Integers) -> Integers:
    """Return which of the iterations that a curve lacks it would have recorded, or has a record of all the same."""
    places, counts = np.unique(curve.iterations % interval, return_counts=True)
    due: Integers = missing[(missing % interval == places[np.argmax(counts)]) | np.isin(missing, known)]
    return due


def _interval(iterations: Integers) -> int:
    """Return the usual distance between records, 0 where there are too few or more than half are at another."""
    if len(iterations) < SHOW_INTERVAL:
        return 0
    distances, counts = np.unique(np.diff(iterations), return_counts=True)
    most = int(np.argmax(counts))
    return int(distances[most]) if 2 * counts[most] > len(iterations) - 1 else 0
