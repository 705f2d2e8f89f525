"""One JSON document: a list of records, lists of numbers by metric as Keras' history has them, or a log_history."""

import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from emacheck.errors import LogError
from emacheck.logs.formats import json_rows
from emacheck.logs.formats.json_lines import json_object, unique
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import Lines
from emacheck.logs.naming import is_rank, the_rank
from emacheck.logs.values import measured, parse_iteration
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "JSON document"
_DEEPEST = 4
_SAID = ("iteration", "step", "epoch", "loss")
# TensorBoard's own export of a scalar, which names nothing: lists of time in seconds, step and value.
_TENSORBOARD = re.compile(r"\[\s*\[\s*\d{9,}(?:\.\d+)?\s*,\s*\d+\s*,[^,\[\]]+\]", re.ASCII)


def recognises(head: str) -> bool:
    """Tell whether the text starts as a list, or as an object that is not a line of its own, and speaks of a loss."""
    text = head.lstrip()
    if _TENSORBOARD.match(text):
        return True
    if not text.startswith(("{", "[")) or not any(word in head for word in _SAID):
        return False
    first = next((line for line in io.StringIO(text)), "").strip()
    if text.startswith("["):
        return first == "[" or text[1:].lstrip()[:1] in ("{", "[")
    if (whole := json_object(first)) is not None:
        return text.strip() == first and not json_rows.says_where(whole) and _holds_numbers(whole)
    return first == "{" or _looks_like_an_object(text)


def _holds_numbers(document: dict[str, Any], depth: int = _DEEPEST) -> bool:
    """Tell whether an object, or one in it, holds a list of records or of numbers."""
    if any(map(_numbers, document.values())) or any(_tables(document, 1)):
        return True
    within = [each for each in document.values() if isinstance(each, dict)]
    return depth > 0 and any(_holds_numbers(each, depth - 1) for each in within)


def _looks_like_an_object(text: str) -> bool:
    """Tell an object that goes on behind the head from lines of objects, the first of which is torn."""
    lines = list(islice(io.StringIO(text), 2))
    return text[1:].lstrip().startswith('"') and (len(lines) < 2 or not lines[1].startswith("{"))


def read(lines: Lines, name: str, rank: int | None = None) -> Record:
    """Read the curves of the largest list of records, or of the lists of numbers; these are counted from 1."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    document = _document(lines, name)
    gathering.lines = 1
    tables = [each for each in _tables(document, _DEEPEST) if each]
    found = max(tables, key=_records, default=[])
    if found:
        if len(tables) > 1:
            message = f"lists of records beside the longest one, of {len(found)}, are left out: {len(tables) - 1}"
            gathering.remark(OddityKind.SEVERAL_RUNS, message)
        counted = json_rows.parts_of_epochs(found)
        taken = [json_rows.take(row, at, gathering, counted=counted) for at, row in enumerate(found, 1)]
        if counted:
            gathering.remark(OddityKind.COUNTED, json_rows.COUNTED)
        by_epoch = json_rows.BY_EPOCH in taken and json_rows.BY_ITERATION not in taken
        if by_epoch and len(gathering.train):
            gathering.remark(OddityKind.BY_EPOCH, "there is no iteration: the epoch is taken for it")
    elif isinstance(document, dict):
        _take_lists(document, gathering)
    curves = gathering.curves()
    gathering.remark_interval()
    return gathering.record(curves)


def _document(lines: Lines, name: str) -> Any:
    try:
        return json.loads(lines.document(name).removeprefix("\ufeff"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise LogError(
            f"{name}: this begins like a JSON document, but it is no whole one ({error}). If it was cut off, close its "
            "brackets behind the last whole record, or write one record per line."
        ) from error


def _records(rows: list[dict[str, Any]]) -> int:
    return sum(map(json_rows.says_where, rows))


def _tables(value: Any, depth: int) -> Iterator[list[dict[str, Any]]]:
    """Return the lists of records in a document; TensorBoard's own are lists of time, step and value."""
    if isinstance(value, list):
        if all(isinstance(each, dict) for each in value):
            # What has a blank in the place of its only metric is a record as well.
            yield value if _records(value) else []
        elif value and all(isinstance(each, list) and len(each) == 3 for each in value):
            yield [{"step": step, "loss": number} for _, step, number in value]
    elif isinstance(value, dict) and depth:
        for each in value.values():
            yield from _tables(each, depth - 1)


def _take_lists(document: dict[str, Any], gathering: Gathering) -> None:
    """Take an object of lists of numbers, among which may be one of the iterations and one of the ranks."""
    lists = {key: value for key, value in document.items() if _numbers(value)}
    for name, value in document.items():
        if isinstance(value, list) and name not in lists:
            for each in value:
                gathering.unreadable(name, each, 1)
    if not lists:
        within = {name: value for name, value in document.items() if isinstance(value, dict) and _holds_numbers(value)}
        if len(within) > 1:
            names = list(islice(within, 10))
            message = f"lists of numbers are under {', '.join(names)}; those under {names[0]} are read"
            gathering.remark(OddityKind.SEVERAL_RUNS, message)
        for value in islice(within.values(), 1):
            _take_lists(value, gathering)
        return
    key = next((key for key in lists if json_rows.is_iteration(key)), None)
    key = key or next((key for key in lists if key.lower() == json_rows.EPOCH_KEY), None)
    if key is None:
        gathering.remark(OddityKind.COUNTED, "the numbers have no iteration: they are counted from 1")
    elif not json_rows.is_iteration(key):
        gathering.remark(OddityKind.BY_EPOCH, "there is no iteration: the epoch is taken for it")
    said = the_rank(lists)
    for at in range(max(map(len, lists.values()))):
        iteration = at + 1 if key is None else parse_iteration(lists[key][at]) if at < len(lists[key]) else None
        taken = (name for name, each in lists.items() if name != key and not is_rank(name) and at < len(each))
        metrics = gathering.numbers({name: lists[name][at] for name in taken}, 1)
        rank = 0 if said is None else parse_iteration(lists[said][at]) if at < len(lists[said]) else None
        if iteration is None or rank is None:
            gathering.skip("values without an iteration" if iteration is None else "values without a rank", 1)
        else:
            gathering.add(iteration, metrics, 1, rank=rank)


def _numbers(value: Any) -> bool:
    """Tell whether a value is a list of numbers, some of which may be missing or cannot be read."""
    if not isinstance(value, list) or not all(each is None or isinstance(each, str | int | float) for each in value):
        return False
    numbers = sum(measured(each) is not None for each in value)
    texts = sum(isinstance(each, str) and measured(each) is None for each in value)
    return numbers > 0 and texts <= numbers
