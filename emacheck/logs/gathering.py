"""What a reader gathers while it goes through a log: records, and remarks on everything that is not one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from emacheck.counted import counted
from emacheck.curve import Curve, Integers
from emacheck.errors import LogError
from emacheck.logs import oddities as remark
from emacheck.logs.choosing import choose
from emacheck.logs.columns import MOST_METRICS, Columns
from emacheck.logs.epochs import NO_ITERATION, Epochs
from emacheck.logs.header import Header
from emacheck.logs.naming import looks_like_validation, the_loss, understood
from emacheck.logs.quanta import Quanta
from emacheck.logs.ranks import nothing_in_common, of_mean, of_one, ranks_of
from emacheck.logs.series import Chosen, curves_of, later_records
from emacheck.logs.unread import Unread
from emacheck.logs.values import measured
from emacheck.oddity import Oddity, OddityKind, oddity
from emacheck.record import Record

NO_VALIDATION = frozenset({"lr", "time", "data_time"})
MOST_COUNTED = 100
"""So many kinds of what was not read are told apart."""


@dataclass(slots=True, kw_only=True)
class Gathering:
    """The records and remarks of one log.

    Attributes:
        format: The format's name, for the record and for messages.
        name: What the log is called in messages.
        rank: The only rank to take; the mean of all ranks if None.
        plain: Take the names of metrics as they are, though they may speak of a validation.
        train: The training records, in the order of the log.
        validation: The validation records.
        header: What the log says of the run besides.
        lines: How many lines were read.
        oddities: What the reader has to say about the log.
        quanta: The rounding of each metric, of the validation or not, where it is known.
        exact: The values are known to be at full precision, however few digits they need.
        length: Iterations per epoch, where the log says it.
        total: What the iterations count up to, where the log says it: perhaps an epoch, perhaps the whole run.
        interval: The usual distance between training records; known once the curves are.
    """

    format: str
    name: str
    rank: int | None = None
    plain: bool = False
    exact: bool = False
    train: Columns = field(default_factory=Columns)
    validation: Columns = field(default_factory=Columns)
    header: Header = field(default_factory=Header)
    lines: int = 0
    oddities: list[Oddity] = field(default_factory=list)
    quanta: Quanta = field(default_factory=Quanta)
    length: int | None = None
    total: int | None = None
    interval: int = 1
    _counted: dict[tuple[OddityKind, str, str], list[int]] = field(default_factory=dict)
    _names: dict[str, tuple[bool, str]] = field(default_factory=dict)
    _taken: set[tuple[bool, str]] = field(default_factory=set)
    _unread: dict[str, Unread] = field(default_factory=dict)
    _measured: frozenset[str] = frozenset()
    _recorded: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    _blank: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    _validation_curves: dict[str, Curve] = field(default_factory=dict)
    _ranks: int = 1
    _of_ranks: dict[int, dict[str, Curve]] = field(default_factory=dict)

    def add(self, iteration: int, metrics: Mapping[str, float], line: int, *, epoch: int = 0, rank: int = 0) -> None:
        """Add a record; metrics whose names say so are of a validation at this iteration.

        One without any metric that can be read is kept as a blank: it says that there is a record.
        """
        train, validation = self._parted(metrics)
        if train or not validation:
            self.train.add(iteration, train, line=line, epoch=epoch, rank=rank)
        if validation:
            self.validation.add(iteration, validation, line=line, epoch=epoch, rank=rank)

    def add_validation(
        self, metrics: Mapping[str, float], line: int, *, iteration: int | None = None, epoch: int = 0, rank: int = 0
    ) -> None:
        """Add a validation record; without an iteration it belongs to the training record before it."""
        named = {self.known(name)[1]: value for name, value in metrics.items() if name not in NO_VALIDATION}
        if iteration is None and (iteration := self.train.last_iteration) is not None:
            epoch = int(self.train.epochs()[-1])
        if iteration is None:
            self.skip("validation records before the first training record", line)
        elif named and not (self.validation.last_rank == rank and self.validation.complete_last(iteration, named)):
            self.validation.add(iteration, named, line=line, epoch=epoch, rank=rank)

    def add_either(self, iteration: int, metrics: Mapping[str, float], line: int, *, epoch: int = 0) -> None:
        """Add a record that is labelled as training, though it may hold what only a validation yields."""
        if looks_like_validation(list(metrics)):
            what = "records of a validation that are labelled as training"
            self.count(what, "taken as validation", line, kind=OddityKind.VALIDATION_APART)
            # What counts the batches of the validation is smaller than the iteration that the training has reached.
            before = self.train.last_iteration
            behind = before is not None and iteration < before
            self.add_validation(metrics, line, iteration=None if behind else iteration, epoch=epoch)
        else:
            self.add(iteration, metrics, line, epoch=epoch)

    def complete_last(self, iteration: int, metrics: Mapping[str, float], *, rank: int = 0) -> bool:
        """Add metrics to the last training record if it is of this iteration and rank and has none of them."""
        train, validation = self._parted(metrics)
        if validation and train:
            return False
        columns = self.validation if validation else self.train
        return columns.last_rank == rank and columns.complete_last(iteration, validation or train)

    def skip(self, what: str, line: int) -> None:
        """Count something that is not read; ``what`` is a plural, such as ``lines that are not valid JSON``."""
        self.count(what, "skipped", line)

    def numbers(
        self, values: Mapping[str, Any], line: int, read: Callable[[Any], float | None] = measured
    ) -> dict[str, float]:
        """Return the numbers among the values of a record, and note what stands in the place of others."""
        metrics = {}
        for name, value in values.items():
            number = read(value)
            if number is None:
                self.unreadable(name, value, line)
            else:
                metrics[name] = number
        return metrics

    def unreadable(self, name: str, value: object, line: int) -> None:
        """Note what stands in the place of a number; it is remarked if the metric is measured elsewhere."""
        of_validation, bare = self.known(name)
        text = "null" if value is None else str(value)
        if bare in self._unread:
            self._unread[bare].add(text, line)
        elif not of_validation and len(self._unread) < MOST_METRICS:
            self._unread[bare] = Unread(line)
            self._unread[bare].add(text, line)

    def count(self, what: str, fate: str, line: int, *, kind: OddityKind = OddityKind.SKIPPED, number: int = 1) -> None:
        """Count something that was not read as it stands, and say what became of it."""
        key = (kind, what, fate)
        if key not in self._counted and len(self._counted) >= MOST_COUNTED:
            key = (
                kind,
                "further lines or values",
                fate,
            )  # what names itself anew in every line is no list for a reader
        self._counted.setdefault(key, [0, line])[0] += number

    def remark(self, kind: OddityKind, message: str, *, line: int | None = None) -> None:
        """Note an oddity with the effect of its kind."""
        self.oddities.append(oddity(kind, message, line=line))

    def rounded_to(self, name: str, unit: float, *, validation: bool = False) -> None:
        """Note what one unit of the last printed digit of a metric is worth; 0 tells nothing."""
        of_validation, bare = self.known(name)
        self.quanta.add((of_validation or validation, bare), unit)

    def known(self, name: str) -> tuple[bool, str]:
        """Return whether a metric is of a validation, and what it is called: printable, and one string per metric."""
        found = self._names.get(name)
        if found is None:
            whole = name.encode("utf-8", "replace").decode()  # JSON may hold half characters
            found = (False, whole) if self.plain else understood(whole)
            if found in self._taken:
                found = found[0], whole
            if len(self._names) < MOST_METRICS:
                self._names[name] = found
                self._taken.add(found)
        return found

    def drop_torn(self, line: str) -> None:
        """Drop the last record if the log ends inside it: no line break, and fewer metrics than the one before."""
        row = len(self.train) - 1
        if row < 1 or self.train.last_line != self.lines or line.endswith(("\n", "\r")):
            return
        last, before = ({n for n in self.train.metrics if self.train.has(n, at)} for at in (row, row - 1))
        if last < before:
            iteration = self.train.last_iteration
            self.train.drop_last()
            message = f"the file ends inside the record of iteration {iteration}, which was dropped"
            self.remark(OddityKind.TORN, message, line=self.lines)

    def remarks(self) -> tuple[Oddity, ...]:
        """Return all oddities."""
        counted = (
            oddity(kind, f"{what}: {n} {fate}, the first on line {at}", line=at)
            for (kind, what, fate), (n, at) in self._counted.items()
        )
        unread = remark.of_unread(self._unread, self.train.metrics.keys() | self._measured)
        return (*self.oddities, *counted, *unread)

    def curves(self) -> dict[str, Curve]:
        """Return one raw curve per training metric, with the quantum of its decimals.

        Raises:
            LogError: If there is no training record, or none of the rank that is asked for.
        """
        if not self.train.metrics:
            raise LogError(self._nothing())
        left_out = self.train.left_out + self.validation.left_out
        if left_out:
            what = f"values of metrics beyond the first {MOST_METRICS}"
            self.remark(OddityKind.LEFT_OUT, f"{what}: {left_out} left out")
        epochs = Epochs.of(self.train, length=self.length, total=self.total)
        iterations = self.train.iterations()
        if epochs is not None:
            iterations, said = epochs.counted(self.train)
            self.oddities += said
        ranks = ranks_of(self.train, self.name, self.rank)
        taken = ranks if self.rank is None else [self.rank]
        choice = choose(self.train, iterations, taken, others=len(ranks) > 1)
        self._ranks, self._blank = len(ranks), choice.blank
        self.oddities += choice.remarks
        lines = self.train.lines()
        quanta = {
            name: self.quanta.of_training(name, np.frombuffer(each.values), exact=self.exact)
            for name, each in self.train.metrics.items()
        }
        self._measured = frozenset(quanta)
        curves = self._parted_curves(choice.chosen, taken, quanta)
        if not curves:
            raise nothing_in_common(self.name, len(ranks)) if len(taken) > 1 else LogError(self._nothing())
        curves = self._with_loss(curves)
        self._remark_ranks(ranks, choice.chosen, curves)
        first = choice.chosen[0]
        self._recorded = first.iterations
        self.interval = remark.logging_interval(self._recorded)
        self.oddities += remark.of_gaps(first, lines)
        self.oddities += remark.of_values(curves, first, lines, self._unread.get("loss"))
        self._finish_validation(epochs, choice.start)
        return curves

    def remark_interval(self) -> None:
        """Remark that not every iteration is recorded, if so."""
        self.oddities += remark.of_interval(self._recorded)

    def record(self, curves: Mapping[str, Curve]) -> Record:
        """Return the record of these curves, with everything that was remarked."""
        return Record(
            name=self.name,
            format=self.format,
            curves=curves,
            validation=self._validation_curves,
            header=self.header.close(),
            ranks=self._ranks,
            of_ranks={rank: _written_like(curves, parts) for rank, parts in self._of_ranks.items()},
            blank=self._blank,
            oddities=self.remarks(),
        )

    def _parted(self, metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
        train, validation = dict[str, float](), dict[str, float]()
        for name, value in metrics.items():
            of_validation, bare = self.known(name)
            (validation if of_validation else train)[bare] = value
        return train, validation

    def _nothing(self) -> str:
        remarks = "".join(f"\n  {each}" for each in self.remarks())
        found = f"{counted(self.lines, 'line')} and {counted(len(self.validation), 'validation record')}"
        return (
            f"{self.name}: this is a log in the format {self.format!r}, but it holds no training record: found {found}"
            ", expected at least one record of a training iteration with a metric. Check that the run got as far as "
            f"the first iteration it logs.{remarks}"
        )

    def _parted_curves(self, chosen: list[Chosen], ranks: list[int], quanta: Mapping[str, float]) -> dict[str, Curve]:
        """Return the curves; those of the ranks, where there are several, are kept beside them."""
        curves = {}
        for curve, parts in curves_of(self.train, chosen):
            for at, part in parts.items() if len(ranks) > 1 else ():
                self._of_ranks.setdefault(ranks[at], {})[part.name] = part
            if len(curve):
                curves[curve.name] = _rounded(curve, quanta[curve.name])
        return curves

    def _with_loss(self, curves: dict[str, Curve], *, validation: bool = False) -> dict[str, Curve]:
        """Add the curve that can only be the loss under this name, if none is called so."""
        name = None if self.plain else the_loss(list(curves))
        if name is None or name == "loss" or (not validation and "loss" in self._unread):
            return curves  # what is called loss is the loss, though it cannot be read
        if not validation:
            self.remark(OddityKind.OTHER, f"no metric is called loss: {name} is taken for it")
            for parts in self._of_ranks.values():
                if name in parts:
                    parts["loss"] = replace(parts[name], name="loss")
        return {**curves, "loss": replace(curves[name], name="loss")}

    def _remark_ranks(self, ranks: list[int], chosen: list[Chosen], curves: Mapping[str, Curve]) -> None:
        if len(ranks) == 1:
            if ranks[0] and self.rank is None:
                self.remark(OddityKind.RANKS, f"the log holds rank {ranks[0]} only")
            return
        if self.rank is not None:
            self.oddities.append(of_one(len(ranks), f"rank {self.rank} is shown"))
            return
        every = max(len(each.iterations) for each in chosen)
        self.oddities.append(of_mean(len(ranks), every - max(map(len, curves.values()))))

    def _finish_validation(self, epochs: Epochs | None, start: int) -> None:
        columns = self.validation
        if not len(columns):
            return
        iterations, lines, ranks = columns.iterations(), columns.lines(), columns.ranks()
        sound = (lines >= start) & (iterations != NO_ITERATION)
        if epochs is not None:
            iterations, fits = epochs.counted_in_validation(columns, self.train)
            sound = sound & fits
        picked: Iterable[int] = np.unique(ranks).tolist() if self.rank is None else [self.rank]
        chosen = []
        for rank in picked:
            rows = np.flatnonzero(sound & (ranks == rank))
            if len(rows):
                chosen.append(later_records(rows, iterations[rows])[0])
        count = len(columns)
        means = (mean for mean, _ in curves_of(columns, chosen) if len(mean))
        curves = {curve.name: _rounded(curve, self.quanta.of_validation(curve.name)) for curve in means}
        self._validation_curves = self._with_loss(curves, validation=True)
        message = f"validation records are kept apart from the training curves: {count}"
        self.remark(OddityKind.VALIDATION_APART, message)


def _rounded(curve: Curve, quantum: float) -> Curve:
    return replace(curve, quantum=quantum) if quantum else curve


def averaged(curves: dict[str, Curve], window: int) -> dict[str, Curve]:
    """Return the curves with the number of iterations that is averaged into each value; 0 means unknown.

    The curves are taken out of ``curves`` one by one, so that those of a large log are not held twice.
    """
    return {name: replace(curves.pop(name), window=window) for name in list(curves)}


def _written_like(curves: Mapping[str, Curve], parts: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return the curves of one rank with the window and the quantum of those of all."""
    like = {name: curves.get(name, part) for name, part in parts.items()}
    return {name: replace(part, window=like[name].window, quantum=like[name].quantum) for name, part in parts.items()}
