"""Measure everything and write docs/benchmarks.md; ``--render`` only writes it from the stored results."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
MEASUREMENTS = ("whole_run", "start_up", "recording_cost", "refusal", "reading_speed", "hidden_faults", "broken_device")
RULES = (
    "finite",
    "coverage",
    "mean_relative_error",
    "mean_absolute_error",
    "bias",
    "first_iterations",
    "envelope",
    "modelzoo",
)
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
        "`benchmarks/whole_run.py`: `emacheck run --device cpu`, the smoke preset, 100 iterations, "
        f"{run['threads']} threads, synthetic data already made.",
        "",
        f"- It ended with exit code {run['exit code']}: `{run['last line']}`.",
        f"- {run['seconds']} s in all, of which {run['of which training']} s training (target: at most 120 s).",
        f"- {run['peak resident GiB of the largest process']} GiB resident at most (target: at most 3 GiB).",
        "",
    ]


def start_up_section() -> list[str]:
    """Describe the start-up ratios."""
    start = results("start_up")
    lines = [
        "## Start-up",
        "",
        f"`benchmarks/start_up.py`: {start['pairs']} alternating runs; wall time divided by that of "
        "`python -c 'import pandas'` in the same round.",
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
        "neighbouring iterations form pairs, timed by mmengine's own timer. *Recording and pairing* is with dropout, its masks drawn on the CPU, and "
        "every sample augmented from a seed of its own; without is plain mmengine. "
        f"Measured on {costs['recording']['machine']}.",
        "",
        "| | pairs | milliseconds without | with / without, median | quartiles | target |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {cost['pairs']} | {cost['milliseconds without']} | **{cost['ratio with / without']['median']:.3f}** | "
            f"{cost['ratio with / without']['lower quartile']:.3f} to {cost['ratio with / without']['upper quartile']:.3f} | at most {TARGETS[name]} |"
            for name, cost in costs.items()
        ),
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
            f"**{against.capitalize()}**",
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
        "and at most 400 MiB resident for a log of 1 GB.",
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


def faults_section() -> list[str]:
    """Describe benign variations and hidden faults."""
    rows = results("hidden_faults")
    metrics = ("loss", "grad_norm")
    lines = [
        "## Hidden faults",
        "",
        "`benchmarks/hidden_faults.py`: real trainings of the smoke preset, 100 iterations, with unchanged provenance, judged against the stored "
        "reference and its repeats. Benign variations must pass; faults should not. *last bit*: the last bit of the initial weights is changed at "
        "random, with other seeds than the stored repeats; a changed bit is a changed fingerprint, so the hint takes such a run for another experiment, and "
        "its verdict is given without the rule `fingerprints`.",
        "",
        "Observed (the default limits are 0.05 for the mean relative error and 0.01 for the bias):",
        "",
        "| run | kind | mean relative error, loss | bias, loss | mean relative error, gradient norm | bias, gradient norm |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        cells = [
            f"{row[f'{rule} of {metric}']['observed']:.2g}"
            for metric in metrics
            for rule in ("mean_relative_error", "bias")
        ]
        lines.append(f"| {name} | {row['kind']} | " + " | ".join(cells) + " |")
    for kind in ("benign", "fault"):
        lines += ["", f"What each rule says about the {kind} runs, on the loss:", ""]
        lines += ["| run | " + " | ".join(RULES) + " | verdict | hint |", "|---|" + "---|" * (len(RULES) + 2)]
        for name, row in rows.items():
            if row["kind"].startswith(kind):
                cells = [CELLS[row[f"{rule} of loss"]["outcome"]] for rule in RULES]
                verdict = row["verdict"] if kind == "fault" else row["verdict without fingerprints"]
                hint = row["hint"]["kind"]
                lines.append(f"| {name} | " + " | ".join(cells) + f" | {CELLS[verdict]} | {hint} |")
    return [*lines, "", *conclusion(rows), ""]


def listed(names: list[str]) -> str:
    """Return names as one phrase."""
    return "; ".join(names) or "none"


def conclusion(rows: dict[str, Any]) -> list[str]:
    """Say plainly what was found, in words that follow from the numbers."""
    faults = {name: row for name, row in rows.items() if row["kind"] == "fault"}
    benign = {name: row for name, row in rows.items() if row["kind"] != "fault"}
    bias = {
        part: max(abs(r["bias of loss"]["observed"]) for r in benign.values() if part in r["kind"])
        for part in ("calibration", "report")
    }
    alarms = [name for name, row in benign.items() if row["verdict without fingerprints"] != "PASS"]
    upper = 1 - 0.05 ** (1 / len(benign))
    missed = [name for name, row in faults.items() if row["verdict"] == "PASS"]
    loudest = max(row["mean_relative_error of loss"]["observed"] for row in benign.values())
    buried = [n for n, row in faults.items() if row["mean_relative_error of loss"]["observed"] <= loudest]
    lines = [f"- **{len(missed)} of {len(faults)} faults pass the default rules**: {listed(missed)}."]
    for rule in RULES:
        caught = [name for name, row in faults.items() if row[f"{rule} of loss"]["outcome"] == "FAIL"]
        false = sum(row[f"{rule} of loss"]["outcome"] == "FAIL" for row in benign.values())
        lines.append(
            f"- `{rule}` alone catches {len(caught)} of {len(faults)} ({listed(caught)}) and alarms on {false} of {len(benign)} benign runs."
        )
    bound = f" (with none in {len(benign)}, the rate is below {upper:.0%} with 95 % confidence)" if not alarms else ""
    return [
        *lines,
        f"- False alarms of the default rules among {len(benign)} benign variations: {listed(alarms)}{bound}. The five set aside for calibration have "
        f"|bias| of at most {bias['calibration']:.2g}, the five for the report at most {bias['report']:.2g}.",
        f"- The largest mean relative error of a benign variation is {loudest:.2g}. {len(buried)} faults stay below it ({listed(buried)}): no limit on "
        "this mean can catch them without false alarms.",
        "",
        "A mean over a hundred iterations of a chaotic curve cannot see small faults, whatever its limit; the first iterations can see more, and still not "
        "all. A PASS of the curve rules says that nothing gross is wrong, not that the training is numerically the same.",
    ]


def main() -> None:
    """Measure, unless told only to render, and write the page."""
    if "--render" not in sys.argv:
        for name in MEASUREMENTS:
            print(f"== {name}", flush=True)
            subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=True)
    lines = [
        "# Benchmarks",
        "",
        "Written by `make docs` (`benchmarks/run_all.py`) from the results in `benchmarks/results/`; no number here is typed by hand.",
        "",
        *whole_run_section(),
        *start_up_section(),
        *recording_section(),
        *broken_device_section(),
        *refusal_section(),
        *reading_section(),
        *faults_section(),
    ]
    PAGE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
