"""mmcv 1.x's ``.log.json``: one JSON object per line with its ``mode``, after an object about the environment."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from emacheck.logs.formats.json_lines import leading_objects, objects
from emacheck.logs.formats.mmcv_text import curves_of
from emacheck.logs.gathering import Gathering
from emacheck.logs.values import parse_iteration
from emacheck.printed import unit_if_rounded
from emacheck.record import Record

NAME = "mmcv JSON"
NOT_METRICS = frozenset({"mode", "epoch", "iter", "memory"})
DECIMALS = 5


def recognises(head: str) -> bool:
    """Tell whether one of the first lines is a JSON object with ``mode`` and ``iter``."""
    return any("mode" in value and "iter" in value for value in leading_objects(head))


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read the curves; iterations that start again in every epoch are counted on."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    for number, row in objects(lines, gathering):
        if row.get("mode") in ("val", "train"):
            _take(row, number, gathering)
        elif row:
            _read_header(row, gathering)
    curves = curves_of(gathering)
    return gathering.record(
        {key: replace(curve, quantum=unit_if_rounded(curve.values, DECIMALS)) for key, curve in curves.items()}
    )


def _take(row: dict[str, Any], number: int, gathering: Gathering) -> None:
    epoch, iteration = parse_iteration(row.get("epoch", 1)), parse_iteration(row.get("iter"))
    values = {key: value for key, value in row.items() if key not in NOT_METRICS}
    metrics = gathering.numbers(values, number)
    if epoch is None or iteration is None:
        gathering.skip("rows whose epoch or iter is not an integer of 64 bits", number)
    elif row["mode"] == "train" and values:
        gathering.add_either(iteration, metrics, number, epoch=epoch)
    elif metrics:
        # What counts the batches of the validation is smaller than the iteration that the training has reached.
        before = gathering.train.last_iteration
        ahead = before is not None and iteration > before
        gathering.add_validation(metrics, number, iteration=iteration if ahead else None, epoch=epoch)


def _read_header(row: dict[str, Any], gathering: Gathering) -> None:
    for key, value in row.items():
        if key == "env_info" and isinstance(value, str):
            gathering.header.read_text(value)
        elif key == "config" and isinstance(value, str):
            gathering.header.read_config(value)
        else:
            gathering.header.put_all("", {key: value})
