"""The vertical axes of a picture: where they begin and end, and whether they are logarithmic."""

import math
from dataclasses import dataclass

import numpy as np

from emacheck.curve import Floats
from emacheck.report.lines import DRAWABLE

FLOOR = 1e-18  # no two different float64 are closer than this, relative to one of them
SMALLEST = 1e-200  # a curve below it is drawn as 0: near the last float no axis has room for its ends
LOG_SCALE_FROM = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A vertical axis.

    Attributes:
        low: The value at its lower end.
        high: The value at its upper end.
        log: Whether it is logarithmic.
    """

    low: float
    high: float
    log: bool

    def heights(self, values: Floats) -> Floats:
        """Return where values lie: 0 is the lower end and 1 the upper one.

        Example:
            >>> Scale(low=0.01, high=100.0, log=True).heights(np.array([0.01, 1.0, 100.0])).tolist()
            [0.0, 0.5, 1.0]
        """
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        low, high = math.log10(self.low), math.log10(self.high)
        return (np.log10(values) - low) / (high - low)


def scale_of_values(values: Floats, *, marked: bool) -> Scale:
    """Choose the axis for the values of curves.

    Args:
        values: All that is drawn.
        marked: Whether marks need room below them.

    Example:
        >>> scale_of_values(np.array([0.0, 1.0]), marked=False)
        Scale(low=-0.05, high=1.05, log=False)
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    room = 0.2 if marked else 0.05
    if low >= SMALLEST and high / low > LOG_SCALE_FROM:
        decades = math.log10(high) - math.log10(low)
        return Scale(low=low / 10 ** (room * decades), high=high * 10 ** (0.05 * decades), log=True)
    # Never so close that the numbers on the axis need more than four digits; relative differences show what is smaller.
    size = max(abs(low), abs(high))
    least = 0.01 * size if size >= SMALLEST else 1.0
    spare = max(least - (high - low), 0.0) / 2
    low, high = low - spare, high + spare
    return Scale(low=low - room * (high - low), high=high + 0.05 * (high - low), log=False)


def ticks(scale: Scale, most: int) -> list[float]:
    """Return what numbers stand on an axis: round ones, powers of ten where a logarithmic one has three or more.

    Example:
        >>> ticks(Scale(low=0.1, high=4.2, log=False), 5)
        [1.0, 2.0, 3.0, 4.0]
        >>> ticks(Scale(low=1e-3, high=2.0, log=True), 5), ticks(Scale(low=12.0, high=900.0, log=True), 5)
        ([0.001, 0.01, 0.1, 1.0], [20.0, 50.0, 100.0, 200.0, 500.0])
    """
    if not scale.log:
        step = round_step((scale.high - scale.low) / most)
        return [n * step for n in range(math.ceil(scale.low / step), math.floor(scale.high / step) + 1)]
    low, high = math.ceil(math.log10(scale.low) - 1e-9), math.floor(math.log10(scale.high) + 1e-9)
    if high - low < 2:
        between = (factor * 10.0**power for power in range(low - 1, high + 1) for factor in (1.0, 2.0, 5.0))
        return [value for value in between if scale.low <= value <= scale.high]
    return [10.0**power for power in range(low, high + 1, max(-(-(high - low + 1) // most), 1))]


def round_step(least: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least ``least``.

    Example:
        >>> round_step(0.3), round_step(7.0)
        (0.5, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def has_place(limit: float) -> bool:
    """Tell whether a limit of relative differences can be drawn on their axis."""
    return FLOOR <= limit <= DRAWABLE


def scale_of_differences(shown: Floats) -> tuple[Scale, float]:
    """Choose the logarithmic axis for relative differences and their limits.

    Returns:
        The axis, and the height, as a value, at which differences of exactly 0 are marked.
    """
    heights = np.maximum(shown, FLOOR)
    low, high = (float(heights.min()), float(heights.max())) if heights.size else (1e-3, 1.0)
    bottom, top = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
    room = (max(top, 10 * bottom) / bottom) ** 0.12
    return Scale(low=bottom / room**2, high=max(top, 10 * bottom) * room**1.5, log=True), float(bottom / room)
