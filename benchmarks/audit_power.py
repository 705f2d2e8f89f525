"""What the rules find and how often they are wrong; writes benchmarks/results/audit_power_*.json, and the page from them.

    python benchmarks/audit_power.py [--precision fp32|bf16|fp16] [--benign 200] [--calibration 60]
    python benchmarks/audit_power.py --curves [--precision fp32] [--benign 40]
    python benchmarks/audit_power.py --render

The first makes ``audit_power_PRECISION.json``: every fault, and benign variations, through the audit. The second makes
``audit_power_curves_PRECISION.json``: the same faults, and benign variations, trained for 20 iterations; the curves are
stored, and the rules judge them when the page is written. The limits were fixed before any of these trials was made; the reported benign trials use other seeds than the calibration.
Results are kept after every group of trials, and a second call goes on where the first one stopped, also with more trials or
faults than before, unless the state that is audited is another one.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
GROUP = 20
THREADS = 2
BATCHES = 3
# For the cost: audits, and plain iterations after each of them.
AUDITS, PLAIN_ITERATIONS = 5, 5
# As `emacheck selftest` does by default.
ITERATIONS = 20
# A batch that is not among those reported, and seeds of its own.
CALIBRATION_BATCH, CALIBRATION_SEED = 3, 1


def main() -> None:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--benign", type=int)
    parser.add_argument("--calibration", type=int, default=60)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if options.benign is None:
        options.benign = 40 if options.curves else 200
    if not options.render:
        measured, batches = (measure_curves, ITERATIONS) if options.curves else (measure, BATCHES + 1)
        file = RESULTS / f"audit_power_{'curves_' if options.curves else ''}{options.precision}.json"
        training = prepare(batches)
        with precision_lists(options.precision):
            measured(training, stored_before(file, training), file, options)
    from power_page import write_page

    write_page()


def precision_lists(precision: str) -> Any:
    """Return a context that registers autocast's lists once, instead of once for every module that runs."""
    from emacheck.audit.arithmetic.precision import Precision

    return Precision(name=precision).lists()


def stored_before(file: Path, training: Any) -> dict[str, Any]:
    """Return what is stored; of what was made from another state, on another machine or by other code, only what it cost."""
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"trials": []}
    if stored.get("machine", {}).get("state_hash") == training.state_hash:
        return stored
    costs = [*stored.get("earlier_costs", []), *([stored["cost"]] if "cost" in stored else [])]
    return {"trials": [], "earlier_costs": costs} if costs else {"trials": []}


def store(stored: dict[str, Any], file: Path, training: Any) -> None:
    """Write down what there is."""
    before = stored.get("machine", {}).get("peak_memory_gib", 0.0)
    stored["machine"] = machine(training)
    stored["machine"]["peak_memory_gib"] = max(before, stored["machine"]["peak_memory_gib"])
    file.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def cost(training: Any) -> dict[str, Any]:
    """Measure the default audit as a user starts it, and plain iterations of the same training between."""
    command = [sys.executable, "-m", "emacheck", "audit", "--json"]
    model, optimizer, batch = training.subject.model, training.subject.optimizer, training.batches[0]
    walls, results, times = [], [], []
    for _ in range(AUDITS):
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        walls.append(round(time.monotonic() - started, 1))
        results.append(json.loads(done.stdout))
        for _ in range(PLAIN_ITERATIONS):
            started = time.monotonic()
            optimizer.zero_grad()
            sum(training.subject.loss(model, batch).values()).backward()
            optimizer.step()
            times.append(time.monotonic() - started)
    return {
        "cpu": machine(training)["cpu"],
        "batches": BATCHES,
        "all_wall_seconds": walls,
        "wall_seconds": statistics.median(walls),
        "audit_seconds": statistics.median(result["seconds"] for result in results),
        "tensors": len(results[0]["tensors"]),
        "peak_memory_gib": round(max(result["peak_memory_bytes"] for result in results) / 2**30, 2),
        "plain_iteration_seconds": round(statistics.median(times), 3),
    }


def planned(options: argparse.Namespace) -> list[tuple[str, int, Any]]:
    """Return all trials: part, index of the batch, and the fault's name or the variation."""
    from emacheck.audit.faults import catalogue
    from emacheck.audit.selftest.trials import benign_variations

    work: list[tuple[str, int, Any]] = [("fault", 0, name) for name in catalogue()]
    for at, variation in enumerate(benign_variations(options.benign, precision=options.precision, threads=THREADS)):
        work.append(("benign", at % BATCHES, variation))
    calibration = benign_variations(
        options.calibration, precision=options.precision, first=CALIBRATION_SEED, threads=THREADS
    )
    return work + [("calibration", CALIBRATION_BATCH, variation) for variation in calibration]


def measure(training: Any, stored: dict[str, Any], file: Path, options: argparse.Namespace) -> None:
    """Make all trials of the audit that are not stored yet."""
    reference = plain = None
    done = {(trial["part"], trial["batch"], trial["name"]) for trial in stored["trials"]}
    todo = [each for each in planned(options) if (each[0], each[1] + 1, str(each[2])) not in done]
    for index in sorted({each[1] for each in todo}):
        mine = [each for each in todo if each[1] == index]
        reference = None
        while mine:
            group, mine = mine[:GROUP], mine[GROUP:]
            if reference is None:
                reference, plain = prepare_reference(training, index, options.precision)
            for part, _, what in group:
                stored["trials"].append({"part": part, **trial(part, what, reference, plain)})
            store(stored, file, training)
            print(f"batch {index + 1}: {len(mine)} trials left", flush=True)
    if "cost" not in stored and options.precision == "fp32":
        reference = None
        stored["cost"] = cost(training)
        store(stored, file, training)


def measure_curves(training: Any, stored: dict[str, Any], file: Path, options: argparse.Namespace) -> None:
    """Train the reference, its repeats, benign variations and all faults that are not stored yet."""
    from emacheck.audit.arithmetic.precision import Precision
    from emacheck.audit.faults import catalogue
    from emacheck.audit.lockstep.end_to_end import Conditions
    from emacheck.audit.lockstep.variations import PLAIN
    from emacheck.audit.selftest.curves import train, train_with
    from emacheck.audit.selftest.trials import benign_variations, repeats
    from emacheck.strict_json import strict

    subject, faults = training.subject, catalogue()
    how = Conditions(precision=Precision(name=options.precision))
    work: list[tuple[str, Any]] = [("reference", PLAIN)]
    work += [("repeat", variation) for variation in repeats(THREADS)]
    work += [("benign", variation) for variation in benign_variations(options.benign, threads=THREADS)]
    # The first severity of each fault comes first, so that a measurement that was ended early has tried every function.
    rungs: Counter[str] = Counter()
    ladder = {}
    for name, each in faults.items():
        ladder[name] = rungs[each.apply.__name__]
        rungs[each.apply.__name__] += 1
    work += [("fault", name) for name in sorted(faults, key=ladder.__getitem__)]
    done = {(trial["part"], trial["name"]) for trial in stored["trials"]}
    todo = [each for each in work if (each[0], str(each[1])) not in done]
    for at, (part, what) in enumerate(todo, 1):
        started = time.monotonic()
        if part == "fault":
            made = train_with(faults[what], subject, training.batches, how)
        else:
            made = train(subject.twin(), training.batches, replace(how, variation=what))
        row = {"part": part, "name": str(what), "seconds": round(time.monotonic() - started, 2)}
        stored["trials"].append({**row, "training": None if made is None else strict(asdict(made))})
        if at % GROUP == 0 or at == len(todo):
            store(stored, file, training)
            print(f"{len(todo) - at} trainings left", flush=True)


def request() -> Any:
    """Return the smoke preset on the synthetic data."""
    from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
    from emacheck.train.request import TrainingRequest

    place = cache_root() / DEFAULT_NAME
    data_hash = ensure_dataset(place).data_hash
    return TrainingRequest(
        preset="smoke", config=None, cfg_options=(), data_root=str(place), data_hash=data_hash, threads=THREADS
    )


def prepare(batches: int) -> Any:
    """Bring the smoke preset into the state that is audited."""
    from emacheck.cli.audit.training import prepare_training

    with tempfile.TemporaryDirectory() as scratch:
        return prepare_training(request(), batches=batches, scratch=Path(scratch))


def prepare_reference(training: Any, index: int, precision: str) -> tuple[Any, Any]:
    """Run reference and arbiter on one batch."""
    from emacheck.audit.arithmetic.precision import Precision
    from emacheck.audit.judging.reference import Plan, Reference
    from emacheck.audit.selftest.trials import plain_fingerprint
    from emacheck.cli.audit.training import invariants

    plan = Plan(precision=Precision(name=precision), evaluation=index == 0, invariants=invariants())
    reference = Reference(
        subject=training.subject, batch=training.batches[index], plan=plan, number=index + 1, keep=True
    )
    return reference, plain_fingerprint(reference)


def trial(part: str, what: Any, reference: Any, plain: Any) -> dict[str, Any]:
    """Make one trial."""
    from emacheck.audit.faults import catalogue
    from emacheck.audit.selftest.trials import try_fault, try_variation
    from emacheck.strict_json import strict

    started = time.monotonic()
    made = try_fault(reference, catalogue()[what], plain) if part == "fault" else try_variation(reference, what)
    fields: dict[str, Any] = strict({**asdict(made), "seconds": round(time.monotonic() - started, 2)})
    return fields


def machine(training: Any) -> dict[str, Any]:
    """Return what the numbers depend on."""
    from host import cpu_facts

    return {
        **cpu_facts(THREADS),
        "state_hash": training.state_hash,
        "batch_hashes": training.batch_hashes,
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


if __name__ == "__main__":
    main()
