"""Free text that names what it counts and measures, such as ``Epoch 1: train_loss 2.3 acc1 6.4 | val_loss 2.1``.

What a line says is found by the patterns of ``free_line.py``; docs/logs.md lists them. Here lines become records. A log
may hold records of an iteration, of an epoch, and without any position. Those of the finest kind are
the curves; the others are means of an epoch, or something else, and are left out.
"""

import math
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from emacheck.curve import Integers
from emacheck.logs.columns import Columns
from emacheck.logs.formats.free_line import (
    LONGEST_LINE,
    METRIC,
    TOO_LARGE,
    FreeLine,
    is_value,
    parsed,
    parted,
    with_plain_colons,
)
from emacheck.logs.gathering import NO_VALIDATION, Gathering, averaged
from emacheck.logs.lines import numbered
from emacheck.logs.naming import is_loss
from emacheck.logs.values import printed_unit
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "free text"
NOWHERE, EPOCH, ITERATION, PROGRESS = range(4)
_NONE = -1
_OF_TRAINING = frozenset({"lr", "learning rate", "learning_rate", "grad_norm", "grad norm"})
_TELLING = re.compile(r"loss(?!_?(?:weight|scale|ratio|mult|type|decay|smooth))|ppl|perplexity|xent|elbo|rmse")


@dataclass(slots=True)
class _Place:
    """Where the log is, for one rank: epoch and iteration as far as they were named, and whether it validates."""

    epoch: int | None = None
    iteration: int | None = None
    validating: bool = False


@dataclass(slots=True)
class _Kind:
    """The training records of one kind, with the epoch and iteration that each names, or -1."""

    columns: Columns = field(default_factory=Columns)
    epochs: "array[int]" = field(default_factory=lambda: array("q"))
    iterations: "array[int]" = field(default_factory=lambda: array("q"))
    losses: int = 0
    last: tuple[int, int, int] | None = None


@dataclass(slots=True)
class _Validations:
    """Validation records, with what each names, and how many training records of each kind came before."""

    columns: Columns = field(default_factory=Columns)
    epochs: "array[int]" = field(default_factory=lambda: array("q"))
    iterations: "array[int]" = field(default_factory=lambda: array("q"))
    before: "array[int]" = field(default_factory=lambda: array("q"))
    last: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Log:
    gathering: Gathering
    places: dict[int, _Place] = field(default_factory=dict)
    kinds: tuple[_Kind, ...] = field(default_factory=lambda: (_Kind(), _Kind(), _Kind(), _Kind()))
    validations: _Validations = field(default_factory=_Validations)
    bare: dict[str, str] = field(default_factory=dict)
    inner: bool = False
    means: bool = False


def recognises(head: str) -> bool:
    """Tell whether a loss, or what stands for one, is named somewhere with a number."""
    return any(
        _TELLING.search(found[2].lower()) and is_value(found) for found in METRIC.finditer(with_plain_colons(head))
    )


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read the curves; without any position the records are counted from 1."""
    log = _Log(Gathering(format=NAME, name=name, rank=rank))
    gathering = log.gathering
    last = ""
    for number, line in numbered(lines):
        gathering.lines = number
        if line == last:
            continue  # the same message again and again
        if len(line) > LONGEST_LINE:
            gathering.skip("lines longer than 64 KiB", number)
        elif "Namespace(" in line:
            gathering.header.read(line)
        else:
            last = line
            for record in parted(line):
                found = parsed(record)
                last = "" if found.metrics or found.unread else last
                _take(found, record, log)
    return _finish(log)


def _take(found: FreeLine, line: str, log: _Log) -> None:
    gathering = log.gathering
    place = log.places.setdefault(found.rank, _Place())
    blank = _blank(found, place, gathering)
    if not found.metrics and not blank:
        gathering.header.read(line)
        _move(found, place)
        return
    if TOO_LARGE in (found.epoch, found.iteration):
        gathering.skip("records whose iteration is not an integer of 64 bits", gathering.lines)
        return
    train = {each.printed: each.value for each in found.metrics if not each.validation}
    validation = {each.name: each.value for each in found.metrics if each.validation}
    unsaid = found.validation is None and found.iteration is None and found.epoch is None
    if validation and not train and found.validation is None:
        found.validation = True
    unsaid = unsaid and any(name.lower() not in _OF_TRAINING for name in train)
    if place.validating and unsaid and not validation and any(each for each in log.kinds[EPOCH:] if each.last):
        train, validation = {}, train  # a line that goes on about the validation before it
        found.validation = True
    if found.within:
        if not found.validation and found.iteration is not None:
            _hold(found, place, log)
        gathering.count(
            "lines about single batches of a validation, or running means of an epoch",
            "left out",
            gathering.lines,
            kind=OddityKind.LEFT_OUT,
        )
        place.validating = bool(found.validation)
        return
    if not found.validation or found.iteration is None:
        _move(found, place)
    _note_left_out(found, log)
    for each in found.metrics:
        of_validation = each.validation or not train
        name = each.name if of_validation else each.printed
        if name != each.name:
            log.bare[name] = each.name
        if math.isfinite(each.value):
            gathering.quanta.add((of_validation, name), printed_unit(each.text))
    if train or not found.metrics:
        _add(train, found, line, place, log)
    if validation:
        _validate(validation, found, place, log)


def _note_left_out(found: FreeLine, log: _Log) -> None:
    log.means = log.means or found.means
    if found.again:
        what = "lines in which a loss stands again with another value, of which only the first is taken"
        log.gathering.count(what, "found", log.gathering.lines, kind=OddityKind.REPLACED)


def _blank(found: FreeLine, place: _Place, gathering: Gathering) -> bool:
    """Tell whether a line is a training record whose loss is no number, and note what stands there."""
    for metric, text in found.unread:
        gathering.unreadable(metric, text, gathering.lines)
    return bool(found.unread) and not (found.validation or found.within or place.validating)


def _hold(found: FreeLine, place: _Place, log: _Log) -> None:
    """Keep the running means of an epoch, in case that nothing else is in the log."""
    kind = log.kinds[PROGRESS]
    if not any(len(each.columns) for each in log.kinds[:PROGRESS]):
        metrics = {each.name: each.value for each in found.metrics if not each.validation}
        kind.columns.add(len(kind.columns), metrics, line=log.gathering.lines, rank=found.rank)
        kind.epochs.append(_NONE if place.epoch is None else place.epoch)
        kind.iterations.append(found.iteration or 0)


def _move(found: FreeLine, place: _Place) -> None:
    if found.epoch is not None:
        place.epoch, place.iteration = found.epoch, found.iteration
    elif found.iteration is not None:
        place.iteration = found.iteration
    if found.validation is not None or found.epoch is not None or found.iteration is not None:
        place.validating = bool(found.validation)


def _add(train: dict[str, float], found: FreeLine, line: str, place: _Place, log: _Log) -> None:
    gathering = log.gathering
    if found.of_epoch is not None:
        gathering.length = found.of_epoch
    elif found.total is not None and place.epoch is not None:
        gathering.total = found.total
    log.inner = log.inner or "| train_inner |" in line
    summary = log.inner and "| train |" in line  # fairseq's mean of an epoch
    own = found.iteration is not None or found.epoch is not None
    nowhere = found.alone and not own
    iteration = None if summary or nowhere else place.iteration
    epoch = _NONE if place.epoch is None or nowhere or (found.across and not summary) else place.epoch
    kind = log.kinds[ITERATION if iteration is not None else NOWHERE if epoch == _NONE else EPOCH]
    position = (found.rank, epoch, _NONE if iteration is None else iteration)
    columns = kind.columns
    if iteration is None and not train and not any(name in columns.metrics for name, _ in found.unread):
        return  # a setting, or a message
    if kind.last == position and len(columns) and (train or iteration is not None):
        if columns.complete_last(len(columns) - 1, train):
            return
        if not own and iteration is not None:  # that iteration has its record: this one is of another
            place.iteration = None
            _add(train, found, line, place, log)
            return
    columns.add(len(columns), train, line=gathering.lines, rank=found.rank)
    kind.epochs.append(epoch)
    kind.iterations.append(position[2])
    kind.losses += any(is_loss(name) for name in train)
    kind.last = position if train or iteration is not None else None  # what comes next is a record of its own


def _validate(validation: dict[str, float], found: FreeLine, place: _Place, log: _Log) -> None:
    known = log.validations
    named = {name: value for name, value in validation.items() if name not in NO_VALIDATION}
    own = place.epoch if found.epoch is None else found.epoch
    numbers = (_NONE if own is None else own, _NONE if found.iteration is None else found.iteration)
    last = len(known.columns) - 1
    later = found.iteration is None and last >= 0 and numbers[0] > known.epochs[-1]
    if not named or (named == known.last and not later and any(not each.validation for each in found.metrics)):
        return  # a progress bar repeats the last validation
    before = [len(each.columns) for each in log.kinds]
    same = last >= 0 and known.before[-len(before) :].tolist() == before
    same = same and (known.epochs[-1], known.iterations[-1]) == numbers
    if same and known.columns.complete_last(last, named):
        known.last |= named
        return
    known.columns.add(last + 1, named, line=log.gathering.lines, rank=found.rank)
    known.epochs.append(numbers[0])
    known.iterations.append(numbers[1])
    known.before.extend(before)
    known.last = named


def _finish(log: _Log) -> Record:
    gathering = log.gathering
    level = _finest(log.kinds)
    kind = log.kinds[level]
    left_out = sum(len(each.columns) for each in log.kinds[:PROGRESS]) - len(kind.columns)
    if level == PROGRESS:
        gathering.remark(OddityKind.AVERAGED, "the values are running means of an epoch that does not end in the log")
        level = ITERATION
    elif left_out:
        which = {ITERATION: "without an iteration", EPOCH: "without an epoch"}.get(level, "of another kind")
        message = f"records {which}, such as means of an epoch"
        gathering.remark(OddityKind.LEFT_OUT, f"{message}, are left out: {left_out}")
    if log.means:
        gathering.remark(OddityKind.LEFT_OUT, "means in parentheses behind the values are left out")
    epochs, iterations = np.array(kind.epochs, np.int64), np.array(kind.iterations, np.int64)
    level = _numbered(level, epochs, iterations, kind, gathering)
    kind.columns.renumber(iterations, np.maximum(epochs, 0) if level == ITERATION else np.zeros_like(epochs))
    gathering.train = kind.columns
    _name_train(log)
    _place_validations(log, level, log.kinds.index(kind), epochs, iterations)
    curves = gathering.curves()
    gathering.remark_interval()
    return gathering.record(averaged(curves, 0))


def _finest(kinds: tuple[_Kind, ...]) -> int:
    """Return the finest kind of record that has losses, unless another has more than twice as many."""
    most = max(each.losses for each in kinds[:PROGRESS])
    for level in (ITERATION, EPOCH, NOWHERE):
        if kinds[level].losses and 2 * kinds[level].losses >= most:
            return level
    return next((level for level in (ITERATION, EPOCH, NOWHERE, PROGRESS) if len(kinds[level].columns)), NOWHERE)


def _numbered(level: int, epochs: Integers, iterations: Integers, kind: _Kind, gathering: Gathering) -> int:
    """Number the records; those of an epoch are counted if each epoch holds several."""
    ranks = kind.columns.ranks()
    order = np.argsort(ranks, kind="stable")
    again = np.sum((np.diff(epochs[order]) == 0) & (np.diff(ranks[order]) == 0))
    several = level == EPOCH and len(epochs) > 1 and 2 * again >= len(epochs)
    if level == NOWHERE or several:
        for rank in np.unique(ranks):
            iterations[ranks == rank] = np.arange(1, np.sum(ranks == rank) + 1)
        if len(epochs):
            gathering.remark(OddityKind.COUNTED, "the records have no iteration: they are counted from 1")
        return NOWHERE
    if level == EPOCH:
        iterations[:] = epochs
        gathering.remark(OddityKind.BY_EPOCH, "there is no iteration: the epoch is taken for it")
    return level


def _name_train(log: _Log) -> None:
    """Call ``train_loss`` the ``loss`` if nothing else is called so."""
    metrics = log.gathering.train.metrics
    for printed, bare in log.bare.items():
        if printed in metrics and bare not in metrics:
            log.gathering.train.rename(printed, bare)
            metrics = log.gathering.train.metrics
            log.gathering.quanta.rename(printed, bare)


def _place_validations(log: _Log, level: int, kind: int, epochs: Integers, iterations: Integers) -> None:
    """Give each validation the iteration that it names, or that of the training record before it."""
    known = log.validations
    if not len(known.columns) or not len(iterations):
        return
    before = np.array(known.before, np.int64).reshape(-1, len(log.kinds))[:, kind]
    row = np.maximum(before - 1, 0)
    its_epochs, its_iterations = epochs[row], iterations[row]
    named_epochs, named = np.array(known.epochs, np.int64), np.array(known.iterations, np.int64)
    if level == ITERATION:
        at = named >= 0
        its_iterations[at] = named[at]
        its_epochs[at & (named_epochs >= 0)] = named_epochs[at & (named_epochs >= 0)]
        sound = at | (before > 0)
    else:
        at = (named_epochs >= 0) & (level == EPOCH)
        its_iterations[at] = named_epochs[at]
        its_epochs[:] = 0
        sound = at | (before > 0)
    if not np.all(sound):
        line = int(known.columns.lines()[np.argmin(sound)])
        what = "validation records before the first training record"
        log.gathering.count(what, "skipped", line, number=int(np.sum(~sound)))
        its_iterations[~sound] = np.iinfo(np.int64).min
    known.columns.renumber(its_iterations, np.maximum(its_epochs, 0))
    log.gathering.validation = known.columns
