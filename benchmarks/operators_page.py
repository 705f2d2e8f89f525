"""The measured section of docs/operators.md, from benchmarks/results/operators_power.json."""

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from marked import between_marks

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "operators_power.json"
PAGE = HERE.parent / "docs" / "operators.md"
BEGIN, END = "<!-- measured: begin, written by benchmarks/operators_power.py -->", "<!-- measured: end -->"
SHOWN = 5


def write_page() -> None:
    """Write the measured section anew."""
    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(with_section(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")


def with_section(page: str, result: dict[str, Any]) -> str:
    """Return the page with the measured section that a result gives."""
    return between_marks(page, (BEGIN, END), measured(result))


def measured(result: dict[str, Any]) -> list[str]:
    """Return the whole section."""
    machine = result["machine"]
    return [
        f"`python benchmarks/operators_power.py`; EMANet-R50-D8, smoke preset, on {machine['cpu']}, {machine['cpus']} cores, {machine['threads']} threads, "
        f"python {machine['python']}, torch {machine['torch']}; state `{machine['state_hash'][:12]}`. All of it ran on a CPU and says nothing about any accelerator.",
        "",
        *benign(result["benign"]),
        *zoo(result["zoo"]),
        *devices(result["devices"]),
        *elsewhere(result["elsewhere"]),
        *cost(result),
    ]


def benign(rows: dict[str, Any]) -> list[str]:
    """Return what is said of healthy candidates."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows.values():
        groups.setdefault((row["precision"], row["part"]), []).append(row)
    lines = [
        "### False alarms",
        "",
        "One whole iteration of a healthy candidate each, every operator ranked. Its operators sum their terms in another order (shuffled, backwards, in pieces), run with one or two threads, with "
        "and without oneDNN, with the channels last; in bf16 and fp16 half of them round stochastically. A false alarm is a trial in which any operator is over the limit. "
        "The limits are those of a module alone, and were fixed before any of these trials.",
        "",
        "| precision | set | trials | calls judged | limit | worst ratio | of | trials with a false alarm |",
        "|---|---|---:|---:|---:|---:|---|---:|",
    ]
    for (precision, part), group in groups.items():
        worst = max(group, key=lambda row: number(row["ratio"]))
        alarms = sum(not number(row["ratio"]) <= row["limit"] for row in group)
        sort = "apart (batch 4, other seeds)" if part == "calibration" else "reported (batches 1 to 3)"
        lines.append(
            f"| {precision} | {sort} | {len(group)} | {sum(row['calls'] for row in group)} | {worst['limit']:g} | {number(worst['ratio']):.3g} | `{worst['worst']}` | {alarms} |"
        )
    return [*lines, "", *largest(rows.values()), *unjudged(rows.values())]


def zoo(rows: dict[str, Any]) -> list[str]:
    """Return what is said of other networks."""
    networks = {name.partition(", ")[0] for name in rows}
    worst = max(rows, key=lambda name: number(rows[name]["ratio"]))
    row = rows[worst]
    alarms = sum(not number(each["ratio"]) <= each["limit"] for each in rows.values())
    return [
        f"The {len(networks)} [small networks](audit-zoo.md) that no limit was chosen on, with their sums in five other orders: {len(rows)} iterations, {sum(each['calls'] for each in rows.values())} calls, "
        f"{alarms} with a false alarm; the worst ratio is {number(row['ratio']):.3g} (limit {row['limit']:g}), of `{row['worst']}` in {worst}. {unjudged(rows.values())[0]}",
        "",
    ]


def largest(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the operators with the largest benign ratios in fp32."""
    most: dict[str, float] = {}
    for row in rows:
        if row["precision"] == "fp32":
            for name, ratio in row["operators"].items():
                most[name] = max(most.get(name, 0.0), number(ratio))
    first = sorted(most.items(), key=lambda item: -item[1])[:SHOWN]
    return [
        f"The largest of {len(most)} operators in fp32: {', '.join(f'`{name}` {ratio:.3g}' for name, ratio in first)}. "
        "A ratio up to 3 is that to the plain accepted precision, any other to the largest of its variations.",
        "",
    ]


def unjudged(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return what could not be judged in these iterations."""
    found = {name: why for row in rows for name, why in row["unjudged"].items()}
    if not found:
        return ["Every operator of these iterations that computes was judged.", ""]
    return [f"Not judged: {'; '.join(f'`{name}` ({why})' for name, why in sorted(found.items()))}.", ""]


def devices(rows: dict[str, Any]) -> list[str]:
    """Return what is said of devices with one broken operator."""
    lines = [
        "### Broken operators",
        "",
        "[The simulated device of the tests](../tests/simulated_device/README.md), one operator broken at a time, every module and the optimizer audited alone on one batch. *First*: the broken operator is the worst of the "
        "module that is most to blame; *proven*: that module passes with this operator, and no other, computed on the CPU; *whole iteration*: it is the worst of one whole iteration. A share of 1e-4 in one tile is 256 elements of each result.",
        "",
        "| broken operator | audit | module most to blame | its operator that is worst | ratio | calls over the limit | first | proven | other operators over the limit | whole iteration |",
        "|---|---|---|---|---:|---|---|---|---|---|",
    ]
    right = {"first": 0, "proven": 0, "whole": 0}
    broken = 0
    for name, row in rows.items():
        alone = [each for each in row["explanations"] if each["level"] != "end to end"]
        survey = next((each for each in row["explanations"] if each["level"] == "end to end"), None)
        found = alone[0] if alone else None
        due = set(row["operators"])
        first = found is not None and found["worst"] in due & set(found["wrong"])
        proven = proves(row)
        whole = survey is not None and survey["worst"] in due & set(survey["wrong"])
        others = sorted({each for one in row["explanations"] for each in one["wrong"]} - due)
        if due:
            broken += 1
            right["first"] += first
            right["proven"] += proven
            right["whole"] += whole
        calls = "" if found is None or not found["wrong"] else "{} of {}".format(*found["calls of the worst"])
        cells = (
            name,
            row["outcome"],
            f"`{row['module']}`" if row["module"] else "none",
            f"`{found['worst']}`" if found and found["worst"] else "",
            f"{number(found['ratio']):.3g}" if found and found["ratio"] is not None else "",
            calls,
            yes(first) if due else "",
            yes(proven) if due else "",
            ", ".join(f"`{each}`" for each in others) or "none",
            yes(whole) if due else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    healthy = rows.get("healthy")
    lines += [
        "",
        f"Of {broken} devices with a broken operator, it came first in {right['first']}, was proven to be the cause in {right['proven']}, and came first in a whole iteration in {right['whole']}.",
    ]
    if healthy is not None:
        lines.append(f"Of the healthy device: {said(healthy)}.")
    missed = [name for name, row in rows.items() if row["operators"] and not proves(row)]
    lines.append(f"Not proven: {', '.join(missed) or 'none'}.")
    lines += [f"- {name}: {said(rows[name])}." for name in missed]
    return [*lines, ""]


def proves(row: dict[str, Any]) -> bool:
    """Return whether the module most to blame is proven to fail by the broken operator, and by it alone."""
    found = row["explanations"][0] if row["explanations"] else None
    return found is not None and bool(found["cause"]) and set(found["cause"]) <= set(row["operators"])


def elsewhere(rows: dict[str, Any]) -> list[str]:
    """Return what is said where no operator is wrong."""
    lines = [
        "### Where no operator is wrong",
        "",
        "[Faults of the selftest](selftest.md) that call something else, or call it with something else, in a module's own code, its settings or its hooks. Right is that no operator is blamed.",
        "",
        "| fault | sits in | looked at | says | as it should be |",
        "|---|---|---|---|---|",
    ]
    right = 0
    for name, row in rows.items():
        found = row["explanations"][0] if row["explanations"] else None
        fine = found is not None and not any(each["wrong"] for each in row["explanations"])
        right += fine
        rest = said(row) if found is None else found["message"].partition(": ")[2]
        short = rest.rpartition("not in an operator; ")[2] if "not in an operator; " in rest else rest
        lines.append(
            f"| `{name}` | {row['sits in'] or ''} | {found['scope'] if found else 'nothing'} | {short.replace('|', ' ')} | {yes(fine)} |"
        )
    return [*lines, "", f"No operator was blamed in {right} of {len(rows)}.", ""]


def cost(result: dict[str, Any]) -> list[str]:
    """Return how long it takes."""
    whole = [row["seconds"] for row in result["benign"].values() if row["precision"] == "fp32"]
    alone = [row["seconds"] for row in result["elsewhere"].values() if row["explanations"]]
    return [
        "### How long it takes",
        "",
        f"Beside other work on the same cores: one whole iteration {statistics.median(whole):.0f} s ({min(whole):.0f} to {max(whole):.0f}), of {len(whole)}; the failing modules of one audit, "
        f"with their proofs, {statistics.median(alone):.0f} s ({min(alone):.0f} to {max(alone):.0f}), of {len(alone)}.",
    ]


def said(row: dict[str, Any]) -> str:
    """Return everything that was said of a device."""
    return "; ".join([each["message"] for each in row["explanations"]] + row["notes"]) or f"{row['outcome']}, nothing"


def number(value: Any) -> float:
    """Return a stored number."""
    return math.inf if value in ("Infinity", "NaN") else float(value)


def yes(what: bool) -> str:
    """Return a word for a cell."""
    return "yes" if what else "**no**"


if __name__ == "__main__":
    write_page()
