"""Exact confidence limits of a rate that was counted."""

import math
from collections.abc import Callable


def clopper_pearson(count: int, trials: int) -> tuple[float, float]:
    """Return the exact two-sided 95 % confidence interval of a binomial rate.

    Args:
        count: How often it happened.
        trials: How often it could have happened.

    Returns:
        Lower and upper limit; (0, 1) without trials.

    Example:
        >>> [round(limit, 4) for limit in clopper_pearson(0, 200)]
        [0.0, 0.0183]

    Source: Clopper and Pearson, Biometrika 26 (1934) 404-413.
    """
    return lower_limit(count, trials, 0.025), upper_limit(count, trials, 0.025)


def upper_limit(count: int, trials: int, tail: float = 0.05) -> float:
    """Return the rate at which so few or fewer would be counted with probability ``tail``: a one-sided limit.

    Example:
        >>> round(upper_limit(0, 200), 4)
        0.0149
    """
    if trials in {0, count}:
        return 1.0
    return _solve(lambda rate: sum(_binomial(k, trials, rate) for k in range(count + 1)) - tail)


def lower_limit(count: int, trials: int, tail: float) -> float:
    """Return the rate at which so many or more would be counted with probability ``tail``."""
    if count == 0:
        return 0.0
    return 1.0 - upper_limit(trials - count, trials, tail)


def _binomial(count: int, trials: int, rate: float) -> float:
    if rate in (0.0, 1.0):
        return float(count == (0 if rate == 0 else trials))
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return math.exp(ways + count * math.log(rate) + (trials - count) * math.log1p(-rate))


def _solve(falling: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return high
