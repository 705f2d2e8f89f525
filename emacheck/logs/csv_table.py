"""A table of one iteration per line: CSV with a header, separated by comma, semicolon or tab."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from emacheck.errors import LogError
from emacheck.logs import oddities
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import numbered
from emacheck.logs.values import parse_iteration, parse_number
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "CSV"
ITERATION_COLUMNS = ("iteration", "iter", "step", "global_step", "epoch")
SEPARATORS = ",;\t"
WIDEST = 10_000


@dataclass(slots=True)
class _Cells:
    """How many cells of each column hold a number, and how many a text (with the line of the first)."""

    numbers: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    first_text: dict[str, int] = field(default_factory=dict)


def recognises(head: str) -> bool:
    """Tell whether the text starts like a table: a header, and a line of as many cells with a number among them."""
    lines = list(islice((line for line in io.StringIO(head) if line.strip()), 2))
    if not lines:
        return False
    separator = _separator(lines[0])
    header = _cells(lines[0], separator)
    if header is None or not 2 <= len(header) <= WIDEST:
        return False
    if _iteration_column(header) is not None:
        return True
    row = _cells(lines[1], separator) if len(lines) > 1 else None
    if row is None or len(row) != len(header) or any(parse_number(cell) is not None for cell in header):
        return False
    return any(parse_number(cell) is not None for cell in row)


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read each numeric column but that of the iterations as a curve; an empty cell is a missing iteration."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    rows = ((number, line) for number, line in numbered(lines) if line.strip())
    gathering.lines, first = next(rows, (0, ""))
    separator = _separator(first)
    header = _unique([cell or f"column {at}" for at, cell in enumerate(_cells(first, separator) or [], 1)])
    at = _iteration_column(header)
    if at is None:
        raise LogError(
            f"{name}: this table has no column of iterations. Its columns are: {', '.join(header)}. Expected one of: "
            f"{', '.join(ITERATION_COLUMNS)}. Rename the column that counts the iterations."
        )
    cells = _Cells()
    for number, texts in _whole(rows, separator, len(header), gathering):
        iteration = parse_iteration(texts[at])
        if iteration is None:
            gathering.skip("rows whose iteration is not an integer of 64 bits", number)
        elif (metrics := _metrics(header, texts, at, cells, number)) and not gathering.complete_last(
            iteration, metrics
        ):
            gathering.add(iteration, metrics, number)
    _remark(gathering, cells)
    if header[at].lower() == "epoch" and len(gathering.train):
        gathering.remark(OddityKind.EPOCHS, "there is no iteration: the epoch is taken for it")
    curves = gathering.curves()
    gathering.oddities += oddities.of_interval(curves[next(iter(curves))].iterations)
    return gathering.record(curves)


def _separator(line: str) -> str:
    """Return the separator that yields a column of iterations, else the most frequent one."""
    return max(SEPARATORS, key=lambda s: (_iteration_column(_cells(line, s) or []) is not None, line.count(s)))


def _cells(line: str, separator: str) -> list[str] | None:
    """Return the cells of one line, or None if its quotes do not match."""
    if '"' not in line:
        return [cell.strip() for cell in line.split(separator)]
    try:
        row = next(csv.reader([line.rstrip("\r\n")], delimiter=separator, skipinitialspace=True, strict=True), [])
    except csv.Error:
        return None
    return [cell.strip() for cell in row]


def _iteration_column(header: list[str]) -> int | None:
    names = [cell.lower() for cell in header]
    return next((names.index(name) for name in ITERATION_COLUMNS if name in names), None) if len(names) > 1 else None


def _unique(header: list[str]) -> list[str]:
    first = {name: at for at, name in reversed(list(enumerate(header)))}
    return [name if first[name] == at else f"{name} (column {at + 1})" for at, name in enumerate(header)]


def _whole(
    rows: Iterable[tuple[int, str]], separator: str, width: int, gathering: Gathering
) -> Iterator[tuple[int, list[str]]]:
    """Return the cells of the lines that have as many as the header; a line that has not would shift its cells."""
    torn = 0
    for number, line in rows:
        gathering.lines = number
        cells = _cells(line, separator) if "\0" not in line else None
        if cells is not None and len(cells) == width:
            yield number, cells
        elif cells is not None and not line.endswith(("\n", "\r")):
            torn = number
        else:
            gathering.skip("lines that have not as many cells as the header", number)
    if torn:
        gathering.remark(OddityKind.TORN, f"the last line, {torn}, is torn and was dropped", line=torn)


def _metrics(header: list[str], texts: list[str], at: int, cells: _Cells, number: int) -> dict[str, float]:
    metrics = {}
    for column, (name, text) in enumerate(zip(header, texts, strict=True)):
        if column == at or not text:
            continue
        value = parse_number(text)
        if value is None:
            cells.texts[name] = cells.texts.get(name, 0) + 1
            cells.first_text.setdefault(name, number)
        else:
            cells.numbers[name] = cells.numbers.get(name, 0) + 1
            metrics[name] = value
    return metrics


def _remark(gathering: Gathering, cells: _Cells) -> None:
    texts = [name for name in cells.texts if name not in cells.numbers]
    if texts:
        gathering.remark(OddityKind.LEFT_OUT, f"columns without a number are not read: {', '.join(texts)}")
    for name, count in cells.texts.items():
        if name in cells.numbers:
            line = cells.first_text[name]
            message = f"cells of column {name} that are not a number: {count} left out, the first on line {line}"
            gathering.remark(OddityKind.SKIPPED, message, line=line)
