"""What each rule says about benign variations and about broken runs whose provenance does not show it.

Every run is the real training of the smoke preset, 100 iterations, with its provenance unchanged, judged against the
stored reference. Writes ``benchmarks/results/hidden_faults.json``.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from variations import ALL, BENIGN_FOR_CALIBRATION, BENIGN_FOR_REPORT, FAULTS, name_to_slug

from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
from emacheck.judge import RULES, decide, default_rules, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.divergence import diagnose
from emacheck.logs import read_log
from emacheck.reference import find_bundle
from emacheck.strict_json import encode_value
from emacheck.train.launch import WORKER_ENVIRONMENT
from emacheck.train.request import TrainingRequest

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "hidden_faults.json"


def train(name: str, runs: Path) -> Path:
    """Train one variation and return its run directory; a complete one that is there already is kept."""
    directory = runs / name_to_slug(name)
    if (directory / "run.json").exists() and read_log(directory).complete:
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    data = ensure_dataset(cache_root() / DEFAULT_NAME)
    TrainingRequest(
        preset="smoke", config=None, data_root=str(data.root), data_hash=data.data_hash, iterations=100
    ).write(directory)
    with (directory / "worker.log").open("wb") as log:
        command = [sys.executable, str(HERE / "variations.py"), name, str(directory)]
        environment = {**WORKER_ENVIRONMENT, **os.environ}
        # The worker ends when its standard input does, so it gets a pipe that stays open.
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment)
        code = worker.wait()
    if code:
        raise SystemExit(f"{name}: the worker ended with exit code {code}, see {directory / 'worker.log'}")
    return directory


def judged(directory: Path) -> dict[str, Any]:
    """Let every rule judge one run, each alone, on the loss and on the gradient norm."""
    bundle = find_bundle("emanet_r50-d8_smoke/cpu-fp32")
    candidate = read_log(directory)
    row: dict[str, Any] = {}
    for metric in ("loss", "grad_norm"):
        comparison = compare(bundle.record, candidate, metrics=[metric], repeats=bundle.repeats)
        for name in RULES:
            verdict = decide(comparison, make_rules([name]))
            worst = verdict.worst or verdict.findings[0]
            row[f"{name} of {metric}"] = {
                "outcome": verdict.outcome.value,
                "observed": encode_value(worst.observed),
                "limit": encode_value(worst.limit),
                "iteration": worst.iteration,
            }
    comparison = compare(bundle.record, candidate, repeats=bundle.repeats)
    hint = diagnose(comparison)
    row["hint"] = {"kind": str(hint.kind), "iteration": hint.iteration}
    row["verdict"] = decide(comparison).outcome.value
    # A changed last bit is a changed fingerprint, which the user of a real device would not have.
    names = [name for name in default_rules(comparison) if name != "fingerprints"]
    row["verdict without fingerprints"] = decide(comparison, make_rules(names)).outcome.value
    return row


def main() -> None:
    """Train, judge and write the results."""
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="emacheck-hidden-"))
    kinds = {
        "benign, for calibration": BENIGN_FOR_CALIBRATION,
        "benign, for the report": BENIGN_FOR_REPORT,
        "fault": FAULTS,
    }
    rows = {}
    for kind, names in kinds.items():
        for name in names:
            assert name in ALL
            rows[name] = {"kind": kind, **judged(train(name, runs))}
            loss, norm = (rows[name][f"mean_relative_error of {m}"]["observed"] for m in ("loss", "grad_norm"))
            if kind == "fault" and norm == 0:
                raise SystemExit(f"{name}: this run is bit-identical to the reference, so the fault did not happen")
            print(f"{name:40} mean relative error: loss {loss:.3g}, gradient norm {norm:.3g}", flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
