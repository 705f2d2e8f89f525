"""An audit as a drawing: the error ratio of every tensor along the network's depth, one panel per phase."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from emacheck.audit.findings.picture import HIGHEST, LOWEST, STYLES, height
from emacheck.audit.findings.result import ALONE, PHASES, badness
from emacheck.curve import Floats
from emacheck.judge.figures import number
from emacheck.report.html.drawing import (
    HEIGHT,
    WIDTH,
    Drawing,
    Key,
    Panel,
    Place,
    Stroke,
    dots,
    horizontal_ticks,
    percent,
    vertical_ticks,
)
from emacheck.report.scales import Scale

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult, TensorError

UNIT = "times the accepted error (log scale)"
# How the marks of each level look; what is over its limit is larger and of another colour.
SHAPES = {"isolated": "dot", "evaluation": "square", "end to end": "short", "processes": "tall"}
TALL = {"short": 60, "tall": 120}


def scatter(audit: "AuditResult") -> Drawing:
    """Return the drawing of an audit.

    Example:
        >>> from emacheck.audit.findings.result import AuditResult
        >>> scatter(AuditResult(device="cpu", precision="fp32", errors=(), findings=())).panels
        ()
    """
    errors = audit.errors
    phases = [phase for phase in PHASES if any(error.phase == phase for error in errors)]
    deepest = max((error.depth for error in errors), default=1)
    left, right = -0.01 * deepest - 1, deepest * 1.01 + 1
    scale = _scale(errors)
    worst = max(errors, key=lambda error: (not error.passes, error.level in ALONE, badness(error)), default=None)
    panels = []
    for phase in phases:
        group = [error for error in errors if error.phase == phase]
        rings: tuple[Place, ...] = ()
        if worst is not None and worst.phase == phase and not worst.passes:
            up = float(scale.heights(np.array([height(worst)]))[0])
            across = (worst.depth - left) / (right - left)
            rings = (Place(look="over", across=percent(across), down=percent(1 - up)),)
        panels.append(_panel(phase, group, scale, (left, right), rings))
    levels = {error.level for error in errors}
    keys = [Key(look=shape, shape=shape, text=STYLES[level][2]) for level, shape in SHAPES.items() if level in levels]
    keys.append(Key(look="benign", shape="area", text="benign: within the limit of a tensor alone"))
    if not all(error.passes for error in errors):
        keys.append(Key(look="over", shape="dot", text="over its limit"))
    keys += _beyond(errors)
    if any(panel.rings for panel in panels) and worst is not None:
        keys.append(Key(look="over", shape="ring", text=f"the worst: ratio {number(worst.ratio)}"))
    return Drawing(
        panels=tuple(panels),
        ticks=horizontal_ticks(0, deepest, left, right),
        axis="depth: order of the calls in the forward pass",
        keys=tuple(keys),
    )


def _beyond(errors: "Sequence[TensorError]") -> list[Key]:
    """Say how many ratios have no place on the axis, and at which of its ends they are drawn."""
    above = sum(not error.ratio <= HIGHEST for error in errors)
    below = sum(error.ratio < LOWEST for error in errors)
    said = {
        f"NaN or beyond {HIGHEST:g}: {above}, at the top": above,
        f"below {LOWEST:g}: {below}, at the bottom": below,
    }
    return [Key(look="edge", shape="none", text=text) for text, count in said.items() if count]


def _panel(
    phase: str, errors: "Sequence[TensorError]", scale: Scale, ends: tuple[float, float], rings: tuple[Place, ...]
) -> Panel:
    strokes = []
    limits = [error.limit for error in errors if error.level in ALONE]
    if limits:
        top = round(HEIGHT * (1 - float(scale.heights(np.array([min(limits)]))[0])))
        strokes.append(Stroke(look="benign area", path=f"M0 {HEIGHT}H{WIDTH}V{top}H0z"))
    for level, shape in SHAPES.items():
        for passes, look in ((True, shape), (False, f"{shape} over")):
            group = [error for error in errors if error.level == level and error.passes is passes]
            if group:
                depths = np.array([error.depth for error in group], dtype=np.float64)
                heights = scale.heights(np.array([height(error) for error in group]))
                strokes.append(Stroke(look=look, path=dots(_across(depths, ends), heights, tall=TALL.get(shape, 0))))
    return Panel(title=f"{phase}: {UNIT}", strokes=tuple(strokes), ticks=vertical_ticks(scale, 4), rings=rings)


def _across(depths: Floats, ends: tuple[float, float]) -> Floats:
    return (depths - ends[0]) / (ends[1] - ends[0])


def _scale(errors: "Sequence[TensorError]") -> Scale:
    """Return an axis on which every ratio and limit has a place; what is beyond LOWEST or HIGHEST is at its edge."""
    highest = max((max(height(error), error.limit) for error in errors), default=1.0)
    return Scale(low=LOWEST / 2, high=max(min(highest, HIGHEST), 1e2) * 5, log=True)
