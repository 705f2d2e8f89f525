"""mmcv 1.x's ``.log.json``: one JSON object per line with its ``mode``, after an object about the environment."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from emacheck.curve import Curve
from emacheck.logs.formats.json_lines import leading_objects, objects
from emacheck.logs.gathering import Gathering, averaged
from emacheck.logs.values import measured, parse_iteration
from emacheck.oddity import OddityKind
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
    curves = gathering.curves()
    interval = gathering.interval
    if interval > 1 and len(gathering.train) > 1:
        message = f"recorded every {interval} iterations: mmcv averages each value over all of them"
        gathering.remark(OddityKind.AVERAGED, message)
    curves = {
        key: replace(curve, quantum=_quantum(curve))
        for key, curve in averaged(curves, interval if len(gathering.train) > 1 else 0).items()
    }
    if "lr" in curves:  # the only one that mmcv writes as it is
        curves["lr"] = replace(curves["lr"], window=1)
    return gathering.record(curves)


def _take(row: dict[str, Any], number: int, gathering: Gathering) -> None:
    epoch, iteration = parse_iteration(row.get("epoch", 1)), parse_iteration(row.get("iter"))
    values = {key: measured(value) for key, value in row.items() if key not in NOT_METRICS}
    metrics = {key: value for key, value in values.items() if value is not None}
    for key in values.keys() - metrics.keys():
        gathering.unreadable(key, row[key], number)
    if epoch is None or iteration is None:
        gathering.skip("rows whose epoch or iter is not an integer of 64 bits", number)
    elif row["mode"] == "train" and (metrics or values):
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


def _quantum(curve: Curve) -> float:
    """Return 1e-5 if every value is rounded to mmcv's five decimals, else 0."""
    finite = curve.values[np.isfinite(curve.values)]
    return 10.0**-DECIMALS if all(round(value, DECIMALS) == value for value in finite.tolist()) else 0.0
