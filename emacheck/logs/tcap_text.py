"""TCAPPDLL records: ``TCAPPDLL 2025-07-26 ... - Epoch: 0 Iteration: 118  rank : 0  train.loss : 1.39  ...``.

Several processes write to one stream without locks: records of different ranks interleave, share a line, or hang on the
end of a progress bar. So a record is looked for anywhere, never at the start of a line.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from emacheck.errors import LogError
from emacheck.logs import mmengine_text
from emacheck.logs.epochs import count_on
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import numbered
from emacheck.logs.values import parse_iteration, parse_number
from emacheck.record import Record

NAME = "TCAPPDLL text"
MARK = "TCAPPDLL"
_FIELD = re.compile(r"(?<!\S)([A-Za-z_][\w./-]*)\s*:\s*(\S+)", re.ASCII)


@dataclass(slots=True)
class _Found:
    """What the log held besides the rows: the epoch of each row, the ranks, and mmengine's own records."""

    epochs: list[int] = field(default_factory=list)
    ranks: set[int] = field(default_factory=set)
    means: int = 0


def recognises(head: str) -> bool:
    """Tell whether the mark of the records is in the text."""
    return MARK in head


def read(lines: Iterable[str], name: str) -> Record:
    """Read the curves of rank 0; ``train.loss`` is called ``loss``; iterations stay as the log numbers them."""
    gathering = Gathering(format=NAME, name=name)
    found = _Found()
    line = ""
    for number, line in numbered(lines):
        gathering.lines = number
        found.means += sum(record[1] == "train" for record in mmengine_text.RECORD.finditer(line))
        for fields in _records(line):
            _add(fields, gathering, found)
    gathering.drop_torn(line)
    del found.epochs[len(gathering.rows) :]
    if found.ranks and 0 not in found.ranks:
        seen = ", ".join(map(str, sorted(found.ranks)))
        raise LogError(
            f"{name}: found TCAPPDLL records of rank {seen}, expected rank 0. Give the log that rank 0 wrote."
        )
    count_on(gathering, found.epochs, first_epoch=min([1, *found.epochs]))
    if len(found.ranks) > 1:
        gathering.oddities.append(f"{len(found.ranks)} ranks are in the log; rank 0 is shown")
    if found.means:
        gathering.oddities.append(
            "training records of mmengine, which are means of several iterations, are not part of the curves: "
            f"{found.means} left out"
        )
    return gathering.record(gathering.curves())


def _records(line: str) -> Iterator[dict[str, str]]:
    """Return the fields of each record in the line; of a field that occurs twice the first is the record's own."""
    _, *pieces = line.split(MARK)
    for piece in pieces:
        fields: dict[str, str] = {}
        for key, text in _FIELD.findall(piece):
            fields.setdefault(key, text)
        yield fields


def _add(fields: dict[str, str], gathering: Gathering, found: _Found) -> None:
    line = gathering.lines
    values = {key.removeprefix("train."): text for key, text in fields.items() if key.startswith("train.")}
    if "Iteration" not in fields or not values:
        gathering.skip("TCAPPDLL lines that are no training record", line)
        return
    iteration = parse_iteration(fields["Iteration"])
    epoch, rank = parse_iteration(fields.get("Epoch", "0")), parse_iteration(fields.get("rank", "0"))
    if iteration is None or epoch is None or rank is None:
        gathering.skip("records whose epoch, iteration or rank is not an integer of 64 bits", line)
        return
    found.ranks.add(rank)
    if rank != 0:
        return
    numbers = {key: parse_number(text) for key, text in values.items()}
    metrics = {key: value for key, value in numbers.items() if value is not None}
    if len(metrics) < len(numbers):
        gathering.skip("records with a metric that is not a number", line)
    if metrics:
        gathering.add(iteration, metrics, line)
        found.epochs.append(epoch)
