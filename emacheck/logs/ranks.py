"""Which ranks have records in a log, and what is said where they are several or one is asked for."""

from collections.abc import Sequence

import numpy as np

from emacheck.errors import LogError
from emacheck.logs.columns import Columns
from emacheck.oddity import Oddity, OddityKind, oddity

MOST_RANKS = 4096
_NAMED = 20


def ranks_of(columns: Columns, name: str, rank: int | None) -> list[int]:
    """Return the ranks of which there are records, in ascending order.

    Args:
        columns: The training records.
        name: What the log is called in messages.
        rank: The only rank to take; the mean of all if None.

    Raises:
        LogError: If the rank that is asked for is not among them, or there are too many for a mean.
    """
    ranks = columns.ranks()
    found = [int(ranks[0])] if ranks.strides == (0,) else np.unique(ranks).tolist()
    if len(found) > MOST_RANKS and rank is None:
        raise LogError(
            f"{name}: found {len(found)} ranks, expected at most {MOST_RANKS}. Pick one with rank=N (--rank N)."
        )
    if rank is not None and rank not in found:
        raise another_rank(name, "records", found, rank)
    return found


def another_rank(name: str, what: str, found: Sequence[int], rank: int) -> LogError:
    """Return the error of a log that holds ``what`` of other ranks than the one asked for."""
    return LogError(
        f"{name}: found {what} of rank {', '.join(map(str, found[:_NAMED]))}, expected rank {rank}. Give the log that "
        "this rank wrote, or pick another rank."
    )


def nothing_in_common(name: str, count: int) -> LogError:
    """Return the error of ranks that share no iteration."""
    return LogError(
        f"{name}: found {count} ranks that have no iteration in common, so that there is no mean. Pick one of them "
        "with rank=N (--rank N)."
    )


def of_mean(count: int, lacking: int) -> Oddity:
    """Remark that several ranks are averaged, and how many iterations are left out because some of them lack those."""
    left = f", {lacking} that some ranks lack are left out" if lacking else ""
    message = f"{count} ranks are in the log; their mean is shown, at the iterations all have{left}"
    return oddity(OddityKind.RANKS_LACKING if lacking else OddityKind.RANKS, message)


def of_one(count: int, which: str) -> Oddity:
    """Remark that one of several ranks is taken."""
    return oddity(OddityKind.RANKS, f"{count} ranks are in the log; {which}")
