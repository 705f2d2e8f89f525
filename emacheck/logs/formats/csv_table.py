"""A table of one iteration per line: CSV with a header, separated by comma, semicolon, tab, or Markdown's bars."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from emacheck.counted import and_so_on
from emacheck.errors import LogError
from emacheck.logs.formats import wandb_columns
from emacheck.logs.gathering import Gathering, averaged
from emacheck.logs.lines import numbered
from emacheck.logs.naming import ITERATION_NAMES, is_loss, is_rank, says_validation, the_modes, the_rank, understood
from emacheck.logs.values import is_fraction, parse_iteration, parse_number
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "CSV"
ITERATION_COLUMNS = (*ITERATION_NAMES, "epoch", "epochs", "episode")
EPOCHS = frozenset({"epoch", "epochs"})
SEPARATORS = ",;\t|"
WIDEST = 10_000
_LOOKED_AT = 100
_RULER = re.compile(r"[\s|:+=-]+")
_COMMA = re.compile(r"[-+]?\d{1,20},\d{1,20}", re.ASCII)
_TIMES = frozenset({"wall_time", "timestamp", "_timestamp", "_runtime", "datetime", "date", "time_stamp"})


@dataclass(slots=True)
class _Header:
    """The columns of a table, and those of the iteration (None if rows are counted), of the epoch and of the rank."""

    names: list[str]
    given: list[str]
    separator: str
    iteration: int | None
    epoch: int | None = None
    rank: int | None = None
    modes: frozenset[int] = frozenset()
    row: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)
    left_out: frozenset[int] = frozenset()
    points_are_means: bool = False
    only: int | None = None


@dataclass(slots=True)
class _Cells:
    """Which columns hold a number somewhere, and which a text; and a number with a decimal comma, if there is one."""

    numbers: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    with_comma: str = ""


def recognises(head: str) -> bool:
    """Tell whether one of the first lines is a header: over a line of as many cells with a number among them."""
    lines = list(islice((line for line in io.StringIO(head) if line.strip()), _LOOKED_AT))
    for at, line in enumerate(lines):
        header = _header(line)
        if header is None:
            continue
        if not at and header.iteration is not None:
            return True
        row = next((each for each in lines[at + 1 : at + 3] if not _RULER.fullmatch(each.strip())), "")
        cells = _cells(row, header.separator) or []
        numbers = len(cells) == len(header.names) and any(parse_number(cell) is not None for cell in cells)
        if numbers and (not at or _is_place(header, cells)):
            return True
    return False


def read(lines: Iterable[str], name: str, rank: int | None = None, column: str | None = None) -> Record:
    """Read each numeric column but that of the iterations as a curve, or one of them as the loss.

    An empty cell is a missing iteration.
    """
    gathering = Gathering(format=NAME, name=name, rank=rank, plain=column is not None)
    rows = ((number, line) for number, line in numbered(lines) if line.strip())
    header, waiting = _found(rows, gathering)
    if column is not None:
        _take_only(column, header, name)
    elif header.iteration is None and not any(map(is_loss, header.names)):
        raise LogError(
            f"{name}: this table has no column of iterations. Its columns are: {', '.join(header.names)}. Expected one "
            f"of: {', '.join(ITERATION_COLUMNS)}; or, so that rows can be counted, a column whose name speaks of a "
            "loss. Rename the column that counts the iterations."
        )
    waiting += islice(rows, _LOOKED_AT)
    _count_if_parts_of_epochs(header, waiting)
    cells = _Cells()
    for number, texts in _whole(_chained(waiting, rows), header, gathering):
        _take(header, texts, cells, number, gathering)
    _remark(gathering, cells, header)
    curves = gathering.curves()
    losses = [each for each in curves if is_loss(each)]
    if column is None and "loss" not in curves and len(losses) > 1:
        choice = f"name a column behind the path to take it as the loss: {name}#{losses[0]}"
        gathering.remark(OddityKind.ARRAYS, f"several losses are in one file, perhaps of several runs; {choice}")
    gathering.remark_interval()
    return gathering.record(averaged(curves, 0) if header.points_are_means else curves)


def _found(rows: Iterator[tuple[int, str]], gathering: Gathering) -> tuple[_Header, list[tuple[int, str]]]:
    """Return the header and the lines read behind it; what stands before it is no part of the table."""
    first: _Header | None = None
    passed: list[tuple[int, str]] = []
    for number, line in islice(rows, _LOOKED_AT):
        gathering.lines = number
        header = _header(line)
        first = first or header
        if header is not None and (header.iteration is not None or (not passed and any(map(is_loss, header.names)))):
            for _, text in passed:
                gathering.header.read(text)
            return header, []
        passed.append((number, line))
    if first is None:
        line = passed[0][1] if passed else ""
        cells = _unique(_named(_cells(line, _separator(line)) or []))
        first = _Header(cells, cells, _separator(line), None)
    return first, passed[1:]


def _count_if_parts_of_epochs(header: _Header, rows: list[tuple[int, str]]) -> None:
    """Let rows be counted where an epoch of 0.25 is all that says where they belong."""
    at = header.iteration
    if at is None or _plain(header.names[at]) not in EPOCHS:
        return
    found = (_cells(line, header.separator) or [] for _, line in rows)
    if any(len(cells) == len(header.names) and is_fraction(cells[at]) for cells in found):
        header.iteration, header.left_out = None, header.left_out | {at}


def _take_only(column: str, header: _Header, name: str) -> None:
    """Leave out all columns but one, which is called ``loss``.

    Raises:
        LogError: If there is no such column.
    """
    bare = [understood(each) for each in header.names]
    names = (header.given, header.names, ["" if of_validation else each for of_validation, each in bare])
    at = next((each.index(column) for each in names if column in each), None)
    if at is None:
        raise LogError(f"{name}: there is no column {column!r} in this file. Found: {', '.join(header.names)}.")
    header.only = at
    header.left_out = frozenset(range(len(header.names))) - {at}
    header.names[at] = "loss"
    header.ranges = [pair for pair in header.ranges if header.given[pair[0]] == header.given[at] + wandb_columns.LEAST]


def _chained(waiting: list[tuple[int, str]], rows: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield from waiting
    yield from rows


def _header(line: str) -> _Header | None:
    """Return the header that a line is, or None if it is none: a cell is a number, or there is one cell only."""
    separator = _separator(line)
    found = _cells(line, separator)
    if found is None or not 2 <= len(found) <= WIDEST or any(parse_number(cell) is not None for cell in found):
        return None
    plain = [_plain(cell) for cell in found]
    at = next((plain.index(name) for name in ITERATION_COLUMNS if name in plain), None)
    epoch = next((i for i, cell in enumerate(plain) if cell in EPOCHS and i != at), None)
    if at is None and separator == "|":
        return None  # text with bars in it
    if at is None and not found[0]:
        at = 0  # the nameless index that pandas writes
    rank = the_rank(found)
    names, ranges = _unique(_named(wandb_columns.without_run(found))), wandb_columns.ranges(found)
    return _Header(
        names,
        _unique(found),
        separator,
        at,
        epoch,
        None if rank is None else found.index(rank),
        the_modes(found),
        ranges=ranges,
        left_out=frozenset(column for pair in ranges for column in pair),
    )


def _plain(cell: str) -> str:
    """Return a name as those of the columns of iterations are spelled; the Trainer calls its own ``train/...``."""
    return cell.lower().lstrip("# ").replace(" ", "_").removeprefix("train/")


def _named(cells: list[str]) -> list[str]:
    return [cell or f"column {at}" for at, cell in enumerate(cells, 1)]


def _is_place(header: _Header, cells: list[str]) -> bool:
    """Tell whether the column of iterations holds one: then the header may stand anywhere among the first lines."""
    return header.iteration is not None and parse_iteration(cells[header.iteration]) is not None


def _separator(line: str) -> str:
    """Return the separator that yields a column of iterations, else the most frequent one."""
    return max(SEPARATORS, key=lambda s: (_has_iteration(_cells(line, s) or []), line.count(s)))


def _has_iteration(cells: list[str]) -> bool:
    names = {_plain(cell) for cell in cells}
    return len(cells) > 1 and not names.isdisjoint(ITERATION_COLUMNS)


def _cells(line: str, separator: str) -> list[str] | None:
    """Return the cells of one line, or None if its quotes do not match."""
    if separator == "|":
        line = line.strip().removeprefix("|").removesuffix("|")
    if '"' not in line:
        return [cell.strip() for cell in line.split(separator)]
    try:
        row = next(csv.reader([line.rstrip("\r\n")], delimiter=separator, skipinitialspace=True, strict=True), [])
    except csv.Error:
        return None
    return [cell.strip() for cell in row]


def _unique(header: list[str]) -> list[str]:
    first = {name: at for at, name in reversed(list(enumerate(header)))}
    return [name if first[name] == at else f"{name} (column {at + 1})" for at, name in enumerate(header)]


def _whole(rows: Iterable[tuple[int, str]], header: _Header, gathering: Gathering) -> Iterator[tuple[int, list[str]]]:
    """Return the cells of the lines that have as many as the header; a line that has not would shift its cells."""
    torn, width = 0, len(header.names)
    for number, line in rows:
        gathering.lines = number
        if header.separator == "|" and _RULER.fullmatch(line.strip()):
            continue
        cells = _cells(line, header.separator) if "\0" not in line else None
        if cells is not None and len(cells) == width:
            yield number, cells
        elif cells is not None and not line.endswith(("\n", "\r")):
            torn = number
        else:
            gathering.skip("lines that have not as many cells as the header", number)
    if torn:
        gathering.remark(OddityKind.TORN, f"the last line, {torn}, is torn and was dropped", line=torn)


def _take(header: _Header, texts: list[str], cells: _Cells, number: int, gathering: Gathering) -> None:
    header.row += 1
    iteration = header.row if header.iteration is None else parse_iteration(texts[header.iteration])
    if iteration is None:
        gathering.skip("rows whose iteration is not an integer of 64 bits", number)
        return
    if header.row == 1 and header.rank is not None and is_fraction(texts[header.rank]):
        header.rank = None  # a metric that is called so
    rank = parse_iteration(texts[header.rank]) if header.rank is not None else 0
    if rank is None:
        gathering.skip("rows whose rank is not an integer of 64 bits", number)
        return
    if header.only is not None and not texts[header.only]:
        return  # a row of another column
    epoch = (parse_iteration(texts[header.epoch]) or 0) if header.epoch is not None else 0
    header.points_are_means |= any(texts[least] != texts[largest] for least, largest in header.ranges)
    metrics = _metrics(header, texts, cells, gathering)
    if any(says_validation(texts[mode]) for mode in header.modes):
        gathering.add_validation(metrics, number, iteration=iteration, epoch=epoch, rank=rank)
    elif not gathering.complete_last(iteration, metrics, rank=rank):
        gathering.add(iteration, metrics, number, epoch=epoch, rank=rank)


def _metrics(header: _Header, texts: list[str], cells: _Cells, gathering: Gathering) -> dict[str, float]:
    metrics = {}
    for column, (name, text) in enumerate(zip(header.names, texts, strict=True)):
        if column in (header.iteration, header.epoch) or not text or name.lower().replace(" ", "_") in _TIMES:
            continue
        if column in header.left_out:
            continue
        if header.rank is not None and is_rank(name):
            continue
        value = parse_number(text)
        if value is None and column in header.modes:
            continue
        if value is None:
            cells.texts.add(name)
            if not cells.with_comma and _COMMA.fullmatch(text):
                cells.with_comma = text
            gathering.unreadable(name, text, gathering.lines)
        else:
            cells.numbers.add(name)
            metrics[name] = value
    return metrics


def _remark(gathering: Gathering, cells: _Cells, header: _Header) -> None:
    texts = [name for name in header.names if name in cells.texts - cells.numbers]
    if texts:
        gathering.remark(OddityKind.LEFT_OUT, f"columns without a number are not read: {', '.join(texts)}")
    if cells.with_comma:
        gathering.remark(
            OddityKind.OTHER, f"numbers with a comma, such as {cells.with_comma}, are not read: write them with a point"
        )
    if not len(gathering.train):
        validated = [each for each in header.names if is_loss(each)]
        if len(gathering.validation) and validated:
            choice = (
                f"to judge those of a validation, name their column behind the path: {gathering.name}#{validated[0]}"
            )
            gathering.remark(OddityKind.ARRAYS, choice)
        return
    again = [name for at, name in enumerate(header.names, 1) if name.endswith(f" (column {at})")]
    if again and header.only is None:
        which = and_so_on(again, 3)
        gathering.remark(OddityKind.NAMELESS, f"several columns have one name, which the first keeps: {which}")
    if header.ranges:
        gathering.remark(
            OddityKind.LEFT_OUT,
            "the least and the largest of each point are left out: "
            f"{2 * len(header.ranges)} columns of Weights & Biases",
        )
    if header.points_are_means:
        gathering.remark(
            OddityKind.AVERAGED, "points stand for several iterations each, of how many is not in the file"
        )
    if header.iteration is None:
        gathering.remark(OddityKind.COUNTED, "the rows have no iteration: they are counted from 1")
    elif _plain(header.names[header.iteration]) in EPOCHS:
        gathering.remark(OddityKind.BY_EPOCH, "there is no iteration: the epoch is taken for it")
    if list(gathering.train.metrics) == ["Value"]:  # TensorBoard's export does not say what it holds
        gathering.train.rename("Value", "loss")
        gathering.remark(OddityKind.NAMELESS, "the values have no name: they are taken for the loss")
