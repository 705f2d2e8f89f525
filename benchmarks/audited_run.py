"""What `emacheck run` says of a device with one broken operator: the simulated device, healthy and broken.

It says nothing about any vendor's hardware. Each row is one `emacheck run --device sdaa` without further options: the smoke
preset, 100 iterations, the stored reference, an audit of three batches, the operators of what failed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "audited_run.json"
PACKAGE = HERE.parent / "tests" / "simulated_device" / "package"


class Case(NamedTuple):
    """One device: its fault, and which modules or classes of modules a verdict must name; none where it must pass."""

    faults: str
    named: tuple[str, ...]


# mmengine puts _BatchNormXd in the place of SyncBN where one process trains.
NORMS = ("_BatchNormXd", "BatchNorm2d", "SyncBatchNorm")
OUTSIDE = ("(loss)", "(model)", "decode_head", "auxiliary_head")
CASES = {
    "healthy": Case("", ()),
    "softmax, forward": Case("scale _softmax by=1e-3", ("decode_head.ema_module",)),
    "log-softmax, backward": Case("scale _log_softmax_backward_data by=1e-3", ("CrossEntropyLoss",)),
    "convolution, forward, in one tile": Case("scale convolution_overrideable by=1e-3 where=tile", ("Conv2d",)),
    "convolution, backward": Case("scale convolution_backward_overrideable by=1e-3", ("Conv2d",)),
    "batch normalisation, forward": Case("scale native_batch_norm by=1e-3", NORMS),
    "batch normalisation, backward": Case("scale native_batch_norm_backward by=1e-3", NORMS),
    "bilinear upsampling, forward": Case("scale upsample_bilinear2d by=1e-3", OUTSIDE),
    "bilinear upsampling, backward": Case("scale upsample_bilinear2d_backward by=1e-3", OUTSIDE),
    "matrix product, of strided inputs only": Case("scale bmm by=1e-3 where=strided", ("decode_head.ema_module",)),
    "softmax, backward": Case("scale _softmax_backward_data by=1e-3", ()),
}


def run(case: Case, place: Path) -> dict[str, Any]:
    """Run the command once and return what it said."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(PACKAGE), str(HERE.parent))),
        "SDAA_SIMULATED_FAULTS": case.faults,
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    done = subprocess.run(
        [sys.executable, "-m", "emacheck", "run", "--device", "sdaa"],
        env=environment, cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1, 3), done.stderr
    (directory,) = place.glob("work_dirs/*/*")
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    curves = [finding for finding in report["findings"] if finding["rule"] != "audit"]
    audit = report["audit"]
    blamed = next((each for each in audit["findings"] if each["outcome"] == "FAIL"), None)
    explained = (report["operators"] or {"explanations": []})["explanations"]
    proven = [each for each in explained if each["conclusion"] == "proven"]
    return {
        "fault": case.faults,
        "exit code": done.returncode,
        "outcome": report["outcome"],
        "last line": done.stdout.splitlines()[-1].partition(" | ")[0],
        "worst rule": done.stdout.splitlines()[-1].split()[1].partition("[")[0],
        "module": blamed and blamed["module"],
        "kind": blamed and blamed["kind"],
        "phase": blamed and blamed["phase"],
        "tensor": blamed and blamed["tensor"],
        "ratio": (blamed or audit["worst"])["ratio"],
        "limit": (blamed or audit["worst"])["limit"],
        "operators proven to be the cause": sorted({name for each in proven for name in each["cause"]}),
        "conclusions": [[each["scope"], each["conclusion"]] for each in explained],
        "rules of the curves that fail": sorted({f["rule"] for f in curves if f["outcome"] == "FAIL"}),
        "peak GiB of the audit": round(audit["peak_memory_bytes"] / 2**30, 1),
    }


def as_it_should_be(row: dict[str, Any], case: Case) -> bool:
    """Tell whether a broken device fails and the right module and operator are named, and whether a sound one passes."""
    if not case.named:
        return bool(row["outcome"] == "PASS")
    # A device has its kernel under the overrideable name; what is called, and named, is the operator without it.
    operator = f"aten.{case.faults.split()[1].removesuffix('_overrideable')}.default"
    module_is_right = bool({row["module"], row["kind"]} & set(case.named))
    return row["outcome"] == "FAIL" and module_is_right and row["operators proven to be the cause"] == [operator]


def main() -> None:
    """Run every case, with ``--continue`` those without a result, and write what was said."""
    going_on = "--continue" in sys.argv and RESULTS.exists()
    result = json.loads(RESULTS.read_text(encoding="utf-8")) if going_on else {}
    for name, case in CASES.items():
        if name not in result:
            with tempfile.TemporaryDirectory() as place:
                result[name] = run(case, Path(place))
        result[name]["as it should be"] = as_it_should_be(result[name], case)
        print(name, json.dumps(result[name]), flush=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
