"""A curve: one metric over iterations, as immutable, validated numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """One metric over iterations, with what is known about how it was written down.

    Attributes:
        name: The metric, such as ``loss`` or ``decode.loss_ce``.
        iterations: Iteration numbers, shape (n,), strictly increasing, as the log numbers them.
        values: The metric at those iterations, shape (n,); NaN and infinity are kept.
        window: Number of iterations averaged into each value; 1 means raw values, 0 means unknown.
        quantum: Spacing of the printed decimals, such as 1e-4; 0 means full precision.

    Raises:
        ValueError: If the shapes differ, the iterations do not increase, or window or quantum is negative.

    Example:
        >>> Curve(name="loss", iterations=[1, 2, 3], values=[4.1, 4.0, 3.9]).values
        array([4.1, 4. , 3.9])
    """

    name: str
    iterations: Integers
    values: Floats
    window: int = 1
    quantum: float = 0.0

    def __post_init__(self) -> None:
        iterations = _frozen(self.iterations, np.int64)
        values = _frozen(self.values, np.float64)
        if iterations.ndim != 1 or iterations.shape != values.shape:
            raise ValueError(
                f"curve {self.name!r}: expected two one-dimensional arrays of one length, "
                f"found iterations {iterations.shape} and values {values.shape}"
            )
        if np.any(iterations[1:] <= iterations[:-1]):
            at = int(np.argmax(iterations[1:] <= iterations[:-1]))
            raise ValueError(
                f"curve {self.name!r}: iterations must increase, found {iterations[at + 1]} after {iterations[at]}"
            )
        if self.window < 0 or not self.quantum >= 0:
            raise ValueError(
                f"curve {self.name!r}: window and quantum must not be negative, found {self.window} and {self.quantum}"
            )
        object.__setattr__(self, "iterations", iterations)
        object.__setattr__(self, "values", values)

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


def _frozen(values: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    if isinstance(values, np.ndarray) and values.dtype == dtype and not values.flags.writeable:
        return values  # nobody can change it, and a long log is not held twice
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array
