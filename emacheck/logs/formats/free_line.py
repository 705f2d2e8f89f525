"""One line of free text: what it measures, of training or validation, and where in the run it stands."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from emacheck.logs.naming import is_loss, understood
from emacheck.logs.values import NOT_FINITE, parse_number

LONGEST_LINE = 1 << 16
TOO_LARGE = -2
"""Stands for an epoch or an iteration of more than 18 digits."""
_GAP = r"[ \t]{0,4}"
_TRAIN = r"train(?:ing)?(?:_inner)?"
_VALIDATION = r"vali?(?:d(?:ation|ate)?)?|eval(?:uation|uate|uating)?|test(?:ing)?|validating|dev|cv|saving dict"
# A whole number before a comma and a digit, a group of three digits or a power is the start of another number.
_WHOLE = rf"\d+(?!,\d|[ ]\d{{3}}(?:[ ]\d{{3}}){{0,4}}[.,]\d|{_GAP}[\u00b7\u00d7*]{_GAP}10(?!\d))"
_NUMBER = (
    rf"(?:{NOT_FINITE}|[-+]?(?:(?:\d{{1,3}}(?:,\d{{3}})+\.\d+|\d+\.\d*|{_WHOLE}|\.\d+)(?:e[-+]?\d{{1,6}})?"
    r"|nan|inf(?:inity)?))"
    rf"(?!\d|\.\d|[\w.#]*[^\W\d]|{_GAP}/{_GAP}\d|[ ]e[-+]\d)"
)
_NO_NUMBER = r"(?:none|null|n/?a)(?![\w.])|-{1,3}(?=[\s,|]|$)|\*{2,}|\#\w{1,20}[!?]?|[-+]?\.?\d[^\s;|]{0,40}"
_WORD = (
    r"(?:loss|acc(?:u|uracy)?(?![a-z])|(?<![a-z])lr(?![a-z])|learning.?rate|err(?:or)?(?![a-z])|iou|ppl|perplexity"
    r"|(?<![a-z])g(?:rad)?.?norm|dice|psnr|prec@|(?<![a-z])top[-_@]?\d|auc|f1|(?<![a-z])map|elbo|xent|rmse|bleu)(?!_iter)"
)
_NAME = (
    rf"(?<![\w.@/-])((?:[a-z][\w-]{{0,20}}[ \t]+){{0,2}})[\"']?([\w.@/-]{{0,40}}?{_WORD}[\w.@/-]{{0,40}})[\"']?"
    rf"(?:{_GAP}\([\w.% /-]{{0,20}}\))?(?:[ \t]+value)?"
)
_OPENED = r"(?:(?:torch\.)?tensor|(?:np|numpy|torch)\.float\d{1,3})?[(\[]{0,2}[ \t\"']?"
METRIC = re.compile(
    rf"{_NAME}[ \t]*(?:([:=]|\bis\b)[ \t]*|[ \t]){_OPENED}({_NUMBER})",
    re.IGNORECASE | re.ASCII,
)
# Where a record hangs on another: processes that share a stream print text and line break apart, and a bar has none.
_NEXT = r"(?=\[?(?:rank|(?:global_)?step|iter(?:ation)?|epoch)[ \t]{0,2}[:=#]?[ \t]{0,2}[\[(]?[ \t]{0,4}\d)"
_GLUED, _GLUED_TO_BAR = (re.compile(rf"(?<=[{end}]){_NEXT}", re.IGNORECASE) for end in (r"\d", r"\d\]"))
_UNREAD = re.compile(rf"{_NAME}[ \t]*[:=][ \t]*{_OPENED}(?!{_NUMBER})({_NO_NUMBER})", re.IGNORECASE | re.ASCII)
_MODE = re.compile(rf"(?<![\w./-])(?:({_TRAIN})|({_VALIDATION}))(?![\w./-]*\.py)(?!\w)", re.IGNORECASE | re.ASCII)
_EPOCH = re.compile(
    rf"(?<![\w/])(?<!max[ _])(?<!num[ _])(?<!total[ _])(?<!best[ _])epoch(?:s(?={_GAP}[:=]?{_GAP}[\[(]?\d+/))?[\"']?"
    rf"{_GAP}[:=#]?{_GAP}[\[(]?{_GAP}(\d+)(?!\d|\.\d)(?:{_GAP}(?:/|of){_GAP}\d+)?[\])]?"
    rf"(?:{_GAP}(?:\[|:{_GAP}\[?|[ \t](?=\d+ / \d)){_GAP}(\d+){_GAP}/{_GAP}(\d+))?",
    re.IGNORECASE | re.ASCII,
)
# Train: 0 [  50/1251 (4%)], Train: [0/300][10/1251], and WeNet's TRAIN Batch 0/100 (the epoch stands first).
_TRAIN_OF = re.compile(
    rf"\btrain(?:ing)?{_GAP}:?{_GAP}\[?{_GAP}(\d+)(?:{_GAP}/{_GAP}\d+)?{_GAP}\]?{_GAP}\[{_GAP}(\d+){_GAP}/{_GAP}(\d+)",
    re.IGNORECASE | re.ASCII,
)
_WENET = re.compile(r"\b(?:TRAIN|CV) Batch (\d+)/(\d+)")
_PAIR = re.compile(rf"^\W{{0,8}}\[{_GAP}(\d+){_GAP},{_GAP}(\d+){_GAP}\]", re.ASCII)
# With a comma only as a whole number with thousands; 1k, 1e3 and 1_000 are not 1.
_COUNT = r"(\d{1,3}(?:,\d{3})+|\d+)(?!\d|\.\d|,\d|_\d|e\+?\d|[km]\b"
_GLOBAL = re.compile(
    r"(?<![\w/])(?:global[ _](?:step|iter)s?|num_updates|current_steps|acc(?:umulated)?_iter|total_iters?|total_it)"
    rf"[\"']?{_GAP}[:=]?{_GAP}{_COUNT})",
    re.IGNORECASE | re.ASCII,
)
_ITERATION = re.compile(
    r"(?<![\w/])(?<!max )(?<!num )(?<!skipped )(?<!nan )(?<!warmup )(?<!total )(?<!per )"
    rf"(?:(?:cur_|curr_)?iter(?:ation)?s?|steps?|(?:mini-?)?batch)[\"']?{_GAP}[:=#]?{_GAP}[\[(]?{_GAP}"
    rf"{_COUNT}|{_GAP}%)"
    rf"(?:{_GAP}(?:/|of){_GAP}{_COUNT}))?",
    re.IGNORECASE | re.ASCII,
)
_COUNTER = re.compile(rf"[\[(]{_GAP}(\d+){_GAP}/{_GAP}(\d+){_GAP}(?:\({_GAP}\d+%\){_GAP})?[\])]", re.ASCII)
_APART = re.compile(r"(?<=\s)(\d+) / (\d+)(?=\s)", re.ASCII)
_LEADING = re.compile(rf"^{_GAP}(?:(\d+){_GAP}/{_GAP}(\d+)(?=\s)|\[(\d+)\](?=\s))", re.ASCII)
_BAR = re.compile(r"(\d+)/(\d+) \[\d+:\d\d", re.ASCII)
_KERAS = re.compile(r"^\s*(\d+)/(\d+|Unknown)\s+(?:\[[=>.]|[\u2501\s]{3})", re.ASCII)
_RANK = re.compile(rf"(?<![\w.])(?:global[ _])?rank{_GAP}[:=]?{_GAP}(\d{{1,6}})(?![\d.])", re.IGNORECASE | re.ASCII)
_MEAN = re.compile(r"[ \t]{0,2}\([ \t]{0,4}[-+]?\d[\d.e+-]*[ \t]{0,2}\)", re.ASCII)
_FIRST_WORD = re.compile(r"^[\W\d_]{0,60}(?:(?:INFO|DEBUG)\W{1,8})?(?=[a-z])", re.IGNORECASE | re.ASCII)
_NO_NAME = frozenset(
    {*("info", "debug", "warning", "and", "with", "the", "a", "of", "at", "epoch", "epochs", "iter", "iteration")}
    | {*("step", "steps", "batch", "current", "cur", "its", "root", "got", "has", "set", "in", "on", "for", "to", "i")}
)
_SETTING = re.compile(r"best|weight|decay|_mult|coeff?$|_ratio|smoothing")
_NOT_READ = frozenset({"best", "min", "max", "minimum", "maximum", "lowest", "highest", "target", "final"})


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of a line.

    Attributes:
        validation: Whether a validation measured it.
        name: What it is called, without a word that says train or validation.
        printed: The name with the word that says train, if there is one, else the name.
        value: Its value.
        text: The value as it is printed.
    """

    validation: bool
    name: str
    printed: str
    value: float
    text: str


@dataclass(slots=True)
class FreeLine:
    """What a line says.

    Attributes:
        metrics: The metrics, in the order of the line.
        epoch: The epoch it names.
        iteration: The iteration it names.
        of_epoch: The length of an epoch, where the line counts within the epoch.
        total: What the iteration counts up to, an epoch or the whole run.
        alone: Whether it is a printed dictionary, which stands for itself, whatever the lines before it name.
        across: Whether the iteration counts on across epochs.
        validation: Whether the line is about a validation, None if it does not say.
        within: Whether the line is about a single batch of a validation, or the running means of an unfinished epoch.
        rank: The rank it names, else 0.
        means: Whether means stand in parentheses behind the values.
        unread: The losses of a training whose value is no number, and what stands there.
        again: Whether a loss of the training stands again in the line, with another value, which is not taken.
    """

    metrics: list[Measured] = field(default_factory=list)
    epoch: int | None = None
    iteration: int | None = None
    of_epoch: int | None = None
    total: int | None = None
    alone: bool = False
    across: bool = False
    validation: bool | None = None
    within: bool = False
    rank: int = 0
    means: bool = False
    unread: list[tuple[str, str]] = field(default_factory=list)
    again: bool = False


def parsed(line: str) -> FreeLine:
    """Return what a line says.

    Example:
        >>> found = parsed("Epoch: [2][ 50/100]  Loss 4.5 (4.6)  Acc@1 3.0 (2.5)")
        >>> found.epoch, found.iteration, [(each.name, each.value) for each in found.metrics]
        (2, 50, [('loss', 4.5), ('Acc@1', 3.0)])
    """
    result, line = FreeLine(), with_plain_colons(line)
    found = [each for each in METRIC.finditer(line) if is_value(each)]
    for said in _MODE.finditer(line, 0, found[0].start() if found else len(line)):
        result.validation = said[1] is None
    if not any(is_loss(each[2]) for each in found):
        result.unread = list(_unread(line)) if result.validation is not True else []
    if not found and not result.unread:
        _place_header(line, result)
        return result
    result.metrics = list(_metrics(found, result))
    if "ank" in line and (rank := _RANK.search(line)):
        result.rank = int(rank[1])
    if found:
        result.alone = "{'" in line[: found[0].start() + 1]
        result.means = _MEAN.match(line, found[-1].end()) is not None
    _place(line, result)
    return result


def parted(line: str) -> list[str]:
    """Return the records that a line holds, if one hangs on the end of another one or of a bar.

    Example:
        >>> parted("Step 1 loss: 4.5Step 2 loss: 4.25")
        ['Step 1 loss: 4.5', 'Step 2 loss: 4.25']
    """
    if line.lower().count("loss") < 2:
        return [line]
    return (_GLUED_TO_BAR if "it/s" in line or "s/it" in line else _GLUED).split(line)


def with_plain_colons(text: str) -> str:
    """Return a text in which colons as Chinese has them are plain ones."""
    return text.replace("\uff1a", ":")


def is_value(found: re.Match[str]) -> bool:
    """Tell a value from a number that only follows a word, as in ``a loss 3 times``."""
    return found[3] is not None or not found[4].lstrip("+-").isdigit()


def _metrics(found: list[re.Match[str]], line: FreeLine) -> Iterator[Measured]:
    """Return the metrics; what is named again behind a metric of a validation belongs to that validation."""
    seen = dict[tuple[bool, str], float]()
    validating, validated, count = line.validation is True, False, 0
    for at, each in enumerate(found):
        value = parse_number(each[4].replace(",", ""))
        name = _named(each[1], each[2])
        if value is None or name is None:
            continue
        validation = name.validation
        if validation and at == 0:
            validating = True
        elif not validation and not name.trained:
            again = validated and (False, name.bare) in seen and (True, name.bare) not in seen
            validation = validating or again
        validated = validated or validation
        first = seen.setdefault((validation, name.bare), value)
        same = first == value or (math.isnan(first) and math.isnan(value))
        line.again |= not same and not validation and is_loss(name.bare)
        if len(seen) > count:
            count = len(seen)
            yield Measured(validation, name.bare, name.printed, value, each[4])


def _unread(line: str) -> Iterator[tuple[str, str]]:
    """Return the losses that a line names without a number, such as ``loss: None``, and what stands there."""
    for each in _UNREAD.finditer(line) if ":" in line or "=" in line else ():
        name = _named(each[1], each[2])
        if name is not None and not name.validation and is_loss(name.bare):
            yield name.printed, each[3]


class _Name(NamedTuple):
    validation: bool
    trained: bool
    bare: str
    printed: str


@lru_cache(maxsize=4096)
def _named(before: str, name: str) -> _Name | None:
    """Return what a name and the words before it mean, None if it is not read, such as the best value so far."""
    words = [word for word in before.split() if word.lower() not in _NO_NAME]
    name = name.rstrip(".-/")
    if _NOT_READ & {word.lower() for word in words} or _SETTING.search(name.lower()):
        return None
    modes = [_MODE.fullmatch(word) for word in words]
    whole = " ".join([*(word for word, mode in zip(words, modes, strict=True) if mode is None), name])
    validation, bare = understood(whole)
    validation = validation or any(mode is not None and mode[2] is not None for mode in modes)
    trained = not validation and (bare.lower() != whole.lower() or any(mode is not None for mode in modes))
    return _Name(validation, trained, bare, " ".join([*words, name]) if trained else bare)


def _place(line: str, result: FreeLine) -> None:
    """Take the position of a line with metrics."""
    if keras := _KERAS.match(line):
        result.within = keras[1] != keras[2]
        result.iteration = _number(keras[1]) if result.within else None
        return
    if found := _WENET.search(line):
        result.epoch, result.iteration = _number(found[1]), _number(found[2])
        result.within = result.validation is True
        return
    if (found := _EPOCH.search(line)) or (found := _TRAIN_OF.search(line)):
        result.epoch = _number(found[1])
        result.iteration, result.of_epoch = _number(found[2]), _number(found[3])
    if wide := _GLOBAL.search(line):
        result.iteration, result.of_epoch, result.across = _number(wide[1]), None, True
    elif result.iteration is None:
        _count(line, result)
    if result.validation:  # a counter up to a total counts the batches of the validation
        total = result.of_epoch or result.total
        if total is not None and result.iteration is not None:
            result.within = result.iteration < total
            result.iteration = None


def _count(line: str, result: FreeLine) -> None:
    if found := _ITERATION.search(line):
        result.iteration, result.total = _number(found[1]), _number(found[2])
    elif result.epoch is None and (found := _PAIR.match(line)):
        result.epoch, result.iteration = _number(found[1]), _number(found[2])
    elif not result.alone and (found := _COUNTER.search(line) or _BAR.search(line) or _APART.search(line)):
        result.iteration, result.total = _number(found[1]), _number(found[2])
    elif result.epoch is None and (found := _LEADING.match(line)):
        result.iteration, result.total = _number(found[1] or found[3]), _number(found[2])


def _place_header(line: str, result: FreeLine) -> None:
    """Take the position of a line without metrics: an epoch anywhere, an iteration where the line begins with it."""
    if len(line) > 200:
        return
    if found := _EPOCH.search(line):
        result.epoch = _number(found[1])
    start = _FIRST_WORD.match(line)
    if start is None:
        return
    if found := _ITERATION.match(line, start.end()):
        result.iteration = _number(found[1])
    begins = _MODE.match(line, start.end())
    result.validation = begins[1] is None if begins else None


def _number(text: str | None) -> int | None:
    return None if text is None else int(text.replace(",", "")) if len(text) < 19 else TOO_LARGE
