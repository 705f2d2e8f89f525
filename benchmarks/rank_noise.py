"""How far the ranks of benign runs differ from each other, and how far their means; writes the table of docs/rules-paired.md.

    python benchmarks/rank_noise.py [--render] [DIRECTORY]

The smoke preset in two processes, each with one image of the joined batch of two, which is the smallest batch that a rank
can have; the runs differ in their number of threads. The runs that are in DIRECTORY already are not trained again.
``results/rank_noise.json`` holds the mean relative errors of each pair of runs.
"""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from marked import between_marks

from emacheck import Record, compare, read_log
from emacheck.judge.comparison import Comparison

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "rank_noise.json", HERE.parent / "docs" / "rules-paired.md"
BEGIN, END = "<!-- measured: begin, written by benchmarks/rank_noise.py -->", "<!-- measured: end -->"
THREADS = (1, 2, 3)
ITERATIONS = 100
# Rounding has grown by then as far as it does.
LATE = 20


def trained(place: Path, threads: int) -> Record:
    """Return the record of a run with so many threads for each of its two processes."""
    directory = place / f"{threads}-threads"
    if not directory.exists():
        options = ["--threads", str(threads), "--iters", str(ITERATIONS), "--no-audit", "--work-dir", str(directory)]
        options += ["--nproc-per-node", "2", "--cfg-options", "train_dataloader.batch_size=1"]
        subprocess.run([sys.executable, "-m", "emacheck", "run", "--device", "cpu", *options], check=False)
    return read_log(directory)


def measure(place: Path) -> dict[str, Any]:
    """Hold every run against every other one, as a whole and rank by rank."""
    records = {threads: trained(place, threads) for threads in THREADS}
    pairs = {}
    for one, other in itertools.permutations(THREADS, 2):
        comparison = compare(records[one], records[other])
        if not (comparison.paired and comparison.ranks):
            raise SystemExit(f"{one} and {other} threads: the runs are not paired rank by rank")
        ranks = [_error(comparison.of_rank(rank)) for rank in comparison.ranks]
        late = [_error(comparison.of_rank(rank), since=ITERATIONS - LATE) for rank in comparison.ranks]
        pairs[f"{one} against {other} threads"] = {"mean": _error(comparison), "ranks": ranks, "late": late}
    return {"iterations": ITERATIONS, "late": LATE, "pairs": pairs}


def _error(comparison: Comparison, since: int = 0) -> float:
    paired = comparison.curve("loss")
    return float(np.mean(np.abs(paired.relative_difference[paired.iterations > since])))


def table(result: dict[str, Any]) -> list[str]:
    """Return what was measured, in a sentence and a table."""
    worst, late = (max(max(pair[key]) for pair in result["pairs"].values()) for key in ("ranks", "late"))
    of_means = max(pair["mean"] for pair in result["pairs"].values())
    rows = [
        f"| {name} | {pair['mean']:.2g} | {_listed(pair['ranks'])} | {_listed(pair['late'])} |"
        for name, pair in result["pairs"].items()
    ]
    return [
        f"Smoke preset in two processes with one image each, {result['iterations']} iterations on a CPU; the runs differ in "
        f"their threads, and every run is held against every other one. The largest mean relative error of a rank is "
        f"{worst:.2g}, over the last {result['late']} iterations alone {late:.2g}; that of the mean of the ranks is {of_means:.2g}.",
        "",
        f"| runs | mean relative error of the mean | of ranks 0, 1 | of ranks 0, 1, last {result['late']} iterations |",
        "|---|---:|---:|---:|",
        *rows,
    ]


def _listed(errors: list[float]) -> str:
    return ", ".join(f"{error:.2g}" for error in errors)


def render(result: dict[str, Any]) -> str:
    """Return the page with the table between its marks written anew."""
    return between_marks(PAGE.read_text(encoding="utf-8"), (BEGIN, END), table(result))


def main() -> None:
    """Measure, unless asked to write the page only."""
    places = [argument for argument in sys.argv[1:] if argument != "--render"]
    if "--render" not in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as scratch:
            result = measure(Path(places[0] if places else scratch))
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
