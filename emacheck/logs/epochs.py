"""Iteration numbers that start again in every epoch."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emacheck.curve import Floats, Integers
from emacheck.logs.columns import Columns
from emacheck.oddity import Oddity, OddityKind, oddity

NO_ITERATION = np.iinfo(np.int64).min
"""Stands for the iteration of a record whose epoch is no epoch of a training."""
_END = 2.0**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Epochs:
    """How the iterations of a log, which start again in every epoch, are counted on.

    Attributes:
        length: Iterations per epoch.
        said: Whether the log says so; else it is the largest iteration seen.
        first: The number of the first epoch.
        unnamed: The epoch of each training record, if the log names none.
    """

    length: int
    said: bool
    first: int
    unnamed: Integers | None = None

    @classmethod
    def of(cls, columns: Columns, *, length: int | None, total: int | None) -> "Epochs | None":
        """Return how the iterations of the training records are counted on, None if they run on by themselves.

        Args:
            columns: The training records.
            length: Iterations per epoch, where the log says it.
            total: What the iterations count up to, where the log says it: perhaps an epoch, perhaps the whole run.
        """
        iterations, epochs = columns.iterations(), columns.epochs()
        if length is not None and int(iterations.max()) <= length and np.any(epochs != epochs[0]):
            return cls(length=length, said=True, first=first_epoch(epochs))
        seen = epoch_length(epochs, iterations)
        if seen is not None and total is not None and int(iterations.max()) <= total:
            return cls(length=total, said=True, first=first_epoch(epochs))
        if seen is not None:
            return cls(length=seen, said=False, first=first_epoch(epochs))
        unnamed = _epochs_nobody_names(columns)
        if unnamed is None:
            return None
        return cls(length=_largest(iterations), said=False, first=first_epoch(unnamed), unnamed=unnamed)

    def counted(self, columns: Columns) -> tuple[Integers, list[Oddity]]:
        """Return the iteration of each training record, NO_ITERATION where it has none, and what to say about that."""
        epochs = columns.epochs() if self.unnamed is None else self.unnamed
        counted, sound = counted_on(epochs, columns.iterations(), self.length, self.first)
        message = (
            "the iteration starts again in every epoch: it is counted on, with "
            f"{'what the log says' if self.said else 'the largest one seen'} as the length of an epoch "
            f"({self.length} iterations)"
        )
        remarks = [oddity(OddityKind.EPOCHS, message)]
        if not np.all(sound):
            message = f"rows whose epoch is no epoch of a training: {np.sum(~sound)} skipped"
            remarks.append(oddity(OddityKind.SKIPPED, message))
            counted = np.where(sound, counted, NO_ITERATION)
        return counted, remarks

    def counted_in_validation(self, validation: Columns, train: Columns) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Return the iteration of each validation record, and which of them can have one."""
        epochs = validation.epochs()
        if self.unnamed is not None:  # the epoch of the training record before
            before = np.searchsorted(train.lines(), validation.lines(), side="right") - 1
            epochs = self.unnamed[np.maximum(before, 0)]
        return counted_on(epochs, validation.iterations(), self.length, self.first)


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
    return _largest(iterations)


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
    if len(starts) < 2 or losses is None:
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


def _largest(iterations: Integers) -> int:
    """Return how long an epoch is at least: as the largest iteration seen, counted from 1."""
    return int(iterations.max()) + bool(iterations.min() == 0)


def _epochs_nobody_names(columns: Columns) -> Integers | None:
    if columns.ranks().strides != (0,) or columns.epochs().strides != (0,) or "loss" not in columns.metrics:
        return None
    rows, losses = columns.metrics["loss"].arrays(len(columns))
    return unnamed_epochs(columns.iterations(), losses if rows is None else None)
