"""Columns that are aligned with blanks: a line of names, perhaps behind ``#``, or numbers only (or with commas)."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise

from emacheck.logs.formats.csv_table import EPOCHS, ITERATION_COLUMNS
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import numbered
from emacheck.logs.naming import is_rank, says_validation, the_modes, the_rank
from emacheck.logs.values import is_fraction, parse_iteration, parse_number, printed_unit
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "whitespace columns"
WIDEST = 10_000
_LOOKED_AT = 100
_RULER = frozenset("-=+|: ")


@dataclass(slots=True)
class _Titles:
    """The names of the columns, and which of them hold the iteration, the epoch beside it, and the rank."""

    names: list[str]
    iteration: int = 0
    epoch: int | None = None
    rank: int | None = None
    modes: frozenset[int] = frozenset()
    rows: int = 0


def recognises(head: str) -> bool:
    """Tell whether names with an iteration among them stand over numbers, or the first column counts up."""
    lines = list(islice((line for line in io.StringIO(head) if line.strip()), _LOOKED_AT))
    rows = [line.split() for line in lines]
    if len(rows) < 2 or len(rows[0]) > WIDEST:
        return False
    for at, row in enumerate(rows[:-1]):
        names = _names(row)
        if names is None:
            continue
        place = _place(names)
        behind = next((rows[i] for i in range(at + 1, len(rows)) if not _is_ruler(lines[i])), [])
        numbers = sum(parse_number(each) is not None for each in behind)
        if len(behind) == len(names) and parse_iteration(behind[place]) is not None and 2 * numbers > len(names):
            return True
    return _counts_up([_apart(line) for line in lines if not line.startswith("#")])


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read each column of numbers but those of the iterations and ranks as a curve."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    titles = _Titles([])
    for number, line in numbered(lines):
        gathering.lines = number
        row = line.split() if titles.names else _apart(line)
        if not row or _is_ruler(line):
            continue
        header = _names(row)
        if header is not None:
            titles = _titles(header)
        elif not titles.names and line.startswith("#"):
            gathering.header.read(line)
        elif not titles.names and _all_numbers(row):
            titles = _titles(_nameless(len(row)))
            gathering.remark(OddityKind.NAMELESS, "the columns have no names: the first is taken for the iteration")
        if header is None and not line.startswith("#"):
            _take(_apart(line) if len(row) != len(titles.names) else row, titles, gathering)
    if titles.names and titles.names[titles.iteration].lower() in EPOCHS:
        gathering.remark(OddityKind.BY_EPOCH, "there is no iteration: the epoch is taken for it")
    curves = gathering.curves()
    gathering.remark_interval()
    return gathering.record(curves)


def _titles(names: list[str]) -> _Titles:
    at, rank = _place(names), the_rank(names)
    epoch = next((i for i, name in enumerate(names) if name.lower() in EPOCHS and i != at), None)
    return _Titles(names, at, epoch, None if rank is None else names.index(rank), the_modes(names))


def _take(row: list[str], titles: _Titles, gathering: Gathering) -> None:
    names, number = titles.names, gathering.lines
    iteration = parse_iteration(row[titles.iteration]) if names and len(row) == len(names) else None
    if iteration is None:
        gathering.skip("lines that are no row of the table", number)
        return
    if titles.rank is not None and not titles.rows and is_fraction(row[titles.rank]):
        titles.rank = None  # a metric that is called so
    titles.rows += 1
    rank = parse_iteration(row[titles.rank]) if titles.rank is not None else 0
    if rank is None:
        gathering.skip("rows whose rank is not an integer of 64 bits", number)
        return
    its_epoch = parse_iteration(row[titles.epoch]) if titles.epoch is not None else None
    left = {titles.iteration, titles.epoch if its_epoch is not None else None}
    metrics = {}
    for at, (name, text) in enumerate(zip(names, row, strict=True)):
        if at in left or (titles.rank is not None and is_rank(name)):
            continue
        value = parse_number(text)
        if value is None:
            gathering.unreadable(name, text, number)
        else:
            metrics[name] = value
            gathering.rounded_to(name, printed_unit(text))
    if any(says_validation(row[mode]) for mode in titles.modes):
        gathering.add_validation(metrics, number, iteration=iteration, epoch=its_epoch or 0, rank=rank)
    else:
        gathering.add(iteration, metrics, number, epoch=its_epoch or 0, rank=rank)


def _nameless(width: int) -> list[str]:
    """Return names for columns without: the only one besides the iteration can only be the loss."""
    return ["iteration", *(["loss"] if width == 2 else [f"column {i}" for i in range(2, width + 1)])]


def _names(row: list[str]) -> list[str] | None:
    """Return the names that a line of words is, or None if it names no iteration or holds numbers."""
    words = row[1:] if row[0] == "#" else [row[0].removeprefix("#"), *row[1:]]
    known = any(word.lower() in ITERATION_COLUMNS for word in words)
    numbers = any(parse_number(word) is not None for word in words)
    whole = 2 <= len(words) <= WIDEST and len({*words}) == len(words)
    return words if known and whole and not numbers and all(word.isprintable() for word in words) else None


def _place(names: list[str]) -> int:
    """Return which column holds the iteration, the most telling name first."""
    plain = [name.lower() for name in names]
    return min((ITERATION_COLUMNS.index(name), at) for at, name in enumerate(plain) if name in ITERATION_COLUMNS)[1]


def _apart(line: str) -> list[str]:
    """Return the words of a line, between blanks and commas."""
    return line.replace(",", " ").split()


def _is_ruler(line: str) -> bool:
    return _RULER.issuperset(line.strip())


def _all_numbers(row: list[str]) -> bool:
    return 2 <= len(row) <= WIDEST and all(parse_number(each) is not None for each in row)


def _counts_up(rows: list[list[str]]) -> bool:
    rows = rows[:20]
    if len(rows) < 3 or not all(_all_numbers(row) and len(row) == len(rows[0]) for row in rows):
        return False
    first = [parse_iteration(row[0]) for row in rows]
    counted = [each for each in first if each is not None]
    return len(counted) == len(rows) and all(b > a for a, b in pairwise(counted))
