"""TCAPPDLL records: ``TCAPPDLL 2025-07-26 ... - Epoch: 0 Iteration: 118  rank : 0  train.loss : 1.39  ...``.

Several processes write to one stream without locks: records of different ranks interleave, share a line, or hang on the
end of a progress bar. So a record is looked for anywhere, never at the start of a line.
"""

import re

import numpy as np

from emacheck.curve import Integers
from emacheck.logs.formats import mmengine_text, tcap_json
from emacheck.logs.formats.bulk import Field, Stretch, read_blocks
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import Lines
from emacheck.logs.values import parse_iteration, parse_number
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "TCAPPDLL text"
MARK = "TCAPPDLL"
_FIELD = re.compile(r"(?<!\S)([A-Za-z_][\w./-]*)\s*:\s*(\S+)", re.ASCII)
_RECORD = re.compile(r"TCAPPDLL [^\n{]{0,80}\bIteration\s*:")


def recognises(head: str) -> bool:
    """Tell whether there is a record in the text, or at least the mark and no record in JSON."""
    return MARK in head and (_RECORD.search(head) is not None or not tcap_json.recognises(head))


def read(lines: Lines, name: str, rank: int | None = None) -> Record:
    """Read the curves; ``train.loss`` is called ``loss``; iterations stay as the log numbers them."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    means = 0

    def one(line: str) -> None:
        nonlocal means
        means += read_line(line, gathering)

    def many(stretch: Stretch, numbers: Integers) -> None:
        zeros = np.zeros(stretch.count, np.int64)
        epochs, ranks = (stretch.integers.get(key, zeros) for key in ("Epoch", "rank"))
        row = gathering.train.extend(stretch.integers["Iteration"], epochs, ranks, numbers)
        for key, values in stretch.numbers.items():
            gathering.train.metric(gathering.known(key)[1]).extend(row, values)

    line = read_blocks(lines, gathering, sample=_sample, one=one, many=many, telling=(MARK.encode(),))
    gathering.drop_torn(line)
    remark_means(gathering, means)
    return gathering.record(gathering.curves())


def _sample(line: str) -> list[Field]:
    """Return the numbers of a line that is one record and nothing else."""
    found = list(_FIELD.finditer(line))
    keys = [each[1] for each in found]
    if not line.startswith(MARK) or line.count(MARK) > 1 or "Iteration" not in keys or len({*keys}) < len(keys):
        return []
    counts = [Field(each[1], *each.span(2), True) for each in found if each[1] in ("Epoch", "Iteration", "rank")]
    metrics = [Field(each[1], *each.span(2)) for each in found if each[1].startswith("train.")]
    others = len(found) - len(counts) - len(metrics)
    return [*counts, *metrics] if metrics and not others else []


def read_line(line: str, gathering: Gathering) -> int:
    """Take the records of one line, and return how many of mmengine's it holds."""
    before, *pieces = line.split(MARK)
    for piece in pieces:
        fields: dict[str, str] = {}
        for key, text in _FIELD.findall(piece):
            fields.setdefault(key, text)  # of a field that occurs twice the first is the record's own
        _add(fields, piece, gathering)
    if not pieces:
        gathering.header.read(before)
    return sum(record[1] == "train" for record in mmengine_text.RECORD.finditer(line))


def remark_means(gathering: Gathering, means: int) -> None:
    """Remark mmengine's own records, which are another curve."""
    if means:
        gathering.remark(
            OddityKind.LEFT_OUT,
            "training records of mmengine, which are means of several iterations, are not part of the curves: "
            f"{means} left out",
        )


def _add(fields: dict[str, str], piece: str, gathering: Gathering) -> None:
    line = gathering.lines
    values = {key: text for key, text in fields.items() if key.startswith(("train.", "val.", "valid.", "eval."))}
    if "Iteration" not in fields or not values:
        if not tcap_json.read_metadata(piece, gathering):
            gathering.skip("TCAPPDLL lines that are no training record", line)
        return
    iteration = parse_iteration(fields["Iteration"])
    epoch, rank = parse_iteration(fields.get("Epoch", "0")), parse_iteration(fields.get("rank", "0"))
    if iteration is None or epoch is None or rank is None:
        gathering.skip("records whose epoch, iteration or rank is not an integer of 64 bits", line)
        return
    metrics = gathering.numbers(values, line, parse_number)
    if any(key.startswith("train.") for key in (metrics or values)):
        gathering.add(iteration, metrics, line, epoch=epoch, rank=rank)
    elif metrics:  # its iteration counts the batches of the validation
        gathering.add_validation(metrics, line, rank=rank)
