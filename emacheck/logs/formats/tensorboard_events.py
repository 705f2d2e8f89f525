"""TensorBoard's event files, by the ``tensorboard`` package: an optional extra, which needs no TensorFlow."""

import math
import struct
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
LARGEST = 256 << 20
"""An event of more bytes is damaged."""
_FRAME, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")
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
        from tensorboard.compat.proto.event_pb2 import Event
    except ImportError as error:
        raise MissingExtraError(
            f"{gathering.name}: reading a TensorBoard event file needs the package tensorboard, which is not installed "
            "here. Install the extra: pip install 'emacheck[tensorboard]'"
        ) from error
    while True:
        try:
            data = _framed(source)
            found = None if data is None else list(_values(Event.FromString(data)))
        except Exception as error:  # ours, or of another package, on bytes that anybody may have written
            why = str(error) if isinstance(error, _DamagedError) else type(error).__name__
            message = f"event {gathering.lines + 1} is damaged ({why}); what comes before it is read"
            gathering.remark(OddityKind.DAMAGED, message)
            return
        if found is None:
            return
        gathering.lines += 1
        yield from found


def _framed(source: Bytes) -> bytes | None:
    """Return what is in the next frame: length, its checksum, data, theirs; None at the end of the file.

    TensorBoard's own reader takes a wrong checksum for the end of the file, and says nothing.

    Raises:
        _DamagedError: If it is cut off, or a checksum is wrong.

    Source: TensorFlow, TFRecord and tf.train.Example, https://www.tensorflow.org/tutorials/load_data/tfrecord
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    head = _exactly(source, _FRAME.size)
    if not head:
        return None
    if len(head) < _FRAME.size:
        raise _DamagedError("cut off")
    length, checksum = _FRAME.unpack(head)
    if checksum != masked_crc32c(head[: -_CHECKSUM.size]):
        raise _DamagedError("wrong checksum")
    if length > LARGEST:
        raise _DamagedError(f"{length} bytes, more than {LARGEST >> 20} MiB")
    data, end = _exactly(source, length), _exactly(source, _CHECKSUM.size)
    if len(data) < length or len(end) < _CHECKSUM.size:
        raise _DamagedError("cut off")
    if _CHECKSUM.unpack(end)[0] != masked_crc32c(data):
        raise _DamagedError("wrong checksum")
    return data


def _exactly(source: Bytes, size: int) -> bytes:
    """Return as many bytes, fewer only at the end; memory goes with what there is, not with what is claimed."""
    pieces = []
    while size and (piece := source.read(min(size, BLOCK))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _values(event: Any) -> Iterator[tuple[str, int, float]]:
    from tensorboard.util import tensor_util

    for value in event.summary.value:
        if value.HasField("simple_value"):
            yield value.tag, event.step, float(value.simple_value)
        # The shape alone may claim any size, whatever the file holds.
        elif value.HasField("tensor") and math.prod(each.size for each in value.tensor.tensor_shape.dim) == 1:
            array = np.asarray(tensor_util.make_ndarray(value.tensor))
            if array.dtype.kind in "fiu":
                yield value.tag, event.step, float(array.reshape(()))


class _DamagedError(Exception):
    """An event cannot be read; the message says why."""
