"""The main job: wall time and peak memory of `emacheck run --device cpu`, training and judging together."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "whole_run.json"


def main() -> None:
    """Run the smoke preset once and write what it took."""
    program = str(Path(sys.executable).parent / "emacheck")
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        done = subprocess.run(
            [program, "run", "--device", "cpu", "--work-dir", "run"],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        run = json.loads((Path(place) / "run" / "run.json").read_text(encoding="utf-8"))["provenance"]
    # The largest single process: the worker, or the command that draws the picture.
    peak = max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, run["peak_memory_bytes"]["host"])
    result = {
        "exit code": done.returncode,
        "last line": done.stdout.splitlines()[-1].partition(" | ")[0],
        "seconds": round(seconds, 1),
        "of which training": run["duration_seconds"],
        "peak resident GiB of the largest process": round(peak / 2**30, 2),
        "device": run["device"],
        "threads": run["threads"],
        "cpus": run["host"]["cpus"],
        "versions": run["versions"],
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
