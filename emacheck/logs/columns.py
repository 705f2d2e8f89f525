"""Records as columns of plain numbers: a log of a gigabyte holds millions of them."""

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from emacheck.curve import Floats, Integers

MOST_METRICS = 10_000
"""So many metrics of a log are read; no training has more."""


class Steady:
    """A column of integers that takes no memory as long as all of them are equal."""

    def __init__(self) -> None:
        self._value = 0
        self._count = 0
        self._values: array[int] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def last(self) -> int | None:
        """The last one, or None."""
        return None if not self._count else self._value if self._values is None else self._values[-1]

    def append(self, value: int) -> None:
        """Add one integer of 64 bits."""
        if self._values is not None:
            self._values.append(value)
        elif self._count and value != self._value:
            self._values = array("q", [self._value]) * self._count
            self._values.append(value)
        else:
            self._value = value
        self._count += 1

    def extend(self, values: Integers) -> None:
        """Add many integers."""
        if not len(values):
            return
        first = int(values[0])
        if self._values is None and (not self._count or first == self._value) and bool(np.all(values == first)):
            self._value = first
        else:
            if self._values is None:
                self._values = array("q", [self._value]) * self._count
            self._values.frombytes(values.tobytes())
        self._count += len(values)

    def pop(self) -> None:
        """Remove the last one."""
        self._count -= 1
        if self._values is not None:
            self._values.pop()

    def array(self) -> Integers:
        """Return them all."""
        if self._values is None:
            return np.broadcast_to(np.int64(self._value), (self._count,))
        return np.frombuffer(self._values, np.int64)


@dataclass(slots=True)
class Metric:
    """The values of one metric; ``rows`` numbers the records that have one, None if all of them do."""

    values: "array[float]" = field(default_factory=lambda: array("d"))
    rows: "array[int] | None" = None

    def add(self, row: int, value: float) -> None:
        """Add the value of the record number ``row``."""
        if self.rows is None and len(self.values) != row:
            self.rows = array("q", range(len(self.values)))
        self.values.append(value)
        if self.rows is not None:
            self.rows.append(row)

    def extend(self, row: int, values: Floats) -> None:
        """Add the values of as many records, the first of which is number ``row``."""
        if self.rows is None and len(self.values) != row:
            self.rows = array("q", range(len(self.values)))
        self.values.frombytes(values.tobytes())
        if self.rows is not None:
            self.rows.frombytes(np.arange(row, row + len(values)).tobytes())

    def has(self, row: int) -> bool:
        """Tell whether the record number ``row`` has a value."""
        if self.rows is None:
            return row < len(self.values)
        at = bisect_left(self.rows, row)
        return at < len(self.rows) and self.rows[at] == row

    def drop(self, row: int) -> None:
        """Remove the value of the last record, if it has one."""
        if self.has(row):
            self.values.pop()
            if self.rows is not None:
                self.rows.pop()

    def arrays(self, count: int) -> tuple["npt.NDArray[np.int64] | None", Floats]:
        """Return the numbers of the records (None if all ``count`` have a value) and the values."""
        values = np.frombuffer(self.values, np.float64)
        values.flags.writeable = False  # so that a curve may share it
        if self.rows is not None:
            return np.frombuffer(self.rows, np.int64), values
        return (None if len(values) == count else np.arange(len(values))), values


@dataclass(slots=True)
class Columns:
    """The records of a log in its order: iteration, epoch, rank, line, and the metrics of each.

    Attributes:
        metrics: The values by metric name.
        left_out: How many values of further metrics were given up, because there are too many.
    """

    metrics: dict[str, Metric] = field(default_factory=dict)
    left_out: int = 0
    _iterations: "array[int]" = field(default_factory=lambda: array("q"))
    _epochs: Steady = field(default_factory=Steady)
    _ranks: Steady = field(default_factory=Steady)
    _lines: "array[int]" = field(default_factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self._iterations)

    @property
    def last_iteration(self) -> int | None:
        """The iteration of the last record, as the log numbers it, or None."""
        return self._iterations[-1] if self._iterations else None

    @property
    def last_rank(self) -> int | None:
        """The rank of the last record, or None."""
        return self._ranks.last

    @property
    def last_line(self) -> int:
        """The line of the last record, or 0."""
        return self._lines[-1] if self._lines else 0

    def add(self, iteration: int, metrics: Mapping[str, float], *, line: int, epoch: int = 0, rank: int = 0) -> None:
        """Add one record."""
        row = len(self._iterations)
        self._iterations.append(iteration)
        self._epochs.append(epoch)
        self._ranks.append(rank)
        self._lines.append(min(line, 2**32 - 1))
        self._measure(row, metrics)

    def extend(self, iterations: Integers, epochs: Integers, ranks: Integers, lines: Integers) -> int:
        """Add many records without their metrics and return the number of the first."""
        row = len(self._iterations)
        self._iterations.frombytes(iterations.tobytes())
        self._epochs.extend(epochs)
        self._ranks.extend(ranks)
        self._lines.frombytes(np.minimum(lines, 2**32 - 1).astype(np.uintc).tobytes())
        return row

    def metric(self, name: str) -> Metric:
        """Return the values of a metric, which may be new."""
        return self.metrics.setdefault(name, Metric())

    def renumber(self, iterations: Integers, epochs: Integers) -> None:
        """Give each record another iteration and epoch."""
        self._iterations = array("q", iterations.tobytes())
        self._epochs = Steady()
        self._epochs.extend(epochs)

    def rename(self, name: str, other: str) -> None:
        """Call a metric by another name, and leave it at its place among the metrics."""
        self.metrics = {other if each == name else each: metric for each, metric in self.metrics.items()}

    def complete_last(self, iteration: int, metrics: Mapping[str, float]) -> bool:
        """Add metrics to the last record if it is of this iteration and has none of them."""
        row = len(self) - 1
        if iteration != self.last_iteration or any(self.has(name, row) for name in metrics):
            return False
        self._measure(row, metrics)
        return True

    def has(self, name: str, row: int) -> bool:
        """Tell whether a record has a metric."""
        return name in self.metrics and self.metrics[name].has(row)

    def blank(self) -> npt.NDArray[np.bool_]:
        """Tell which records have no metric at all."""
        blank = np.ones(len(self), np.bool_)
        for metric in self.metrics.values():
            blank[metric.arrays(len(self))[0] if metric.rows is not None else slice(len(metric.values))] = False
            if not np.any(blank):
                break
        return blank

    def drop_last(self) -> None:
        """Remove the last record."""
        row = len(self) - 1
        self._iterations.pop()
        self._epochs.pop()
        self._ranks.pop()
        self._lines.pop()
        for name in list(self.metrics):
            self.metrics[name].drop(row)
            if not self.metrics[name].values:
                del self.metrics[name]

    def iterations(self) -> Integers:
        """Return the iteration of each record, as the log numbers it."""
        return np.frombuffer(self._iterations, np.int64)

    def epochs(self) -> Integers:
        """Return the epoch of each record."""
        return self._epochs.array()

    def ranks(self) -> Integers:
        """Return the rank of each record."""
        return self._ranks.array()

    def lines(self) -> npt.NDArray[np.uintc]:
        """Return the line of each record."""
        return np.frombuffer(self._lines, np.uintc)

    def _measure(self, row: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            metric = self.metrics.get(name)
            if metric is None and len(self.metrics) >= MOST_METRICS:
                self.left_out += 1
                continue
            if metric is None:
                metric = self.metrics[name] = Metric()
            metric.add(row, value)
