"""What printed decimals hide: the unit of the last digit that numbers are written with, found from the numbers."""

from collections.abc import Iterable
from decimal import Decimal

import numpy as np

from emacheck.curve import Floats

FEW_DIGITS = 6
"""Significant digits that tell less than single precision, whose numbers need seven to nine."""
_ENOUGH = 3
_LOOKED_AT = 500
_BITS = 11


def unit_of(values: Floats) -> float:
    """Return the unit of the last digit that values are printed with, 0 if they need no decimals.

    Trailing zeros may be stripped, as by ``repr(round(x, 4))``, and digits may be significant ones, as in ``%.4g``. So
    the unit of a decade is that of its finest value, and the coarsest unit of a decade is returned; a decade with too
    few different values to have a fine one counts only if it has as many significant digits as the others, and more
    than one: a learning rate that rests at 0.01 says nothing of how it is printed.

    Args:
        values: The numbers; those that are not finite, and zeros, tell nothing.

    Example:
        >>> unit_of(np.array([2.0, 1.2345, 0.123, 0.0421])), unit_of(np.array([1.234, 1.12, 0.9876, 0.4321]))
        (0.0001, 0.001)
        >>> unit_of(np.array([0.01, 0.01, 0.01, 0.01, 0.001]))
        0.0
    """
    found = list(_decimal(np.unique(_looked_at(values))))
    finest: dict[int, list[int]] = {}
    for digits, power in found:
        finest.setdefault(digits + power, []).append(power)
    most = max((digits for digits, _ in found), default=0)
    units = [
        min(powers)
        for decade, powers in finest.items()
        if len(powers) >= _ENOUGH or (min(powers) == decade - most and most > 1)
    ]
    power = max(units, default=0)
    return float(f"1e{power}") if power < 0 else 0.0


def few_digits(values: Floats) -> float:
    """Return :func:`unit_of` values whose decimals were cut, 0 if they seem to be numbers at full precision.

    These have more than FEW_DIGITS significant digits somewhere, or are numbers of few bits, as of bfloat16.

    Example:
        >>> few_digits(np.array([2.512, 2.404, 2.3])), few_digits(np.array([2.5123456789, 2.4, 2.3]))
        (0.001, 0.0)
        >>> few_digits(np.array([2.5, 2.25, 2.125]))
        0.0
    """
    if any(digits > FEW_DIGITS for digits, _ in _decimal(_looked_at(values))):
        return 0.0
    finite = _finite(values)
    mantissas = np.ldexp(np.frexp(finite)[0], _BITS)
    if len(np.unique(finite[:_LOOKED_AT])) < _ENOUGH or bool(np.all(mantissas == np.round(mantissas))):
        return 0.0
    return unit_of(finite)


def unit_if_rounded(values: Floats, decimals: int) -> float:
    """Return the unit of the last of so many decimals if all values are rounded to them, else 0.

    Example:
        >>> unit_if_rounded(np.array([2.5, 0.0314, np.nan]), 4), unit_if_rounded(np.array([0.03141]), 4)
        (0.0001, 0.0)
    """
    finite = values[np.isfinite(values)].tolist()
    return 10.0**-decimals if all(round(value, decimals) == value for value in finite) else 0.0


def _finite(values: Floats) -> Floats:
    finite: Floats = values[np.isfinite(values) & (values != 0)]
    return finite


def _looked_at(values: Floats) -> Floats:
    """Return the first of the values that tell something, which are the largest of a loss, and some of all."""
    finite = _finite(values)
    if len(finite) <= _LOOKED_AT:
        return finite
    half = _LOOKED_AT // 2
    return np.concatenate((finite[:half], finite[half :: -(-len(finite) // half)]))


def _decimal(values: Floats) -> Iterable[tuple[int, int]]:
    """Return of each value how many significant digits it needs and the power of ten of the last one."""
    for value in values.tolist():
        number = Decimal(repr(value)).normalize().as_tuple()
        yield len(number.digits), int(number.exponent)
