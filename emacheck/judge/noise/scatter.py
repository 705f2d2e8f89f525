"""How much a curve scatters from record to record, and whether two curves do so together."""

import math

import numpy as np

from emacheck.curve import Floats
from emacheck.judge.noise.standard_error import correlation_time

# Fisher's bound on a correlation: with 99 % confidence it is above 0.
CONFIDENCE = 2.326
MOST_LAGS = 10


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


def slow_scatter(values: Floats) -> tuple[float, float]:
    """Return by how much the first of two curves scatters, slow noise included, and how long its noise lasts.

    Neighbours that are alike hide slow noise from :func:`scatter`: a first-order autoregression with correlation time t
    scatters sqrt((t + 1) / 2) times as much; but no more than the curve does around a parabola in log|value|. The
    correlation time is the shorter one of that rest and of the two curves' ratio, in which their trend cancels.

    Args:
        values: Finite numbers of one sign of two curves, shape (2, n), n > 4.

    Returns:
        The relative standard deviation, a dimensionless ratio, and the correlation time, a number of records.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(2, 400))
        >>> slow = [np.convolve(each, np.full(20, 20**-0.5), mode="same") for each in noise]
        >>> [[round(part, 1) for part in slow_scatter(np.exp(0.1 * np.array(of)))] for of in (noise, slow)]
        [[0.1, 1.0], [0.1, 29.3]]
    """
    logs = np.log(np.abs(values))
    count = logs.shape[1]
    rest = _without_trend(logs[:1], degree=2)[0]
    time = min(correlation_time(rest), correlation_time(logs[1] - logs[0]))
    once, around = scatter(values[0]), float(np.sqrt(rest @ rest / (count - 3)))
    return max(once, min(once * math.sqrt((time + 1) / 2), around)), time


def share_noise(values: Floats) -> bool | None:
    """Tell whether two curves fluctuate together beyond their trends, with 99 % confidence.

    The ranks of the changes of log|value|, without their straight line, are correlated: ranks because a single step
    that both curves make, such as a drop of the learning rate, is no noise. Noise around a trend makes neighbouring
    changes alternate, so that m of them are worth fewer: m / (1 + 2 sum r(k) s(k)), with the autocorrelations r and s
    of both.

    Args:
        values: Finite numbers of one sign of two curves, shape (2, n), n > 2; of fewer than 6 it tells nothing: False.

    Returns:
        True or False; None where a curve's changes do not vary.

    Source: C. Spearman, Am. J. Psychol. 15 (1904) 72, for ranks; M. S. Bartlett, J. R. Stat. Soc. 98 (1935) 536, for
    the variance of a correlation between series with memory; R. A. Fisher as in :func:`correlated`.

    Example:
        >>> batches, one, other = 0.1 * np.random.default_rng(0).normal(size=(3, 40))
        >>> share_noise(np.exp([batches, batches + 0.3 * one])), share_noise(np.exp([one, other]))
        (True, False)
    """
    changes = np.diff(np.log(np.abs(values)), axis=1)
    if not np.all(np.std(changes, axis=1) > 0):
        return None
    ranks = np.argsort(np.argsort(_without_trend(changes, degree=1), axis=1), axis=1)
    one, other = ranks - ranks.mean(axis=1, keepdims=True)
    size, count = float(one @ one), len(one)
    lags = range(1, min(count // 4, MOST_LAGS) + 1)
    alike = sum((one[lag:] @ one[:-lag]) * (other[lag:] @ other[:-lag]) for lag in lags) / size**2
    worth = (count - 1) / max(1.0, 1 + 2 * alike)
    return bool(worth > 3 and (one @ other) / size > math.tanh(CONFIDENCE / math.sqrt(worth - 3)))


def _without_trend(rows: Floats, degree: int) -> Floats:
    """Return the rest of each row around its best polynomial."""
    base, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, rows.shape[1]), degree + 1))
    rest: Floats = rows - (rows @ base) @ base.T
    return rest


def correlated(changes: Floats) -> bool | None:
    """Tell whether two series of changes are correlated: their correlation is above 0 with 99 % confidence.

    That is the confidence for changes without memory and trend. Curves that fall alike are correlated as well, see
    :func:`share_noise`.

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
