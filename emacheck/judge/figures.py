"""Numbers as a person reads them, and two of them side by side so that it is seen which one is larger."""

import math

from emacheck.judge.advice import DIGITS

EXACT_DIGITS = 17
EXACT_INTEGERS_BELOW = 1e6


def number(value: float, *, signed: bool = False, digits: int = DIGITS) -> str:
    """Return a number as a person reads it: counts in full, everything else with a few significant digits.

    Example:
        >>> number(12345.0), number(16780.4), number(0.33123), number(0.02, signed=True), number(float("nan"))
        ('12345', '16780', '0.3312', '+0.02', 'NaN')
    """
    if math.isnan(value):
        return "NaN"
    sign = "+" if signed and value != 0 else ""
    if float(value).is_integer() and abs(value) < EXACT_INTEGERS_BELOW:
        return f"{int(value):{sign}d}"
    if 10**digits <= abs(value) < EXACT_INTEGERS_BELOW:
        return f"{value:{sign}.0f}"
    return f"{value:{sign}.{digits}g}"


def beside(observed: float, limit: float, *, signed: bool = False, digits: int = DIGITS) -> tuple[str, str]:
    """Return observed and limit with as many digits as it takes to see on which side of the limit observed lies.

    Args:
        observed: What was measured; its size is held against the limit.
        limit: What it was held against.
        signed: Show the sign of a positive number as well.
        digits: Significant digits where these suffice.

    Example:
        >>> beside(-0.0200004, 0.02), beside(0.5, 0.02, signed=True)
        (('-0.0200004', '0.02'), ('+0.5', '0.02'))
    """
    within = abs(observed) <= limit
    for enough in range(digits, EXACT_DIGITS):
        shown, allowed = number(observed, signed=signed, digits=enough), number(limit, digits=enough)
        if (abs(float(shown)) <= float(allowed)) == within:
            return shown, allowed
    return number(observed, signed=signed, digits=EXACT_DIGITS), number(limit, digits=EXACT_DIGITS)
