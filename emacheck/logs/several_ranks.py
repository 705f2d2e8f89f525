"""The log of several ranks whose lines a launcher marked and mixed: read rank by rank, then averaged."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import IO

import numpy as np

from emacheck.curve import Curve
from emacheck.errors import LogError
from emacheck.logs.lines import Bytes, Lines
from emacheck.logs.prefixes import Prefix, of_each_rank
from emacheck.logs.series import mean_of
from emacheck.oddity import Oddity, OddityKind, oddity
from emacheck.record import Record

MOST = 256
"""So many ranks are read; each takes an open file."""
IN_MEMORY = 1 << 20
Reader = Callable[[Lines], Record]


def read_ranks(stream: Bytes, found: tuple[Prefix, ...], name: str, rank: int | None, read: Reader) -> Record:
    """Read the lines of each rank as a log of its own, and return the mean of those that hold records.

    Args:
        stream: The log.
        found: The prefixes of its lines.
        name: What the log is called in messages.
        rank: The only rank to take; all if None.
        read: Reads the lines of one rank.
    """
    records: dict[int, Record] = {}
    trouble: LogError | None = None
    with ExitStack() as stack:
        files = _parted(stream, found, name, stack)
        if rank is not None and rank not in files:
            raise LogError(
                f"{name}: found lines of rank {', '.join(map(str, sorted(files)[:20]))}, expected rank {rank}. Give "
                "the log that this rank wrote, or pick another rank."
            )
        for each in sorted(files) if rank is None else [rank]:
            files[each].seek(0)
            lines = Lines(files[each])
            try:
                record = read(lines)
            except LogError as error:  # ranks other than the first often print nothing
                trouble = trouble or error
                continue
            records[each] = replace(record, oddities=record.oddities + lines.remarks)
    if not records:
        raise trouble or LogError(f"{name}: found no line of any rank.")
    return _averaged(records, len(files), name, rank)


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
        remark = (oddity(OddityKind.RANKS, f"{ranks} ranks are in the log; {of}"),) if ranks > 1 else ()
        return replace(first, ranks=ranks if rank is not None else 1, oddities=first.oddities + remark)
    curves = _means([record.curves for record in records.values()])
    if not curves:
        raise LogError(
            f"{name}: found {len(records)} ranks that have no iteration in common, so that there is no mean. Pick one "
            "of them with rank=N (--rank N)."
        )
    every = max(len(curve) for record in records.values() for curve in record.curves.values())
    lacking = every - max(map(len, curves.values()))
    message = f"{len(records)} ranks are in the log; their mean is shown, at the iterations all have"
    left = f", {lacking} that some ranks lack are left out" if lacking else ""
    kind = OddityKind.RANKS_LACKING if lacking else OddityKind.RANKS
    remarks: list[Oddity] = [*first.oddities, oddity(kind, message + left)]
    validation = _means([record.validation for record in records.values() if record.validation])
    blank = np.unique(np.concatenate([record.blank for record in records.values()]))
    return replace(
        first, curves=curves, validation=validation, ranks=len(records), blank=blank, oddities=tuple(remarks)
    )


def _means(curves: Sequence[Mapping[str, Curve]]) -> dict[str, Curve]:
    means = {}
    for name in curves[0] if curves else ():
        parts = [each[name] for each in curves if name in each]
        mean = mean_of(parts)
        if len(mean):
            means[name] = mean
    return means
