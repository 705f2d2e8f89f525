"""What a drawing is made of, in numbers only: whatever the data are called, nothing of it becomes part of a drawing.

Lines live in coordinates of their own that the page stretches to any width; whatever must keep its shape, such as the
numbers on an axis, has a place in percent.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emacheck.curve import Floats
from emacheck.judge.figures import number
from emacheck.report.scales import Scale, round_step, ticks

WIDTH, HEIGHT = 2000, 1000
COLUMNS = 1000  # a drawing has about as many pixels: of more than four points in one of them no more is seen
MOST_DOTS = 200
NARROW_CHARACTERS, WIDE_CHARACTERS = 34, 72  # of numbers that fit below a drawing

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """A line, or many: how it looks, by the name that the stylesheet has for it, and its path."""

    look: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A number on an axis; a spare one is left out where there is little room."""

    at: str
    label: str
    spare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A point that is marked."""

    look: str
    across: str
    down: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An entry of the legend."""

    look: str
    shape: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One drawing with its vertical axis.

    Attributes:
        title: What the vertical axis measures.
        strokes: Its lines, the last one on top.
        ticks: Numbers on the vertical axis.
        rings: Points that are marked.
        limit: Where the line of the limit is; empty for none.
        note: What is said instead of a drawing.
    """

    title: str
    strokes: tuple[Stroke, ...] = ()
    ticks: tuple[Tick, ...] = ()
    rings: tuple[Place, ...] = ()
    limit: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Panels above each other that share their horizontal axis.

    Attributes:
        panels: From top to bottom.
        ticks: Numbers on the horizontal axis.
        axis: What the horizontal axis counts.
        lines: Vertical lines through all panels: look and place.
        keys: The legend.
    """

    panels: tuple[Panel, ...]
    ticks: tuple[Tick, ...]
    axis: str
    lines: tuple[Place, ...] = ()
    keys: tuple[Key, ...] = ()


def percent(share: float) -> str:
    """Return a share as a length of a stylesheet.

    Example:
        >>> percent(1 / 3), percent(0.5)
        ('33.33%', '50%')
    """
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def course(across: Floats, heights: Floats, fresh: Flags) -> str:
    """Return the path through points, of many at most four in each column: the first, lowest, highest and last.

    Args:
        across: Horizontal places in [0, 1], increasing.
        heights: Vertical ones; NaN interrupts the line.
        fresh: Whether the line begins anew at a point.

    Example:
        >>> flags = np.array([False, False, True])
        >>> course(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 0.5]), flags)
        'M0 1000L1000 0M2000 500h1'
    """
    hidden = np.isnan(heights)
    stretch = np.cumsum(fresh | hidden)
    at = np.flatnonzero(~hidden)
    if len(at) > 4 * COLUMNS:
        column = np.minimum((across[at] * COLUMNS).astype(np.int64), COLUMNS - 1)
        ordered = at[np.lexsort((heights[at], column))]
        first = np.flatnonzero(np.diff(column, prepend=-1))
        last = np.append(first[1:], len(at)) - 1
        at = np.unique(np.concatenate([at[first], at[last], ordered[first], ordered[last]]))
    if not len(at):
        return ""
    begins = np.diff(stretch[at], prepend=-1) != 0
    alone = begins & np.append(begins[1:], [True])
    points = zip(*_placed(across[at], heights[at]), begins.tolist(), alone.tolist(), strict=True)
    return "".join(f"{'M' if start else 'L'}{x} {y}{'h1' if dot else ''}" for x, y, start, dot in points)


def dots(across: Floats, heights: Floats, *, tall: int = 0) -> str:
    """Return a path of dots: lines hardly long, to which the stylesheet gives round or square ends; or tall ones.

    Example:
        >>> dots(np.array([0.0, 0.5]), np.array([0.0, np.nan])), dots(np.array([0.0]), np.array([0.5]), tall=40)
        ('M0 1000h1', 'M0 480v40')
    """
    shown = ~np.isnan(heights)
    points = dict.fromkeys(zip(*_placed(across[shown], heights[shown]), strict=True))
    return "".join(f"M{x} {y - tall // 2}v{tall}" if tall else f"M{x} {y}h1" for x, y in points)


def dashes(across: Floats, *, top: int, length: int) -> str:
    """Return a path of short vertical lines in one row.

    Example:
        >>> dashes(np.array([0.5, 0.50001]), top=900, length=40)
        'M1000 900v40'
    """
    return "".join(f"M{x} {top}v{length}" for x in np.unique(np.rint(across * WIDTH).astype(np.int64)).tolist())


def bars(left: Floats, right: Floats) -> str:
    """Return a path of areas over the full height; those that touch are one.

    Example:
        >>> bars(np.array([0.0, 0.1, 0.5]), np.array([0.1, 0.2, 0.6]))
        'M0 0H400V1000H0zM1000 0H1200V1000H1000z'
    """
    shown: list[tuple[int, int]] = []
    for start, end in zip(*(np.rint(each * WIDTH).astype(np.int64).tolist() for each in (left, right)), strict=True):
        if shown and start <= shown[-1][1]:
            shown[-1] = (shown[-1][0], max(end, shown[-1][1]))
        else:
            shown.append((start, end))
    return "".join(f"M{start} 0H{end}V{HEIGHT}H{start}z" for start, end in shown)


def _placed(across: Floats, heights: Floats) -> tuple[list[int], list[int]]:
    down = np.rint((1 - np.clip(heights, 0, 1)) * HEIGHT).astype(np.int64)
    return np.rint(across * WIDTH).astype(np.int64).tolist(), down.tolist()


def vertical_ticks(scale: Scale, most: int = 5) -> tuple[Tick, ...]:
    """Return numbers on a vertical axis.

    Example:
        >>> [tick.label for tick in vertical_ticks(Scale(low=0.1, high=4.2, log=False))]
        ['1', '2', '3', '4']
        >>> [tick.label for tick in vertical_ticks(Scale(low=1e-7, high=0.2, log=True))]
        ['1e-07', '1e-05', '0.001', '0.1']
    """
    values = ticks(scale, most)
    places = (1 - scale.heights(np.array(values, dtype=np.float64))).tolist()
    return tuple(Tick(at=percent(at), label=number(value)) for at, value in zip(places, values, strict=True))


def horizontal_ticks(low: int, high: int, left: float, right: float) -> tuple[Tick, ...]:
    """Return whole numbers on a horizontal axis that ends at ``left`` and ``right``, as many as fit below it.

    Example:
        >>> [tick.label for tick in horizontal_ticks(1, 100, 0.0, 101.0)]
        ['20', '40', '60', '80', '100']
    """
    digits = len(str(high)) + 2
    wide, narrow = (max(room // digits, 2) for room in (WIDE_CHARACTERS, NARROW_CHARACTERS))
    step = max(int(round_step((high - low) / min(wide, 9))), 1)
    numbers = list(range(-(-low // step) * step, high + 1, step)) or [low]
    every = -(-len(numbers) // narrow)
    return tuple(
        Tick(at=percent((value - left) / (right - left)), label=str(value), spare=bool(at % every))
        for at, value in enumerate(numbers)
    )
