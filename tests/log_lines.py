"""Lines as the programs write them whose logs are read, and numbers to put into them."""

import json
import math
import struct
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from emacheck.errors import LogError, MissingExtraError
from emacheck.logs import read_log

FAST = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


def bits(values) -> list[bytes]:
    return [b"nan" if math.isnan(value) else struct.pack("<d", value) for value in values]


ITER = "2031/02/03 04:05:06 - mmengine - INFO - Iter(train) [{:>5}/20000]  {}\n"

MMCV = "2031-02-03 04:05:06,789 - {} - INFO - {}\tlr: 9.746e-03, eta: 1 day, 5:14:00, time: 0.718, memory: 317, {}\n"


def scalars(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def tcap(iteration: object, loss: object, *, rank: int = 0, epoch: int = 0, spelling: str = " : ") -> str:
    return (
        f"TCAPPDLL 2031-02-03 04:05:06.000007 - Epoch: {epoch} Iteration: {iteration}  rank{spelling}{rank}  "
        f"train.loss : {loss}  train.ips : 12.5 imgs/s train.total_time : 0.125 "
    )


def tcap_line(iteration, loss, *, rank=0, epoch=0):
    return (
        f"TCAPPDLL 2031-02-03 04:05:06.7 - Epoch: {epoch} Iteration: {iteration}  rank : {rank}  train.loss : {loss}\n"
    )


def refuses_or_reads(path: Path, **options):
    """Read a log of anything, or refuse it in words of our own."""
    try:
        record = read_log(path, **options)
    except (LogError, MissingExtraError):
        return
    assert all(len(curve) for curve in record.curves.values())
