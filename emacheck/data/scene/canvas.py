"""An image and its labels, drawn together by shapes with integer coordinates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emacheck.data.scene.splitmix import SplitMix64

IntArray = NDArray[np.int64]
Point = tuple[int, int]
Colour = tuple[int, int, int]
Shade = Callable[[IntArray, IntArray], IntArray]
"""Given rows (h, 1) and columns (1, w), what to add to the colour of each pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a shape is made of.

    Args:
        label: Its class, a Cityscapes trainId or 255.
        colour: Its mean RGB colour.
        grain: The amplitude of its blotches, in grey levels.
        blotch: The size of its blotches in pixels: 2, 4 or 16.
        shade: A pattern added on top, such as windows or bricks.
    """

    label: int
    colour: Colour
    grain: int = 0
    blotch: int = 4
    shade: Shade | None = None


class Canvas:
    """An image (height, width, 3) and its labels (height, width).

    Args:
        width: In pixels.
        height: In pixels.
        random: Where the blotches come from.
    """

    def __init__(self, width: int, height: int, random: SplitMix64) -> None:
        self.width, self.height = width, height
        self.image: NDArray[np.int64] = np.zeros((height, width, 3), dtype=np.int64)
        self.labels: NDArray[np.uint8] = np.full((height, width), 255, dtype=np.uint8)
        self._blotches = {size: _blotches(width, height, size, random) for size in (2, 4, 16)}

    def polygon(self, points: Sequence[Point], material: Material) -> None:
        """Fill a convex polygon, its edges included; points may lie outside the image."""
        box = self._box([x for x, _ in points], [y for _, y in points])
        if box is None:
            return
        ys, xs = box
        doubled_area = sum(
            x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True)
        )
        sign = 1 if doubled_area >= 0 else -1
        inside = np.ones((ys.size, xs.size), dtype=np.bool_)
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            inside &= sign * ((x1 - x0) * (ys - y0) - (y1 - y0) * (xs - x0)) >= 0
        self._fill(ys, xs, inside, material)

    def rectangle(self, x0: int, y0: int, x1: int, y1: int, material: Material) -> None:
        """Fill an upright rectangle, both corners included."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], material)

    def line(self, start: Point, end: Point, width: int, material: Material) -> None:
        """Draw a straight bar, ``width`` pixels across its flatter axis."""
        (x0, y0), (x1, y1) = start, end
        low, high = width // 2, width - 1 - width // 2
        if abs(x1 - x0) > abs(y1 - y0):
            corners = [(x0, y0 - low), (x1, y1 - low), (x1, y1 + high), (x0, y0 + high)]
        else:
            corners = [(x0 - low, y0), (x1 - low, y1), (x1 + high, y1), (x0 + high, y0)]
        self.polygon(corners, material)

    def ellipse(self, centre: Point, rx: int, ry: int, material: Material, *, hole: int = 0) -> None:
        """Fill the ellipse with half-axes rx and ry, except a disc of radius ``hole`` in its middle."""
        x, y = centre
        box = self._box([x - rx, x + rx], [y - ry, y + ry])
        if box is None:
            return
        ys, xs = box
        dy, dx = (ys - y) ** 2, (xs - x) ** 2
        inside = dx * max(ry, 1) ** 2 + dy * max(rx, 1) ** 2 <= (max(rx, 1) * max(ry, 1)) ** 2
        if hole:
            inside &= dx + dy > hole * hole
        self._fill(ys, xs, inside, material)

    def _box(self, xs: Sequence[int], ys: Sequence[int]) -> tuple[IntArray, IntArray] | None:
        """Return the visible rows and columns of a shape, or None where it is out of sight."""
        x0, x1 = max(min(xs), 0), min(max(xs), self.width - 1)
        y0, y1 = max(min(ys), 0), min(max(ys), self.height - 1)
        if x0 > x1 or y0 > y1:
            return None
        return np.arange(y0, y1 + 1, dtype=np.int64)[:, None], np.arange(x0, x1 + 1, dtype=np.int64)[None, :]

    def _fill(self, ys: IntArray, xs: IntArray, inside: NDArray[np.bool_], material: Material) -> None:
        rows, columns = slice(int(ys[0, 0]), int(ys[-1, 0]) + 1), slice(int(xs[0, 0]), int(xs[0, -1]) + 1)
        relief = self._blotches[material.blotch][rows, columns] * material.grain // 128
        if material.shade is not None:
            relief = relief + material.shade(ys, xs)
        colour = np.array(material.colour, dtype=np.int64) + relief[..., None]
        np.copyto(self.image[rows, columns], colour, where=inside[..., None])
        self.labels[rows, columns][inside] = material.label


def _blotches(width: int, height: int, size: int, random: SplitMix64) -> IntArray:
    """Return squares of ``size`` pixels, each with one random value in -128..127."""
    across, down = -(-width // size), -(-height // size)
    cells = random.octets(across * down).reshape(down, across).astype(np.int64) - 128
    return cells.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]
