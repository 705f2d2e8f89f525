"""Text of one JSON object per line."""

import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NoReturn

from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import numbered
from emacheck.oddity import OddityKind

LOOKED_AT = 1000
LONGEST_PREFIX = 200


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; of a key that stands there twice Python would take the last value in silence.

    Raises:
        ValueError: If a key stands there with several values.

    Source: RFC 8259, section 4: what software makes of names that are not unique is unpredictable.

    Example:
        >>> json.loads('{"loss": NaN, "loss": 2.5}', object_pairs_hook=unique)
        Traceback (most recent call last):
        ValueError: the key 'loss' stands in one object with several values
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        for key, value in pairs:
            if value != found[key]:
                raise ValueError(f"the key {key!r} stands in one object with several values")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=unique)


def json_object(text: str, *, strict: bool = False) -> dict[str, Any] | None:
    """Return the JSON object that ``text`` is, or None.

    Args:
        text: The text.
        strict: Refuse NaN and Infinity, which Python writes and the standard does not know.
    """
    try:
        value = json.loads(text, parse_constant=_refuse if strict else None, object_pairs_hook=unique)
    except (ValueError, RecursionError):  # not JSON, an integer of too many digits, nested too deeply, a key twice
        return None
    return value if isinstance(value, dict) else None


def json_objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects that a text begins with, one behind the other; what follows them may be anything.

    Example:
        >>> json_objects('{"step": 1}{"step": 2} 5%|#')
        [{'step': 1}, {'step': 2}]
    """
    found, rest = list[dict[str, Any]](), text.lstrip()
    while rest.startswith("{"):
        try:
            value, end = _DECODER.raw_decode(rest)
        except (ValueError, RecursionError):
            break
        found.append(value)
        rest = rest[end:].lstrip()
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def leading_objects(head: str) -> Iterator[dict[str, Any]]:
    """Return the JSON objects among the first lines of ``head`` that hold one, perhaps behind words of a logger."""
    candidates = (line for line in io.StringIO(head) if '{"' in line or line.lstrip().startswith("{"))
    return (value for line in islice(candidates, LOOKED_AT) if (value := line_object(line)) is not None)


def line_object(line: str) -> dict[str, Any] | None:
    """Return the JSON object that a line is, or that stands at its end behind the words of a logger, or None.

    Example:
        >>> line_object('INFO:root:{"step": 1, "loss": 2.5}'), line_object("loss: 2.5")
        ({'step': 1, 'loss': 2.5}, None)
    """
    text = line.strip()
    if text.startswith("{"):
        return json_object(text)
    at = text.find('{"')
    return json_object(text[at:]) if 0 < at <= LONGEST_PREFIX and text.endswith("}") else None


def objects(lines: Iterable[str], gathering: Gathering) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return each line's number and object; lines that hold none are counted and skipped."""
    torn = 0
    for number, line in numbered(lines):
        gathering.lines = number
        if not line.strip():
            continue
        value = line_object(line)
        found = [value] if value is not None else json_objects(line) if line.lstrip().startswith("{") else []
        if found:
            yield from ((number, each) for each in found)
        elif line.lstrip().startswith("{") and not line.endswith(("\n", "\r")):
            torn = number
        else:
            gathering.skip("lines that are not a valid JSON object", number)
    if torn:
        gathering.remark(OddityKind.TORN, f"the last line, {torn}, is torn and was dropped", line=torn)
