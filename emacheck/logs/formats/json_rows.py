"""JSON lines of anybody: one object per line with an iteration, or at least an epoch, and metrics."""

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any

from emacheck.logs.formats.json_lines import leading_objects, objects
from emacheck.logs.formats.mmengine_json import WRITTEN_ALWAYS
from emacheck.logs.gathering import Gathering
from emacheck.logs.naming import ITERATION_NAMES, MODE_KEYS, is_loss, is_rank, says_validation, the_rank, understood
from emacheck.logs.values import measured, parse_iteration
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "JSON lines"
EPOCH_KEY = "epoch"
BY_EPOCH, BY_ITERATION, NO_RECORD = "epoch", "iteration", ""
COUNTED = "the records have no iteration, only parts of epochs: they are counted from 1"
DEEPEST = 4
_LOOKED_AT = 100
_NOT_METRICS = frozenset(
    {"timestamp", "_timestamp", "_runtime", "total_steps", "percentage", "n_parameters", "wall_time"}
)


def recognises(head: str) -> bool:
    """Tell whether one of the first objects has an iteration or an epoch and a number, and is of no known writer."""
    rows = list(leading_objects(head))
    foreign = not any(key in row for row in rows for key in WRITTEN_ALWAYS)
    return any(_is_row(row) or (foreign and _says_more(row)) for row in rows)


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read the curves; of nested objects, under dotted names."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    rows = objects(lines, gathering)
    first = list(islice(rows, _LOOKED_AT))
    counted = parts_of_epochs(row for _, row in first)
    taken = {take(row, number, gathering, counted=counted) for number, row in chain(first, rows)}
    if counted:
        gathering.remark(OddityKind.COUNTED, COUNTED)
    if BY_EPOCH in taken and BY_ITERATION not in taken and len(gathering.train):
        gathering.remark(OddityKind.BY_EPOCH, "there is no iteration: the epoch is taken for it")
    curves = gathering.curves()
    gathering.remark_interval()
    return gathering.record(curves)


def parts_of_epochs(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether an epoch such as 0.25 is all that says where the rows belong, so that they have to be counted.

    Example:
        >>> parts_of_epochs([{"epoch": 0.25, "loss": 4.5}]), parts_of_epochs([{"epoch": 0.25, "step": 1, "loss": 4.5}])
        (True, False)
    """
    epochs = [row.get(_epoch_key(row)) for row in rows if _iteration_key(row) is None]
    return any(measured(each) is not None and parse_iteration(each) is None for each in epochs)


def take(row: Mapping[str, Any], number: int, gathering: Gathering, *, counted: bool = False) -> str:
    """Take one object, and return whether it names an iteration, only an epoch, or nothing to be read.

    Args:
        row: The object.
        number: Its line.
        gathering: What takes the record.
        counted: Its epoch is the part of one and says nothing: where it names no iteration, it comes after the last.
    """
    key = _iteration_key(row)
    epoch = parse_iteration(row.get(_epoch_key(row), 0))
    iteration = _iteration(row[key]) if key is not None else epoch if _epoch_key(row) in row else None
    said = the_rank(row)
    rank = 0 if said is None else parse_iteration(row[said])
    left = {key, _epoch_key(row), *_NOT_METRICS, *(each for each in row if is_iteration(each) or is_rank(each))}
    metrics = dict(_numbers({name: value for name, value in row.items() if name not in left}))
    if counted and key is None:
        last = gathering.train.last_iteration or 0
        iteration, epoch, key = last + any(not gathering.known(name)[0] for name in metrics), 0, _epoch_key(row)
    if iteration is None or rank is None:
        _skip(row, number, gathering)
        return NO_RECORD
    unread = {name: value for name, value in row.items() if name not in left and _stands_for_a_number(value)}
    for name, value in unread.items():
        gathering.unreadable(name, value, number)
    if not metrics and (key is None or len(row) > 1) and not any(is_loss(name) for name in unread):
        return NO_RECORD  # a message of another kind
    if "train_runtime" in metrics:  # the Trainer's summary of the whole training
        gathering.count("summaries of the whole training", "left out", number, kind=OddityKind.LEFT_OUT)
        return NO_RECORD
    # An epoch of 0.25 only restates the iteration.
    whole = epoch if epoch is not None and key is not None else 0
    if any(says_validation(row[mode]) for mode in MODE_KEYS if isinstance(row.get(mode), str)):
        gathering.add_validation(metrics, number, iteration=iteration, epoch=whole, rank=rank)
    else:
        gathering.add(iteration, metrics, number, epoch=whole, rank=rank)
    return BY_EPOCH if key is None else BY_ITERATION


def _stands_for_a_number(value: object) -> bool:
    """Tell whether a value is none, or a text that is no number."""
    return value is None or (isinstance(value, str) and measured(value) is None)


def _iteration_key(row: Mapping[str, Any]) -> str | None:
    """Return the key of the iteration: of several the most telling one that holds an integer."""
    found = sorted((key for key in row if is_iteration(key)), key=lambda key: ITERATION_NAMES.index(key.lower()))
    return next((key for key in found if _iteration(row[key]) is not None), found[0] if found else None)


def _iteration(value: object) -> int | None:
    """Return the iteration that a value is; ms-swift writes ``5/1000`` under ``global_step/max_steps``."""
    return parse_iteration(value.partition("/")[0] if isinstance(value, str) else value)


def is_iteration(key: str) -> bool:
    """Tell whether a key is one that counts iterations."""
    return key.lower() in ITERATION_NAMES


def says_where(row: Mapping[str, Any]) -> bool:
    """Tell whether an object has an iteration or an epoch, and a metric."""
    known = any(is_iteration(key) for key in row) or _epoch_key(row) in row
    return known and len(dict(_numbers(row))) > 1


def _epoch_key(row: Mapping[str, Any]) -> str:
    return EPOCH_KEY if EPOCH_KEY in row else "Epoch"


def _skip(row: Mapping[str, Any], number: int, gathering: Gathering) -> None:
    if any(is_iteration(key) for key in row) or _epoch_key(row) in row:
        gathering.skip("rows whose iteration or rank is not an integer of 64 bits", number)
    else:
        gathering.header.put_all("", row)


def _is_row(row: Mapping[str, Any]) -> bool:
    if isinstance(row.get("metrics"), dict) or ("mode" in row and "iter" in row):
        return False
    named = any(understood(key)[1] != key for key in row)
    return says_where(row) and ("step" not in row or named or "iteration" in row or _is_said(row))


def _says_more(row: Mapping[str, Any]) -> bool:
    """Tell whether a row names an epoch, a rank or another count beside the ``step``, by which it is to be read."""
    more = EPOCH_KEY in row or the_rank(row) is not None or sum(map(is_iteration, row)) > 1
    return more and says_where(row) and not isinstance(row.get("metrics"), dict)


def _is_said(row: Mapping[str, Any]) -> bool:
    """Tell whether a row with a ``step`` says what mmengine never does."""
    return any(isinstance(row.get(mode), str) for mode in MODE_KEYS) or any(isinstance(v, str) for v in row.values())


def _numbers(row: Mapping[str, Any], prefix: str = "", depth: int = DEEPEST) -> "list[tuple[str, float]]":
    found = []
    for key, value in row.items():
        number = measured(value)
        if number is not None:
            found.append((f"{prefix}{key}", number))
        elif isinstance(value, dict) and depth:
            found += _numbers(value, f"{prefix}{key}.", depth - 1)
    return found
