"""Measure everything and write docs/benchmarks.md; ``--render`` only writes it from the stored results."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
MEASUREMENTS = ("whole_run", "start_up", "recording_cost", "refusal", "reading_speed", "broken_device", "audited_run")
TARGETS = {"recording": 1.03, "recording and pairing": 1.05}
CELLS = {"PASS": "pass", "FAIL": "**FAIL**", "INCONCLUSIVE": "inconclusive"}


def results(name: str) -> dict[str, Any]:
    """Read the stored result of one measurement."""
    content: dict[str, Any] = json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def whole_run_section() -> list[str]:
    """Describe the main job and the machine."""
    run = results("whole_run")
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return [
        "## The machine",
        "",
        f"{run['device']['name']} ({run['device']['capability']}), {run['cpus']} cores, shared; {versions}.",
        "",
        "## The main job",
        "",
        "`benchmarks/whole_run.py`: `emacheck run --device cpu --no-audit`, the smoke preset, 100 iterations, "
        f"{run['threads']} threads, synthetic data already made.",
        "",
        f"- It ended with exit code {run['exit code']}: `{run['last line']}`.",
        f"- {run['seconds']} s in all, of which {run['of which training']} s training (target: at most 120 s).",
        f"- {run['peak resident GiB of the largest process']} GiB resident at most (target: at most 3 GiB).",
        *with_audit(run),
        "",
    ]


def with_audit(run: dict[str, Any]) -> list[str]:
    """Describe what the audit adds, where that was measured."""
    if "with the audit" not in run:
        return []
    audited = run["with the audit"]
    return [
        f"- With the audit, which is the default: `{audited['last line']}`, {audited['seconds']} s in all, of which {audited['of which audit']:.1f} s audit; "
        f"{audited['peak resident GiB of the audit']} GiB resident at most (no target).",
    ]


def start_up_section() -> list[str]:
    """Describe the start-up ratios."""
    start = results("start_up")
    lines = [
        "## Start-up",
        "",
        f"`benchmarks/start_up.py`: {start['pairs']} alternating runs; wall time divided by that of "
        f"`python -c 'import pandas'` in the same round. Measured on {start['machine']}.",
        "",
        "| command | median | least | most | target |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, ratio in start["ratio to import pandas"].items():
        target = "at most 1.5" if name == "emacheck compare" else ""
        lines.append(f"| `{name}` | {ratio['median']:.2f} | {ratio['least']:.2f} | {ratio['most']:.2f} | {target} |")
    return [*lines, ""]


def recording_section() -> list[str]:
    """Describe the cost of recording and pairing."""
    costs = results("recording_cost")
    return [
        "## The cost of recording and pairing",
        "",
        "`benchmarks/recording_cost.py`: the smoke preset through mmengine's Runner; recorder and pairing work in every second iteration, and "
        "neighbouring iterations form pairs, in alternating order, timed by mmengine's own timer. *Recording and pairing* is with dropout, its masks drawn on the CPU, and "
        "every sample augmented from a seed of its own; without is plain mmengine. "
        f"Measured on {costs['recording']['machine']}.",
        "",
        "| | pairs | milliseconds without | with / without, median | 95 % interval of the median | quartiles | target |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {cost['pairs']} | {cost['milliseconds without']} | **{cost['ratio with / without']['median']:.3f}** | "
            f"{' to '.join(f'{end:.3f}' for end in cost['ratio with / without']['interval of the median'])} | "
            f"{cost['ratio with / without']['lower quartile']:.3f} to {cost['ratio with / without']['upper quartile']:.3f} | at most {TARGETS[name]} |"
            for name, cost in costs.items()
        ),
        "",
        *recording_doubts(costs),
    ]


def recording_doubts(costs: dict[str, Any]) -> list[str]:
    """Say which targets the scatter of the measurement does not settle."""
    over = [
        name
        for name, cost in costs.items()
        if cost["ratio with / without"]["interval of the median"][1] > TARGETS[name]
    ]
    if not over:
        return []
    return [
        f"The interval reaches over the target for {' and for '.join(over)}: on this machine the scatter does not settle it.",
        "",
    ]


def broken_device_section() -> list[str]:
    """Describe what the curve rules see of a device that is wrong."""
    content = results("broken_device")
    lines = [
        "## A device whose softmax is wrong",
        "",
        "`benchmarks/broken_device.py`: the smoke preset, 20 iterations, on the simulated device of the tests, which is the CPU's arithmetic behind the "
        f"interface of an out-of-tree device and no evidence about any hardware. Measured on {content['healthy']['machine']}. Each cell: outcome, "
        "observed (limit).",
        "",
    ]
    for against in ("against the CPU", "against the stored reference"):
        names = list(dict.fromkeys(tuple(finding[:2]) for finding in next(iter(content.values()))[against]["findings"]))
        lines += [
            f"**{against[0].upper()}{against[1:]}**",
            "",
            "| device | bit-identical to the CPU | default rules | "
            + " | ".join(f"{rule} ({metric})" for rule, metric in names)
            + " |",
            "|---" * (3 + len(names)) + "|",
        ]
        for device, result in content.items():
            found = {tuple(finding[:2]): finding for finding in result[against]["findings"]}
            cells = [f"{CELLS[found[name][2]]} {found[name][3]:.4g} ({found[name][4]:.4g})" for name in names]
            equal = "yes" if result["bit-identical to the CPU"] else "no"
            lines.append(
                f"| {device} | {equal} | {CELLS[result[against]['outcome of the default rules']]} | "
                + " | ".join(cells)
                + " |"
            )
        lines.append("")
        passed = [
            name
            for name, result in content.items()
            if not result["bit-identical to the CPU"] and result[against]["outcome of the default rules"] == "PASS"
        ]
        lines += [f"The default rules let pass: {listed(passed) if passed else 'none of them'}.", ""]
    lines += [
        "The softmax is that of EMANet's attention, the log-softmax that of the loss. The attention is divided by its sum, and what it makes goes through a "
        "convolution and a batch normalisation; a constant factor in it nearly cancels. Curves of a loss cannot be relied on to show such a fault.",
        "",
    ]
    return lines


def audited_run_section() -> list[str]:
    """Describe what a whole run says of a device with one broken operator."""
    content = results("audited_run")
    lines = [
        "## A device with one broken operator",
        "",
        "`benchmarks/audited_run.py`: `emacheck run --device sdaa` without further options (smoke preset, 100 iterations, the stored reference, an audit of "
        "three batches) on the simulated device of the tests, which is the CPU's arithmetic behind the interface of an out-of-tree device and no evidence about any "
        "hardware. One operator at a time is off by 0.1 %; *in one tile*: in 16x16 elements; *of strided inputs only*: in the calls with an input that is "
        "not contiguous. *Proven operator*: with it alone computed on the CPU the module passes ([operators](operators.md)). As it should be: the broken operator's module is named and that "
        "operator, and no other, is proven; or a PASS where nothing is broken that EMANet runs.",
        "",
        "| broken operator | outcome | exit code | worst rule | module named | phase | ratio (limit) | proven operator | as it should be | rules of the curves that fail |",
        "|---|---|---:|---|---|---|---:|---|---|---|",
    ]
    for name, row in content.items():
        named = f"`{row['module']}` ({row['kind']})" if row["module"] else "none"
        proven = ", ".join(f"`{each}`" for each in row["operators proven to be the cause"]) or "none"
        lines.append(
            f"| {name} | {CELLS[row['outcome']]} | {row['exit code']} | {row['worst rule']} | {named} | {row['phase'] or ''} | "
            f"{row['ratio']:{'.0f' if row['ratio'] >= 100 else '.3g'}} ({row['limit']:g}) | {proven} | {'yes' if row['as it should be'] else '**no**'} | "
            f"{', '.join(row['rules of the curves that fail']) or 'none'} |"
        )
    wrong = [name for name, row in content.items() if not row["as it should be"]]
    return [
        *lines,
        "",
        f"Not as it should be: {listed(wrong)}. Largest memory of an audit: {max(row['peak GiB of the audit'] for row in content.values())} GiB.",
        "",
        "EMANet takes no gradient through the softmax of its attention, so no training of it runs the backward of softmax: a device on which that alone is broken "
        "trains EMANet right, and a PASS is right. The softmax that is differentiated is the log-softmax of the loss.",
        "",
    ]


def refusal_section() -> list[str]:
    """Describe what happens to another experiment."""
    refusal = results("refusal")
    return [
        "## Another experiment",
        "",
        f"`benchmarks/refusal.py`: `{refusal['command']}` ends with exit code {refusal['exit code']}:",
        "",
        "```text",
        *refusal["message"],
        "```",
        "",
    ]


def reading_section() -> list[str]:
    """Describe the speed and size of reading."""
    reading = results("reading_speed")
    lines = [
        "## Reading long logs",
        "",
        f"`benchmarks/reading_speed.py`: a synthetic log of {reading['megabytes']} MB, {reading['pairs']} alternating pairs; wall time of `read_log` (every "
        "metric as numbers) divided by that of reading the file and one `re.findall` of the old script's kind (one metric as text). Targets: at most 1, "
        f"and at most 400 MiB resident for a log of 1 GB. Measured on {reading['machine']}.",
        "",
        "| format | median | least | most | records in 1 GB | MiB resident for 1 GB | seconds for 1 GB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    missed = []
    for kind in ("TCAPPDLL", "mmengine"):
        row = reading[kind]
        ratios = " | ".join(f"{row[f'ratio {part}']:.2f}" for part in ("median", "least", "most"))
        lines.append(
            f"| {kind} | {ratios} | {row['records in 1 GB']} | {row['peak MiB for 1 GB']} | {row['seconds for 1 GB']} |"
        )
        missed += [f"speed of {kind}"] if row["ratio median"] > 1 else []
        missed += [f"size of {kind}"] if row["peak MiB for 1 GB"] > 400 else []
    return [*lines, "", f"Targets missed: {listed(missed)}.", ""]


def listed(names: list[str]) -> str:
    """Return names as one phrase."""
    return "; ".join(names) or "none"


def main() -> None:
    """Measure, unless told only to render, and write the page."""
    if "--render" not in sys.argv:
        for name in MEASUREMENTS:
            print(f"== {name}", flush=True)
            subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=True)
    PAGE.write_text(rendered(), encoding="utf-8")
    print(f"wrote {PAGE}")


def rendered() -> str:
    """Return the page that the stored results give."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make docs` (`benchmarks/run_all.py`) from the results in `benchmarks/results/`; no number here is typed by hand.",
        "",
        *whole_run_section(),
        *start_up_section(),
        *recording_section(),
        *broken_device_section(),
        *audited_run_section(),
        *refusal_section(),
        *reading_section(),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
