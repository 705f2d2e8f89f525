"""A curve: one metric over iterations, as immutable, validated numbers."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emacheck.errors import UsageError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, init=False)
class Curve:
    """One metric over iterations, with what is known about how it was written down.

    Made of lists, arrays of numpy, series of pandas or tensors of torch on the CPU; what it holds cannot be changed.

    Attributes:
        name: The metric, such as ``loss`` or ``decode.loss_ce``.
        iterations: Iteration numbers, shape (n,), strictly increasing, as the log numbers them.
        values: The metric at those iterations, shape (n,); NaN and infinity are kept.
        window: Number of iterations averaged into each value; 1 means raw values, 0 means unknown.
        quantum: Spacing of the printed decimals, such as 1e-4; 0 means full precision.

    Raises:
        UsageError: If these are not two series of numbers of one length without masks, the iterations are not whole
            or do not increase, the window is no count, or the quantum is negative or not finite.

    Example:
        >>> Curve(name="loss", iterations=[1, 2, 3], values=[4.1, 4.0, 3.9]).values
        array([4.1, 4. , 3.9])
    """

    name: str
    iterations: Integers
    values: Floats
    window: int = 1
    quantum: float = 0.0

    # Written out, because what a curve is made of has wider types than what it holds; quoted, so that help shows names.
    def __init__(
        self, *, name: str, iterations: "npt.ArrayLike", values: "npt.ArrayLike", window: int = 1, quantum: float = 0.0
    ) -> None:
        where = f"curve {name!r}"
        whole = _frozen(f"{where}: iterations", iterations, np.int64)
        real = _frozen(f"{where}: values", values, np.float64)
        if whole.ndim != 1 or whole.shape != real.shape:
            raise UsageError(
                f"{where}: expected two one-dimensional arrays of one length, "
                f"found iterations {whole.shape} and values {real.shape}."
            )
        if np.any(whole[1:] <= whole[:-1]):
            at = int(np.argmax(whole[1:] <= whole[:-1]))
            raise UsageError(
                f"{where}: iterations must increase, found {whole[at + 1]} after {whole[at]}. Sort them, and of each "
                "iteration keep one value, the last one where a run was resumed."
            )
        if not isinstance(window, numbers.Integral) or window < 0:
            raise UsageError(f"{where}: window must be a whole number that is not negative, found {window!r}.")
        if not isinstance(quantum, numbers.Real) or not 0 <= quantum < math.inf:
            raise UsageError(f"{where}: quantum must be a finite number that is not negative, found {quantum!r}.")
        for field, value in zip(self.__slots__, (name, whole, real, window, quantum), strict=True):
            object.__setattr__(self, field, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, so that copies and what comes from another process cannot be changed either.
        return _made, (self.name, self.iterations, self.values, self.window, self.quantum)

    def __len__(self) -> int:
        return len(self.iterations)

    def until(self, iteration: int) -> "Curve":
        """Return the part of the curve up to and including ``iteration``."""
        keep = self.iterations <= iteration
        return Curve(
            name=self.name,
            iterations=self.iterations[keep],
            values=self.values[keep],
            window=self.window,
            quantum=self.quantum,
        )


def _made(name: str, iterations: Integers, values: Floats, window: int, quantum: float) -> Curve:
    return Curve(name=name, iterations=iterations, values=values, window=window, quantum=quantum)


def _frozen(where: str, given: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Return numbers as an array that nobody can change; refuse what would become other numbers on the way."""
    if type(given) is np.ndarray and given.dtype == dtype and not given.flags.writeable:
        return given  # a long log is not held twice
    if np.ma.is_masked(given):
        raise UsageError(f"{where}: found masked numbers, which have no value. Leave those iterations out of both.")
    try:
        found = np.asarray(given)
        with np.errstate(invalid="ignore", over="ignore"):
            # Dates and complex numbers could be cast as well, and would be other numbers.
            array = found.astype(dtype, casting="unsafe" if found.dtype.kind in "biufOUS" else "no")
    except Exception as error:  # of the library that it comes from, so it can be anything
        raise UsageError(
            f"{where}: expected a series of numbers, found {type(given).__name__} ({type(error).__name__}: {error}). "
            "Give a list or an array of numbers; of tensors of torch loss.item(), or losses.detach().double().cpu()."
        ) from error
    if dtype is np.int64 and found.dtype.kind in "ufO":
        other = np.flatnonzero(np.atleast_1d(array != found))
        if other.size:
            at = int(other[0])
            raise UsageError(
                f"{where} must be whole numbers of 64 bits, found {np.atleast_1d(found)[at]} at position {at}. Count "
                "the iterations, and give those; an epoch such as 0.25 is no iteration."
            )
    array.flags.writeable = False
    return array
