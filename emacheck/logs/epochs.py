"""Iteration numbers that start again in every epoch."""

import numpy as np
import numpy.typing as npt

from emacheck.curve import Integers

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


def counted_on(epochs: Integers, iterations: Integers, length: int) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Return the iterations counted on through all epochs, and which of them can be: no epoch is absurd.

    Args:
        epochs: The epoch of each record; the first is 0 if there is an epoch 0, else 1.
        iterations: The iteration of each record within its epoch.
        length: Iterations per epoch.
    """
    first = 0 if np.any(epochs == 0) else 1
    size = (epochs.astype(float) - first) * length + iterations
    sound = (epochs >= first) & (np.abs(size) < _END)
    return np.where(sound, (np.where(sound, epochs, 0) - first) * length + iterations, 0), sound
