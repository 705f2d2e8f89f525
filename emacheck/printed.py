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
    few values to have a fine one counts only if it has as many significant digits as the others.

    Args:
        values: The numbers; those that are not finite, and zeros, tell nothing.

    Example:
        >>> unit_of(np.array([2.0, 1.2345, 0.123, 0.0421])), unit_of(np.array([1.234, 1.12, 0.9876, 0.4321]))
        (0.0001, 0.001)
    """
    found = list(_decimal(values))
    finest: dict[int, list[int]] = {}
    for digits, power in found:
        finest.setdefault(digits + power, []).append(power)
    most = max((digits for digits, _ in found), default=0)
    units = [min(powers) for decade, powers in finest.items() if len(powers) >= _ENOUGH or min(powers) == decade - most]
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
    if any(digits > FEW_DIGITS for digits, _ in _decimal(values)):
        return 0.0
    finite = _finite(values)
    mantissas = np.ldexp(np.frexp(finite)[0], _BITS)
    if len(np.unique(finite[:_LOOKED_AT])) < _ENOUGH or bool(np.all(mantissas == np.round(mantissas))):
        return 0.0
    return unit_of(finite)


def _finite(values: Floats) -> Floats:
    finite: Floats = values[np.isfinite(values) & (values != 0)]
    return finite


def _decimal(values: Floats) -> Iterable[tuple[int, int]]:
    """Return of each value how many significant digits it needs and the power of ten of the last one."""
    finite = _finite(values)
    if len(finite) > _LOOKED_AT:  # the first ones, which are the largest of a loss, and some of all
        half = _LOOKED_AT // 2
        finite = np.concatenate((finite[:half], finite[half :: -(-len(finite) // half)]))
    for value in finite.tolist():
        number = Decimal(repr(value)).normalize().as_tuple()
        yield len(number.digits), int(number.exponent)
