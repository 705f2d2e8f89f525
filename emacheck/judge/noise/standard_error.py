"""The standard error of the mean of a series whose neighbours are alike, and the quantile that goes with it."""

import math
from statistics import NormalDist

import numpy as np

from emacheck.curve import Floats

LARGEST_CORRELATION = 0.99
FEWEST_MEANS = 12
# Of a mean that may be chance: into how many blocks its series is cut at most, how many it needs, and how many
# correlation times long each is at least.
MOST_BLOCKS, FEWEST_BLOCKS = 5, 4
TIMES_PER_BLOCK = 1.5
FEWEST_VALUES = 5
CONSTANT = 1e-12


def correlation_time(values: Floats) -> float:
    """Return how many neighbours carry the information of one independent value, (1 + phi) / (1 - phi).

    The correlation phi of neighbours is corrected for being measured around the mean of the same series, which makes
    it too small by about (1 + 4 phi) / n. It is held between 0 and 0.99.

    Args:
        values: The series, shape (n,), n over 4.

    Returns:
        A number of values, 1 for noise without memory.

    Source: F. H. C. Marriott and J. A. Pope, Bias in the estimation of autocorrelations, Biometrika 41 (1954) 390-402.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=400)
        >>> round(correlation_time(noise), 1), round(correlation_time(np.cumsum(noise)))
        (1.0, 199)
    """
    count = len(values)
    centred = values - np.mean(values)
    variance = float(centred @ centred)
    if not variance > 0:
        return 1.0
    phi = (count * float(centred[1:] @ centred[:-1]) / variance + 1) / (count - 4)
    phi = min(max(phi, 0.0), LARGEST_CORRELATION)
    return (1 + phi) / (1 - phi)


def autoregressive_error(values: Floats, longer: Floats | None = None) -> float:
    """Return the standard error of the mean of a series whose memory is that of a first-order autoregression.

    Fast noise hides slow noise from the correlation of neighbours, so the same is asked of the means of 2, 4, 8, ...
    neighbours, as long as there are 12 of them or more, and the largest answer counts.

    Args:
        values: The series, shape (n,), n over 4.
        longer: A series that ends with it, shape (k,), k >= n, from which to take the correlations, because it can show
            slower noise; None for the series itself.

    Returns:
        The largest sqrt(variance * time / (m - time)) over the series of means, m long each, in the unit of the
        series; infinite if a memory is longer than its series.

    Example:
        >>> round(autoregressive_error(np.array([1.0, -1.0] * 50)), 4)
        0.1005
    """
    longer = values if longer is None else longer
    errors = []
    width = 1
    while width == 1 or (len(longer) // width >= FEWEST_MEANS and len(values) // width > 1):
        errors.append(_first_order_error(_means(values, width), correlation_time(_means(longer, width))))
        width *= 2
    return max(errors)


def _means(values: Floats, width: int) -> Floats:
    """Return the means of ``width`` neighbours, counted from the end."""
    whole = len(values) // width * width
    means: Floats = values[-whole:].reshape(-1, width).mean(axis=1)
    return means


def _first_order_error(values: Floats, time: float) -> float:
    count = len(values)
    return math.sqrt(float(np.var(values)) * time / (count - time)) if time < count else math.inf


def block_length(values: Floats) -> int:
    """Return the length of blocks that are about independent of each other.

    The choice that minimises the mean squared error of the circular block bootstrap's variance,
    (2 g² / (4/3 s⁴))^(1/3) n^(1/3), with g and s² from the autocovariances up to twice the lag after which they are
    insignificant.

    Args:
        values: The series, shape (n,), n over 4.

    Returns:
        A number of values, at most a third of the series.

    Source: D. N. Politis and H. White, Automatic block-length selection for the dependent bootstrap, Econometric
    Reviews 23 (2004) 53-70, with the correction by A. Patton, D. N. Politis and H. White, 28 (2009) 372-375.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=400)
        >>> block_length(noise), block_length(np.cumsum(noise))
        (1, 37)
    """
    count = len(values)
    centred = values - np.mean(values)
    # The choice does not depend on the unit, and in this one, a power of two, no square overflows or vanishes.
    centred = np.ldexp(centred, -math.frexp(float(np.max(np.abs(centred))))[1])
    around = min(max(5, math.ceil(math.sqrt(math.log10(count)))), count - 1)
    furthest = min(math.ceil(math.sqrt(count)) + around, count - 1)
    covariance = np.array([centred[: count - lag] @ centred[lag:] / count for lag in range(furthest + 1)])
    if not covariance[0] > 0:
        return 1
    significant = np.abs(covariance[1:]) >= 2 * math.sqrt(math.log10(count) / count) * covariance[0]
    quiet = ~np.lib.stride_tricks.sliding_window_view(significant, around).any(axis=1)
    memory = int(np.argmax(quiet)) if quiet.any() else furthest
    bandwidth = min(2 * max(memory, 1), furthest)
    lags = np.arange(1, bandwidth + 1)
    weighted = 2 * np.minimum(1, 2 * (1 - lags / bandwidth)) * covariance[1 : bandwidth + 1]
    slope, variance = float(weighted @ lags), float(covariance[0] + weighted.sum())
    # Neighbours that alternate more than noise make the mean more certain: single values are then the safe choice.
    best = (1.5 * (slope / variance) ** 2 * count) ** (1 / 3) if variance > 0 else 1.0
    return round(min(max(best, 1), 3 * math.sqrt(count), count / 3))


def block_error(values: Floats, block: int) -> float:
    """Return the standard error of the mean by the circular block bootstrap.

    The bootstrap draws blocks of neighbours with replacement; the variance of the mean of infinitely many such draws
    has a closed form, block / n * mean((block mean - mean)²), so nothing has to be drawn. It is divided by
    1 - block / n, because block means are measured from the mean of the same series.

    Args:
        values: The series, shape (n,).
        block: Length of the blocks.

    Returns:
        The standard error, in the unit of the series; infinite if one block is the whole series.

    Source: H. R. Künsch, The jackknife and the bootstrap for general stationary observations, Ann. Statist. 17 (1989)
    1217-1241; the circular form by D. N. Politis and J. P. Romano, in Exploring the Limits of Bootstrap (1992) 263-270.

    Example:
        >>> round(block_error(np.array([1.0, -1.0] * 50), 1), 4), block_error(np.array([1.0, -1.0] * 50), 2)
        (0.1005, 0.0)
    """
    count = len(values)
    if block >= count:
        return math.inf
    centred = values - np.mean(values)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([centred, centred[: block - 1]]))])
    means = (sums[block:] - sums[:-block]) / block
    return math.sqrt(block / count * float(np.mean(means**2)) / (1 - block / count))


def mean_by_chance(values: Floats, confidence: float = 0.99) -> float:
    """Return how far the mean of a series may be from 0 by chance, although its true mean is 0.

    t * standard error, by the block bootstrap with blocks of a fifth of the series, or 1.5 correlation times where that
    is longer, and with Student's quantile for so many blocks. Blocks this long also hold noise that is slow under fast
    noise, which the correlation of neighbours hides.

    Args:
        values: The series, finite, shape (n,).
        confidence: Two-sided, such as 0.99.

    Returns:
        A size in the unit of the series; infinite if it is worth fewer than 4 blocks, 0 if it is constant.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=400)
        >>> round(mean_by_chance(noise), 2), mean_by_chance(np.cumsum(noise)), mean_by_chance(np.full(9, 0.3))
        (0.21, inf, 0.0)
    """
    count, largest = len(values), float(np.max(np.abs(values), initial=0.0))
    if not largest > 0 or (count > 1 and np.ptp(values / largest) <= CONSTANT):
        return 0.0  # nothing varies; of a single value that is not known
    scaled = values / largest
    if count < FEWEST_VALUES:
        return math.inf
    block = max(count // MOST_BLOCKS, round(TIMES_PER_BLOCK * correlation_time(scaled)))
    if count < FEWEST_BLOCKS * block:
        return math.inf
    return largest * student((1 + confidence) / 2, count / block - 1) * block_error(scaled, block)


def student(probability: float, freedom: float) -> float:
    """Return the quantile of Student's t distribution by its expansion around the normal distribution.

    Args:
        probability: Between 0 and 1.
        freedom: Degrees of freedom, at least 3 for an error below 0.1 % at a probability of 0.95.

    Returns:
        The quantile.

    Source: M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions (1964), 26.7.5.

    Example:
        >>> round(student(0.95, 4), 3), round(student(0.95, 1e9), 3)
        (2.132, 1.645)
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
