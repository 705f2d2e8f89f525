"""mmengine's text log: ``Iter(train) [ 50/10000]  lr: 9.9e-03  eta: 0:40:24  loss: 0.3658  ...``."""

import math
import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from emacheck.curve import Integers
from emacheck.logs.formats.bulk import Field, Stretch, read_blocks
from emacheck.logs.formats.bulk_numbers import NO_POWER
from emacheck.logs.gathering import Gathering, averaged
from emacheck.logs.lines import Lines
from emacheck.logs.naming import looks_like_validation, understood
from emacheck.logs.values import parse_iteration, parse_number, printed_unit
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "mmengine text"
NOT_METRICS = frozenset({"eta", "memory", "epoch", "iter"})
TIMES = frozenset({"time", "data_time"})
RECORD = re.compile(r"(?:Iter|Epoch)\((train|val|test)\)\s*(?:\[\s*(\d+)\s*\]\s*)?\[\s*(\d+)\s*/\s*(\d+)\s*\]")
_METRIC = re.compile(r"(?<!\S)([^\s:]+): (\S+)")
_OTHER_TEXT = re.compile(r" - mmengine - |TCAPPDLL")


def recognises(head: str) -> bool:
    """Tell whether mmengine's logger or one of its records speaks in the text."""
    return " - mmengine - " in head or RECORD.search(head) is not None


def read(lines: Lines, name: str, rank: int | None = None) -> Record:
    """Read the curves; with epochs, the iteration counts on through all of them."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    length = 0

    def sample(line: str) -> list[Field]:
        nonlocal length
        fields = _sample(line)
        if fields and (record := RECORD.search(line)):
            length = int(record[4])
        return fields

    def one(line: str) -> None:
        read_line(line, gathering)

    def many(stretch: Stretch, numbers: Integers) -> None:
        counts = stretch.integers
        iterations = counts["iteration"]
        if "epoch" in counts:
            iterations = (counts["epoch"] - 1) * length + iterations
        zeros = np.zeros(stretch.count, np.int64)
        row = gathering.train.extend(iterations, zeros, zeros, numbers)
        for key, values in stretch.numbers.items():
            gathering.train.metric(gathering.known(key)[1]).extend(row, values)
            for power in stretch.powers[key]:
                gathering.rounded_to(key, float(f"1e{power}") if power > NO_POWER else 0.0)

    line = read_blocks(lines, gathering, sample=sample, one=one, many=many, telling=(b"Iter(", b"Epoch("))
    gathering.drop_torn(line)
    return finish(gathering)


def _sample(line: str) -> list[Field]:
    """Return the numbers of a line that is one training record and nothing else."""
    record = RECORD.search(line)
    if record is None or record[1] != "train" or RECORD.search(line, record.end()) or "TCAPPDLL" in line:
        return []
    counts = [Field("iteration", *record.span(3), True)]
    if record[2]:
        counts += [Field("epoch", *record.span(2), True)]
    if len(record[4]) > 9:
        return []
    found = [each for each in _METRIC.finditer(line, record.end()) if each[1] not in NOT_METRICS]
    names = [each[1] for each in found]
    numbers = all(parse_number(each[2]) is not None for each in found)
    plain = len({*names}) == len(names) and not looks_like_validation(names)
    if not names or not numbers or not plain or any(understood(name)[0] for name in names):
        return []
    return [*counts, *(Field(each[1], *each.span(2)) for each in found)]


def read_line(line: str, gathering: Gathering) -> None:
    """Take the records of one line."""
    number = gathering.lines
    if "TCAPPDLL" in line:
        gathering.skip("lines with TCAPPDLL records, which are a log of their own", number)
    found = list(RECORD.finditer(line))
    if not found:
        gathering.header.read(line)
    for at, record in enumerate(found):
        end = found[at + 1].start() if at + 1 < len(found) else len(line)
        text = _OTHER_TEXT.split(line[record.end() : end], maxsplit=1)[0]
        metrics = dict(metrics_of(text, gathering, validation=record[1] != "train"))
        if record[1] != "train":
            # A line of progress holds times only; the summary of a validation holds metrics.
            if metrics.keys() - TIMES:
                gathering.add_validation(metrics, number)
            continue
        take_training(_iteration(record), metrics, gathering)


def take_training(iteration: int | None, metrics: dict[str, float], gathering: Gathering) -> None:
    """Take the training record of the line that is read; None is an iteration that is not an integer of 64 bits."""
    number = gathering.lines
    if iteration is None:
        gathering.skip("records whose iteration is not an integer of 64 bits", number)
    elif not metrics:
        gathering.count("training records without a metric", "found", number)
        gathering.add(iteration, {}, number)
    else:
        gathering.add_either(iteration, metrics, number)


def finish(gathering: Gathering) -> Record:
    """Build the record, of which nobody knows how many iterations each value is a mean of."""
    curves = gathering.curves()
    interval = gathering.interval
    every = "every iteration is recorded" if interval == 1 else f"recorded every {interval} iterations"
    gathering.remark(
        OddityKind.AVERAGED,
        f"{every}: mmengine averages each value over its last iterations (10 unless configured otherwise), of how many "
        "is not in the file, and prints it rounded",
    )
    return gathering.record(averaged(curves, 0))


def metrics_of(text: str, gathering: Gathering, *, validation: bool = False) -> Iterator[tuple[str, float]]:
    """Return the metrics behind the head of a record, and note the coarsest rounding of each."""
    words = text.replace(",", " ").split() if ", " in text else text.split()
    for word, following in pairwise(words):
        name = word[:-1]
        value = parse_number(following)
        # A colon in a name is that of a time, such as a torn "eta: 0:01: 02".
        if not word.endswith(":") or not name or ":" in name or name in NOT_METRICS:
            continue
        if value is None:
            gathering.unreadable(name, following, gathering.lines)
            continue
        if math.isfinite(value):
            gathering.rounded_to(name, printed_unit(following), validation=validation)
        yield name, value


def _iteration(record: re.Match[str]) -> int | None:
    epoch, iteration, length = (parse_iteration(text) for text in (record[2] or "1", record[3], record[4]))
    if epoch is None or iteration is None or length is None:
        return None
    return parse_iteration((epoch - 1) * length + iteration if record[2] else iteration)
