"""Real trainings of the smoke preset, recorded once and stored small; the study of the rules reads them.

``python recorded_runs.py [--jobs N] [WORK_DIRECTORY]`` trains every variation that is not stored yet.
"""

import argparse
import itertools
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emacheck.curve import Curve
from emacheck.record import Record

HERE = Path(__file__).parent
STORE = HERE / "recorded"
# Single losses and accuracies say what the joined loss says, and times differ from run to run.
KEPT = {"loss", "grad_norm", "lr"}


def store(run: Path, name: str, kind: str) -> None:
    """Store a run directory's numbers in one small file."""
    from emacheck.logs import read_log

    record = read_log(run)
    if not record.complete or record.initial_state is None:
        raise SystemExit(f"{name}: the run is not complete, see {run}")
    (scalars,) = run.glob("mmengine/*/vis_data/scalars.json")
    validation = read_log(scalars).validation
    content = {
        "name": name,
        "kind": kind,
        "initial_state": record.initial_state,
        "batches": [each[:8] for each in record.batches],
        "curves": {n: c.values.tolist() for n, c in record.curves.items() if n in KEPT},
        "validation": {n: [c.iterations.tolist(), c.values.tolist()] for n, c in validation.items() if "time" not in n},
        "versions": record.provenance["versions"],
        "host": record.provenance["host"],
    }
    STORE.mkdir(exist_ok=True)
    packed = lzma.compress(json.dumps(content).encode(), preset=9)
    temporary = STORE / f".{run.name}"
    temporary.write_bytes(packed)
    temporary.replace(STORE / f"{run.name}.json.xz")


def load(slug: str) -> Record:
    """Return a stored run as a record at full precision."""
    content = json.loads(lzma.decompress((STORE / f"{slug}.json.xz").read_bytes()))
    curves = {
        name: Curve(name=name, iterations=range(1, len(values) + 1), values=values)  # type: ignore[arg-type]
        for name, values in content["curves"].items()
    }
    validation = {
        name: Curve(name=name, iterations=iterations, values=values)
        for name, (iterations, values) in content["validation"].items()
    }
    return Record(
        name=content["name"],
        format="recorded run",
        curves=curves,
        validation=validation,
        initial_state=content["initial_state"],
        batches=tuple(content["batches"]),
    )


def train(name: str, work: Path) -> None:
    """Train one variation and store it, unless it is stored."""
    from variations import ALL

    from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
    from emacheck.train.launching.supervision import WORKER_ENVIRONMENT
    from emacheck.train.request import TrainingRequest

    variation = ALL[name]
    if (STORE / f"{variation.slug}.json.xz").exists():
        return
    directory = work / variation.slug
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    data = ensure_dataset(cache_root() / DEFAULT_NAME)
    TrainingRequest(
        preset="smoke",
        config=None,
        data_root=str(data.root),
        data_hash=data.data_hash,
        iterations=variation.iterations,
        seed=variation.seed,
        cfg_options=variation.options,
    ).write(directory)
    with (directory / "worker.log").open("wb") as log:
        command = [sys.executable, str(HERE / "recorded_training.py"), name, str(directory)]
        environment = {**WORKER_ENVIRONMENT, **os.environ}
        # The worker ends when its standard input does, so it gets a pipe that stays open.
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment)
        code = worker.wait()
    if code:
        print(f"{name}: the worker ended with exit code {code}, see {directory / 'worker.log'}", flush=True)
        return
    store(directory, name, variation.kind)
    shutil.rmtree(directory)
    print(f"stored {name}", flush=True)


def main() -> None:
    """Train what is not stored, the kinds in turn, so that a part of the set is a fair part."""
    from variations import ALL, GROUPS

    from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", nargs="?", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side; all but one use a single thread")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="emacheck-recorded-"))
    ensure_dataset(cache_root() / DEFAULT_NAME)
    order = [each.name for group in itertools.zip_longest(*GROUPS) for each in group if each]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda name: train(name, work), order))
    missing = [name for name, each in ALL.items() if not (STORE / f"{each.slug}.json.xz").exists()]
    if missing:
        raise SystemExit(f"not stored: {', '.join(missing)}")


if __name__ == "__main__":
    main()
