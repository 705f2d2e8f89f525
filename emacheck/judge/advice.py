"""How a finding can be accepted: the option that does it, rounded up so that following it really passes."""

from decimal import ROUND_CEILING, Context

DIGITS = 4


def rounded_up(value: float) -> float:
    """Return a limit with at most four significant digits that is not below a value.

    Example:
        >>> rounded_up(0.12341), rounded_up(0.5)
        (0.1235, 0.5)
    """
    # The nearest double of a decimal that was rounded up is not below the double that it was made from.
    return float(Context(prec=DIGITS, rounding=ROUND_CEILING).create_decimal_from_float(value))


def option(rule: str, value: float) -> str:
    """Return the option that sets the limit of a rule so that a value passes.

    Example:
        >>> option("coverage", 4 / 105)
        '--limit coverage=0.0381'
    """
    return f"--limit {rule}={rounded_up(value):.{DIGITS}g}"
