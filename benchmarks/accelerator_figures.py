"""What the records and audits of an accelerator say: growth of the difference, seconds, how near to the limits."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from emacheck import Comparison, Outcome, Record, compare, decide, read_log

SHOWN = (1, 2, 3, 5, 10, 20, 50, 100)
METRICS = ("loss", "grad_norm")
LEVELS = (1e-6, 1e-4, 1e-2)
SETTLED_FROM = 3  # the first iterations compile, allocate and choose algorithms


def trained_figures(reference: Path, candidate: Path) -> dict[str, Any]:
    """Return how two trainings differ, what the rules of the curves say, and how long an iteration took."""
    ours, theirs = read_log(reference), read_log(candidate)
    comparison = compare(ours, theirs)
    verdict = decide(comparison)
    failed = sorted({f"{found.rule}[{found.metric}]" for found in verdict.findings if found.outcome is Outcome.FAIL})
    return {
        "iterations": len(theirs.curves["loss"]),
        "relative difference": {name: growth(comparison, name) for name in METRICS},
        "outcome": str(verdict.outcome),
        "rules that fail": failed,
        "seconds": {"cpu": seconds(ours), "device": seconds(theirs)},
        "steps left out": steps_left_out(theirs),
    }


def growth(comparison: Comparison, metric: str) -> dict[str, Any]:
    """Return |relative difference| at chosen iterations, and the first iteration beyond each power of ten."""
    paired = comparison.curve(metric)
    sizes = np.abs(paired.relative_difference)
    at = {int(i): float(size) for i, size in zip(paired.iterations, sizes, strict=True) if i in SHOWN}
    return {"at": at, "first above": {f"{level:g}": paired.first_above(level) for level in LEVELS}}


def seconds(record: Record) -> float:
    """Return the median of the seconds of an iteration, once the first ones are over."""
    values = record.curves["seconds"].values
    return float(np.median(values[min(SETTLED_FROM, len(values) - 1) :]))


def steps_left_out(record: Record) -> int:
    """Return how many steps a scaler of gradients left out."""
    curve = record.curves.get("skipped_steps")
    return 0 if curve is None else int(curve.values[-1])


def equal(one: Path, other: Path) -> bool:
    """Tell whether two trainings are equal in every bit that does not measure time."""
    ours, theirs = read_log(one).curves, read_log(other).curves
    return all(ours[name].values.tobytes() == theirs[name].values.tobytes() for name in ours if "seconds" not in name)


def audited_figures(place: Path) -> dict[str, Any]:
    """Return what an audit said, and how near to its limit each kind of module came."""
    report = json.loads(place.read_text(encoding="utf-8"))
    nearest: dict[str, dict[str, float]] = {}
    for each in report["tensors"]:
        level = nearest.setdefault(each["level"], {})
        share = float(each["ratio"]) / float(each["limit"])
        kind = each["kind"] or "many modules together"
        level[kind] = max(level.get(kind, 0.0), share)
    return {
        **{name: report[name] for name in ("outcome", "module", "phase", "worst", "seconds", "peak_memory_bytes", "notes")},
        "modules at fault": [
            {name: each[name] for name in ("module", "kind", "tensor", "phase", "ratio", "limit")}
            for each in report["findings"] if each["outcome"] == "FAIL"
        ][:10],
        "tensors": len(report["tensors"]),
        "share of the limit": {level: dict(sorted(kinds.items(), key=lambda kind: -kind[1])) for level, kinds in nearest.items()},
    }  # fmt: skip


def machine(reference: Path, candidate: Path) -> dict[str, Any]:
    """Return what the two sides ran on."""
    ours, theirs = (
        json.loads((place / "run.json").read_text(encoding="utf-8"))["provenance"] for place in (reference, candidate)
    )
    return {
        "device": theirs["device"], "cpu": ours["device"], "versions": theirs["versions"],
        "cpus": theirs["host"]["cpus"], "threads": theirs["threads"],
    }  # fmt: skip
