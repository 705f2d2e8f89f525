"""Iteration numbers that start again in every epoch."""

import numpy as np
import numpy.typing as npt

from emacheck.curve import Floats, Integers

_END = 2.0**62


def epoch_length(epochs: Integers, iterations: Integers) -> int | None:
    """Return the iterations per epoch if iteration numbers start again with each epoch, or None if they run on.

    They start again where the epoch goes up and the iteration does not. Counted from 1, an epoch is as long as the
    largest iteration seen in any epoch; counted from 0, one longer.

    Args:
        epochs: The epoch of each record, in the order of the log.
        iterations: The iteration of each record, as the log numbers it.

    Example:
        >>> epoch_length(np.array([1, 1, 2, 2]), np.array([50, 100, 50, 100]))
        100
        >>> epoch_length(np.array([1, 2]), np.array([50, 100])) is None
        True
    """
    if epochs.strides == (0,) or not np.any((epochs[1:] > epochs[:-1]) & (iterations[1:] <= iterations[:-1])):
        return None
    return int(iterations.max()) + bool(iterations.min() == 0)


def unnamed_epochs(iterations: Integers, losses: Floats | None) -> Integers | None:
    """Return the epoch of each record of a log that names none, or None unless it can only be of several epochs.

    The iterations start again at least twice, always run through the same numbers, and the loss goes on where it was
    before; where it starts again too, the log holds several runs.

    Args:
        iterations: The iteration of each record, as the log numbers it.
        losses: The loss of each record, None if some have none.

    Example:
        >>> unnamed_epochs(np.array([1, 2, 1, 2, 1]), np.array([4.0, 3.0, 2.9, 2.0, 1.9])).tolist()
        [1, 1, 2, 2, 3]
    """
    starts = np.flatnonzero(iterations[1:] < iterations[:-1]) + 1
    if len(starts) < 2 or losses is None or not starts[0] > 1:
        return None
    pieces = np.split(iterations, starts)
    same = all(np.array_equal(piece, pieces[0]) for piece in pieces[1:-1])
    if not same or not np.array_equal(pieces[-1], pieces[0][: len(pieces[-1])]):
        return None
    goes_on = np.abs(losses[starts] - losses[starts - 1]).mean() < np.abs(losses[starts] - losses[0]).mean()
    return np.repeat(np.arange(1, len(pieces) + 1), [len(piece) for piece in pieces]) if goes_on else None


def first_epoch(epochs: Integers) -> int:
    """Return the number of the first epoch of a training: 0 if one is called so, else 1."""
    return 0 if np.any(epochs == 0) else 1


def counted_on(
    epochs: Integers, iterations: Integers, length: int, first: int
) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Return the iterations counted on through all epochs, and which of them can be: no epoch is absurd.

    Args:
        epochs: The epoch of each record.
        iterations: The iteration of each record within its epoch.
        length: Iterations per epoch.
        first: The number of the first epoch.
    """
    size = (epochs.astype(float) - first) * length + iterations
    sound = (epochs >= first) & (np.abs(size) < _END)
    return np.where(sound, (np.where(sound, epochs, 0) - first) * length + iterations, 0), sound
