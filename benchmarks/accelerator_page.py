"""Writes docs/accelerator-DEVICE.md and its picture from what accelerator.py measured."""

import json
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = {"fp32": "#0072B2", "tf32": "#D55E00", "bf16": "#009E73", "fp16": "#A3447F"}
STYLES = {"fp32": "-", "tf32": "--", "bf16": ":", "fp16": "-."}
SMALLEST = 1e-9  # below the rounding of a float32, and where a difference of zero is drawn
NEAREST = 5


def write_page(result: Mapping[str, Any], docs: Path) -> None:
    """Write page and picture from the figures."""
    name = f"accelerator-{result['device']}"
    (docs / "images").mkdir(parents=True, exist_ok=True)
    (docs / "images" / f"{name}.png").write_bytes(picture(result))
    (docs / f"{name}.md").write_text(page(result, f"images/{name}.png"), encoding="utf-8")


def page(result: Mapping[str, Any], image: str) -> str:
    """Return the page."""
    lines = [
        *head(result, image),
        *(line for metric in ("loss", "grad_norm") for line in growth_table(result, metric)),
        *verdicts(result),
        *tensor_floats(result),
        *audits(result),
        *missing(result),
    ]
    return "\n".join(lines).rstrip() + "\n"


def head(result: Mapping[str, Any], image: str) -> list[str]:
    """Say what was measured on what."""
    machine = result["machine"]
    device, host = machine["device"], machine["cpu"]
    facts = ", ".join(f"{name} {value}" for name, value in device.items() if name not in ("type", "name", "count"))
    repeat = result.get("a second training is equal in every bit")
    said = {True: "was equal in every bit", False: "was not equal in every bit"}
    return [
        f"# {device['name']} (`--device {result['device']}`)",
        "",
        *(f"{notes.rstrip()}\n".split("\n") if (notes := result.get("notes")) else ()),
        f"Measured by `python benchmarks/accelerator.py --device {result['device']}`: the device against the CPU of the same host, which is the",
        "reference; same weights, same batches. Another machine gives other numbers.",
        "",
        f"- Device: {device['name']}{f' ({facts})' if facts else ''}.",
        f"- Reference: {host['name']} ({host.get('capability', '?')}), {machine['threads']} threads of {machine['cpus']} CPUs.",
        f"- {', '.join(f'{name} {version}' for name, version in machine['versions'].items())}.",
        *([] if repeat is None else [f"- A second, equal fp32 training on the device {said[repeat]}."]),
        "",
        f"![|relative difference| of loss and gradient norm over iterations]({image})",
        "",
    ]


def growth_table(result: Mapping[str, Any], metric: str) -> list[str]:
    """Tabulate how the difference grows."""
    rows = {name: training["relative difference"][metric] for name, training in result["trainings"].items()}
    shown = sorted({int(at) for row in rows.values() for at in row["at"]})
    levels = list(next(iter(rows.values()))["first above"])
    title = {"loss": "the loss", "grad_norm": "the gradient norm"}[metric]
    return [
        f"## How the difference in {title} grows",
        "",
        f"|relative difference| of `{metric}` at an iteration, and the first iteration at which it is above a level. A TF32 training is held against fp32 on the CPU, "
        "every other one against the CPU in the same precision.",
        "",
        f"| preset, precision | {' | '.join(map(str, shown))} | {' | '.join(f'above {level}' for level in levels)} |",
        "|---" + "|---:" * (len(shown) + len(levels)) + "|",
        *(
            f"| {name} | {' | '.join(small(at(row, i)) for i in shown)} | "
            f"{' | '.join(str(row['first above'][level] or 'never') for level in levels)} |"
            for name, row in rows.items()
        ),
        "",
    ]


def at(row: Mapping[str, Any], iteration: int) -> float | None:
    """Return a value at an iteration, whose number JSON may have made a text."""
    value = row["at"].get(iteration, row["at"].get(str(iteration)))
    return None if value is None else float(value)


def small(value: float | None) -> str:
    """Write a number of any size in a few characters."""
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def verdicts(result: Mapping[str, Any]) -> list[str]:
    """Tabulate what the rules on curves say, and what an iteration costs."""
    return [
        "## What the rules on curves say, and what an iteration costs",
        "",
        "Fewer than ten iterations are INCONCLUSIVE by themselves. Seconds are medians once the first three iterations are over; trainings of the device ran "
        "alone, those of the CPU beside other commands.",
        "",
        "| preset, precision | iterations | outcome | rules that fail | steps left out | seconds on the device | seconds on the CPU |",
        "|---|---:|---|---|---:|---:|---:|",
        *(
            f"| {name} | {row['iterations']} | {row['outcome']} | {', '.join(row['rules that fail']) or 'none'} | {row['steps left out']} | "
            f"{row['seconds']['device']:.3f} | {row['seconds']['cpu']:.3f} |"
            for name, row in result["trainings"].items()
        ),
        "",
    ]


def tensor_floats(result: Mapping[str, Any]) -> list[str]:
    """Say what TF32 looks like beside fp32 on the same device."""
    row = result.get("tf32 against fp32 on the device")
    if row is None:
        return []
    loss = row["relative difference"]["loss"]
    shown = ", ".join(f"{small(at(loss, int(i)))} at iteration {i}" for i in loss["at"])
    return [
        "## What TF32 looks like",
        "",
        f"The device in TF32 against itself in fp32, smoke preset: the loss differs by {shown}. "
        f"The rules on curves say {row['outcome']}{fails(row)}.",
        "",
    ]


def fails(row: Mapping[str, Any]) -> str:
    """Name the rules that fail."""
    return f" ({', '.join(row['rules that fail'])})" if row["rules that fail"] else ""


def audits(result: Mapping[str, Any]) -> list[str]:
    """Tabulate what the audits say and how near a healthy device comes to their limits."""
    if not result["audits"]:
        return []
    lines = [
        "## The audit",
        "",
        "*Share of the limit*: the ratio of a tensor over its limit; more than 1 is a finding. The kinds of module that came nearest, with the share of the worst "
        "tensor of each.",
        "",
        "| preset, precision | outcome | tensors | modules at fault | nearest alone | nearest in a whole iteration | seconds | GiB |",
        "|---|---|---:|---|---|---|---:|---:|",
    ]
    for name, audit in result["audits"].items():
        blamed = ", ".join(dict.fromkeys(f"`{each['module']}`" for each in audit["modules at fault"])) or "none"
        shares = [nearest(audit["share of the limit"].get(level, {})) for level in ("isolated", "end to end")]
        lines.append(
            f"| {name} | {audit['outcome']} | {audit['tensors']} | {blamed} | {' | '.join(shares)} | {audit['seconds']:.0f} | "
            f"{audit['peak_memory_bytes'] / 2**30:.1f} |"
        )
    return [*lines, ""]


def nearest(kinds: Mapping[str, float]) -> str:
    """Name the kinds of module that came nearest to their limits."""
    return ", ".join(f"{kind} {share:.2g}" for kind, share in list(kinds.items())[:NEAREST])


def missing(result: Mapping[str, Any]) -> list[str]:
    """Say what was not measured."""
    failed = result.get("failed", {})
    names = list(dict.fromkeys((*result["missing"], *failed)))
    if not names:
        return []
    return [
        "## Not measured",
        "",
        *(f"- {name}{f': `{failed[name]}`' if name in failed else ''}" for name in names),
        "",
    ]


def picture(result: Mapping[str, Any]) -> bytes:
    """Draw how the differences grow: one panel for each metric and preset."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    presets = list(dict.fromkeys(name.partition(", ")[0] for name in result["trainings"]))
    figure = Figure(figsize=(10, 3.6 * len(presets)), dpi=100, layout="constrained")
    panels = figure.subplots(len(presets), 2, squeeze=False, sharey=True)
    for preset, row in zip(presets, panels, strict=True):
        for metric, axes in zip(("loss", "grad_norm"), row, strict=True):
            for name, training in result["trainings"].items():
                if name.partition(", ")[0] != preset:
                    continue
                precision = name.partition(", ")[2]
                points = training["relative difference"][metric]["at"]
                axes.plot(
                    [int(i) for i in points], [max(float(size), SMALLEST) for size in points.values()],
                    STYLES[precision], color=COLOURS[precision], marker="o", markersize=4, label=precision,
                )  # fmt: skip
            axes.set(
                xscale="log", yscale="log", ylim=(SMALLEST / 2, 2), title=f"{preset}, {metric}", xlabel="iteration"
            )
            axes.grid(alpha=0.3)
        row[0].set_ylabel("|relative difference|")
        row[0].legend(frameon=False)
    FigureCanvasAgg(figure)
    whole, small_one = BytesIO(), BytesIO()
    figure.savefig(whole, format="png", metadata={"Software": ""})
    whole.seek(0)
    Image.open(whole).convert("RGB").quantize(32).save(small_one, format="PNG", optimize=True)
    return small_one.getvalue()


if __name__ == "__main__":
    for stored in sorted((Path(__file__).parent / "results").glob("accelerator_*.json")):
        content = json.loads(stored.read_text(encoding="utf-8"))
        write_page(content, Path(__file__).parent.parent / "docs")
        sys.stdout.write(f"docs/accelerator-{content['device']}.md\n")
