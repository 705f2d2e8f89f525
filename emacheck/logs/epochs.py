"""Iteration numbers that start again in every epoch."""

from collections.abc import Sequence
from itertools import pairwise

from emacheck.logs.gathering import Gathering
from emacheck.logs.values import parse_iteration


def epoch_length(positions: Sequence[tuple[int, int]]) -> int | None:
    """Return the iterations per epoch if iteration numbers start again with each epoch, or None if they run on.

    They start again where the epoch goes up and the iteration does not. Counted from 1, an epoch is as long as the
    largest iteration seen in any epoch; counted from 0, one longer.

    Args:
        positions: Epoch and iteration of each record, in the order of the log.

    Example:
        >>> epoch_length([(1, 50), (1, 100), (2, 50), (2, 100)]), epoch_length([(1, 50), (2, 100)])
        (100, None)
    """
    pairs = pairwise(positions)
    if not any(epoch > before[0] and iteration <= before[1] for before, (epoch, iteration) in pairs):
        return None
    iterations = [iteration for _, iteration in positions]
    return max(iterations) + (min(iterations) == 0)


def count_on(gathering: Gathering, epochs: Sequence[int], *, first_epoch: int) -> None:
    """Give the gathered rows one global iteration where their iterations start again in every epoch.

    Args:
        gathering: The rows, whose iterations are those within the epoch.
        epochs: The epoch of each row.
        first_epoch: What the log calls the first epoch, 0 or 1.
    """
    length = epoch_length([(epoch, iteration) for epoch, (iteration, _) in zip(epochs, gathering.rows, strict=True)])
    if length is None:
        return
    counted = [
        (parse_iteration((epoch - first_epoch) * length + iteration), metrics)
        for epoch, (iteration, metrics) in zip(epochs, gathering.rows, strict=True)
    ]
    rows = [(iteration, metrics) for iteration, metrics in counted if iteration is not None]
    gathering.oddities.append(
        "the iteration starts again in every epoch: it is counted on, with the largest one seen as the length of an "
        f"epoch ({length} iterations)"
    )
    if len(rows) < len(counted):
        gathering.oddities.append(f"rows whose epoch is no epoch of a training: {len(counted) - len(rows)} skipped")
    gathering.rows = rows
