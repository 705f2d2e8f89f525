"""A selftest as a picture: faults against rules, and the audit's ratios beside the band of the benign trials."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from emacheck.audit.findings.picture import BAD, BAND
from emacheck.audit.selftest.curve_rules import CURVE_RULES
from emacheck.audit.selftest.trials import Selftest, Trial
from emacheck.picture import INK, new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOWEST, HIGHEST = 1e-3, 1e7
FOUND, IDLE = "#0072B2", "#dddddd"
ROW, TOP, BOTTOM = 0.155, 2.35, 0.3
LABELS = {
    "modelzoo": "users' rule",
    "mean_relative_error": "mean relative error",
    "first_iterations": "first iterations",
    "envelope": "envelope",
    "curves": "verdict on curves",
    "audit_isolated": "audit: modules alone",
    "audit_end_to_end": "audit: whole iteration",
    "audit": "audit",
}
KINDS = (("isolated", "o", "modules alone"), ("end_to_end", "x", "whole iteration"))


def draw(result: Selftest) -> bytes:
    r"""Return the picture: PNG, 1200 pixels wide, as high as there are faults.

    Args:
        result: All trials.

    Returns:
        The content of a PNG file.

    Example:
        >>> draw(Selftest(faults=(), benign=(), precision="fp32", device="cpu"))[:4]
        b'\x89PNG'
    """
    rows = list(_rows(result.faults))
    height = TOP + BOTTOM + ROW * max(len(rows), 4)
    with new_figure(12, height) as figure:
        matrix, ratios = figure.subplots(1, 2, sharey=True, width_ratios=[len(result.rule_names) * 0.36, 5.2])
        _matrix(matrix, rows, result)
        _ratios(ratios, rows, result)
        figure.subplots_adjust(left=0.29, right=0.985, top=1 - TOP / height, bottom=BOTTOM / height, wspace=0.03)
        figure.text(0.015, 1 - 0.28 / height, _title(result), fontsize=12, color=INK, ha="left")
        _legend(figure, 1 - 0.38 / height)
        return png(figure)


def _rows(faults: Sequence[Trial]) -> Iterator[Trial | str]:
    """Yield the faults by class, the name of the class before each group."""
    for kind in dict.fromkeys(trial.kind for trial in faults):
        yield kind
        yield from (trial for trial in faults if trial.kind == kind)


def _title(result: Selftest) -> str:
    audit = result.rules()["audit"]
    trained = f", {result.iterations} iterations for the rules on curves" if result.iterations else ""
    return (
        f"{result.outcome} selftest: {audit['detected']} of {audit['faults']} faults found by the audit, "
        f"{audit['false_alarms']} of {audit['trials']} false alarms   ({result.device}, {result.precision}{trained})"
    )


def _legend(figure: object, top: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Line2D | Patch] = [
        Patch(color=FOUND, label="detected (number: after so many iterations)"),
        Patch(facecolor="white", edgecolor=BAD, label="missed"),
        Patch(color=IDLE, label="no fault in this precision, or without effect"),
        *(
            Line2D([], [], linestyle="none", marker=m, color=FOUND, label=f"worst ratio, {name}")
            for _, m, name in KINDS
        ),
        Patch(color=BAND, label="benign trials"),
    ]
    figure.legend(handles=entries, loc="upper left", bbox_to_anchor=(0.005, top), ncol=3)  # type: ignore[attr-defined]


def _matrix(axes: "Axes", rows: Sequence[Trial | str], result: Selftest) -> None:
    from matplotlib.patches import Rectangle

    names = result.rule_names
    axes.set_xlim(0, len(names))
    axes.set_ylim(max(len(rows), 1), 0)
    axes.grid(visible=False)
    axes.xaxis.tick_top()
    axes.set_xticks([at + 0.5 for at in range(len(names))])
    axes.set_xticklabels([LABELS[name] for name in names], rotation=50, ha="left", fontsize=8)
    axes.set_yticks([at + 0.5 for at in range(len(rows))])
    axes.set_yticklabels([row if isinstance(row, str) else row.name for row in rows], fontsize=8)
    axes.tick_params(length=0)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        if isinstance(row, str):
            label.set_fontweight("bold")
    for side in axes.spines.values():
        side.set_visible(False)
    for at, row in enumerate(rows):
        for column, rule in enumerate(names):
            if isinstance(row, Trial):
                face, edge = _colours(row, rule)
                axes.add_patch(Rectangle((column + 0.06, at + 0.1), 0.88, 0.8, facecolor=face, edgecolor=edge, lw=0.8))
                if row.counts and rule in CURVE_RULES and rule in row.detected_by:
                    axes.text(
                        column + 0.5,
                        at + 0.54,
                        str(row.first_seen[rule]),
                        color="white",
                        fontsize=7,
                        ha="center",
                        va="center",
                    )


def _colours(trial: Trial, rule: str) -> tuple[str, str]:
    if not trial.counts:
        return IDLE, IDLE
    return (FOUND, FOUND) if rule in trial.detected_by else ("white", BAD)


def _ratios(axes: "Axes", rows: Sequence[Trial | str], result: Selftest) -> None:
    axes.set_xscale("log")
    axes.set_xlim(LOWEST / 1.5, HIGHEST * 1.5)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("audit: worst error ratio over its limit (more than 1 is detected)", fontsize=9)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    benign = [max(trial.isolated, trial.end_to_end) for trial in result.benign]
    if benign:
        axes.axvspan(_place(min(benign)), _place(max(benign)), color=BAND, linewidth=0, zorder=0)
    axes.axvline(1.0, color=INK, linewidth=1)
    for at, row in enumerate(rows):
        if isinstance(row, str) or not row.counts:
            continue
        for field, marker, _ in KINDS:
            ratio = getattr(row, field)
            axes.scatter(
                [_place(ratio)], [at + 0.5], marker=marker, s=16, c=FOUND if not ratio <= 1 else BAD, linewidths=1.0
            )


def _place(ratio: float) -> float:
    """Return where a ratio is drawn; what is beyond the axis is drawn at its edge."""
    return HIGHEST if math.isnan(ratio) else min(max(ratio, LOWEST), HIGHEST)
