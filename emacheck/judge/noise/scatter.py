"""How much a curve scatters from record to record, and whether two curves do so together."""

import math

import numpy as np

from emacheck.curve import Floats

# Fisher's bound on a correlation: with 99 % confidence it is above 0.
CONFIDENCE = 2.326


def scatter(values: Floats) -> float:
    """Return the relative standard deviation of a curve's values around its own trend.

    It is that of the changes of log|value| from one record to the next, over sqrt(2): a trend of constant rate cancels.

    Args:
        values: Finite numbers of one sign, shape (n,), n > 1.

    Returns:
        A dimensionless ratio.

    Source: J. von Neumann, Distribution of the ratio of the mean square successive difference to the variance, Annals
    of Mathematical Statistics 12 (1941) 367-395.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=400)
        >>> round(scatter(np.exp(-0.01 * np.arange(400) + 0.1 * noise)), 2)
        0.1
    """
    return float(np.std(np.diff(np.log(np.abs(values))))) / math.sqrt(2)


def correlated(changes: Floats) -> bool | None:
    """Tell whether two series of changes are correlated: their correlation is above 0 with 99 % confidence.

    Args:
        changes: The changes of both curves, shape (2, m), m > 3.

    Returns:
        True or False; None where a series does not vary or is not finite.

    Source: R. A. Fisher's transformation of a correlation, Metron 1 (1921), 3: atanh(r) has a standard error of
    1 / sqrt(m - 3).

    Example:
        >>> one, other = np.random.default_rng(0).normal(size=(2, 20))
        >>> correlated(np.array([one, one + other])), correlated(np.array([one, other]))
        (True, False)
    """
    with np.errstate(all="ignore"):
        if not (np.all(np.isfinite(changes)) and np.all(np.std(changes, axis=1) > 0)):
            return None
        correlation = float(np.asarray(np.corrcoef(changes))[0, 1])
    if not math.isfinite(correlation):
        return None
    return correlation > math.tanh(CONFIDENCE / math.sqrt(changes.shape[1] - 3))
