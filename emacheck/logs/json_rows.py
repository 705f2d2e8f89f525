"""JSON lines of anybody: one object per line with an iteration, or at least an epoch, and metrics."""

from collections.abc import Iterable, Mapping
from typing import Any

from emacheck.logs import oddities
from emacheck.logs.gathering import Gathering
from emacheck.logs.json_lines import leading_objects, objects
from emacheck.logs.naming import understood
from emacheck.logs.values import measured, parse_iteration
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "JSON lines"
ITERATION_KEYS = ("iteration", "iter", "global_step", "step", "_step", "it")
EPOCH_KEY = "epoch"
DEEPEST = 4


def recognises(head: str) -> bool:
    """Tell whether one of the first objects has an iteration or an epoch and a number, and is of no known writer."""
    return any(map(_is_row, leading_objects(head)))


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read the curves; of nested objects, under dotted names."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    by_epoch = True
    for number, row in objects(lines, gathering):
        key = next((key for key in ITERATION_KEYS if key in row), None)
        by_epoch = by_epoch and key is None
        epoch = parse_iteration(row.get(EPOCH_KEY, 0))
        iteration = parse_iteration(row[key]) if key is not None else epoch if EPOCH_KEY in row else None
        its_rank = parse_iteration(row.get("rank", 0))
        rest = {name: value for name, value in row.items() if name not in (*ITERATION_KEYS, EPOCH_KEY, "rank")}
        metrics = dict(_numbers(rest))
        if iteration is None or its_rank is None:
            _skip(row, number, gathering)
        elif row.get("mode") in ("val", "valid", "test", "eval"):
            gathering.add_validation(metrics, number, iteration=iteration, rank=its_rank)
        elif metrics:
            whole = (
                epoch if epoch is not None and key is not None else 0
            )  # an epoch of 0.25 only restates the iteration
            gathering.add(iteration, metrics, number, epoch=whole, rank=its_rank)
    if by_epoch and len(gathering.train):
        gathering.remark(OddityKind.EPOCHS, "there is no iteration: the epoch is taken for it")
    curves = gathering.curves()
    gathering.oddities += oddities.of_interval(curves[next(iter(curves))].iterations)
    return gathering.record(curves)


def _skip(row: Mapping[str, Any], number: int, gathering: Gathering) -> None:
    if any(key in row for key in (*ITERATION_KEYS, EPOCH_KEY)):
        gathering.skip("rows whose iteration or rank is not an integer of 64 bits", number)
    else:
        gathering.header.put_all("", row)


def _is_row(row: Mapping[str, Any]) -> bool:
    if isinstance(row.get("metrics"), dict) or ("mode" in row and "iter" in row):
        return False
    named = any(understood(key)[1] != key for key in row)
    known = any(key in row for key in (*ITERATION_KEYS, EPOCH_KEY))
    return known and ("step" not in row or named or "iteration" in row) and len(dict(_numbers(row))) > 1


def _numbers(row: Mapping[str, Any], prefix: str = "", depth: int = DEEPEST) -> "list[tuple[str, float]]":
    found = []
    for key, value in row.items():
        number = measured(value)
        if number is not None:
            found.append((f"{prefix}{key}", number))
        elif isinstance(value, dict) and depth:
            found += _numbers(value, f"{prefix}{key}.", depth - 1)
    return found
