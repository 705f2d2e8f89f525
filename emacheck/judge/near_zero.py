"""Where ratios to the reference mean nothing, because it crosses zero or comes close to it."""

import numpy as np

from emacheck.curve import Floats
from emacheck.judge.arithmetic import average, quotient
from emacheck.judge.comparison import PairedCurve

# Of the reference's mean size: what is smaller is close to zero.
CLOSE = 0.01


def scaled_difference(paired: PairedCurve) -> Floats | None:
    """Return the differences over the reference's mean size, if the reference crosses zero or comes close to it.

    There (c - r) / r is huge however small c - r is, while (c - r) / mean(|r|) is not.

    Args:
        paired: One metric of a comparison.

    Returns:
        A dimensionless ratio for each iteration, shape (n,); None for a reference of one sign that stays above 1 % of
        its mean size, or that is zero or not finite throughout.

    Example:
        >>> from emacheck import Curve
        >>> from emacheck.judge.comparison import pair
        >>> def curve(*values):
        ...     return Curve(name="loss", iterations=range(len(values)), values=values)
        >>> scaled_difference(pair("loss", curve(2.0, 0.001, -2.0), curve(2.0, 0.002, -2.0))).round(5).tolist()
        [0.0, 0.00075, 0.0]
        >>> scaled_difference(pair("loss", curve(2.0, 1.0), curve(2.1, 1.0))) is None
        True
    """
    sizes = np.abs(paired.reference)
    mean = average(sizes)
    if not 0 < mean < np.inf:
        return None
    ordinary = abs(int(np.sum(np.sign(paired.reference)))) == sizes.size and np.min(sizes) >= CLOSE * mean
    return None if ordinary else quotient(paired.difference, mean)


def near_zero(metric: str, size: float) -> str:
    """Say why a relative difference over its limit decides nothing."""
    return (
        f"{metric} of the reference crosses zero or comes close to it, where ratios mean nothing: of its mean size the "
        f"difference is {size:.2g}, within the limit; judge it by --rule mean_absolute_error with a limit of your own"
    )
