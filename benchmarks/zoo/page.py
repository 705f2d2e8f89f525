"""Write docs/audit-zoo.md from what benchmarks/audit_zoo.py stored."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.networks import WARM_UP, ZOO
from zoo.rows import (
    Row,
    by_fault,
    counted,
    failed,
    failed_cells,
    healthy_cells,
    of_networks,
    part,
    placed,
    rate,
    smallest,
    states,
    unfit,
)
from zoo.trial import ZooTrial, read

HERE = Path(__file__).parent.parent
RESULTS = HERE / "results" / "audit_zoo.json"
PAGE = HERE.parent / "docs" / "audit-zoo.md"
SHOWN = 10
# Of the seeds in bf16 the first that was not measured before the last change of what is accepted.
UNSEEN = 3
OWN = ", ".join(f"{name}: {entry.warm_up}" for name, entry in ZOO.items() if entry.warm_up != WARM_UP)

# Why a fault was missed or blamed on another module, where that could be found out; by the fault's name.
REASONS = {
    "gradients_clipped@1": "the optimizer clips the gradients to a smaller norm itself",
    "gradients_summed_instead_of_averaged@1.001": "the optimizer clips the norm of the gradients, which undoes it",
    "loss_scale_not_undone": "the optimizer clips the norm of the gradients, which undoes it",
    "small_values_flushed@0.0001": "hardly a value lies below the threshold",
    "small_gradients_flushed@1e-07": "hardly a gradient lies below the threshold",
    "epsilon ten times larger": "epsilon is far below the roots to which it is added",
    "weight_decay_off@0.99": "moves the updates by little more than their rounding",
}


def page(machine: dict[str, Any], made: list[ZooTrial]) -> str:
    """Return the page."""
    everything = [asdict(trial) for trial in made]
    trials = [row for row in everything if row["precision"] == "fp32"]
    half = [row for row in everything if row["precision"] == "bf16"]
    limits = machine["limits"]
    lines = [
        *head(machine, trials),
        *summary(trials, half, limits),
        *network_table(trials, limits["isolated"]),
        *healthy_table(trials, limits["isolated"]),
        *worst_table(trials, limits["isolated"]),
        *alarms([*trials, *half]),
        *fault_table(trials),
        *smallest_table(trials),
        *exceptions(trials),
        *half_table(half, limits["half"]),
        *LIMITS,
    ]
    return "\n".join(lines) + "\n"


def head(made: dict[str, Any], trials: list[Row]) -> list[str]:
    """Say what was measured on what."""
    networks, seeds = len(of_networks(trials)), len({row["seed"] for row in trials})
    return [
        "# The audit on other networks",
        "",
        "Written by `python benchmarks/audit_zoo.py` from `benchmarks/results/audit_zoo.json`; no number here is typed by hand.",
        "",
        "The limits of [the audit](audit.md#the-limits) were chosen on EMANet, and [its error rates](verification-power.md) measured there. "
        f"Here the same audit, as `emacheck.audit_step` makes it, with the same limits, meets {networks} small networks that are unlike "
        f"EMANet: each after {made['warm_up']} plain iterations ({OWN}) from each of {seeds} seeds, on a batch that it has not seen, in fp32 and, [further down](#bf16), in bf16. Candidate and "
        f"reference run on the CPU: {made['cpu']}, {made['cpus']} cores, {made['threads']} thread, python {made['python']}, torch {made['torch']}. "
        "A CPU says nothing about the rounding of any accelerator.",
        "",
    ]


def summary(trials: list[Row], half: list[Row], limits: Any) -> list[str]:
    """Return what came out, in sentences."""
    steps, benign, broken = part(trials, "step"), part(trials, "benign"), counted(trials)
    found, named = failed(broken), [row for row in placed(trials) if row["rightly"]]
    unclear = [row for row in trials if row["outcome"] == "INCONCLUSIVE"]
    tried, limit = part(trials, "fault"), limits["isolated"]
    lines = [
        "## What came out",
        "",
        f"- `audit_step` on the CPU itself: PASS for {sum(row['outcome'] == 'PASS' for row in steps)} of {len(steps)} states, without a note for {sum(not row['notes'] for row in steps)}.",
        f"- False alarms: {rate(len(failed(benign)), len(benign))} healthy candidates.",
        f"- Faults detected: {rate(len(found), len(broken))}. Of the {len(tried)} that were tried, {sum(not row['changed'] for row in tried)} changed nothing and {len(unfit(trials))} only "
        "raised, since they are made for other networks; both are left out.",
        f"- Named rightly, first: {rate(len(named), len(placed(trials)))} of those detected that sit in one module.",
        f"- INCONCLUSIVE: {len(unclear)} of {len(trials)} audits.",
        f"- Modules alone may have {limit:g} times the accepted error: the worst healthy candidate has {limit * max(row['alone'] for row in benign):.3g} times, "
        f"the smallest fault that is found there {smallest(trials, limit)} times. A whole iteration: the worst healthy candidate has {max(row['whole'] for row in benign):.2g} of its limit.",
    ]
    if half:
        tried_half = part(half, "benign")
        wrong, sat = failed(tried_half), placed(half)
        lines.append(
            f"- [In bf16](#bf16): false alarms {rate(len(wrong), len(tried_half))} healthy candidates, in {len(states(wrong))} of {len(states(tried_half))} states; "
            f"faults detected {rate(len(failed(counted(half))), len(counted(half)))}, named rightly {sum(row['rightly'] for row in sat)} of {len(sat)}."
        )
    return [*lines, ""]


def network_table(trials: list[Row], limit: float) -> list[str]:
    """Return a row for each network."""
    lines = [
        "## Every network",
        "",
        f"*Worst alone* is the largest ratio of a tensor of a module alone among healthy candidates, *smallest fault* the smallest that made a fault a finding (limit {limit:g}); "
        "*worst whole* the largest share of a limit of a whole iteration.",
        "",
        "| network | what is in it | trained by | false alarms | exact 95 % interval | worst alone | worst whole | faults detected | named rightly | smallest fault |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in of_networks(trials):
        mine = [row for row in trials if row["network"] == name]
        benign, broken, sat = part(mine, "benign"), counted(mine), placed(mine)
        lines.append(
            f"| {name} | {ZOO[name].about} | {ZOO[name].trained_by} | {healthy_cells(benign, limit)} "
            f"| {len(failed(broken))} of {len(broken)} | {sum(row['rightly'] for row in sat)} of {len(sat)} | {smallest(mine, limit)} |"
        )
    return [*lines, ""]


def way(name: str) -> str:
    """Return the kind of a healthy candidate without its seeds.

    >>> way("2 threads, last bit 1000"), way("sums shuffled 3")
    ('2 threads, last bit', 'sums shuffled')
    """
    return re.sub(r"(last bit|shuffled|rounding) \d+", r"\1", name)


def healthy_table(trials: list[Row], limit: float) -> list[str]:
    """Return a row for each way to compute the same thing."""
    benign = part(trials, "benign")
    lines = [
        "## Healthy candidates",
        "",
        "From every state as many of each way: those of [the selftest](selftest.md), and sums in another order, which small tensors on a CPU do not have by themselves. There matrix products, "
        "convolutions, norms, softmax, sums, means and the gradients of embeddings get their terms shuffled, backwards, or (*in pieces*) shifted and in partial sums of 16, in float32 as before.",
        "",
        "| computed with | false alarms | exact 95 % interval | worst alone | worst whole |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in sorted({way(row["name"]) for row in benign}):
        mine = [row for row in benign if way(row["name"]) == name]
        lines.append(f"| {name} | {healthy_cells(mine, limit)} |")
    return [
        *lines,
        "",
        "No limit was chosen on any of these trials; networks and healthy candidates were fixed on other seeds before these were tried.",
        "",
    ]


def worst_table(trials: list[Row], limit: float) -> list[str]:
    """Return the tensors that come nearest to a false alarm."""
    nearest: dict[tuple[str, str], Row] = {}
    for row in sorted(part(trials, "benign"), key=lambda row: -row["alone"]):
        nearest.setdefault((row["network"], row["tensor"]), row)
    lines = [
        "The tensors that come nearest to a false alarm, each with its worst candidate. Most of them are sums whose terms cancel, such as the gradient of a bias: the reference computes them in one order or two, "
        "and may be right by luck ([of a few numbers that is looked at](audit-method.md#a-few-numbers-that-are-right-by-luck)).",
        "",
        "| network | tensor | computed with | seed | ratio |",
        "|---|---|---|---:|---:|",
    ]
    shown = [
        f"| {row['network']} | {row['tensor']} | {row['name']} | {row['seed']} | {limit * row['alone']:.3g} |"
        for row in list(nearest.values())[:SHOWN]
    ]
    return [*lines, *shown, ""]


def half_table(trials: list[Row], limit: float) -> list[str]:
    """Return a row for each network in bf16, one for each class of faults, and what was missed."""
    if not trials:
        return []
    lines = [
        "## bf16",
        "",
        f"The same with bf16 autocast; three of four of the selftest's variations round stochastically there. The limit of a module alone is {limit:g}.",
        "",
        "| network | false alarms | exact 95 % interval | worst alone | worst whole | faults detected | named rightly |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in of_networks(trials):
        mine = [row for row in trials if row["network"] == name]
        broken, sat = counted(mine), placed(mine)
        lines.append(
            f"| {name} | {healthy_cells(part(mine, 'benign'), limit)} | {len(failed(broken))} of {len(broken)} | {sum(row['rightly'] for row in sat)} of {len(sat)} |"
        )
    unseen = [row for row in part(trials, "benign") if row["seed"] >= UNSEEN]
    missed = [row for row in counted(trials) if row["outcome"] != "FAIL"]
    misnamed = [row for row in placed(trials) if not row["rightly"]]
    return [
        *lines,
        "",
        "What is accepted here was changed after false alarms with seeds from 100 and, for [a few numbers](audit-method.md#a-few-numbers-that-are-right-by-luck), after two of the candidates "
        f"counted here (group norms, seed 1; recommender, seed 0). From seed {UNSEEN} on nothing had been looked at: {rate(len(failed(unseen)), len(unseen))} false alarms there.",
        "",
        "The faults are those of fp32. A fault that changes less than rounding to bfloat16 does is none there, so more are missed: a loss 0.1 % too large, for one, "
        "where a cross entropy rounds the logarithms of its softmax, as it does under autocast.",
        "",
        *class_table(trials),
        "",
        f"Missed: {by_fault(missed)}.",
        "",
        f"Blamed on another module: {by_fault(misnamed)}.",
        "",
    ]


def alarms(trials: list[Row]) -> list[str]:
    """Return every false alarm."""
    wrong = [row for row in part(trials, "benign", "step") if row["outcome"] != "PASS"]
    if not wrong:
        return ["No healthy candidate was anything else than PASS.", ""]
    lines = [
        "### Not passed, though healthy",
        "",
        "All healthy audits that were not PASS, in either precision; [why they fail in bf16](#bf16).",
        "",
        "| network | precision | seed | computed with | outcome | worst tensor | times its limit |",
        "|---|---|---:|---|---|---|---:|",
    ]
    for row in wrong:
        times = max(row["alone"], row["whole"])
        lines.append(
            f"| {row['network']} | {row['precision']} | {row['seed']} | {row['name']} | {row['outcome']} | {row['tensor']} | {times:.3g} |"
        )
    return [*lines, ""]


def fault_table(trials: list[Row]) -> list[str]:
    """Say which faults were tried, and return a row for each class of them."""
    return [
        "## Faults",
        "",
        "Faults of [the catalogue](selftest.md) that are not tied to EMANet, each in its mildest severity, and generic ones: in one module of each kind that a network has (0.1 % of its output, of one column of it, of its "
        "input gradient or of its weight's gradient; bfloat16; an output approximated to 1e-4; a NaN swallowed; a lost gradient; a weight corrupted by 1e-5; a wrong setting), in operators, in the optimizer, the loss and the batch. "
        "Each network gets all of them, a third from each of three seeds.",
        "",
        *class_table(trials),
        "",
    ]


def class_table(trials: list[Row]) -> list[str]:
    """Return a row for each class of faults."""
    lines = ["| class | detected | exact 95 % interval | named rightly |", "|---|---:|---:|---:|"]
    broken = counted(trials)
    for kind in dict.fromkeys(row["kind"] for row in broken):
        mine = [row for row in broken if row["kind"] == kind]
        sat = placed(mine)
        named = f"{sum(row['rightly'] for row in sat)} of {len(sat)}" if sat else ""
        lines.append(f"| {kind} | {failed_cells(mine)} | {named} |")
    return lines


def smallest_table(trials: list[Row]) -> list[str]:
    """Return the faults that were found with the least to spare."""
    found = sorted(failed(counted(trials)), key=lambda row: max(row["alone"], row["whole"]))[:SHOWN]
    lines = [
        "Those that were found with the least to spare, as multiples of the limit:",
        "",
        "| network | fault | seed | alone | whole | phase |",
        "|---|---|---:|---:|---:|---|",
    ]
    shown = [
        f"| {row['network']} | {row['name']} | {row['seed']} | {row['alone']:.3g} | {row['whole']:.3g} | {row['phase']} |"
        for row in found
    ]
    return [*lines, *shown, ""]


def exceptions(trials: list[Row]) -> list[str]:
    """Return by name what was missed, misnamed or without effect."""
    missed = [row for row in counted(trials) if row["outcome"] != "FAIL"]
    misnamed = [row for row in placed(trials) if not row["rightly"]]
    idle = [row for row in part(trials, "fault") if not row["changed"]]
    lines = ["### Missed", ""]
    if missed:
        lines += [
            "| network | fault | sits in | outcome | worst tensor | times its limit | why |",
            "|---|---|---|---|---|---:|---|",
        ]
        for row in missed:
            times = max(row["alone"], row["whole"])
            lines.append(
                f"| {row['network']} | {row['name']} | {row['sits_in'] or ''} | {row['outcome']} | {row['tensor']} | {times:.3g} | {row['raised'] or REASONS.get(row['name'], '')} |"
            )
    else:
        lines.append("None.")
    lines += ["", "### Blamed on another module", ""]
    if misnamed:
        lines += ["| network | fault | sits in | blamed, in this order | why |", "|---|---|---|---|---|"]
        for row in misnamed:
            lines.append(
                f"| {row['network']} | {row['name']} | {row['sits_in']} | {', '.join(row['blamed'])} | {REASONS.get(row['name'], '')} |"
            )
    else:
        lines.append("None.")
    lines += ["", "### Without effect", ""]
    lines += [
        "Not counted where they changed no tensor: the network does not call the operator, no value lies where the fault would show, or the setting is that of the network. "
        + (f"{by_fault(idle)}." if idle else "None.")
    ]
    return [*lines, *_unfit_lines(trials), ""]


def _unfit_lines(trials: list[Row]) -> list[str]:
    names = sorted({f"`{row['name']}` ({row['network']})" for row in unfit(trials)})
    return (
        [
            "",
            "### Not made for the network",
            "",
            "Faults that only raise there, which the audit says, and which proves nothing: " + ", ".join(names) + ".",
        ]
        if names
        else []
    )


LIMITS = [
    "## What this does not show",
    "",
    "- Fused attention, LSTM layers in fp32, grouped convolutions and bags of words sum in their own order in every trial; only threads, memory layouts, oneDNN and last bits vary them.",
    "- Trials from one state share its reference and its batch, so they are less independent than the intervals take them to be.",
    "- Each fault was tried from one state of each network, mild ones only. fp16 was not tried.",
    "- The networks are small: sums have few terms, and a batch is quickly a special case. [What may be a false alarm](audit.md#what-may-be-a-false-alarm) holds here as well.",
]


def write_page() -> None:
    """Write the page."""
    PAGE.write_text(page(*read(RESULTS)), encoding="utf-8")
