"""mmcv 1.x's ``.log.json``: one JSON object per line with its ``mode``, after an object about the environment."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from emacheck.curve import Curve
from emacheck.logs.epochs import count_on
from emacheck.logs.gathering import Gathering, averaged, logging_interval
from emacheck.logs.json_lines import leading_objects, objects
from emacheck.logs.values import measured, parse_iteration
from emacheck.record import Record

NAME = "mmcv JSON"
NOT_METRICS = frozenset({"mode", "epoch", "iter", "memory"})
DECIMALS = 5


def recognises(head: str) -> bool:
    """Tell whether one of the first lines is a JSON object with ``mode`` and ``iter``."""
    return any("mode" in value and "iter" in value for value in leading_objects(head))


def read(lines: Iterable[str], name: str) -> Record:
    """Read the training curves; iterations that start again in every epoch are counted on."""
    gathering = Gathering(format=NAME, name=name)
    epochs: list[int] = []
    for number, row in objects(lines, gathering):
        if row.get("mode") == "val":
            gathering.validation += 1
            continue
        if row.get("mode") != "train":
            continue
        epoch, iteration = parse_iteration(row.get("epoch", 1)), parse_iteration(row.get("iter"))
        values = {key: measured(value) for key, value in row.items() if key not in NOT_METRICS}
        metrics = {key: value for key, value in values.items() if value is not None}
        if epoch is None or iteration is None:
            gathering.skip("rows whose epoch or iter is not an integer of 64 bits", number)
        elif metrics:
            gathering.add(iteration, metrics, number)
            epochs.append(epoch)
    count_on(gathering, epochs, first_epoch=1)
    curves = gathering.curves()
    interval = logging_interval([iteration for iteration, _ in gathering.rows])
    if interval > 1:
        gathering.oddities.append(f"recorded every {interval} iterations: mmcv averages each value over all of them")
    curves = {key: replace(curve, quantum=_quantum(curve)) for key, curve in averaged(curves, interval).items()}
    if "lr" in curves:  # the only one that mmcv writes as it is
        curves["lr"] = replace(curves["lr"], window=1)
    return gathering.record(curves)


def _quantum(curve: Curve) -> float:
    """Return 1e-5 if every value is rounded to mmcv's five decimals, else 0."""
    finite = curve.values[np.isfinite(curve.values)]
    return 10.0**-DECIMALS if all(round(value, DECIMALS) == value for value in finite.tolist()) else 0.0
