"""Start-up: `emacheck compare` on two 100-iteration logs against `python -c 'import pandas'`, alternating."""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from host import cpu_name

RESULTS = Path(__file__).parent / "results" / "start_up.json"
PAIRS = 15


def write_log(path: Path, off: float) -> None:
    """Write 100 iterations as mmengine's scalars.json has them."""
    rows = (
        {"lr": 0.01, "loss": (4 * math.exp(-i / 80) + 0.5) * (1 + off), "time": 0.4, "iter": i, "step": i}
        for i in range(1, 101)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def seconds(command: list[str], cwd: str) -> float:
    """Return the wall time of one process."""
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure pairs and write their ratios."""
    program = str(Path(sys.executable).parent / "emacheck")
    commands = {
        "import pandas": [sys.executable, "-c", "import pandas"],
        "emacheck compare": [program, "compare", "a.json", "b.json"],
        "emacheck --help": [program, "--help"],
    }
    with tempfile.TemporaryDirectory() as place:
        write_log(Path(place) / "a.json", 0.0)
        write_log(Path(place) / "b.json", 0.001)
        for command in commands.values():
            seconds(command, place)
        times = [{name: seconds(command, place) for name, command in commands.items()} for _ in range(PAIRS)]
    ratios = {name: sorted(each[name] / each["import pandas"] for each in times) for name in list(commands)[1:]}
    result = {
        "machine": cpu_name(),
        "pairs": PAIRS,
        "ratio to import pandas": {
            name: {"median": statistics.median(r), "least": r[0], "most": r[-1]} for name, r in ratios.items()
        },
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
