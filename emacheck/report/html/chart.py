"""One metric of both records as a drawing: the curves above, their relative difference below."""

from dataclasses import replace

import numpy as np

from emacheck.curve import Curve, Floats, Integers
from emacheck.judge.comparison import EMPTY, PairedCurve
from emacheck.judge.figures import number
from emacheck.judge.verdict import Verdict
from emacheck.printable import printable
from emacheck.report.allowed import OF_THE_ENVELOPE, OF_THE_MEAN, Allowed, allowed
from emacheck.report.html.drawing import (
    COLUMNS,
    MOST_DOTS,
    Drawing,
    Flags,
    Key,
    Panel,
    Place,
    Stroke,
    bars,
    course,
    dashes,
    dots,
    horizontal_ticks,
    percent,
    vertical_ticks,
)
from emacheck.report.lines import (
    as_written,
    drawable,
    largest,
    moving_median,
    or_nan,
    smoothing_window,
    unbroken,
    undrawable,
)
from emacheck.report.scales import FLOOR, Scale, has_place, scale_of_differences, scale_of_values
from emacheck.report.wording import divergence, equality

SIDES = ("reference", "candidate")
ROWS = {"reference": 880, "candidate": 945}  # of the marks for values that have no place on the axis
MARK = 50


class Across:
    """The horizontal axis: all iterations of both records."""

    def __init__(self, paired: PairedCurve) -> None:
        union = np.union1d(np.concatenate([paired.only_reference, paired.only_candidate]), paired.iterations)
        self.union = union.astype(np.float64)
        whole = self.union if self.union.size else np.array([0.0, 1.0])
        self.half = float(np.median(np.diff(whole))) / 2 if len(whole) > 1 else 0.5
        margin = self.half + 0.01 * float(whole[-1] - whole[0])
        # Beyond 2**53 a float has no place for half an iteration.
        margin = max(margin, float(np.spacing(np.abs(whole).max())) * 2)
        self.left, self.right = float(whole[0]) - margin, float(whole[-1]) + margin
        self.ends = (int(union[0]), int(union[-1])) if union.size else (0, 1)

    def __call__(self, iterations: Integers) -> Floats:
        """Return where iterations lie: 0 is the left end and 1 the right one."""
        return self.places(iterations.astype(np.float64))

    def places(self, at: Floats) -> Floats:
        """Return where numbers between iterations lie."""
        return (at - self.left) / (self.right - self.left)


def chart(verdict: Verdict, metric: str) -> Drawing:
    """Return the drawing of a metric.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> drawn = chart(decide(compare(record, record)), "loss")
        >>> drawn.panels[1].note
        'bit-identical in all 20 common iterations'
    """
    paired = verdict.comparison.curve(metric)
    across = Across(paired)
    above, keys_above = _curves(verdict, paired, across)
    below, keys_below = _differences(verdict, paired, across)
    lines, keys_of_lines = _partings(verdict, paired, across)
    shades, keys_of_shades = _missing(paired, across)
    return Drawing(
        panels=tuple(replace(panel, strokes=(*shades, *panel.strokes)) for panel in (above, below)),
        ticks=horizontal_ticks(*across.ends, across.left, across.right),
        axis="iteration",
        lines=tuple(lines),
        keys=(*keys_above, *keys_of_shades, *keys_below, *keys_of_lines),
    )


def _curves(verdict: Verdict, paired: PairedCurve, across: Across) -> tuple[Panel, list[Key]]:
    comparison = verdict.comparison
    records = (comparison.reference, comparison.candidate)
    curves = [(side, record.curves.get(paired.metric, EMPTY)) for side, record in zip(SIDES, records, strict=True)]
    window = smoothing_window(max(len(curve) for _, curve in curves))
    values = np.concatenate([curve.values[drawable(curve.values)] for _, curve in curves])
    marked = any(not drawable(curve.values).all() for _, curve in curves)
    scale = scale_of_values(values, marked=marked)
    strokes, keys = [], []
    for side, curve in curves:
        more = _curve(side, curve, scale, across, window)
        strokes += more[0]
        keys += more[1]
    for side, curve in curves:
        at = curve.iterations[~drawable(curve.values)]
        if at.size:
            strokes.append(Stroke(look=f"{side} mark", path=dashes(across(at), top=ROWS[side], length=MARK)))
            keys.append(Key(look=f"{side} mark", shape="tick", text=f"{side} {undrawable(curve.values)}"))
    title = printable(paired.metric, length=60) + (" (log scale)" if scale.log else "")
    rings, ring_keys = _largest(paired, scale, across, paired.candidate)
    return Panel(title=title, strokes=tuple(strokes), ticks=vertical_ticks(scale), rings=rings), keys + ring_keys


def _curve(side: str, curve: Curve, scale: Scale, across: Across, window: int) -> tuple[list[Stroke], list[Key]]:
    """Draw one curve: raw, and smoothed where it is long enough; neither reaches over iterations that are missing."""
    if not len(curve):
        return [], [Key(look=side, shape="line", text=f"{side}, no values")]
    parts = unbroken(curve.iterations)
    fresh = _fresh(curve.iterations)
    places, heights = across(curve.iterations), _heights(scale, or_nan(curve.values))
    raw = course(places, heights, fresh)
    if window == 1:
        text = side if curve.window == 1 else f"{side}, {as_written(curve)}"
        strokes = [Stroke(look=side, path=raw)]
        if len(curve) <= MOST_DOTS:
            strokes.append(Stroke(look=f"{side} dots", path=dots(places, heights)))
        return strokes, [Key(look=side, shape="line", text=text)]
    every = -(-len(curve) // (2 * COLUMNS))
    chosen = [part[np.unique(np.append(np.arange(0, len(part), every), len(part) - 1))] for part in parts]
    medians = np.concatenate(
        [moving_median(curve.values[part], window, at - part[0]) for part, at in zip(parts, chosen, strict=True)]
    )
    at = np.concatenate(chosen)
    smooth = course(places[at], _heights(scale, medians), fresh[at])
    return [Stroke(look=f"{side} raw", path=raw), Stroke(look=side, path=smooth)], [
        Key(look=f"{side} raw", shape="line", text=f"{side}, {as_written(curve)}"),
        Key(look=side, shape="line", text=f"{side}, centred median of {window}"),
    ]


def _fresh(iterations: Integers) -> Flags:
    """Tell at which iterations a line begins anew."""
    fresh = np.zeros(len(iterations), dtype=np.bool_)
    fresh[[part[0] for part in unbroken(iterations) if part.size]] = True
    return fresh


def _heights(scale: Scale, values: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return scale.heights(values)


def _missing(paired: PairedCurve, across: Across) -> tuple[list[Stroke], list[Key]]:
    """Shade iterations that only one record has."""
    union = across.union
    if not union.size:
        return [], []
    edges = np.concatenate([[union[0] - across.half], (union[1:] + union[:-1]) / 2, [union[-1] + across.half]])
    places = across.places(edges)
    strokes, keys = [], []
    only = (paired.only_reference, paired.only_candidate)
    for side, iterations in zip(SIDES, only, strict=True):
        if len(iterations):
            at = np.searchsorted(union, iterations.astype(np.float64))
            strokes.append(Stroke(look=f"{side} area", path=bars(places[at], places[at + 1])))
            keys.append(Key(look=f"{side} area", shape="area", text=f"only in the {side} ({len(iterations)})"))
    return strokes, keys


def _differences(verdict: Verdict, paired: PairedCurve, across: Across) -> tuple[Panel, list[Key]]:
    title = "|relative difference|"
    count = len(paired.iterations)
    if paired.first_unequal() is None:
        same = f"{equality(verdict, paired.metric)} in all {count} common iterations" if count else ""
        return Panel(title=title, note=same or "no iteration is in both records"), []
    limits = allowed(verdict, paired.metric)
    relative = np.abs(paired.relative_difference)
    drawn = drawable(relative) & (relative > 0)
    scale, zeros = scale_of_differences(np.concatenate([relative[drawn], limits.places]))
    strokes, keys = _envelope(limits, scale, across)
    fresh = _fresh(paired.iterations)
    places = across(paired.iterations)
    heights = _heights(scale, np.where(drawn, np.maximum(relative, FLOOR), np.nan))
    strokes.append(Stroke(look="difference", path=course(places, heights, fresh)))
    keys.insert(0, Key(look="difference", shape="line", text="|candidate - reference| / |reference|"))
    if count <= MOST_DOTS:
        strokes.append(Stroke(look="difference dots", path=dots(places, heights)))
    if (zero := places[relative == 0]).size:
        top = round(1000 * (1 - float(scale.heights(np.array([zeros]))[0])))
        strokes.append(Stroke(look="difference mark", path=dashes(zero, top=top, length=MARK)))
        keys.append(Key(look="difference mark", shape="tick", text=f"exactly 0 ({len(zero)}), at the bottom"))
    if (undefined := places[~drawable(relative)]).size:
        strokes.append(Stroke(look="difference mark", path=dashes(undefined, top=10, length=MARK)))
        keys.append(Key(look="difference mark", shape="tick", text=f"{undrawable(relative)}, at the top"))
    rings, _ = _largest(paired, scale, across, np.maximum(relative, FLOOR))
    line = ""
    if limits.mean is not None:
        line = percent(1 - float(scale.heights(np.array([limits.mean]))[0])) if has_place(limits.mean) else ""
        text = f"limit {number(limits.mean)} {OF_THE_MEAN}"
        keys.append(Key(look="limit", shape="line" if line else "none", text=text))
    panel = Panel(
        title=f"{title} (log scale)",
        strokes=tuple(strokes),
        ticks=vertical_ticks(scale, 4),
        rings=rings,
        limit=line,
    )
    return panel, keys


def _envelope(limits: Allowed, scale: Scale, across: Across) -> tuple[list[Stroke], list[Key]]:
    """Draw the largest difference that the repeats allow at each iteration."""
    if not limits.iterations.size:
        return [], []
    heights = _heights(scale, or_nan(limits.envelope))
    path = course(across(limits.iterations), heights, _fresh(limits.iterations))
    return [Stroke(look="envelope", path=path)], [Key(look="envelope", shape="line", text=OF_THE_ENVELOPE)]


def _largest(paired: PairedCurve, scale: Scale, across: Across, values: Floats) -> tuple[tuple[Place, ...], list[Key]]:
    """Ring what is at the largest difference, so that a single one is seen as well."""
    found = largest(paired.relative_difference)
    if found is None:
        return (), []
    at, said = found
    look, shape = "candidate", "none"
    rings: tuple[Place, ...] = ()
    if drawable(values[at : at + 1]).all():
        up = float(_heights(scale, values[at : at + 1])[0])
        place = percent(float(across(paired.iterations[at : at + 1])[0]))
        shape, rings = "ring", (Place(look=look, across=place, down=percent(1 - up)),)
    size = number(abs(float(paired.relative_difference[at])))
    return rings, [Key(look=look, shape=shape, text=f"{said} difference: iteration {paired.iterations[at]}, {size}")]


def _partings(verdict: Verdict, paired: PairedCurve, across: Across) -> tuple[list[Place], list[Key]]:
    limit = divergence(verdict).limit
    unequal, over = paired.first_unequal(), paired.first_above(limit)
    marks = []
    if unequal is not None and unequal == over:
        marks.append((over, f"first unequal, not within {number(limit)}", "over"))
    else:
        if unequal is not None:
            marks.append((unequal, "first unequal", "unequal"))
        if over is not None:
            marks.append((over, f"first not within {number(limit)}", "over"))
    lines = [
        Place(look=look, across=percent(float(across(np.array([iteration], dtype=np.int64))[0])), down="0%")
        for iteration, _, look in marks
    ]
    keys = [Key(look=look, shape="upright", text=f"{said}: iteration {iteration}") for iteration, said, look in marks]
    return lines, keys
