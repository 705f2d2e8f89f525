"""A log of TCAPPDLL lines beside the record, as training scripts for Tecorigin's cards print and ``tee`` them."""

import datetime
import os
from collections.abc import Mapping
from pathlib import Path


class TcapLog:
    r"""Append one line per iteration to a log that all ranks of a node share.

    The format is that of the logs published with the model zoo: iterations from 0, one blank around each colon, two
    before the name of a field, the time in local time. ``train.ips`` is images per second of this rank.

    Args:
        path: The log, such as ``sdaa.log``.
        rank: The rank that writes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     log = TcapLog(Path(place) / "cpu.log", rank=0)
        ...     log.write(1, {"loss": 4.0625, "seconds": 0.5}, images=2)
        ...     (Path(place) / "cpu.log").read_text().partition(" - ")[2]
        'Epoch: 0 Iteration: 0  rank : 0  train.loss : 4.0625  train.ips : 4.0 imgs/s train.total_time : 0.5 \n'
    """

    def __init__(self, path: Path, *, rank: int) -> None:
        self._path = path
        self._rank = rank

    def write(self, iteration: int, metrics: Mapping[str, float], *, images: int) -> None:
        """Write one line in one go, so that the lines of several ranks do not mix.

        Args:
            iteration: The iteration, counted from 1.
            metrics: ``loss`` and ``seconds``, among others.
            images: How many images this rank has trained on in this iteration.
        """
        seconds = metrics["seconds"]
        now = datetime.datetime.now().astimezone().replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
        line = (
            f"TCAPPDLL {now} - Epoch: 0 Iteration: {iteration - 1}  rank : {self._rank}  "
            f"train.loss : {metrics['loss']}  train.ips : {images / seconds} imgs/s train.total_time : {seconds} \n"
        )
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
