"""TensorBoard's event files, by the ``tensorboard`` package: an optional extra, which needs no TensorFlow."""

import math
import struct
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from emacheck.errors import MissingExtraError
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import BLOCK, Bytes
from emacheck.logs.naming import is_loss
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "TensorBoard events"
_FRAME = struct.Struct("<QI")
_FIRST = b"brain.Event:"


def recognises(head: bytes) -> bool:
    """Tell whether the bytes start with the frame of a first event, which names the version of the format."""
    if len(head) < _FRAME.size:
        return False
    length, _ = _FRAME.unpack_from(head)
    return length < 1000 and _FIRST in head[_FRAME.size : _FRAME.size + length]


def read(source: Bytes, name: str, rank: int | None = None) -> Record:
    """Read every scalar as a curve; ``loss/train`` and ``train/loss`` are ``loss``, ``loss/val`` its validation."""
    gathering = Gathering(format=NAME, name=name, rank=rank, exact=True)
    steps: dict[int, dict[str, float]] = {}  # each tag may be written in its own time
    repeated, differing, broken = 0, False, dict[str, int]()
    for tag, step, value in _scalars(source, gathering):
        metrics = steps.setdefault(step, {})
        if tag in metrics:
            repeated += 1
            differing = differing or metrics[tag] != value
            if is_loss(tag) and not math.isfinite(metrics[tag]):
                broken.setdefault(tag, step)
        metrics[tag] = value
    for step in sorted(steps):
        gathering.add(step, steps[step], gathering.lines)
    if repeated:
        kind = OddityKind.REPLACED if differing else OddityKind.REPEATED
        gathering.remark(kind, f"values that are recorded again, of which the later one is used: {repeated}")
    for tag, step in broken.items():
        message = f"{tag} is NaN or infinite in records that later ones replaced, the first at iteration {step}"
        gathering.remark(OddityKind.REPLACED_NOT_FINITE, message)
    curves = gathering.curves()
    gathering.remark_interval()
    return gathering.record(curves)


def _scalars(source: Bytes, gathering: Gathering) -> Iterator[tuple[str, int, float]]:
    """Return tag, step and value of each scalar; what is damaged ends the file."""
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    except ImportError as error:
        raise MissingExtraError(
            f"{gathering.name}: reading a TensorBoard event file needs the package tensorboard, which is not installed "
            "here. Install the extra: pip install 'emacheck[tensorboard]'"
        ) from error
    with tempfile.NamedTemporaryFile(prefix="emacheck-", suffix=".tfevents") as file:
        while piece := source.read(BLOCK):
            file.write(piece)
        file.flush()
        events = iter(EventFileLoader(file.name).Load())
        while True:
            try:
                event = next(events, None)
                found = [] if event is None else list(_values(event))
            except Exception as error:  # of another package, on bytes that anybody may have written
                gathering.remark(
                    OddityKind.DAMAGED,
                    f"event {gathering.lines + 1} is damaged ({type(error).__name__}); what comes before it is read",
                )
                return
            if event is None:
                return
            gathering.lines += 1
            yield from found


def _values(event: Any) -> Iterator[tuple[str, int, float]]:
    from tensorboard.util import tensor_util

    for value in event.summary.value:
        if value.HasField("simple_value"):
            yield value.tag, event.step, float(value.simple_value)
        elif value.HasField("tensor"):
            array = np.asarray(tensor_util.make_ndarray(value.tensor))
            if array.size == 1 and array.dtype.kind in "fiu":
                yield value.tag, event.step, float(array.reshape(()))
