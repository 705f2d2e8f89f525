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
from emacheck.logs.values import parse_number
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "arrays of numbers"
_TITLE = re.compile(r"\W*(\w[^=\r\n]{0,60}?)\s*[=:#\]\[*-]*\s*")
_NAMED = re.compile(r"\s*[\"']?([A-Za-z_][\w .-]{0,59}?)[\"']?\s*[:=]?\s*(?=\[)")
_LOOKED_AT = 200
_FIRST_NAME = "loss"


def recognises(head: str) -> bool:
    """Tell whether many of the first lines consist of numbers, with a decimal point among them."""
    lines = list(islice((line for line in io.StringIO(head) if line.strip()), _LOOKED_AT))
    rows = [values for line in lines if (values := _titled(line)[1])]
    enough = len(rows) > 1 or any(len(values) > 2 for values in rows)
    return enough and 3 * len(rows) > len(lines) and any(not value.is_integer() for row in rows for value in row)


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read one curve per array, named by its title; the position in the array is the iteration."""
    gathering = Gathering(format=NAME, name=name, rank=rank, plain=True)
    arrays: dict[str, list[float]] = {}
    title = _FIRST_NAME
    for number, line in numbered(lines):
        gathering.lines = number
        name_of_line, values = _titled(line)
        title = name_of_line or title
        if values:
            arrays.setdefault(title, []).extend(values)
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
    remarks = tuple(each for each in record.oddities if each.kind is not OddityKind.ARRAYS)
    return replace(record, curves={"loss": replace(record.curves[section], name="loss")}, oddities=remarks)


def _record(arrays: dict[str, list[float]], gathering: Gathering) -> Record:
    if not arrays:
        gathering.curves()  # says that there is nothing
    curves = {
        name: Curve(
            name=name,
            iterations=np.arange(1, len(values) + 1),
            values=np.array(values),
            window=0,
            quantum=_quantum(values),
        )
        for name, values in arrays.items()
    }
    return gathering.record(curves)


def _titled(line: str) -> tuple[str, list[float]]:
    """Return the numbers that a line consists of, and the name before them, as in ``loss = [4.5, 4.25]``."""
    named = _NAMED.match(line[:100]) if "[" in line else None
    if named is None:
        return "", _numbers(line)
    values = _numbers(line[named.end() :])
    return (named[1], values) if values else ("", [])


def _numbers(line: str) -> list[float]:
    """Return the numbers that a line consists of, or nothing; brackets and commas may be around them."""
    values = [parse_number(word) for word in line.translate(_APART).split()]
    return [value for value in values if value is not None] if None not in values else []


_APART = str.maketrans("[](),;'\"", "        ")


def _quantum(values: list[float]) -> float:
    """Return the unit of the last decimal that any of the numbers needs, 0 if they need more than six."""
    finite = [value for value in values if np.isfinite(value)]
    for decimals in range(1, 7):
        if all(round(value, decimals) == value for value in finite):
            return float(f"1e-{decimals}")
    return 0.0
