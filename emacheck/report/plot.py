"""The verdict as a picture: both curves above, their relative difference below.

matplotlib is imported when a picture is asked for, through its object interface: no window system, no global figure.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from emacheck.curve import Curve, Floats
from emacheck.judge.comparison import EMPTY, PairedCurve
from emacheck.judge.figures import number
from emacheck.judge.verdict import Verdict
from emacheck.picture import INK, new_figure, png
from emacheck.printable import printable, shortened
from emacheck.report.allowed import OF_THE_ENVELOPE, Allowed, allowed
from emacheck.report.lines import (
    as_written,
    drawable,
    joined,
    largest,
    moving_median,
    or_nan,
    smoothing_window,
    unbroken,
    undrawable,
)
from emacheck.report.scales import FLOOR, has_place, scale_of_differences, scale_of_values, ticks
from emacheck.report.wording import divergence, equality, headline, metrics_to_look_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_BOX = (0.09, 0.455, 0.81, 0.395)
DIFFERENCE_BOX = (0.09, 0.105, 0.81, 0.265)
# Where marks between the panels start and end, in heights of the lower one.
GAP = (1.03, (CURVE_BOX[1] - DIFFERENCE_BOX[1]) / DIFFERENCE_BOX[3] - 0.05)
LEFT, RIGHT = CURVE_BOX[0], CURVE_BOX[0] + CURVE_BOX[2]
SMOOTHED_AT = 2000  # more points than this on a smoothed line are beyond the picture's resolution
TITLE_LENGTH = 160  # a headline with all that a reader must not overlook, in letters that are still read
NARROWEST = 1e-12  # of the iterations' size: matplotlib places nothing on an axis that is much narrower


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """How one of the two records is drawn; colours from Okabe and Ito, told apart by line style as well."""

    name: str
    colour: str
    style: str
    height: float


REFERENCE = Side(name="reference", colour="#0072B2", style="-", height=0.10)
CANDIDATE = Side(name="candidate", colour="#D55E00", style="--", height=0.04)
UNEQUAL_COLOUR, OVER_LIMIT_COLOUR, LIMIT_COLOUR = "#009E73", "#A3447F", "#A3447F"


def draw(verdict: Verdict) -> bytes:
    r"""Return a picture of one metric: PNG, 1200 by 800 pixels, the same bytes for the same verdict.

    It is the metric that decided, where the outcome is no PASS, and else the first judged one.

    Args:
        verdict: What was decided.

    Returns:
        The content of a PNG file.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> draw(decide(compare(record, record)))[:4]
        b'\x89PNG'
    """
    with new_figure(12, 8, font=11.0) as figure:
        paired = verdict.comparison.curve(metrics_to_look_at(verdict)[0])
        above = figure.add_axes(CURVE_BOX)
        below = figure.add_axes(DIFFERENCE_BOX, sharex=above)
        _title(figure, verdict)
        _curves(above, verdict, paired)
        _missing(above, below, paired)
        _legend_above(above)
        _differences(below, verdict, paired)
        _largest(above, below, paired)
        _legend_below(below)
        _partings(below, paired, divergence(verdict).limit)
        return png(figure)


def _title(figure: "Figure", verdict: Verdict) -> None:
    _text(figure, LEFT, 0.958, headline(verdict), length=TITLE_LENGTH, width=0.98 - LEFT, size=16, weight="bold")
    middle = (LEFT + RIGHT) / 2 + 0.01
    comparison = verdict.comparison
    for x, side, record in ((LEFT, REFERENCE, comparison.reference), (middle, CANDIDATE, comparison.candidate)):
        name = f"{side.name}: {record.name}"
        _text(figure, x, 0.922, name, length=55, width=RIGHT - middle, size=11, colour=side.colour)


def _text(
    figure: "Figure", x: float, y: float, text: str, *, length: int, width: float, size: float,
    weight: str = "normal", colour: str = "black",
) -> None:  # fmt: skip
    """Write one line that is at most ``width`` of the figure wide: shortened first, then in smaller letters."""
    shown = figure.text(
        x, y, _in_font(text, length), fontsize=size, fontweight=weight, color=colour, va="baseline", parse_math=False
    )
    # Letters are rounded to whole pixels, so that half the size is not half as wide.
    while (taken := shown.get_window_extent().width / figure.bbox.width) > width:
        size *= 0.99 * width / taken
        shown.set_fontsize(size)


def _in_font(text: str, length: int) -> str:
    """Return foreign text in characters that the font has; others become escapes instead of empty boxes."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    shown = "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in printable(text))
    return shortened(shown, length)


def _curves(axes: "Axes", verdict: Verdict, paired: PairedCurve) -> None:
    """Draw both curves over all of their own iterations."""
    comparison = verdict.comparison
    curves = [
        (side, record.curves.get(paired.metric, EMPTY))
        for side, record in ((REFERENCE, comparison.reference), (CANDIDATE, comparison.candidate))
    ]
    window = smoothing_window(max(len(curve) for _, curve in curves))
    for side, curve in curves:
        _curve(axes, side, curve, window)
    for side, curve in curves:
        _mark_undrawable(axes, side, curve)
    values = np.concatenate([curve.values[drawable(curve.values)] for _, curve in curves])
    marked = any(not drawable(curve.values).all() for _, curve in curves)
    scale = _scale_of_values(axes, values, marked=marked)
    axes.set_ylabel(_in_font(paired.metric, 40) + scale, parse_math=False)
    axes.tick_params(labelbottom=False)


def _legend_above(axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = max(math.ceil(len(handles) / 2), 1)
    axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, borderpad=0.2,
        columnspacing=2.0, fontsize=10 if columns < 4 else 8.5,
    )  # fmt: skip


def _curve(axes: "Axes", side: Side, curve: Curve, window: int) -> None:
    """Draw one curve: raw, and smoothed where it is long enough; neither reaches over iterations that are missing."""
    bold = {"color": side.colour, "linestyle": side.style, "linewidth": 2.0}
    if not len(curve):
        axes.plot([], [], label=f"{side.name}, no values", **bold)  # type: ignore[arg-type]
        return
    parts = unbroken(curve.iterations)
    iterations = joined([curve.iterations[part].astype(np.float64) for part in parts])
    raw = joined([or_nan(curve.values[part]) for part in parts])
    written = as_written(curve)
    if window == 1:
        label = side.name if curve.window == 1 else f"{side.name}, {written}"
        axes.plot(iterations, raw, marker="o", markersize=4, label=label, **bold)  # type: ignore[arg-type]
        return
    axes.plot(
        iterations, raw, color=side.colour, alpha=0.5, linewidth=0.8, marker="." if len(raw) <= 500 else ",",
        markersize=1.5, label=f"{side.name}, {written}",
    )  # fmt: skip
    every = -(-len(curve) // SMOOTHED_AT)
    at = [np.unique(np.append(np.arange(0, len(part), every), len(part) - 1)) for part in parts]
    axes.plot(
        joined([curve.iterations[part[chosen]].astype(np.float64) for part, chosen in zip(parts, at, strict=True)]),
        joined([moving_median(curve.values[part], window, chosen) for part, chosen in zip(parts, at, strict=True)]),
        label=f"{side.name}, centred median of {window}", **bold,  # type: ignore[arg-type]
    )  # fmt: skip


def _mark_undrawable(axes: "Axes", side: Side, curve: Curve) -> None:
    at = curve.iterations[~drawable(curve.values)]
    if at.size:
        axes.plot(
            at, np.full(len(at), side.height), linestyle="none", marker="x", color=side.colour, clip_on=False,
            transform=axes.get_xaxis_transform(), label=f"{side.name} {undrawable(curve.values)}",
        )  # fmt: skip


def _missing(above: "Axes", below: "Axes", paired: PairedCurve) -> None:
    """Shade iterations that only one record has, and show all of them on the axis."""
    only = (paired.only_reference, paired.only_candidate)
    union = np.union1d(np.concatenate(only), paired.iterations).astype(np.float64)
    if not union.size:
        above.set_xlim(0, 1)
        return
    half = float(np.median(np.diff(union))) / 2 if len(union) > 1 else 0.5
    half = max(half, NARROWEST * float(np.abs(union).max()))
    inner = (union[1:] + union[:-1]) / 2
    edges = np.concatenate([[union[0] - half], inner, [union[-1] + half]])
    margin = 0.01 * (edges[-1] - edges[0])
    above.set_xlim(edges[0] - margin, edges[-1] + margin)
    for side, iterations in zip((REFERENCE, CANDIDATE), only, strict=True):
        if not len(iterations):
            continue
        at = np.searchsorted(union, iterations.astype(np.float64))
        spans = [(edges[run[0]], edges[run[-1] + 1] - edges[run[0]]) for run in _runs(at)]
        for axes in (above, below):
            axes.broken_barh(
                spans, (0, 1), transform=axes.get_xaxis_transform(), facecolor=side.colour, alpha=0.12, linewidth=0,
                label=f"only in the {side.name} ({len(iterations)})" if axes is above else None,
            )  # fmt: skip


def _runs(positions: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)


def _scale_of_values(axes: "Axes", values: Floats, *, marked: bool) -> str:
    """Choose the vertical axis of the curves and return what its label has to say about it."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    scale = scale_of_values(values, marked=marked)
    if scale.log:
        axes.set_yscale("log")
        axes.set_yticks(ticks(scale, 6))
    axes.set_ylim(scale.low, scale.high)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return " (log scale)" if scale.log else ""


def _differences(axes: "Axes", verdict: Verdict, paired: PairedCurve) -> None:
    """Draw |relative difference| on a logarithmic axis, or say why there is none."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("iteration", loc="right")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.10g}")
    axes.set_ylabel("|relative difference|")
    count = len(paired.iterations)
    if paired.first_unequal() is None:
        axes.set_yticks([])
        same = f"{equality(verdict, paired.metric)} in all {count} common iterations" if count else ""
        axes.text(
            0.5, 0.5, same or "no iteration is in both records", transform=axes.transAxes, ha="center", va="center",
            fontsize=15, color=INK, bbox={"facecolor": "white", "linewidth": 0},
        )  # fmt: skip
        return
    relative = np.abs(paired.relative_difference)
    drawn = drawable(relative) & (relative > 0)
    axes.set_yscale("log")
    limits = allowed(verdict, paired.metric)
    floor = _scale_of_differences(axes, relative[drawn], limits)
    parts = unbroken(paired.iterations)
    heights = np.where(drawn, np.maximum(relative, FLOOR), np.nan)
    axes.plot(
        joined([paired.iterations[part].astype(np.float64) for part in parts]),
        joined([heights[part] for part in parts]),
        color=INK, linewidth=1.0 if count <= 500 else 0.5, marker=".", markersize=5 if count <= 200 else 2,
        label="|candidate - reference| / |reference|",
    )  # fmt: skip
    _envelope(axes, limits)
    zero = paired.iterations[relative == 0]
    if zero.size:
        axes.plot(
            zero, np.full(len(zero), floor), linestyle="none", marker="v", markersize=4, markerfacecolor="white",
            color=INK, label=f"exactly 0 ({len(zero)})",
        )  # fmt: skip
    undefined = paired.iterations[~drawable(relative)]
    if undefined.size:
        axes.plot(
            undefined, np.full(len(undefined), 0.94), linestyle="none", marker="x", color=INK,
            transform=axes.get_xaxis_transform(), label=undrawable(relative),
        )  # fmt: skip


def _envelope(axes: "Axes", limits: Allowed) -> None:
    """Draw the largest difference that the repeats allow at each iteration."""
    if limits.iterations.size:
        parts = unbroken(limits.iterations)
        axes.plot(
            joined([limits.iterations[part].astype(np.float64) for part in parts]),
            joined([or_nan(limits.envelope[part]) for part in parts]),
            color=LIMIT_COLOUR, linewidth=1.3, label=OF_THE_ENVELOPE,
        )  # fmt: skip


def _largest(above: "Axes", below: "Axes", paired: PairedCurve) -> None:
    """Ring the candidate's value at the largest difference, so that a single one is seen as well."""
    relative = np.abs(paired.relative_difference)
    found = largest(relative)
    if found is None:
        return
    at, said = found
    ring = {"linestyle": "none", "marker": "o", "markersize": 11, "markerfacecolor": "none", "clip_on": False}
    iteration = paired.iterations[at]
    if drawable(paired.candidate[at : at + 1]).all():
        above.plot(iteration, paired.candidate[at], color=CANDIDATE.colour, **ring)  # type: ignore[arg-type]
    if drawable(relative[at : at + 1]).all():
        label, height = f"{said}: iteration {iteration}", max(relative[at], FLOOR)
        below.plot(iteration, height, color=CANDIDATE.colour, label=label, **ring)  # type: ignore[arg-type]


def _legend_below(axes: "Axes") -> None:
    if entries := len(axes.get_legend_handles_labels()[0]):
        axes.legend(
            loc="upper left", bbox_to_anchor=(0, -0.13), ncols=min(entries, 3), borderaxespad=0, columnspacing=2.0,
            fontsize=10 if entries < 4 else 8.5,
        )  # fmt: skip


def _scale_of_differences(axes: "Axes", shown: Floats, limits: Allowed) -> float:
    """Scale the lower axis, draw the limits, and return the height at which exact zeros are marked."""
    scale, zeros = scale_of_differences(np.concatenate([shown, limits.places]))
    axes.set_ylim(scale.low, scale.high)
    limit = limits.mean
    if limit is None:
        return zeros
    if has_place(limit):
        axes.axhline(limit, color=LIMIT_COLOUR, linestyle="--", linewidth=1.3)
        place = {"y": limit, "transform": axes.get_yaxis_transform()}
    else:
        place = {"y": 0.0 if limit < FLOOR else 1.0, "transform": axes.transAxes}
    label = f"limit {number(limit)}\nof the mean"
    axes.text(1.01, s=label, va="center", color=LIMIT_COLOUR, **place)  # type: ignore[arg-type]
    return zeros


def _partings(below: "Axes", paired: PairedCurve, limit: float) -> None:
    """Mark where the curves part between the panels, in two rows, where the marks hide nothing of the curves."""
    over, unequal, within = paired.first_above(limit), paired.first_unequal(), number(limit)
    marks = []
    if over is not None and over == unequal:
        marks.append((over, f"first unequal, not within {within}", OVER_LIMIT_COLOUR, "--"))
    else:
        if over is not None:
            marks.append((over, f"first not within {within}", OVER_LIMIT_COLOUR, "--"))
        if unequal is not None:
            marks.append((unequal, "first unequal", UNEQUAL_COLOUR, ":"))
    first, last = below.get_xlim()
    for row, (iteration, label, colour, style) in enumerate(marks):
        below.plot(
            [iteration, iteration], GAP, color=colour, linestyle=style, linewidth=1.5, clip_on=False,
            transform=below.get_xaxis_transform(),
        )  # fmt: skip
        for height, marker in zip(GAP, ("v", "^"), strict=True):
            below.plot(
                iteration, height, color=colour, marker=marker, markersize=6, clip_on=False,
                transform=below.get_xaxis_transform(),
            )  # fmt: skip
        right = iteration > (first + last) / 2
        below.annotate(
            f"{label}: iteration {iteration}", xy=(iteration, 1), xycoords=below.get_xaxis_transform(),
            xytext=(-6 if right else 6, 6 + 17 * row), textcoords="offset points", color=colour,
            ha="right" if right else "left", va="bottom", bbox={"facecolor": "white", "linewidth": 0, "pad": 1},
        )  # fmt: skip
