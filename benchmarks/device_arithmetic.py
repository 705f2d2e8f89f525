"""Whether a healthy device is a false alarm because it multiplies as accelerators do; writes docs/device-arithmetic.md.

    python benchmarks/device_arithmetic.py [--seeds 8]
    python benchmarks/device_arithmetic.py --render

EMANet and the networks of the zoo are audited with candidates whose 3x3 convolutions are fast ones, and the smoke preset
is trained with them and judged against the stored reference. EMANet is audited with candidates that sum as the units of
accelerators do, in each precision. No limit was chosen on any of these trials. Results are kept after each of them, and a
second call goes on where the first one stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fast_convolutions import ALGORITHMS, TILES, FastConvolutions
from host import cpu_facts
from matrix_units import UNITS, MatrixUnit

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "device_arithmetic.json"
PAGE = HERE.parent / "docs" / "device-arithmetic.md"
THREADS, BATCHES, SEEDS = 2, 3, 8
BUNDLE = "emanet_r50-d8_smoke/cpu-fp32"
Key = tuple[str, Any, str, str]
RULES = ("mean_relative_error", "bias", "worst_window", "envelope", "first_iterations")


def audited(reference: Any, arithmetic: FastConvolutions | MatrixUnit) -> dict[str, Any]:
    """Return what the audit says of a candidate with an arithmetic; without calls it has nothing that is computed so."""
    from emacheck.audit.findings.result import AuditResult, badness, find
    from emacheck.audit.judging.candidate import judge

    candidate = reference.subject.twin()
    candidate.around.append(arithmetic.around)
    judged = judge(reference, candidate)
    errors = tuple(judged.errors)
    precision = reference.plan.precision.name
    result = AuditResult(device="cpu", precision=precision, errors=errors, findings=find(errors, judged.troubles))
    alone = max((each for each in errors if each.level != "end to end"), key=badness)
    return {
        "precision": precision,
        "calls": arithmetic.calls,
        "outcome": result.outcome.value,
        "blamed": result.module,
        "alone": round(alone.ratio, 2),
        "tensor": f"{alone.module} {alone.tensor}",
        "measure": alone.measure,
        "limit": alone.limit,
        "whole": round(max(badness(each) for each in errors if each.level == "end to end"), 3),
    }


def emanet(done: set[Key]) -> Iterator[dict[str, Any]]:
    """Audit EMANet with each algorithm on each batch, and with each unit on the first one."""
    todo = [("fp32", batch, name) for batch in range(BATCHES) for name in ALGORITHMS]
    todo += [(precision, 0, name) for precision, units in UNITS.items() for name in units]
    todo = [
        (precision, batch, name) for precision, batch, name in todo if ("EMANet", batch, precision, name) not in done
    ]
    if not todo:
        return
    from audit_power import precision_lists, prepare, prepare_reference

    training = prepare(BATCHES)
    for precision, batch in dict.fromkeys((precision, batch) for precision, batch, _ in todo):
        with precision_lists(precision):
            reference, _ = prepare_reference(training, batch, precision)
            for name in [name for *at, name in todo if at == [precision, batch]]:
                fast = FastConvolutions(name) if name in ALGORITHMS else MatrixUnit(unit=UNITS[precision][name])
                yield {"network": "EMANet", "state": batch, "algorithm": name, **audited(reference, fast)}
            del reference


def zoo(done: set[Key], seeds: int) -> Iterator[dict[str, Any]]:
    """Audit the networks of the zoo from each seed with each algorithm."""
    import torch
    from audit_zoo import THREADS as ONE
    from audit_zoo import plan
    from zoo.networks import ZOO

    from emacheck.audit.arithmetic.precision import Precision
    from emacheck.audit.judging.reference import Reference

    torch.set_num_threads(ONE)
    for network, entry in ZOO.items():
        for seed in range(seeds):
            todo = [name for name in ALGORITHMS if (network, seed, "fp32", name) not in done]
            if not todo:
                continue
            with Precision(name="fp32").lists():
                subject, batch = entry.trained(seed), entry.batch(seed)
                reference = Reference(subject=subject, batch=batch, plan=plan("fp32"), keep=True)
                for name in todo:
                    said = audited(reference, FastConvolutions(name))
                    yield {"network": network, "state": seed, "algorithm": name, **said}


def trained(algorithm: str) -> dict[str, Any]:
    """Train the smoke preset in a worker whose convolutions are computed so, and judge it."""
    from emacheck import compare, decide
    from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
    from emacheck.logs import read_log
    from emacheck.reference.stored import find_bundle
    from emacheck.train.launching.supervision import WORKER_ENVIRONMENT
    from emacheck.train.request import TrainingRequest

    bundle, data = find_bundle(BUNDLE), ensure_dataset(cache_root() / DEFAULT_NAME)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        TrainingRequest(
            preset="smoke", config=None, data_root=str(data.root), data_hash=data.data_hash, threads=THREADS
        ).write(place)
        # The worker ends when its standard input does, so it gets a pipe that stays open.
        with (place / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, __file__, "--worker", algorithm, scratch],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**WORKER_ENVIRONMENT, **os.environ},
            )
            code = worker.wait()
        if code:
            sys.exit((place / "worker.log").read_text(encoding="utf-8")[-2000:])
        calls = int((place / "calls").read_text(encoding="utf-8"))
        candidate = read_log(place)
    assert calls
    verdict = decide(compare(bundle.record, candidate, repeats=bundle.repeats))
    return {
        "network": "EMANet",
        "state": "training",
        "precision": "fp32",
        "algorithm": algorithm,
        "calls": calls,
        "iterations": len(candidate.curves["loss"].iterations),
        "outcome": verdict.outcome.value,
        "worst": verdict.worst.rule if verdict.worst else "",
        "findings": [
            [f.rule, f.metric, f.outcome.value, float(f"{f.observed:.3g}"), float(f"{f.limit:.3g}")]
            for f in verdict.findings
            if f.rule in RULES
        ],
    }


def train_in_worker(algorithm: str, place: str) -> int:
    """Be the worker of a training."""
    from emacheck.train.worker import main as work

    fast = FastConvolutions(algorithm)
    with fast.around():
        code = work([place])
    (Path(place) / "calls").write_text(str(fast.calls), encoding="utf-8")
    return code


def measure(seeds: int) -> None:
    """Make all trials that are not stored yet."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"trials": []}
    stored["machine"] = cpu_facts(THREADS)
    trials = stored["trials"]
    done = {(row["network"], row["state"], row["precision"], row["algorithm"]) for row in trials}

    def keep(row: dict[str, Any]) -> None:
        trials.append(row)
        lines = ",\n".join(json.dumps(each) for each in trials)
        content = f'{{"machine": {json.dumps(stored["machine"])},\n"trials": [\n{lines}\n]}}\n'
        RESULTS.write_text(content, encoding="utf-8")
        print(row["network"], row["state"], row["algorithm"], row.get("outcome"), flush=True)

    for row in emanet(done):
        keep(row)
    for row in zoo(done, seeds):
        keep(row)
    # FFTs lose less than the CPU's own sums do, so a training would show nothing.
    for name in TILES:
        if ("EMANet", "training", "fp32", name) not in done:
            keep(trained(name))


def page(machine: dict[str, Any], trials: list[dict[str, Any]]) -> str:
    """Return the page."""
    audits = [row for row in trials if row["state"] != "training" and row["calls"]]
    mine = [row for row in audits if row["network"] == "EMANet"]
    others = [row for row in audits if row["network"] != "EMANet"]
    trainings = [row for row in trials if row["state"] == "training"]
    sections = (head(machine), fast_table(mine), training_table(trainings), zoo_table(others), unit_table(mine), END)
    return "\n".join(line for section in sections for line in section) + "\n"


def head(machine: dict[str, Any]) -> list[str]:
    """Say what this is."""
    return [
        "# Arithmetic that is right and not the CPU's",
        "",
        "Accelerators multiply in other ways than a CPU, and lose other digits. That is right. Is it a false alarm? Here candidates compute as accelerators do, and are otherwise healthy.",
        "",
        "Written by `python benchmarks/device_arithmetic.py` from `benchmarks/results/device_arithmetic.json`; no number here is typed by hand. "
        f"Measured on a CPU: {machine['cpu']}, {machine['cpus']} cores, python {machine['python']}, torch {machine['torch']}. "
        "The arithmetic is that of `benchmarks/fast_convolutions.py` and `benchmarks/matrix_units.py`, and no model of any product. No limit was chosen on any of these trials.",
        "",
        "*Alone* is the largest ratio of a tensor of a module alone, *whole* the largest share of a limit of a whole iteration ([the limits](audit.md#the-limits)).",
        "",
    ]


def outcomes(rows: list[dict[str, Any]]) -> str:
    """Count what is not PASS."""
    return f"{sum(row['outcome'] != 'PASS' for row in rows)} of {len(rows)}"


def fast_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return what the audit says of EMANet with fast convolutions."""
    lines = [
        "## Fast convolutions",
        "",
        "Libraries may compute a 3x3 convolution by Winograd's algorithm ([Lavin and Gray, 2016](https://arxiv.org/abs/1509.09308)) or with FFTs, in float32. "
        "Winograd's F(m x m, 3 x 3) makes m x m outputs of a tile at once, here with the usual points of interpolation ([Barabasz et al., 2020](https://arxiv.org/abs/1803.10986)). "
        "The larger the tile, the more of the last digits are lost. All dense 3x3 convolutions of stride 1 are computed so, forward and backward; dilated ones as interleaved parts.",
        "",
        "The audit of EMANet in fp32, in the state and on the batches of [What the rules find](verification-power.md):",
        "",
        "| algorithm | convolutions | not PASS | alone | limit | where | whole |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for name in ALGORITHMS:
        mine = [row for row in rows if row["algorithm"] == name]
        worst = max(mine, key=lambda row: row["alone"])
        whole, calls = (max(row[key] for row in mine) for key in ("whole", "calls"))
        lines.append(
            f"| {name} | {calls} | {outcomes(mine)} | {worst['alone']:.3g} | {worst['limit']:g} "
            f"| `{worst['tensor']}` | {whole:.2g} |"
        )
    return [*lines, ""]


def unit_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return what the audit says of EMANet with the sums of matrix units."""
    lines = [
        "## Sums of matrix units",
        "",
        "A core adds one product after the other to an accumulator in float32. A matrix unit adds some at once: it cuts them and the accumulator to a few bits more than float32 has, "
        "and rounds the sum towards zero, as was found of NVIDIA's tensor cores ([Fasi et al., 2021](https://peerj.com/articles/cs-330/)). *8 at once, 25 bits* cuts eight products and the "
        "accumulator to 25 bits of the largest; *exact* cuts only the sum, which loses the most. All convolutions and matrix products are summed so, forward and backward. In tf32 factors are rounded to 10 bits "
        "of mantissa, or *cut off*.",
        "",
        "The audit of EMANet, on the first batch. *error of scale* is a tensor that is too large or too small everywhere. Cut sums are not those of float32: fp32 is there to see whether the audit says so.",
        "",
        "| precision | sums | operators | outcome | alone | limit | where | whole |",
        "|---|---|---:|---|---:|---:|---|---:|",
    ]
    for precision, units in UNITS.items():
        for name in units:
            for row in rows:
                if (row["precision"], row["algorithm"]) == (precision, name):
                    scale = ", error of scale" if row["measure"] == "slope" else ""
                    lines.append(
                        f"| {precision} | {name} | {row['calls']} | {row['outcome']} | {row['alone']:.3g} | {row['limit']:g} | `{row['tensor']}`{scale} | {row['whole']:.2g} |"
                    )
    return [*lines, ""]


def training_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return what the rules say of trainings."""
    lines = [
        "### Trainings with fast convolutions",
        "",
        f"The smoke preset, {rows[0]['iterations']} iterations, judged against the stored reference `{BUNDLE}` with its repeats by the default rules. "
        "Each cell: observed (limit).",
        "",
    ]
    columns = [(rule, metric) for rule, metric, *_ in rows[0]["findings"]]
    lines += [
        "| algorithm | verdict | " + " | ".join(f"{rule} ({metric})" for rule, metric in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for row in rows:
        said = {(rule, metric): rest for rule, metric, *rest in row["findings"]}
        cells = [
            ""
            if key not in said
            else f"{'' if said[key][0] == 'PASS' else said[key][0] + ' '}{said[key][1]:g} ({said[key][2]:g})"
            for key in columns
        ]
        verdict = row["outcome"] if row["outcome"] == "PASS" else f"{row['outcome']} (`{row['worst']}`)"
        lines.append(f"| {row['algorithm']} | {verdict} | {' | '.join(cells)} |")
    return [*lines, ""]


def zoo_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return what the audit says of other networks."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    lines = [
        "### Fast convolutions in other networks",
        "",
        f"The networks of [the zoo](audit-zoo.md) that have such convolutions, from {len({row['state'] for row in rows})} seeds each. "
        "Each cell: how many audits are not PASS, and the largest ratio of a tensor of a module alone.",
        "",
        f"| algorithm | {' | '.join(networks)} |",
        "|---|" + "---|" * len(networks),
    ]
    for name in ALGORITHMS:
        cells = []
        for network in networks:
            mine = [row for row in rows if (row["network"], row["algorithm"]) == (network, name)]
            cells.append(f"{outcomes(mine)}, {max(row['alone'] for row in mine):.3g}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    wrong = [row for row in rows if row["outcome"] != "PASS"]
    if wrong:
        lines += [
            "",
            "What did not pass:",
            "",
            "| network | seed | algorithm | tensor | ratio | limit |",
            "|---|---:|---|---|---:|---:|",
        ]
        lines += [
            f"| {row['network']} | {row['state']} | {row['algorithm']} | `{row['tensor']}` | {row['alone']:.3g} | {row['limit']:g} |"
            for row in wrong
        ]
    return [*lines, ""]


END = [
    "## What this does not show",
    "",
    "- What a device's library does. Such libraries choose an algorithm by the shape, and take no fast one where there are few channels.",
    "- Algorithms for other kernels than 3x3, and those that round to 16 bits on the way.",
]


def main() -> None:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        sys.exit(train_in_worker(*options.worker))
    if not options.render:
        measure(options.seeds)
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(page(stored["machine"], stored["trials"]), encoding="utf-8")


if __name__ == "__main__":
    main()
