"""TCAPPDLL records as JSON: ``TCAPPDLL {"type": "LOG", "step": [0, 118], "data": "{'train.loss': '1.39'}"}``.

The ``data`` is an object, or a text that holds one as Python writes it. NVIDIA's DLLogger, which this comes from, marks
its lines with ``DLLL``.
"""

import ast
import re
import warnings
from collections.abc import Iterable
from typing import Any

from emacheck.logs.formats.json_lines import json_object, json_objects
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import numbered
from emacheck.logs.values import measured, parse_iteration, parse_number
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "TCAPPDLL JSON"
LONGEST_DATA = 1 << 16
_MARK = re.compile(r"(?:TCAPPDLL|DLLL)\s+(?=\{)")


def recognises(head: str) -> bool:
    """Tell whether the mark of the records stands before an object."""
    return "DLL" in head and _MARK.search(head) is not None


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read the curves; ``train.loss`` is called ``loss``; ``step`` is the epoch and the iteration."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    line, pairs = "", False
    for number, line in numbered(lines):
        gathering.lines = number
        before, *pieces = _MARK.split(line)
        for piece in pieces:
            pairs = _take(piece, gathering, pairs=pairs) or pairs
        if not pieces:
            gathering.header.read(before)
    gathering.drop_torn(line)
    return gathering.record(gathering.curves())


def read_metadata(piece: str, gathering: Gathering) -> bool:
    """Take what is behind the mark into the header if it is an object that describes a metric or the run."""
    value = next(iter(json_objects(piece)), None)
    if value is None or (value.get("type") == "LOG" and value.get("step") != "PARAMETER"):
        return False
    data = _data(value.get("data"))
    if data is not None:
        gathering.header.put_all("config", data)
    elif isinstance(value.get("metadata"), dict):
        gathering.header.put_all(f"metadata.{value.get('metric')}", value["metadata"])
    return True


def _take(piece: str, gathering: Gathering, *, pairs: bool) -> bool:
    """Take one record, given whether those before name epoch and iteration; return whether this one does."""
    line = gathering.lines
    if read_metadata(piece, gathering):
        return False
    value = next(iter(json_objects(piece)), None)
    data = _data(value.get("data")) if value is not None else None
    if value is None or data is None:
        gathering.skip("lines behind the mark that are no object with data", line)
        return False
    step = value.get("step")
    pair = isinstance(step, list) and len(step) > 1
    _add(data, step, gathering, summary=pairs and not pair)
    return pair


def _add(data: dict[Any, Any], step: Any, gathering: Gathering, *, summary: bool) -> None:
    line = gathering.lines
    epoch, iteration = (0, 0) if summary else _position(step)
    rank = parse_iteration(data.pop("rank", 0))
    if epoch is None or iteration is None or rank is None:
        gathering.skip("records whose epoch, iteration or rank is not an integer of 64 bits", line)
        return
    values = {str(key): each for key, each in data.items()}
    metrics = gathering.numbers(values, line, _number)
    if summary:  # of an epoch, or of the whole run
        gathering.count("means of an epoch", "left out", line, kind=OddityKind.LEFT_OUT)
        metrics = {key: number for key, number in metrics.items() if gathering.known(key)[0]}
    if any(not gathering.known(key)[0] for key in (metrics or ({} if summary else values))):
        gathering.add(iteration, metrics, line, epoch=epoch, rank=rank)
    elif metrics:  # its iteration counts the batches of the validation
        gathering.add_validation(metrics, line, rank=rank)


def _data(value: Any) -> dict[Any, Any] | None:
    """Return the object that ``data`` is or holds as text."""
    if isinstance(value, str) and len(value) <= LONGEST_DATA:
        try:
            with warnings.catch_warnings():  # Python's own, about what is hardly a literal
                warnings.simplefilter("ignore")
                tree = ast.parse(value.lstrip(" \t"), mode="eval")
                data = ast.literal_eval(tree)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            return json_object(str(value))
        # Of a key that stands there twice Python would take the last in silence.
        once = isinstance(tree.body, ast.Dict) and isinstance(data, dict) and len(tree.body.keys) == len(data)
        return data if once else None
    return value if isinstance(value, dict) else None


def _position(step: Any) -> tuple[int | None, int | None]:
    """Return the epoch and the iteration that ``step`` means: both, or the iteration alone."""
    parts = [parse_iteration(each) for each in (step if isinstance(step, list) else [step])]
    if len(parts) == 1:
        return 0, parts[0]
    return (parts[0], parts[1]) if parts else (None, None)


def _number(value: Any) -> float | None:
    """Return the number that a value is, or that a text with a unit begins with."""
    if isinstance(value, str):
        words = value.split(maxsplit=1)
        return parse_number(words[0]) if words else None
    return measured(value)
