"""The main job: wall time and peak memory of `emacheck run --device cpu`, without the audit and with it."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "whole_run.json"


def run(place: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Run the smoke preset once; return what it took, its report and its provenance."""
    program = str(Path(sys.executable).parent / "emacheck")
    started = time.perf_counter()
    done = subprocess.run(
        [program, "run", "--device", "cpu", "--work-dir", "run", *options],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    report, record = (
        json.loads((place / "run" / name).read_text(encoding="utf-8")) for name in ("report.json", "run.json")
    )
    took = {
        "exit code": done.returncode,
        "last line": done.stdout.splitlines()[-1].partition(" | ")[0],
        "seconds": round(seconds, 1),
        "of which training": record["provenance"]["duration_seconds"],
    }
    return took, report, record["provenance"]


def main() -> None:
    """Run the smoke preset without the audit and with it, and write what it took."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        took, _, provenance = run(Path(one), "--no-audit")
        # The largest single process: the worker, or the command that draws the picture.
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        peak = max(children, provenance["peak_memory_bytes"]["host"])
        audited, report, _ = run(Path(other))
    result = {
        **took,
        "peak resident GiB of the largest process": round(peak / 2**30, 2),
        "with the audit": {
            **audited,
            "of which audit": report["audit"]["seconds"],
            "peak resident GiB of the audit": round(report["audit"]["peak_memory_bytes"] / 2**30, 2),
        },
        **{name: provenance[name] for name in ("device", "threads", "versions")},
        "cpus": provenance["host"]["cpus"],
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
