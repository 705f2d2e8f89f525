"""Where a curve stands still: a loss that does not move is no evidence of a training."""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from emacheck.curve import Curve, Floats, Integers

SHORTEST = 10
"""Equal values in a row that count as a standstill."""
SHORTEST_END = 3
"""Zeros in a row that count at the end of a short curve, and values of a constant one at full precision."""
END = 0.1
"""Share of the records at the end that count when all of them are zero."""
NEIGHBOURS = 5
"""Differences on each side of a standstill that tell how much the curve moved there."""
STEPS = 5.0
"""Smallest movement beside a standstill, in units of what the values can tell apart, for it to be no chance."""
FINEST_DECIMAL = 15
FINEST_BIT = 60
_FAR = 1000
_NEAR = 20


class Still(str, Enum):
    """In which way a curve stands still."""

    CONSTANT = "constant"
    ZERO = "zero"
    STUCK = "stuck"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """The longest stretch of a curve that does not move.

    Attributes:
        kind: Whether the whole curve is constant, the stretch is exactly zero, or it is stuck at another value.
        first: Its first iteration.
        last: Its last iteration.
        count: How many records it has.
        value: The value that is repeated.
        unit: The smallest difference that the values of the curve can tell there.
    """

    kind: Still
    first: int
    last: int
    count: int
    value: float
    unit: float

    def __str__(self) -> str:
        records = f"at all {self.count} recorded iterations" if self.kind is Still.CONSTANT else f"{self.count} times"
        where = f"from iteration {self.first} to {self.last}"
        if self.value == 0:
            return f"is exactly 0 {records}, {where}"
        return f"is {self.value:.6g} {records}, {where}, to the last digit"


def standstill(curve: Curve, *, stretches: bool = True) -> Standstill | None:
    """Return where a curve stands still, or None if it moves all the time.

    A curve that is constant stands still; so does one that repeats a value 10 times in a row, or ends with zeros in
    a tenth of its records, when it moved before or after that by far more than its digits can tell: a loss printed
    with few decimals repeats a value by chance as it converges. Zeros in a tenth of the records, one after the other,
    stand still whatever is beside them: the loss is less than the last digit.

    Args:
        curve: The curve; values that are not finite never stand still.
        stretches: Look for stretches too, and not only for a curve that is constant as a whole.

    Example:
        >>> falling = [4.0 - 0.01 * at * at**0.5 for at in range(20)]
        >>> str(standstill(Curve(name="loss", iterations=range(1, 31), values=falling + [0.0] * 10)))
        'is exactly 0 10 times, from iteration 21 to 30'
        >>> standstill(Curve(name="loss", iterations=range(1, 21), values=falling)) is None
        True
    """
    starts, counts = _runs(curve.values)
    if not len(starts):
        return None
    if counts[0] == len(curve):
        unit = resolution(curve.values[:1], curve.quantum)
        return _found(Still.CONSTANT, curve, 0, len(curve), unit) if _suffices(curve) else None
    if not stretches:
        return None
    at_end = min(SHORTEST, max(SHORTEST_END, math.ceil(END * len(curve))))
    for run in np.argsort(-counts, kind="stable").tolist():
        start, count = int(starts[run]), int(counts[run])
        zero = curve.values[start] == 0
        needed = at_end if zero and start + count == len(curve) else SHORTEST
        if count < at_end:
            break
        if count < needed:
            continue
        moved, unit = _beside(curve, start, count)
        hidden = zero and count >= max(SHORTEST, END * len(curve))  # no chance, but digits that do not show the loss
        if hidden or moved > STEPS * unit:
            return _found(Still.ZERO if zero else Still.STUCK, curve, start, count, unit)
    return None


def longest_zeros(curve: Curve) -> int:
    """Return how many values in a row are exactly zero at most.

    Example:
        >>> longest_zeros(Curve(name="loss", iterations=range(6), values=[1.0, 0.0, 2.0, 0.0, 0.0, 3.0]))
        2
    """
    lengths = np.diff(np.flatnonzero(np.concatenate(([True], curve.values != 0, [True])))) - 1
    return int(np.max(lengths))


def resolution(values: Floats, quantum: float = 0.0) -> float:
    """Return the smallest difference that some values can tell: their last decimal or bit, or the quantum.

    Example:
        >>> resolution(np.array([0.1234, 0.12])), resolution(np.array([4.25, 4.125, 4.0]))
        (0.0001, 0.125)
    """
    finite = values[np.isfinite(values)]
    with np.errstate(over="ignore", invalid="ignore"):
        decimal = next((10.0**-k for k in range(FINEST_DECIMAL) if np.array_equal(np.round(finite, k), finite)), 0.0)
        bit = next((2.0**-k for k in range(FINEST_BIT) if not np.any(np.ldexp(finite, k) % 1)), 0.0)
    return max(quantum, decimal, bit)


def _suffices(curve: Curve) -> bool:
    """Tell whether a curve is long enough for its constancy to be no chance."""
    return len(curve) >= (SHORTEST if curve.quantum else SHORTEST_END)


def _runs(values: Floats) -> tuple[Integers, Integers]:
    """Return start and length of each run of equal finite values; a value on its own is no run."""
    if len(values) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    equal = (values[1:] == values[:-1]) & np.isfinite(values[1:])
    edges = np.diff(np.concatenate(([0], equal.astype(np.int8), [0])))
    starts = np.flatnonzero(edges == 1)
    return starts, np.flatnonzero(edges == -1) - starts + 1


def _beside(curve: Curve, start: int, count: int) -> tuple[float, float]:
    """Return how much the curve typically moves beside a run, step by step, and what its values can tell there."""
    end = start + count - 1
    before, after = curve.values[max(start + 1 - _FAR, 0) : start + 1], curve.values[end : end + _FAR]
    with np.errstate(invalid="ignore", over="ignore"):
        steps = [_moving(np.diff(part)) for part in (before, after)]
        nearest = np.concatenate((steps[0][-NEIGHBOURS:], steps[1][:NEIGHBOURS]))
        moved = float(np.median(nearest)) if len(nearest) else 0.0
    near = np.concatenate((before[-_NEAR:], after[:_NEAR]))
    return moved, resolution(near, curve.quantum)


def _moving(steps: Floats) -> Floats:
    moving: Floats = np.abs(steps[np.isfinite(steps) & (steps != 0)])
    return moving


def _found(kind: Still, curve: Curve, start: int, count: int, unit: float) -> Standstill:
    return Standstill(
        kind=kind,
        first=int(curve.iterations[start]),
        last=int(curve.iterations[start + count - 1]),
        count=count,
        value=float(curve.values[start]),
        unit=unit,
    )
