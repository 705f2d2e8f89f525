"""Bare numbers, one after the other, perhaps under titles such as ``=== CUDA ===``: one array for each title."""

import io
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import numpy as np

from emacheck.curve import Curve
from emacheck.errors import LogError
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import numbered
from emacheck.logs.values import NOT_FINITE, WRAPPER, is_absent, parse_number
from emacheck.oddity import OddityKind
from emacheck.printed import unit_of
from emacheck.record import Record

NAME = "arrays of numbers"
_TITLE = re.compile(r"\W*(\w[^=\r\n]{0,60}?)\s*[=:#\]\[*-]*\s*")
_NAMED = re.compile(r"\s*[\"']?([A-Za-z_][\w .-]{0,59}?)[\"']?\s*[:=]?\s*(?=\[)")
_LOOKED_AT = 200
_FIRST_NAME = "loss"


def recognises(head: str) -> bool:
    """Tell whether many of the first lines consist of numbers, with a decimal point among them."""
    lines = list(islice((line for line in io.StringIO(head) if line.strip()), _LOOKED_AT))
    found = ([each for each in _titled(line)[1] if each is not None] for line in lines)
    rows = [values for values in found if values]
    enough = len(rows) > 1 or any(len(values) > 2 for values in rows)
    return enough and 3 * len(rows) > len(lines) and any(not value.is_integer() for row in rows for value in row)


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read one curve per array, named by its title; the position in the array is the iteration."""
    gathering = Gathering(format=NAME, name=name, rank=rank, plain=True)
    arrays: dict[str, list[float | None]] = {}
    title = _FIRST_NAME
    for number, line in numbered(lines):
        gathering.lines = number
        name_of_line, values = _titled(line)
        title = name_of_line or title
        if values:
            arrays.setdefault(title, []).extend(values)
            for _ in range(values.count(None)):
                gathering.unreadable(title, line.strip(), number)
        elif found := _TITLE.fullmatch(line.strip()[:100]):
            title = found[1].encode("utf-8", "replace").decode()
    gathering.remark(OddityKind.COUNTED, "the numbers have no iteration: they are counted from 1")
    if len(arrays) > 1:
        gathering.remark(
            OddityKind.ARRAYS,
            f"{len(arrays)} arrays are in one file: {', '.join(islice(arrays, 10))}. Name one behind the path to take "
            f"it as the loss: {name}#{next(iter(arrays))}",
        )
    return _record(arrays, gathering)


def section_of(record: Record, section: str) -> Record:
    """Return the record of one array, whose curve is called ``loss``."""
    if record.format != NAME or section not in record.curves:
        found = ", ".join(record.curves) if record.format == NAME else f"a log in the format {record.format!r}"
        raise LogError(f"{record.name}: there is no array {section!r} in this file. Found: {found}.")
    choice = (OddityKind.ARRAYS, OddityKind.NO_LOSS)
    remarks = tuple(each for each in record.oddities if each.kind not in choice)
    curves = {"loss": replace(record.curves[section], name="loss")}
    return replace(record, curves=curves, validation={}, oddities=remarks)


def _record(arrays: dict[str, list[float | None]], gathering: Gathering) -> Record:
    curves = {name: _curve(name, values) for name, values in arrays.items() if any(each is not None for each in values)}
    if not curves:
        gathering.curves()  # says that there is nothing
    blank = {at for values in arrays.values() for at, value in enumerate(values, 1) if value is None}
    return replace(gathering.record(curves), blank=np.array(sorted(blank), np.int64))


def _curve(name: str, values: list[float | None]) -> Curve:
    numbers = {at: value for at, value in enumerate(values, 1) if value is not None}
    known = np.array([*numbers.values()])
    return Curve(name=name, iterations=[*numbers], values=known, window=0, quantum=unit_of(known))  # type: ignore[arg-type]


def _titled(line: str) -> tuple[str, list[float | None]]:
    """Return the numbers that a line consists of, and the name before them, as in ``loss = [4.5, 4.25]``.

    Where a word such as ``None`` stands in the place of a number there is None.
    """
    named = _NAMED.match(line[:100]) if "[" in line else None
    if named is None:
        return "", _numbers(line)
    values = _numbers(line[named.end() :])
    return (named[1], values) if values else ("", [])


def _numbers(line: str) -> list[float | None]:
    """Return the numbers that a line consists of, or nothing; brackets and commas may be around them."""
    if "(" in line or "#" in line:
        line = _SPELLED.sub(lambda found: f" {parse_number(found[0])} ", line)
    words = line.translate(_APART).split()
    values = [parse_number(word) for word in words]
    known = all(value is not None or is_absent(word) for word, value in zip(words, values, strict=True))
    return values if known else []


_SPELLED = re.compile(rf"{NOT_FINITE}|{WRAPPER}[^,()]{{1,40}}(?:,[^()]{{0,80}})?\)", re.ASCII | re.IGNORECASE)
_APART = str.maketrans("[](),;'\"", "        ")
