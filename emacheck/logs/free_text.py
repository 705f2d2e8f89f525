"""Free text that names what it counts and measures, such as ``Epoch 1: train_loss 2.3 acc1 6.4 | val_loss 2.1``.

These patterns are read, in upper or lower case:

- the position: ``Epoch 3``, ``Epoch: [3]``, ``epoch=3/100``, ``[Epoch 3]``, and ``Iter 50``, ``Iteration: 50/100``,
  ``Step [50/100]``, ``Epoch: [3][ 50/100]``, ``Train Epoch: 3 [640/60000 (1%)]``;
- a metric: a name that says loss, acc, lr, error, IoU, perplexity and the like, then ``:``, ``=`` or a blank, then the
  number (behind a blank only, it must have a decimal point). A word train, val, valid, eval or test before the name
  belongs to it: ``Val Loss: 2.1``.

The position holds until the next one. A name that occurs again behind a metric of a validation belongs to that
validation: ``train_loss 2.3 acc1 6.4 | val_loss 2.1 acc1 7.1``.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from emacheck.logs import oddities
from emacheck.logs.gathering import Gathering, averaged
from emacheck.logs.lines import numbered
from emacheck.logs.naming import understood
from emacheck.logs.values import parse_iteration, parse_number, printed_unit
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "free text"
LONGEST_LINE = 1 << 16
_NUMBER = r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,6})?|nan|inf(?:inity)?)(?![\w.]*[^\W\d])"
_WORD = r"(?:loss|acc|lr|learning.?rate|err|iou|ppl|perplexity|grad.?norm|dice|psnr|prec@|top|auc|f1|map)"
_METRIC = re.compile(
    rf"(?<![\w.@/-])((?:(?:train(?:ing)?|val(?:id(?:ation)?)?|eval|test)[ \t]+)?"
    rf"(?:[\w.@/-]{{0,40}}?{_WORD}[\w.@/-]{{0,40}}))[ \t]*(?:([:=])[ \t]*|[ \t])\(?({_NUMBER})",
    re.IGNORECASE | re.ASCII,
)
_GAP = r"[ \t]{0,4}"
_EPOCH = re.compile(
    rf"\bepochs?{_GAP}[:=#]?{_GAP}[\[(]?{_GAP}(\d+)(?:{_GAP}/{_GAP}\d+)?[\])]?"
    rf"(?:{_GAP}\[{_GAP}(\d+){_GAP}/{_GAP}(\d+))?",
    re.IGNORECASE | re.ASCII,
)
_ITERATION = re.compile(
    rf"\b(?:iter(?:ation)?s?|(?:global[ _])?step|batch){_GAP}[:=#]?{_GAP}[\[(]?{_GAP}(\d+)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(slots=True)
class _Position:
    """Where the log is: epoch and iteration, as far as they were named."""

    epoch: int | None = None
    iteration: int | None = None
    counted: int = 0
    by_iteration: bool = False


def recognises(head: str) -> bool:
    """Tell whether a loss is named somewhere with a number."""
    return any("loss" in found[1].lower() and _is_value(found) for found in _METRIC.finditer(head))


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read the curves by the patterns above; without any position the records are counted from 1."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    position = _Position()
    summaries = 0
    for number, line in numbered(lines):
        gathering.lines = number
        if len(line) > LONGEST_LINE:
            gathering.skip("lines longer than 64 KiB", number)
            continue
        fresh = _move(position, line, gathering)
        train, validation = _metrics(line, gathering)
        if not train and not validation:
            gathering.header.read(line)
        elif position.by_iteration and not fresh and position.iteration is None:
            summaries += bool(train)
            if validation:
                gathering.add_validation(validation, number)
        else:
            _add(position, train, validation, gathering)
    if summaries:
        message = f"records without an iteration, such as means of an epoch, are left out: {summaries}"
        gathering.remark(OddityKind.LEFT_OUT, message)
    return _finish(position, gathering)


def _move(position: _Position, line: str, gathering: Gathering) -> bool:
    """Take the position from the line; tell whether it names an iteration."""
    if found := _EPOCH.search(line):
        position.epoch = parse_iteration(found[1])
        position.iteration = parse_iteration(found[2]) if found[2] else None
        if found[3]:
            gathering.length = parse_iteration(found[3])
    if (other := _ITERATION.search(line)) and (found is None or found[2] is None):
        position.iteration = parse_iteration(other[1])
    fresh = other is not None or (found is not None and found[2] is not None)
    position.by_iteration = position.by_iteration or fresh
    return fresh


def _metrics(line: str, gathering: Gathering) -> tuple[dict[str, float], dict[str, float]]:
    train: dict[str, float] = {}
    validation: dict[str, float] = {}
    for found in _METRIC.finditer(line):
        value = parse_number(found[3])
        best = line[: found.start()].rstrip().lower().endswith("best") or "best" in found[1].lower()
        if value is None or best or not _is_value(found):
            continue
        of_validation, bare = understood(found[1].rstrip(".-/"))
        of_validation = of_validation or bool(validation and bare in train)
        (validation if of_validation else train).setdefault(bare, value)
        if math.isfinite(value):
            gathering.rounded_to(bare, printed_unit(found[3]), validation=of_validation)
    return train, validation


def _is_value(found: re.Match[str]) -> bool:
    """Tell a value from a number that only follows a word, as in ``a loss 3 times``."""
    return found[2] is not None or not found[3].lstrip("+-").isdigit()


def _add(position: _Position, train: dict[str, float], validation: dict[str, float], gathering: Gathering) -> None:
    number = gathering.lines
    epoch, iteration = position.epoch, position.iteration
    if iteration is None and epoch is None:
        position.counted += bool(train)
        iteration = position.counted
    elif iteration is None:
        epoch, iteration = 0, epoch
    if iteration is None:
        gathering.skip("records whose iteration is not an integer of 64 bits", number)
        return
    if train and not gathering.complete_last(iteration, train):
        gathering.add(iteration, train, number, epoch=epoch or 0)
    if validation:
        gathering.add_validation(validation, number, iteration=iteration, epoch=epoch or 0)


def _finish(position: _Position, gathering: Gathering) -> Record:
    if position.counted:
        gathering.remark(OddityKind.COUNTED, "the records have no iteration: they are counted from 1")
    elif not position.by_iteration and len(gathering.train):
        gathering.remark(OddityKind.EPOCHS, "there is no iteration: the epoch is taken for it")
    curves = gathering.curves()
    gathering.oddities += oddities.of_interval(curves[next(iter(curves))].iterations)
    return gathering.record(averaged(curves, 0))
