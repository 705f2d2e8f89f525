"""Columns that are aligned with blanks: a line of names, perhaps behind ``#``, or numbers only."""

import io
from collections.abc import Iterable
from itertools import islice, pairwise

from emacheck.logs import oddities
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import numbered
from emacheck.logs.values import parse_iteration, parse_number, printed_unit
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "whitespace columns"
ITERATION_NAMES = ("iteration", "iter", "step", "global_step", "epoch")
WIDEST = 10_000
_LOOKED_AT = 20


def recognises(head: str) -> bool:
    """Tell whether names with an iteration among them stand over numbers, or the first column counts up."""
    rows = [line.split() for line in islice((line for line in io.StringIO(head) if line.strip()), _LOOKED_AT)]
    if len(rows) < 2 or len(rows[0]) > WIDEST:
        return False
    if _names(rows[0]) is not None:
        width = len(_names(rows[0]) or ())
        return any(len(row) == width and parse_iteration(row[0]) is not None for row in rows[1:])
    return _counts_up(rows)


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read each column of numbers but that of the iterations as a curve."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    names: list[str] = []
    at = 0
    for number, line in numbered(lines):
        gathering.lines = number
        row = line.split()
        if not row:
            continue
        header = _names(row)
        if header is not None:
            names, at = header, next(i for i, each in enumerate(header) if each.lower() in ITERATION_NAMES)
        elif not names and _all_numbers(row):
            names, at = ["iteration", *(f"column {i}" for i in range(2, len(row) + 1))], 0
            gathering.remark(OddityKind.NAMELESS, "the columns have no names: the first is taken for the iteration")
        if header is None:
            _take(row, names, at, gathering)
    if len(names) > at and names[at].lower() == "epoch":
        gathering.remark(OddityKind.EPOCHS, "there is no iteration: the epoch is taken for it")
    curves = gathering.curves()
    gathering.oddities += oddities.of_interval(curves[next(iter(curves))].iterations)
    return gathering.record(curves)


def _take(row: list[str], names: list[str], at: int, gathering: Gathering) -> None:
    number = gathering.lines
    iteration = parse_iteration(row[at]) if len(row) == len(names) else None
    if iteration is None:
        gathering.skip("lines that are no row of the table", number)
        return
    values = {name: parse_number(text) for name, text in zip(names, row, strict=True) if name != names[at]}
    metrics = {name: value for name, value in values.items() if value is not None}
    for name, text in zip(names, row, strict=True):
        if name in metrics:
            gathering.rounded_to(name, printed_unit(text))
    if metrics:
        gathering.add(iteration, metrics, number)


def _names(row: list[str]) -> list[str] | None:
    """Return the names that a line of words is, or None if it names no iteration or holds numbers."""
    words = row[1:] if row[0] == "#" else [row[0].removeprefix("#"), *row[1:]]
    known = any(word.lower() in ITERATION_NAMES for word in words)
    numbers = any(parse_number(word) is not None for word in words)
    whole = 2 <= len(words) <= WIDEST and len({*words}) == len(words)
    return words if known and whole and not numbers and all(word.isprintable() for word in words) else None


def _all_numbers(row: list[str]) -> bool:
    return 2 <= len(row) <= WIDEST and all(parse_number(each) is not None for each in row)


def _counts_up(rows: list[list[str]]) -> bool:
    if len(rows) < 3 or not all(_all_numbers(row) and len(row) == len(rows[0]) for row in rows):
        return False
    first = [parse_iteration(row[0]) if "." not in row[0] else None for row in rows]
    counted = [each for each in first if each is not None]
    return len(counted) == len(rows) and all(b > a for a, b in pairwise(counted))
