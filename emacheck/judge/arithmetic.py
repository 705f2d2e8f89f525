"""Quotients and averages of whatever a log holds: NaN or infinite where they have no value, and never a warning."""

import math

import numpy as np

from emacheck.curve import Floats


def quotient(part: Floats | float, whole: Floats | float) -> Floats:
    """Return part / whole, 0 where the part is 0.

    Args:
        part: What is divided.
        whole: What it is divided by, of a shape that fits.

    Returns:
        The quotients; infinite where only ``whole`` is 0 or the quotient is too large.

    Example:
        >>> quotient(np.array([0.0, 1.0, 3.0]), np.array([0.0, 0.0, 2.0])).tolist()
        [0.0, inf, 1.5]
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(part == 0, 0.0, part / whole)


def average(values: Floats) -> float:
    """Return the arithmetic mean.

    Args:
        values: Any numbers, shape (n,).

    Returns:
        The mean; NaN without values, infinite or NaN where their sum is.

    Example:
        >>> average(np.array([1.0, 2.0])), average(np.array([1e308, 1e308])), average(np.array([]))
        (1.5, inf, nan)
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.mean(values)) if values.size else math.nan
