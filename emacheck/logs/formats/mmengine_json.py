"""mmengine's ``vis_data/scalars.json``: one JSON object per line, training and validation mixed."""

from collections.abc import Iterable, Mapping

import numpy as np

from emacheck.curve import Curve
from emacheck.logs.formats.json_lines import leading_objects, objects
from emacheck.logs.gathering import Gathering, averaged
from emacheck.logs.values import parse_iteration
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "mmengine JSON"
NOT_METRICS = frozenset({"step", "iter", "epoch", "memory"})
WRITTEN_ALWAYS = ("iter", "time", "data_time")


def recognises(head: str) -> bool:
    """Tell whether one of the first lines is a JSON object with a ``step``."""
    return any("step" in value for value in leading_objects(head))


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read the curves; ``step`` is the iteration."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    epoch: int | None = None
    of_mmengine = False
    for number, row in objects(lines, gathering):
        of_mmengine = of_mmengine or any(key in row for key in WRITTEN_ALWAYS)
        metrics = gathering.numbers({key: value for key, value in row.items() if key not in NOT_METRICS}, number)
        iteration = parse_iteration(row.get("step"))
        if "step" not in row:
            gathering.skip("objects without a step", number)
        elif iteration is None:
            gathering.skip("rows whose step is not an integer of 64 bits", number)
        elif "iter" in row or "loss" in row:
            epoch = parse_iteration(row.get("epoch"))
            gathering.add(iteration, metrics, number)
        elif metrics:  # where the run counts epochs, the step of a validation is the epoch that it follows
            gathering.add_validation(metrics, number, iteration=None if iteration == epoch else iteration)
    curves = gathering.curves()
    if not of_mmengine:
        gathering.remark_interval()
        return gathering.record(curves)
    window, remark = _window(curves, gathering.interval)
    if remark:
        gathering.remark(OddityKind.AVERAGED, remark)
    return gathering.record(averaged(curves, window))


def _window(curves: Mapping[str, Curve], interval: int) -> tuple[int, str]:
    """Return the number of iterations averaged into each value, as far as the log tells, and what to say about it."""
    if interval > 1:
        return 0, (
            f"recorded every {interval} iterations: by mmengine's default each value is a mean of the last iterations, "
            "of how many is not in the file"
        )
    if any(not _single_precision(curve) for name, curve in curves.items() if "loss" in name):
        return 0, (
            "every iteration is recorded, but the losses are no single-precision numbers: they are means of several "
            "iterations (mmengine averages 10 unless window_size=1), of how many is not in the file"
        )
    return 1, ""


def _single_precision(curve: Curve) -> bool:
    """Tell whether all values are numbers of single precision, as a loss is before it is averaged."""
    finite = curve.values[np.isfinite(curve.values)]
    with np.errstate(over="ignore"):
        return bool(np.array_equal(finite.astype(np.float32).astype(np.float64), finite))
