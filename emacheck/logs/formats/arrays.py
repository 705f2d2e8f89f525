"""Bare numbers, one after the other, perhaps under titles such as ``=== CUDA ===``: one array for each title."""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise

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
# What Python prints around the numbers of an array.
_AROUND = re.compile(
    r"(?:(?:np|numpy|torch)\.)?(?:array|tensor)\((?=\s*\[)|,\s*(?:dtype|device|requires_grad|grad_fn)=[^,()\[\]]{1,60}"
)
_GROUP = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
_LOOKED_AT = 200
_ROWS = 3
"""So many rows of as many numbers may be a table."""
_LARGEST = 2.0**53
_NARROW = 4
"""So many columns are a table, whatever the first is; more may as well be an array that is printed in lines."""
_FIRST_NAME = "loss"


def recognises(head: str) -> bool:
    """Tell whether many of the first lines consist of numbers, with a decimal point among them."""
    lines = list(islice((line for line in io.StringIO(head) if line.strip()), _LOOKED_AT))
    found = ([each for row in _titled(line)[1] for each in row if each is not None] for line in lines)
    rows = [values for values in found if values]
    enough = len(rows) > 1 or any(len(values) > 2 for values in rows)
    return enough and 3 * len(rows) > len(lines) and any(not value.is_integer() for row in rows for value in row)


@dataclass(slots=True)
class _Array:
    """The numbers under one title, and how many stand in each row; ``apart`` where no bracket spans several rows."""

    values: list[float | None] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    apart: bool = True

    def columns(self) -> list[list[float | None]]:
        """Return the columns if this is a table: rows of as many numbers, few or behind one that counts up."""
        width = self.widths[0]
        if not self.apart or len(self.widths) < _ROWS or width < 2 or any(each != width for each in self.widths):
            return [self.values]
        columns = [self.values[at::width] for at in range(width)]
        return columns if width <= _NARROW or _counts_up(columns[0]) else [self.values]


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read one curve per array, named by its title; the position in the array is the iteration.

    Rows of as many numbers are a table: each column is an array, unless the first one counts the iterations.
    """
    gathering = Gathering(format=NAME, name=name, rank=rank, plain=True)
    found: dict[str, _Array] = {}
    title = _FIRST_NAME
    for number, line in numbered(lines):
        gathering.lines = number
        name_of_line, rows = _titled(line)
        title = name_of_line or title
        if rows:
            array = found.setdefault(title, _Array())
            array.apart &= line.count("[") + line.count("(") == line.count("]") + line.count(")")
            for values in rows:
                array.widths.append(len(values))
                array.values.extend(values)
                for _ in range(values.count(None)):
                    gathering.unreadable(title, line.strip(), number)
        elif named := _TITLE.fullmatch(line.strip()[:100]):
            title = named[1].encode("utf-8", "replace").decode()
        elif any(character.isdigit() for character in line):
            gathering.skip("lines that are neither numbers nor a title", number)
    arrays = dict(_parted(found))
    if any(iterations is None for iterations, _ in arrays.values()):
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


def _parted(found: dict[str, _Array]) -> Iterator[tuple[str, tuple[list[int] | None, list[float | None]]]]:
    """Return each array by its name, with its iterations if the first column of its table counts them."""
    for title, array in found.items():
        columns = array.columns()
        counted = len(columns) > 1 and _counts_up(columns[0])
        iterations = [int(each) for each in columns[0] if each is not None] if counted else None
        for at, values in enumerate(columns[counted:], 1 + counted):
            column = f"column {at}" if title == _FIRST_NAME else f"{title} column {at}"
            yield title if len(columns) == 1 + counted else column, (iterations, values)


def _counts_up(values: list[float | None]) -> bool:
    """Tell whether numbers are whole and each is larger than the one before."""
    whole = [each for each in values if each is not None and each.is_integer() and abs(each) < _LARGEST]
    return len(whole) == len(values) and all(a < b for a, b in pairwise(whole))


def _record(arrays: dict[str, tuple[list[int] | None, list[float | None]]], gathering: Gathering) -> Record:
    placed = {
        name: list(zip(iterations or range(1, len(values) + 1), values, strict=True))
        for name, (iterations, values) in arrays.items()
    }
    curves = {name: _curve(name, of) for name, of in placed.items() if any(value is not None for _, value in of)}
    if not curves:
        gathering.curves()  # says that there is nothing
    blank = {at for of in placed.values() for at, value in of if value is None}
    return replace(gathering.record(curves), blank=np.array(sorted(blank), np.int64))


def _curve(name: str, of: list[tuple[int, float | None]]) -> Curve:
    numbers = {at: value for at, value in of if value is not None}
    known = np.array([*numbers.values()])
    return Curve(name=name, iterations=[*numbers], values=known, window=0, quantum=unit_of(known))


def _titled(line: str) -> tuple[str, list[list[float | None]]]:
    """Return the rows of numbers that a line consists of, and the name before them, as in ``loss = [4.5, 4.25]``.

    Several rows are in ``[(1, 4.5), (2, 4.25)]``. Where a word such as ``None`` stands in the place of a number there
    is None.
    """
    if "[" not in line and "(" not in line:
        values = _numbers(line)
        return "", [values] if values else []
    line = _AROUND.sub("", line)
    named = _NAMED.match(line[:100]) if "[" in line else None
    text = line if named is None else line[named.end() :]
    values = _numbers(text)
    if not values:
        return "", []
    rows = [row for group in _GROUP.findall(text) if (row := _numbers(group))]
    whole = len(rows) > 1 and sum(map(len, rows)) == len(values)
    return named[1] if named else "", rows if whole else [values]


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
