"""What a reader gathers while it goes through a log: rows, and remarks on everything that is not one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from emacheck.curve import Curve
from emacheck.errors import LogError
from emacheck.record import Record, curves_from_rows


@dataclass(slots=True, kw_only=True)
class Gathering:
    """The rows and remarks of one log.

    Attributes:
        format: The format's name, for the record and for messages.
        name: What the log is called in messages.
        rows: Iteration number and metrics of each training record, in the order of the log.
        lines: How many lines were read.
        validation: How many validation records were seen.
        oddities: Sentences that the reader has to say about the log.
        line_of_last_row: Number of the line that the last row stands on.
    """

    format: str
    name: str
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    lines: int = 0
    validation: int = 0
    oddities: list[str] = field(default_factory=list)
    line_of_last_row: int = 0
    _skipped: dict[str, list[int]] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def add(self, iteration: int, metrics: Mapping[str, float], line: int) -> None:
        """Add a training record."""
        self.rows.append((iteration, {self._clean(name): value for name, value in metrics.items()}))
        self.line_of_last_row = line

    def skip(self, what: str, line: int) -> None:
        """Count something that is not read; ``what`` is a plural, such as ``lines that are not valid JSON``."""
        self._skipped.setdefault(what, [0, line])[0] += 1

    def drop_torn(self, line: str) -> None:
        """Drop the last row if the file ends inside it: no line break, and metrics missing that the row before has."""
        torn = self.line_of_last_row == self.lines and not line.endswith(("\n", "\r"))
        if torn and len(self.rows) > 1 and self.rows[-1][1].keys() < self.rows[-2][1].keys():
            iteration, _ = self.rows.pop()
            self.oddities.append(f"the file ends inside the record of iteration {iteration}, which was dropped")

    def remarks(self) -> tuple[str, ...]:
        """Return all oddities, one sentence each."""
        remarks = list(self.oddities)
        if self.validation:
            remarks.append(f"validation records are not part of the training curves: {self.validation} left out")
        remarks += [f"{what}: {count} skipped, the first on line {at}" for what, (count, at) in self._skipped.items()]
        return tuple(remarks)

    def curves(self) -> dict[str, Curve]:
        """Return one raw, full-precision curve per metric.

        Raises:
            LogError: If there is no training record.
        """
        if not self.rows:
            remarks = "".join(f"\n  {remark}" for remark in self.remarks())
            raise LogError(
                f"{self.name}: this is a log in the format {self.format!r}, but it holds no training record: found "
                f"{self.lines} lines and {self.validation} validation records, expected at least one record of a "
                "training iteration with a metric. Check that the run got as far as the first iteration it logs."
                f"{remarks}"
            )
        curves, repeated = curves_from_rows(self.rows)
        if repeated:
            self.oddities.append(
                f"iterations that are recorded more than once, of which the later record is used: {len(repeated)}, "
                f"the first is {repeated[0]}"
            )
        return curves

    def record(self, curves: Mapping[str, Curve]) -> Record:
        """Return the record of these curves, with everything that was remarked."""
        return Record(name=self.name, format=self.format, curves=curves, oddities=self.remarks())

    def _clean(self, name: str) -> str:
        # One string per metric, however many rows carry it, and one that can be printed: JSON may hold half characters.
        if name not in self._names:
            self._names[name] = name.encode("utf-8", "replace").decode()
        return self._names[name]


def averaged(curves: Mapping[str, Curve], window: int) -> dict[str, Curve]:
    """Return the curves with the number of iterations that is averaged into each value; 0 means unknown."""
    return {name: replace(curve, window=window) for name, curve in curves.items()}


def logging_interval(iterations: Sequence[int]) -> int:
    """Return the distance between records that is found most often; of a single record, its iteration number.

    Example:
        >>> logging_interval([50, 100, 117, 167, 217])
        50
    """
    ordered = sorted(set(iterations))
    gaps = Counter(after - before for before, after in pairwise(ordered))
    return gaps.most_common(1)[0][0] if gaps else max(ordered[0], 1)
