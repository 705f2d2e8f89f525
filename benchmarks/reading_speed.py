"""Reading a log against `re.findall` of the one number that older scripts take from it, alternating in one run.

The log is synthetic. `findall` is timed with reading the file, and returns texts of one metric; emacheck returns every
metric as numbers, with iterations, lines and oddities. The peak memory and the seconds for one gigabyte are those
of a process that reads it.
"""

import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from host import cpu_name

RESULTS = Path(__file__).parent / "results" / "reading_speed.json"
PAIRS = 7
MEGABYTES = 60
PATTERNS = {
    "TCAPPDLL": r"rank : 0  train.loss : ([\d\.e-]+)",
    "mmengine": r"Iter\(train\).*?  loss: ([\d\.e-]+)",
}
PEAK = """
import resource, sys, time
from emacheck.logs import read_log
started = time.perf_counter()
record = read_log(sys.argv[1])
taken = time.perf_counter() - started
print(len(record.curves["loss"]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, taken)
"""


def tcap_lines(draw: random.Random) -> Iterator[str]:
    """Return the records of one rank."""
    iteration = 0
    while True:
        yield (
            f"TCAPPDLL 2031-02-03 04:05:06.{draw.randrange(10**6):06d} - Epoch: 0 Iteration: {iteration}  rank : 0  "
            f"train.loss : {draw.random() * 4!r}  train.ips : {draw.random() * 30!r} imgs/s "
            f"train.total_time : {draw.random()!r} \n"
        )
        iteration += 1


def mmengine_lines(draw: random.Random) -> Iterator[str]:
    """Return training records with a checkpoint's message in between."""
    iteration = 0
    while True:
        iteration += 50
        yield (
            f"2031/02/03 04:05:06 - mmengine - INFO - Iter(train) [{iteration:>8}/90000000]  lr: {draw.random() / 100:.4e}  "
            f"eta: 0:{draw.randrange(60):02d}:24  time: {draw.random():.4f}  data_time: 0.0014  memory: 3844  "
            f"loss: {draw.random():.4f}  decode.loss_ce: {draw.random():.4f}  decode.acc_seg: {draw.random() * 100:.4f}  "
            f"aux.loss_ce: {draw.random():.4f}  aux.acc_seg: {draw.random() * 100:.4f}\n"
        )
        if iteration % 10_000 == 0:
            yield f"2031/02/03 04:05:06 - mmengine - INFO - Saving checkpoint at {iteration} iterations\n"


WRITERS: dict[str, Callable[[random.Random], Iterator[str]]] = {"TCAPPDLL": tcap_lines, "mmengine": mmengine_lines}


def write(path: Path, kind: str, size: int) -> None:
    """Write a log of at least `size` bytes."""
    lines = WRITERS[kind](random.Random(7))  # noqa: S311 - plausible numbers, no secret
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            file.writelines(next(lines) for _ in range(1000))


def seconds(action: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def compared(path: Path, kind: str) -> dict[str, float]:
    """Measure pairs and return the ratio of their times."""
    from emacheck.logs import read_log

    def findall() -> object:
        return re.findall(PATTERNS[kind], path.read_text(encoding="utf-8"))

    def ours() -> object:
        return read_log(path)

    findall(), ours()
    times = [(seconds(findall), seconds(ours)) for _ in range(PAIRS)]
    ratios = sorted(b / a for a, b in times)
    return {
        "findall seconds": round(statistics.median(a for a, _ in times), 4),
        "emacheck seconds": round(statistics.median(b for _, b in times), 4),
        "ratio median": round(statistics.median(ratios), 3),
        "ratio least": round(ratios[0], 3),
        "ratio most": round(ratios[-1], 3),
    }


def main() -> None:
    """Measure both formats and write the results."""
    result: dict[str, object] = {"machine": cpu_name(), "pairs": PAIRS, "megabytes": MEGABYTES, "pattern": PATTERNS}
    with tempfile.TemporaryDirectory() as place:
        for kind in WRITERS:
            path = Path(place) / "log"
            write(path, kind, MEGABYTES * 10**6)
            result[kind] = measured = compared(path, kind)
            write(path, kind, 10**9)
            done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
            records, peak, taken = done.stdout.split()
            measured |= {"records in 1 GB": int(records), "peak MiB for 1 GB": int(peak)}
            measured["seconds for 1 GB"] = round(float(taken), 1)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
