r"""mmcv 1.x's text log: ``... - mmseg - INFO - Iter [50/80000]\tlr: 9.995e-03, eta: 14:02:00, ..., loss: 0.1354``."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from emacheck.curve import Curve
from emacheck.logs.formats.mmengine_text import TIMES, metrics_of, take_training
from emacheck.logs.gathering import Gathering, averaged
from emacheck.logs.lines import numbered
from emacheck.logs.values import parse_iteration
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "mmcv text"
RECORD = re.compile(
    r"(?:Iter|Epoch)(?:\((val|test)\))?\s*\[\s*(\d+)\s*(?:/\s*\d+\s*)?\](?:\s?\[\s*(\d+)\s*(?:/\s*(\d+)\s*)?\])?(?=\s)"
)
_TRAIN = re.compile(r"(?:Iter|Epoch) \[\d+(?:/\d+)?\](?:\[\d+/\d+\])?\s+lr: ")
_LOGGER = re.compile(r" - mm(?!engine)[a-z0-9]* - (?:INFO|WARNING|ERROR) - ")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d |.* - (?:INFO|WARNING|ERROR) - ")


def recognises(head: str) -> bool:
    """Tell whether a logger of the OpenMMLab projects or one of mmcv's records speaks in the text."""
    return _LOGGER.search(head) is not None or _TRAIN.search(head) is not None


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read the curves; with epochs, the iteration counts on through all of them."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    line = ""
    for number, line in _whole(lines):
        gathering.lines = number
        records = list(RECORD.finditer(line))
        if not records:
            gathering.header.read(line)
        for at, record in enumerate(records):  # two processes may write on one line
            end = records[at + 1].start() if at + 1 < len(records) else len(line)
            _take(record, line[record.end() : end], gathering)
    gathering.drop_torn(line)
    return gathering.record(curves_of(gathering))


def curves_of(gathering: Gathering) -> dict[str, Curve]:
    """Return the curves of a log of mmcv, which averages each value over all iterations since the last record."""
    curves = gathering.curves()
    interval = gathering.interval
    if interval > 1 and len(gathering.train) > 1:
        message = f"recorded every {interval} iterations: mmcv averages each value over all of them"
        gathering.remark(OddityKind.AVERAGED, message)
    curves = averaged(curves, interval if len(gathering.train) > 1 else 0)
    if "lr" in curves:  # the only one that mmcv writes as it is
        curves["lr"] = replace(curves["lr"], window=1)
    return curves


def _whole(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Return each line's number and the line, joined with the next where a record goes on there."""
    held, at = "", 0
    for number, line in numbered(lines):
        if held and line.strip() and not _STAMP.match(line) and RECORD.search(line) is None:
            held = f"{held.rstrip()} {line.lstrip()}"
        else:
            if held:
                yield at, held
            held, at = line, number
        if not (held.rstrip().endswith(",") and RECORD.search(held)) or len(held) > 1 << 16:
            yield at, held
            held = ""
    if held:
        yield at, held


def _take(record: re.Match[str], text: str, gathering: Gathering) -> None:
    metrics = dict(metrics_of(text, gathering, validation=record[1] is not None))
    if record[1] is not None:
        if metrics.keys() - TIMES:
            gathering.add_validation(metrics, gathering.lines)
        return
    iteration = parse_iteration(record[3] or record[2])
    if record[3]:
        epoch, length = parse_iteration(record[2]), parse_iteration(record[4] or "0")
        known = iteration is not None and epoch is not None and length is not None
        iteration = parse_iteration((epoch - 1) * length + iteration) if known else None  # type: ignore[operator]
    take_training(iteration, metrics, gathering)
