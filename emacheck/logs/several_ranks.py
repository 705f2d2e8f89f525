"""The log of several ranks whose lines a launcher marked and mixed: read rank by rank, then averaged."""

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import IO

import numpy as np

from emacheck.counted import and_so_on
from emacheck.curve import Curve
from emacheck.errors import LogError
from emacheck.logs import oddities
from emacheck.logs.lines import LONGEST, Bytes, Lines
from emacheck.logs.prefixes import Prefix, of_each_rank
from emacheck.logs.ranks import another_rank, nothing_in_common, of_mean, of_one
from emacheck.logs.series import mean_of
from emacheck.oddity import Oddity, OddityKind, oddity
from emacheck.record import Record

MOST = 256
"""So many ranks are read; each takes an open file."""
IN_MEMORY = 1 << 20
LISTED = 10
# A loss that nobody can read, or the error of a device; words such as "loss scale" are no loss.
_SAYS = re.compile(rb"(?i)\bloss(?: ?[:=]| +[^\sa-z_])|(?-i:\b[A-Z]{3,6} error:)")
Reader = Callable[[Lines], Record]


def read_ranks(stream: Bytes, found: tuple[Prefix, ...], name: str, rank: int | None, read: Reader) -> Record:
    """Read the lines of each rank as a log of its own, and return the mean of those that hold records.

    Where several ranks hold records, those that print something else are missing. Where a single one does, the others
    are missing only if they print a loss that cannot be read, or the error of a device: often one rank alone logs.

    Args:
        stream: The log.
        found: The prefixes of its lines.
        name: What the log is called in messages.
        rank: The only rank to take; all if None.
        read: Reads the lines of one rank.
    """
    records: dict[int, Record] = {}
    trouble: LogError | None = None
    silent: dict[int, bool] = {}
    with ExitStack() as stack:
        files = _parted(stream, found, name, stack)
        if rank is not None and rank not in files:
            raise another_rank(name, "lines", sorted(files), rank)
        for each in sorted(files) if rank is None else [rank]:
            files[each].seek(0)
            lines = Lines(files[each])
            try:
                record = read(lines)
            except LogError as error:  # ranks other than the first often print nothing
                trouble = trouble or error
                silent[each] = _speaks(files[each])
                continue
            records[each] = replace(record, oddities=record.oddities + lines.remarks)
    if not records:
        raise trouble or LogError(f"{name}: found no line of any rank.")
    record = _averaged(records, len(files), name, rank)
    missing = [each for each, speaks in silent.items() if speaks or len(records) > 1]
    return replace(record, oddities=record.oddities + _missing(missing))


def _parted(stream: Bytes, found: tuple[Prefix, ...], name: str, stack: ExitStack) -> dict[int, IO[bytes]]:
    """Write the lines of each rank to a temporary file, one after the other; of no rank are those of the first."""
    files: dict[int, IO[bytes]] = {}
    last = min((rank for prefix in found for rank in prefix.ranks), default=0)
    for rank, line in of_each_rank(stream, found):
        last = last if rank is None else rank
        if last not in files:
            if len(files) == MOST:
                raise LogError(f"{name}: found more than {MOST} ranks. Give the lines of a few of them.")
            files[last] = stack.enter_context(_spooled())
        files[last].write(line)
    return files


@contextlib.contextmanager
def _spooled() -> Iterator[IO[bytes]]:
    with tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="emacheck-") as file:
        yield file


def _averaged(records: dict[int, Record], ranks: int, name: str, rank: int | None) -> Record:
    first = next(iter(records.values()))
    if len(records) == 1:
        only = next(iter(records))
        of = f"rank {only} is shown" if rank is not None else f"rank {only} alone has records"
        remark = (of_one(ranks, of),) if ranks > 1 else ()
        return replace(first, ranks=ranks if rank is not None else 1, oddities=first.oddities + remark)
    curves = _means([record.curves for record in records.values()])
    if not curves:
        raise nothing_in_common(name, len(records))
    every = max(len(curve) for record in records.values() for curve in record.curves.values())
    lacking = every - max(map(len, curves.values()))
    said = oddities.of_each_rank({each: record.oddities for each, record in records.items()})
    return replace(
        first,
        curves=curves,
        of_ranks={each: record.curves for each, record in records.items()},
        validation=_means([record.validation for record in records.values()]),
        ranks=len(records),
        blank=np.unique(np.concatenate([record.blank for record in records.values()])),
        oddities=(*said, of_mean(len(records), lacking)),
    )


def _missing(ranks: Sequence[int]) -> tuple[Oddity, ...]:
    """Remark ranks that print lines, none of which is a record."""
    if not ranks:
        return ()
    message = (
        f"no line of rank {and_so_on(ranks, LISTED)} can be read as a record: what was trained there is not known. "
        "Look at these lines, or pick another rank with rank=N (--rank N)"
    )
    return (oddity(OddityKind.RANKS_MISSING, message),)


def _speaks(file: IO[bytes]) -> bool:
    """Tell whether lines without a record speak of a loss, or of an error of the device."""
    file.seek(0)
    return any(_SAYS.search(line) for line in iter(lambda: file.readline(LONGEST), b""))


def _means(curves: Sequence[Mapping[str, Curve]]) -> dict[str, Curve]:
    means = {}
    for name in dict.fromkeys(name for each in curves for name in each):
        parts = [each[name] for each in curves if name in each]
        mean = mean_of(parts)
        if len(mean):
            means[name] = mean
    return means
