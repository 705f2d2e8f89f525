"""An audit as a picture: the error ratio of every tensor along the network's depth, one panel per phase."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emacheck.audit.findings.result import ALONE, PHASES, AuditResult, TensorError
from emacheck.picture import INK, new_figure, png
from emacheck.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOWEST, HIGHEST = 1e-2, 1e9
LABELLED = 3
# Okabe and Ito; told apart by marker as well.
STYLES = {
    "isolated": ("#0072B2", "o", "alone"),
    "evaluation": ("#009E73", "^", "alone, evaluation mode"),
    "end to end": ("#888888", "x", "whole iteration"),
    "processes": ("#CC79A7", "+", "several processes"),
}
BAD, BAND = "#D55E00", "#cfe3f1"


def draw(result: AuditResult) -> bytes:
    r"""Return the picture: PNG, 1300 by 1000 pixels.

    Args:
        result: The audit's result.

    Returns:
        The content of a PNG file.

    Example:
        >>> empty = AuditResult(device="cpu", precision="fp32", errors=(), findings=())
        >>> draw(empty)[:4]
        b'\x89PNG'
    """
    with new_figure(13, 10) as figure:
        phases = [phase for phase in PHASES if any(error.phase == phase for error in result.errors)] or ["forward"]
        panels = figure.subplots(len(phases), 1, sharex=True, squeeze=False)[:, 0]
        deepest = max((error.depth for error in result.errors), default=1)
        for axes, phase in zip(panels, phases, strict=True):
            _panel(axes, phase, [error for error in result.errors if error.phase == phase], deepest)
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
        panels[-1].set_xlabel("depth: order of the calls in the forward pass")
        figure.suptitle(_title(result), x=0.02, ha="left", fontsize=13, color=INK, parse_math=False)
        figure.subplots_adjust(left=0.08, right=0.98, top=0.91, bottom=0.06, hspace=0.22)
        _legend(figure)
        return png(figure)


def _title(result: AuditResult) -> str:
    blame = f": {printable(result.module, length=90)}, phase {result.phase}" if result.module else ""
    return f"{result.outcome}{blame}   ({result.device}, {result.precision}; error relative to the accepted error)"


def _legend(figure: object) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Line2D | Patch] = [
        Line2D([], [], linestyle="none", marker=marker, color=colour, label=name)
        for colour, marker, name in STYLES.values()
    ]
    entries.append(Line2D([], [], linestyle="none", marker="o", color=BAD, label="over its limit"))
    entries.append(Patch(color=BAND, label="benign: within the limit of a tensor alone"))
    figure.legend(handles=entries, loc="upper left", bbox_to_anchor=(0.07, 0.965), ncol=6)  # type: ignore[attr-defined]


def _panel(axes: "Axes", phase: str, errors: Sequence[TensorError], deepest: int) -> None:
    axes.set_yscale("log")
    axes.set_ylim(LOWEST / 2, HIGHEST * 5)
    axes.set_xlim(-0.01 * deepest - 1, deepest * 1.01 + 1)
    axes.set_ylabel(phase)
    limits = [error.limit for error in errors if error.level in ALONE]
    if limits:
        axes.axhspan(LOWEST / 2, limits[0], color=BAND, linewidth=0, zorder=0)
    for level, (colour, marker, _) in STYLES.items():
        group = [error for error in errors if error.level == level]
        good, bad = [e for e in group if e.passes], [e for e in group if not e.passes]
        for part, shade, size in ((good, colour, 9), (bad, BAD, 28)):
            places = ([e.depth for e in part], [height(e) for e in part])
            axes.scatter(*places, s=size, c=shade, marker=marker, linewidths=0.8, zorder=2)  # above the grid
    _name(axes, errors)


def _name(axes: "Axes", errors: Sequence[TensorError]) -> None:
    """Write the names of the worst modules beside their worst tensors."""
    bad: dict[str, TensorError] = {}
    # What a module introduces comes before what the whole iteration inherits.
    for error in sorted(errors, key=lambda e: (e.level not in ALONE, -height(e))):
        crowded = any(_close(error, other, axes.get_xlim()[1]) for other in bad.values())
        if not error.passes and error.module not in bad and not crowded:
            bad[error.module] = error
    for error in list(bad.values())[:LABELLED]:
        right = axes.get_xlim()[1] * 0.6 < error.depth
        axes.annotate(
            printable(f"{error.module} {error.tensor}", length=60),
            (error.depth, height(error)),
            # Above the point, where the name hides no other of the same height.
            xytext=(6 if right else -6, 6),
            textcoords="offset points",
            ha="right" if right else "left",
            va="bottom",
            fontsize=9,
            color=INK,
            parse_math=False,
        )


def _close(one: TensorError, other: TensorError, deepest: float) -> bool:
    """Return whether two names would lie upon each other."""
    apart = abs(math.log10(height(one)) - math.log10(height(other)))
    return abs(one.depth - other.depth) < 0.3 * deepest and apart < 1.5


def height(error: TensorError) -> float:
    """Return where a ratio is drawn; what is beyond the axis is drawn at its edge."""
    ratio = HIGHEST if math.isnan(error.ratio) else error.ratio
    return min(max(ratio, LOWEST), HIGHEST)
