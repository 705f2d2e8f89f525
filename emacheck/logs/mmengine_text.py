"""mmengine's text log: ``Iter(train) [ 50/10000]  lr: 9.9e-03  eta: 0:40:24  loss: 0.3658  ...``."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

from emacheck.logs.gathering import Gathering, logging_interval
from emacheck.logs.lines import numbered
from emacheck.logs.values import parse_iteration, parse_number, printed_unit
from emacheck.record import Record

NAME = "mmengine text"
NOT_METRICS = frozenset({"eta", "memory", "epoch", "iter"})
TIMES = frozenset({"time", "data_time"})
RECORD = re.compile(r"(?:Iter|Epoch)\((train|val|test)\)\s*(?:\[\s*(\d+)\s*\]\s*)?\[\s*(\d+)\s*/\s*(\d+)\s*\]")
_OTHER_TEXT = re.compile(r" - mmengine - |TCAPPDLL")


def recognises(head: str) -> bool:
    """Tell whether mmengine's logger or one of its records speaks in the text."""
    return " - mmengine - " in head or RECORD.search(head) is not None


def read(lines: Iterable[str], name: str) -> Record:
    """Read the training curves; with epochs, the iteration counts on through all of them."""
    gathering = Gathering(format=NAME, name=name)
    quanta: dict[str, float] = {}
    line = ""
    for number, line in numbered(lines):
        gathering.lines = number
        if "TCAPPDLL" in line:
            gathering.skip("lines with TCAPPDLL records, which are a log of their own", number)
        for record, text in _records(line):
            if record[1] != "train":
                # A line of progress holds times only; the summary of a validation holds metrics.
                gathering.validation += any(key not in TIMES for key, _ in _metrics(text, {}))
                continue
            iteration = _iteration(record)
            metrics = dict(_metrics(text, quanta))
            if iteration is None:
                gathering.skip("records whose iteration is not an integer of 64 bits", number)
            elif not metrics:
                gathering.skip("training records without a metric", number)
            else:
                gathering.add(iteration, metrics, number)
    gathering.drop_torn(line)
    curves = gathering.curves()
    interval = logging_interval([iteration for iteration, _ in gathering.rows])
    every = "every iteration is recorded" if interval == 1 else f"recorded every {interval} iterations"
    gathering.oddities.append(
        f"{every}: mmengine averages each value over its last iterations (10 unless configured otherwise), of how many "
        "is not in the file, and prints it rounded"
    )
    return gathering.record(
        {key: replace(curve, window=0, quantum=quanta.get(key, 0.0)) for key, curve in curves.items()}
    )


def _records(line: str) -> Iterator[tuple[re.Match[str], str]]:
    """Return each record header in the line with the text that belongs to it."""
    found = list(RECORD.finditer(line))
    for at, record in enumerate(found):
        end = found[at + 1].start() if at + 1 < len(found) else len(line)
        yield record, _OTHER_TEXT.split(line[record.end() : end], maxsplit=1)[0]


def _iteration(record: re.Match[str]) -> int | None:
    epoch, iteration, length = (parse_iteration(text) for text in (record[2] or "1", record[3], record[4]))
    if epoch is None or iteration is None or length is None:
        return None
    return parse_iteration((epoch - 1) * length + iteration if record[2] else iteration)


def _metrics(text: str, quanta: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Return the metrics behind a record header, and note the coarsest rounding of each."""
    words = text.split()
    for word, following in pairwise(words):
        name = word[:-1]
        value = parse_number(following)
        if not word.endswith(":") or not name or name in NOT_METRICS or value is None:
            continue
        if math.isfinite(value):
            quanta[name] = max(quanta.get(name, 0.0), printed_unit(following))
        yield name, value
