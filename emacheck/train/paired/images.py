"""Image arithmetic that is the same on every host: batches are compared by their hashes.

OpenCV rounds two of the functions that mmsegmentation's pipelines call otherwise where it was built for ARM than where
for x86: ``cvtColor`` with ``COLOR_BGR2HSV`` of 8-bit images (seen with 4.8, 4.12 and 5.0 for aarch64, whose builds take
Carotene), and ``resize`` with ``INTER_LINEAR`` to a smaller size (5.0, which takes KleidiCV as well). Where it does so,
these two take their place. They follow its portable code: ``resize.cpp`` (``HResizeLinear``, ``VResizeLinear``,
``ResizeAreaFast``) and ``color_hsv.simd.hpp`` (``RGB2HSV_b``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from emacheck.train.paired.draws import stream

Image = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

COEFFICIENT_BITS, HSV_BITS = 11, 12
GREEN, RED = 2, 4  # sixths of the circle of hues at which their own begin


def resize(image: Image, width: int, height: int) -> Image:
    """Resize as ``cv2.resize`` with ``INTER_LINEAR`` does on x86: coefficients of 11 bits, sums of integers.

    Args:
        image: Of shape (height, width) or (height, width, channels).
        width: The new width.
        height: The new height.

    Example:
        >>> resize(np.array([[0, 100]], dtype=np.uint8), 3, 1).tolist()
        [[0, 50, 100]]
    """
    rows, columns = image.shape[:2]
    pixels = image.reshape(rows, columns, -1).astype(np.int64)
    if (rows, columns) == (2 * height, 2 * width):
        total = pixels[::2, ::2] + pixels[::2, 1::2] + pixels[1::2, ::2] + pixels[1::2, 1::2]
        resized = (total + 2) >> 2
    else:
        left, right, of_left, of_right = _neighbours(columns, width)
        across = pixels[:, left] * of_left[:, None] + pixels[:, right] * of_right[:, None]
        above, below, of_above, of_below = _neighbours(rows, height)
        down = [((across[at] >> 4) * by[:, None, None]) >> 16 for at, by in ((above, of_above), (below, of_below))]
        resized = (down[0] + down[1] + 2) >> 2
    return resized.astype(np.uint8).reshape(height, width, *image.shape[2:])


def _neighbours(old: int, new: int) -> tuple[Integers, Integers, Integers, Integers]:
    """Return for each new place the two old ones that it lies between, and their coefficients."""
    scale = 1.0 / (new / old)
    exact = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(exact).astype(np.int64)
    share = exact - first.astype(np.float32)
    weights = [np.rint(each * np.float32(1 << COEFFICIENT_BITS)).astype(np.int64) for each in (1 - share, share)]
    return np.clip(first, 0, old - 1), np.clip(first + 1, 0, old - 1), weights[0], weights[1]


def to_hsv(image: Image) -> Image:
    """Return hue (0 to 179), saturation and value as ``cv2.cvtColor`` with ``COLOR_BGR2HSV`` does on x86.

    Args:
        image: Blue, green and red, of shape (height, width, 3).

    Example:
        >>> to_hsv(np.array([[[0, 0, 255], [255, 128, 0]]], dtype=np.uint8)).tolist()
        [[[0, 255, 255], [105, 255, 255]]]
    """
    blue, green, red = (image[..., at].astype(np.int64) for at in range(3))
    value = np.maximum(np.maximum(blue, green), red)
    spread = value - np.minimum(np.minimum(blue, green), red)
    half = 1 << (HSV_BITS - 1)
    saturation = (spread * _divided(255.0, 1.0)[value] + half) >> HSV_BITS
    of_green, of_blue = blue - red + GREEN * spread, red - green + RED * spread
    hue = np.where(value == red, green - blue, np.where(value == green, of_green, of_blue))
    hue = (hue * _divided(180.0, 6.0)[spread] + half) >> HSV_BITS
    return np.stack([hue + 180 * (hue < 0), saturation, value], axis=-1).astype(np.uint8)


@cache
def _divided(numerator: float, factor: float) -> Integers:
    """Return numerator / (factor k) in fixed point for k of 0 to 255; 0 for k of 0."""
    by = np.arange(1, 256, dtype=np.float64)
    return np.concatenate([[0.0], np.rint(numerator * (1 << HSV_BITS) / (factor * by))]).astype(np.int64)


@cache
def rounds_otherwise() -> bool:
    """Tell whether OpenCV here rounds otherwise than on x86.

    Example:
        >>> isinstance(rounds_otherwise(), bool)
        True
    """
    noise = (stream(0, "image").random_raw(60 * 80 * 3) & np.uint64(255)).astype(np.uint8).reshape(60, 80, 3)
    scaled = cv2.resize(noise, (53, 37), interpolation=cv2.INTER_LINEAR)
    hues = cv2.cvtColor(noise, cv2.COLOR_BGR2HSV)
    return not (np.array_equal(scaled, resize(noise, 53, 37)) and np.array_equal(hues, to_hsv(noise)))


@contextmanager
def as_on_x86(*, anyway: bool = False) -> Iterator[None]:
    """While active, OpenCV resizes and converts 8-bit images as it does on x86.

    Args:
        anyway: Put our functions in the place of OpenCV's even where these round alike.
    """
    if not (anyway or rounds_otherwise()):
        yield
        return
    theirs = cv2.resize, cv2.cvtColor

    def own_resize(src: Any, dsize: Any = None, *args: Any, **kwargs: Any) -> Any:
        asked = {**dict(zip(("dst", "fx", "fy", "interpolation"), args, strict=False)), **kwargs}
        linear = asked.pop("interpolation", cv2.INTER_LINEAR) == cv2.INTER_LINEAR
        if dsize and linear and _is_image(src) and asked.pop("dst", None) is None and not any(asked.values()):
            return resize(src, *dsize)
        return theirs[0](src, dsize, *args, **kwargs)

    def own_conversion(src: Any, code: int, *args: Any, **kwargs: Any) -> Any:
        if code == cv2.COLOR_BGR2HSV and _is_image(src) and not args and not kwargs:
            return to_hsv(src)
        return theirs[1](src, code, *args, **kwargs)

    cv2.resize, cv2.cvtColor = own_resize, own_conversion
    try:
        yield
    finally:
        cv2.resize, cv2.cvtColor = theirs


def _is_image(array: Any) -> bool:
    """Tell whether an array is an image of 8 bits, not of one channel in an axis of its own, which OpenCV drops."""
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or not array.size:
        return False
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] > 1)
