"""Numbers as logs write them."""

import math
import re

_NUMBER = re.compile(r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,6})?|nan|inf|infinity)", re.ASCII | re.IGNORECASE)
NOT_FINITE = (
    r"[-+]?(?:nan\((?:ind|snan|q|s|0x[0-9a-f]{1,16})?\)|[qs]nan\d{0,2}|\d\.?\d{0,9}\#(?:[qs]nan|ind|inf)\d{0,4})"
)
"""How C libraries write NaN and infinity: ``-nan(ind)``, ``1.#QNAN``, ``1.#INF``."""
WRAPPER = r"(?:(?:torch\.)?tensor|(?:np|numpy|torch)\.float\d{1,3})\("
"""What Python puts around a value of another type: ``tensor(nan)``, ``np.float32(2.5)``."""
_NOT_FINITE = re.compile(NOT_FINITE, re.ASCII | re.IGNORECASE)
_WRAPPED = re.compile(rf"{WRAPPER}([^,()]{{1,40}})(?:,.*)?\)?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_ABSENT = re.compile(r"none|null|n/?a|-{1,3}|\*{2,}|#[\w/]{1,20}[!?]?|[-+]?[\d.]{1,40}%", re.ASCII | re.IGNORECASE)
_END = 2**63


def parse_number(text: str) -> float | None:
    """Return the number that ``text`` is, NaN and infinity in any spelling included, or None.

    Example:
        >>> parse_number("1e+05"), parse_number("nan"), parse_number("1e999"), parse_number("1_000")
        (100000.0, nan, inf, None)
        >>> parse_number("-nan(ind)"), parse_number("1.#INF"), parse_number("tensor(2.5)"), parse_number("None")
        (nan, inf, 2.5, None)
    """
    if _NUMBER.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        infinite = "inf" in text.lower()
        return math.copysign(math.inf, -1 if text.startswith("-") else 1) if infinite else math.nan
    return parse_number(wrapped[1]) if (wrapped := _WRAPPED.fullmatch(text)) else None


def is_absent(text: str) -> bool:
    """Tell whether a text is what logs write where there is no number, such as ``None``, ``***`` or ``#NUM!``."""
    return _ABSENT.fullmatch(text) is not None


def parse_iteration(value: object) -> int | None:
    """Return the iteration number that a decoded JSON value or a text is, or None unless it is an integer of 64 bits.

    Example:
        >>> [parse_iteration(value) for value in (50, "50", "1,050", 50.0, 0.5, 10**30)]
        [50, 50, 1050, 50, None, None]
    """
    if isinstance(value, str):
        value = value.replace(",", "") if _THOUSANDS.fullmatch(value) else value
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else parse_number(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -_END < value < _END:
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
    """Return the metric that a decoded JSON value is, or None unless it is a number, perhaps as text."""
    if isinstance(value, str):
        return parse_number(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def printed_unit(text: str) -> float:
    """Return what one unit of the last printed digit is worth; 0 where nothing tells.

    An integer is printed in full, and of a zero or of what is beyond all numbers an exponent tells nothing.

    Example:
        >>> printed_unit("0.3658"), printed_unit("8.4723e-03"), printed_unit("12")
        (0.0001, 1e-07, 0.0)
        >>> printed_unit("0.0000"), printed_unit("0e300"), printed_unit("1e999")
        (0.0001, 0.0, 0.0)
    """
    if wrapped := _WRAPPED.fullmatch(text):
        text = wrapped[1]
    mantissa, _, exponent = text.lower().partition("e")
    if "." not in mantissa and not exponent:
        return 0.0
    decimals = len(mantissa.partition(".")[2])
    if exponent and not float(mantissa):
        return 0.0
    unit = float(f"1e{int(exponent or 0) - decimals}")
    return unit if math.isfinite(unit) else 0.0
