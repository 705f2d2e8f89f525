"""Numbers as logs write them."""

import math
import re

_NUMBER = re.compile(r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,6})?|nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_END = 2**63


def parse_number(text: str) -> float | None:
    """Return the number that ``text`` is, NaN and infinity included, or None.

    Example:
        >>> parse_number("1e+05"), parse_number("nan"), parse_number("1e999"), parse_number("1_000")
        (100000.0, nan, inf, None)
    """
    return float(text) if _NUMBER.fullmatch(text) else None


def parse_iteration(value: object) -> int | None:
    """Return the iteration number that a decoded JSON value or a text is, or None unless it is an integer of 64 bits.

    Example:
        >>> [parse_iteration(value) for value in (50, "50", 50.0, 0.5, 10**30)]
        [50, 50, 50, None, None]
    """
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else parse_number(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -_END <= value < _END:
        return None
    return value


def is_fraction(text: str) -> bool:
    """Tell whether a text is a number that counts nothing.

    Example:
        >>> is_fraction("3.5"), is_fraction("3"), is_fraction("")
        (True, False, False)
    """
    return parse_iteration(text) is None and parse_number(text) is not None


def measured(value: object) -> float | None:
    """Return the metric that a decoded JSON value is, or None unless it is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def printed_unit(text: str) -> float:
    """Return what one unit of the last printed digit is worth; 0 for an integer, which is printed in full.

    Example:
        >>> printed_unit("0.3658"), printed_unit("8.4723e-03"), printed_unit("12")
        (0.0001, 1e-07, 0.0)
    """
    mantissa, _, exponent = text.lower().partition("e")
    if "." not in mantissa and not exponent:
        return 0.0
    decimals = len(mantissa.partition(".")[2])
    return float(f"1e{int(exponent or 0) - decimals}")
