"""What the curve rules say of a device whose softmax is wrong: the simulated device, healthy and broken.

It says nothing about any vendor's hardware. The smoke preset, 20 iterations, against a reference trained on the CPU of
the same machine (bit-identical if the device is healthy) and against the stored reference with its benign repeats.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "broken_device.json"
PACKAGE = HERE.parent / "tests" / "simulated_device" / "package"
ITERATIONS = 20
DEVICES = {
    "healthy": "",
    "softmax off by +0.1 %": "scale _softmax by=1e-3",
    "softmax off by -0.1 %": "scale _softmax by=-1e-3",
    "softmax off by +1 %": "scale _softmax by=1e-2",
    "log-softmax off by +0.1 %": "scale _log_softmax by=1e-3",
}


def train(device: str, place: Path, faults: str = "") -> None:
    """Make a record of a training."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGE),
        "SDAA_SIMULATED_FAULTS": faults,
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    command = ["run", "--device", device, "--iters", str(ITERATIONS), "--no-audit", "--work-dir", str(place)]
    done = subprocess.run(
        [sys.executable, "-m", "emacheck", *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr


def judge(reference: Any, candidate: Path, repeats: Any = ()) -> dict[str, Any]:
    """Return what the default rules and ``first_iterations`` say, and what the limit of each was."""
    from emacheck import compare, decide
    from emacheck.judge import default_rules, make_rules
    from emacheck.logs import read_log

    comparison = compare(reference, read_log(candidate), repeats=repeats)
    verdict = decide(comparison, make_rules([*default_rules(comparison), "first_iterations"]))
    telling = [finding for finding in verdict.findings if finding.rule in SHOWN]
    return {
        "outcome of the default rules": str(decide(comparison).outcome),
        "findings": [
            [f.rule, f.metric, f.outcome.value, round(f.observed, 4), round(f.limit, 4), f.iteration] for f in telling
        ],
    }


SHOWN = ("mean_relative_error", "bias", "worst_window", "envelope", "first_iterations")


def main() -> None:
    """Train and judge."""
    from emacheck.logs import read_log
    from emacheck.reference.stored import find_bundle

    bundle = find_bundle("emanet_r50-d8_smoke/cpu-fp32")
    repeats = tuple(repeat.until(ITERATIONS) for repeat in bundle.repeats)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        train("cpu", Path(scratch) / "cpu")
        here = read_log(Path(scratch) / "cpu")
        for at, (name, faults) in enumerate(DEVICES.items()):
            place = Path(scratch) / str(at)
            train("sdaa", place, faults)
            record = read_log(place)
            equal = all(
                here.curves[curve].values.tobytes() == record.curves[curve].values.tobytes()
                for curve in here.curves
                if "seconds" not in curve
            )
            result[name] = {
                "machine": here.provenance["device"]["name"],
                "bit-identical to the CPU": equal,
                "against the CPU": judge(here, place),
                "against the stored reference": judge(bundle.record.until(ITERATIONS), place, repeats),
            }
            print(name, json.dumps(result[name]), flush=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
