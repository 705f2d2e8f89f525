"""From the records of a log, in its order, to curves: which run, which rank, and which of two equal iterations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from emacheck.curve import Curve, Floats, Integers
from emacheck.logs.columns import Columns, Metric
from emacheck.logs.naming import is_loss

Array = TypeVar("Array", bound=npt.NDArray[Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The records of one rank that count, sorted by iteration.

    Attributes:
        rows: Their numbers.
        iterations: Their iterations, strictly increasing.
    """

    rows: Integers
    iterations: Integers

    def increasing(self) -> bool:
        """Tell whether the records stand in the order of the log."""
        return bool(np.all(self.rows[1:] > self.rows[:-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How the iterations of one rank go through the log.

    Attributes:
        start: Position of the first record of the last run.
        runs: How many runs there are; each but the first starts again at the beginning.
        longest: Records of the longest run before the last one, 0 if there is none.
        backs: Positions in the last run at which the iteration goes back, as after a resume.
    """

    start: int
    runs: int
    longest: int
    backs: tuple[int, ...]


def course(iterations: Integers) -> Course:
    """Tell a second run in the same log from a run that was resumed.

    An iteration that goes back to the first one of the run, or before it, begins another run; one that goes back less
    is a resume.

    Example:
        >>> course(np.array([1, 2, 3, 2, 3, 4])).backs, course(np.array([1, 2, 3, 1, 2])).start
        ((3,), 3)
    """
    start, runs, longest, backs = 0, 1, 0, list[int]()
    for at in (np.flatnonzero(iterations[1:] < iterations[:-1]) + 1).tolist():
        if iterations[at] <= iterations[start] and at - start > 1:
            start, runs, longest, backs = at, runs + 1, max(longest, at - start), []
        else:
            backs.append(at)
    return Course(start=start, runs=runs, longest=longest, backs=tuple(backs))


def without_blanks(blank: npt.NDArray[np.bool_], iterations: Integers) -> npt.NDArray[np.bool_]:
    """Tell which records stay when those without a metric give way to others of the same iteration.

    Args:
        blank: Which records have no metric.
        iterations: The iteration of each.
    """
    return ~blank | ~np.isin(iterations, iterations[~blank])


def later_records(rows: Integers, iterations: Integers) -> tuple[Chosen, Integers]:
    """Keep of each iteration the later record.

    Args:
        rows: Numbers of the records, in the order of the log.
        iterations: The iteration of each.

    Returns:
        What is kept, and the iterations of which a record was given up.
    """
    if np.all(iterations[1:] > iterations[:-1]):
        return Chosen(rows=rows, iterations=_shared(iterations)), np.zeros(0, np.int64)
    order = np.argsort(iterations, kind="stable")
    ordered = iterations[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return Chosen(rows=rows[order[last]], iterations=_shared(ordered[last])), np.unique(ordered[~last])


def repeats_that_differ(columns: Columns, rows: Integers, iterations: Integers) -> tuple[Integers, Integers]:
    """Find what is not the same in the records of one iteration.

    Args:
        columns: The records with their values.
        rows: Numbers of the records, in the order of the log.
        iterations: The iteration of each.

    Returns:
        The iterations that are recorded more than once with other values, of any metric, and those with several losses.
    """
    order = np.argsort(iterations, kind="stable")
    ordered = iterations[order]
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    earlier, later = rows[order[again]], rows[order[again + 1]]
    differ, losses = np.zeros(len(again), np.bool_), np.zeros(len(again), np.bool_)
    for name, metric in columns.metrics.items():
        (has, before), (has_later, after) = (_picked(metric, len(columns), each) for each in (earlier, later))
        equal = (before == after) | (np.isnan(before) & np.isnan(after))
        differ |= (has != has_later) | (has & ~equal)
        if is_loss(name):
            losses |= has & has_later & ~equal
    return np.unique(ordered[again[differ]]), np.unique(ordered[again[losses]])


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFinite:
    """Values of a loss that are NaN or infinite, in records that later ones replaced.

    Attributes:
        metric: The loss.
        rows: Numbers of these records, in the order of the log.
    """

    metric: str
    rows: Integers


def not_finite(columns: Columns, rows: Integers, kept: Integers) -> list[NotFinite]:
    """Find the losses that are NaN or infinite in records that do not count.

    Args:
        columns: The records with their values.
        rows: Numbers of all records of one rank.
        kept: Numbers of those that count.
    """
    if len(kept) == len(rows):
        return []
    given_up, found = np.setdiff1d(rows, kept, assume_unique=True), []
    for name, metric in columns.metrics.items():
        if not is_loss(name):
            continue
        has, values = _picked(metric, len(columns), given_up)
        wrong = given_up[has & ~np.isfinite(values)]
        if len(wrong):
            found.append(NotFinite(metric=name, rows=wrong))
    return found


def curves_of(columns: Columns, chosen: Sequence[Chosen]) -> Iterator[tuple[Curve, dict[int, Curve]]]:
    """Build one curve per metric: of the only rank, or the mean of several at the iterations that all of them have.

    Args:
        columns: The records; the values of a metric are given up as soon as its curve is built.
        chosen: The records that count, of each rank.

    Returns:
        Of each metric the curve, which may be empty, and those of the ranks that have it, by position in ``chosen``.
    """
    count = len(columns)
    ordered = [each.increasing() for each in chosen]
    for name in list(columns.metrics):
        metric = columns.metrics.pop(name)
        parts = {}
        for at, (each, increasing) in enumerate(zip(chosen, ordered, strict=True)):
            iterations, values = _values(metric, count, each, increasing)
            if len(iterations):
                parts[at] = Curve(name=name, iterations=iterations, values=_shared(values))
        if parts:
            yield mean_of([*parts.values()]), parts


def mean_of(parts: Sequence[Curve]) -> Curve:
    """Return the mean of the curves of several ranks, at the iterations that all of them have."""
    if len(parts) == 1:
        return parts[0]
    iterations, values = _mean([(part.iterations, part.values) for part in parts])
    quantum = max(part.quantum for part in parts)
    return Curve(name=parts[0].name, iterations=iterations, values=values, window=parts[0].window, quantum=quantum)


def _values(metric: Metric, count: int, chosen: Chosen, increasing: bool) -> tuple[Integers, Floats]:
    rows, values = metric.arrays(count)
    if rows is None:
        return chosen.iterations, values if len(chosen.rows) == count and increasing else values[chosen.rows]
    if increasing and len(rows) < len(chosen.rows):  # a rare metric: look for its few records among the many
        at = np.minimum(np.searchsorted(chosen.rows, rows), len(chosen.rows) - 1)
        has = chosen.rows[at] == rows
        return chosen.iterations[at[has]], values[has]
    at = np.minimum(np.searchsorted(rows, chosen.rows), len(rows) - 1)
    has = rows[at] == chosen.rows
    return chosen.iterations[has], values[at[has]]


def _picked(metric: Metric, count: int, wanted: Integers) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Return which of the wanted records have a value, and their values; what the others hold means nothing."""
    rows, values = metric.arrays(count)
    if rows is None:
        return np.ones(len(wanted), np.bool_), values[wanted]
    at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    return rows[at] == wanted, values[at]


def _mean(parts: Sequence[tuple[Integers, Floats]]) -> tuple[Integers, Floats]:
    iterations = np.concatenate([part[0] for part in parts])
    order = np.argsort(iterations, kind="stable")  # stable: the ranks of an iteration stay in their order
    iterations = iterations[order]
    values = np.concatenate([part[1] for part in parts])[order]
    first = np.flatnonzero(np.append(True, iterations[1:] != iterations[:-1]))
    counts = np.diff(np.append(first, len(iterations)))
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.add.reduceat(values, first) / counts
    common = counts == len(parts)
    return iterations[first[common]], means[common]


def _shared(array: Array) -> Array:
    """Make an array read-only, so that curves may share it."""
    array.flags.writeable = False
    return array
