"""The lines of a picture: what can be drawn, where a line is interrupted, and its course without single outliers."""

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from emacheck.curve import Curve, Floats, Integers

DRAWABLE = 1e30  # beyond this a value is marked like infinity: an axis that held it would show nothing else


def moving_median(values: Floats, window: int, at: Integers) -> Floats:
    """Return the centred median over ``window`` values; a single outlier leaves no trace in it.

    Towards both ends the window shrinks on both sides alike, so that it stays centred: a loss begins where it began.

    Args:
        values: What is smoothed; values that cannot be drawn are left out.
        window: An odd number of values.
        at: The positions that are asked for.

    Returns:
        The medians at these positions; NaN where the value itself cannot be drawn.

    Example:
        >>> moving_median(np.array([1.0, 2.0, 6.0, 90.0, 7.0, np.nan]), 3, np.arange(6)).tolist()
        [1.0, 2.0, 6.0, 7.0, 48.5, nan]
    """
    shown, ends = or_nan(values), np.full(window // 2, np.nan)
    windows = sliding_window_view(np.concatenate([ends, shown, ends]), window)[at]
    reach = np.minimum(at, len(values) - 1 - at)
    inside = np.abs(np.arange(window) - window // 2) <= reach[:, np.newaxis]
    ordered = np.sort(np.where(inside, windows, np.nan), axis=1)  # NaN is last
    count = np.count_nonzero(~np.isnan(ordered), axis=1)
    rows = np.arange(len(at))
    median = ordered[rows, (count - 1) // 2] / 2 + ordered[rows, count // 2] / 2
    return np.where(np.isnan(shown[at]), np.nan, median)


def drawable(values: Floats) -> npt.NDArray[np.bool_]:
    """Tell which values have a place on an axis."""
    return np.abs(values) <= DRAWABLE


def unbroken(iterations: Integers) -> list[Integers]:
    """Return the positions of each stretch without a gap; a gap is wider than the usual spacing."""
    positions = np.arange(len(iterations))
    if len(positions) < 2:
        return [positions]
    spacing = np.diff(iterations.astype(np.float64))
    return np.split(positions, np.flatnonzero(spacing > 1.5 * np.median(spacing)) + 1)


def joined(parts: list[Floats]) -> Floats:
    """Return the parts as one array with a NaN between them, where a line is interrupted."""
    return np.concatenate([piece for part in parts for piece in (part, [np.nan])][:-1])


def or_nan(values: Floats) -> Floats:
    """Return the values with NaN for those that have no place on an axis."""
    return np.where(drawable(values), values, np.nan)


def largest(relative: Floats) -> tuple[int, str] | None:
    """Return where the largest |relative difference| is, and what to call it beside those that are no number.

    Example:
        >>> largest(np.array([0.0, -0.5, 0.2])), largest(np.array([0.0, 0.1, np.nan])), largest(np.array([0.0, np.inf]))
        ((1, 'largest'), (1, 'largest finite'), None)
    """
    sizes = np.where(np.isfinite(relative), np.abs(relative), 0.0)
    if not sizes.any():
        return None
    return int(np.argmax(sizes)), "largest" if np.isfinite(relative).all() else "largest finite"


def undrawable(values: Floats) -> str:
    """Name the values that are marked instead of drawn, and count them."""
    hidden = values[~drawable(values)]
    kinds = "NaN or infinite" if not np.isfinite(hidden).any() else f"NaN, infinite or beyond {DRAWABLE:g}"
    return f"{kinds} ({len(hidden)})"


def smoothing_window(count: int) -> int:
    """Return an odd window of about a twentieth of a curve; 1, which is no smoothing, for short ones."""
    return min(count // 40, 50) * 2 + 1


def as_written(curve: Curve) -> str:
    """Return what the values of a curve are: raw, or means of so many iterations."""
    return "raw" if curve.window == 1 else f"means of {curve.window} as logged" if curve.window else "as logged"
