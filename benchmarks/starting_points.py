"""How far benign variations move the first three iterations, from several starting points.

    python benchmarks/starting_points.py

Writes ``results/starting_points.json``: loss and gradient norm of the reference and of its benign variations from each
starting point of the smoke preset. ``rules_study.py`` fits the limits of ``first_iterations`` to those of the set
``calibration``, and reports those of the set ``reported``, which have other starting points and other last bits.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audit_power import THREADS, machine, prepare, request

RESULTS = Path(__file__).parent / "results" / "starting_points.json"
ITERATIONS = 3
# Iterations beyond the 30 after which the audited state is taken.
FURTHER = (50, 100, 300)
CALIBRATION, REPORTED = ("30 iterations", "130 iterations"), 20


def starting_points(training: Any, stock: Any) -> Iterator[tuple[str, Any, list[Any]]]:
    """Yield name, subject and batches of each starting point."""
    from emacheck.audit.iteration.subject import Subject
    from emacheck.audit.lockstep.end_to_end import Conditions
    from emacheck.audit.selftest.curves import train

    batches = iter(training.batches)

    def some(count: int) -> list[Any]:
        return [next(batches) for _ in range(count)]

    def frozen(candidate: Any) -> Any:
        return Subject(model=candidate.model, optimizer=candidate.optimizer, loss=training.subject.loss)

    yield "30 iterations", training.subject, some(ITERATIONS)
    yield "30 iterations, other batches", training.subject, some(ITERATIONS)
    trained, done = training.subject.twin(), 0
    for further in FURTHER:
        train(trained, some(further - done), Conditions(seed=further))
        done = further
        yield f"{30 + further} iterations", frozen(trained), some(ITERATIONS)
    name = f"new heads on the backbone of {30 + done} iterations"
    yield name, with_new_heads(stock, trained.model), some(ITERATIONS)


def with_new_heads(stock: Any, trained: Any) -> Any:
    """Return a network whose backbone is trained and whose heads and optimizer are new, as a finetuning starts."""
    from emacheck.audit.iteration.subject import Subject
    from emacheck.cli.audit.training import training_loss

    stock.model.backbone.load_state_dict(trained.backbone.state_dict())
    return Subject(model=stock.model, optimizer=stock.optim_wrapper.optimizer, loss=training_loss)


def measure(training: Any, stock: Any) -> list[dict[str, Any]]:
    """Train the reference and its variations from each starting point."""
    from emacheck.audit.lockstep.end_to_end import Conditions
    from emacheck.audit.lockstep.variations import PLAIN
    from emacheck.audit.selftest.curves import train
    from emacheck.audit.selftest.trials import benign_variations, repeats

    found = []
    for name, subject, batches in starting_points(training, stock):
        fitted = name in CALIBRATION
        others = repeats(THREADS) if fitted else benign_variations(REPORTED, threads=THREADS)
        rows = []
        for variation in (PLAIN, *others):
            made = train(subject.twin(), batches, Conditions(variation=variation))
            rows.append({"variation": str(variation), "loss": made.loss, "grad_norm": made.grad_norm})
        found.append({"start": name, "set": "calibration" if fitted else "reported", "trainings": rows})
        print(f"{name}: {len(rows)} trainings", flush=True)
    return found


def main() -> None:
    """Prepare the starting points, measure and write."""
    from emacheck.cli.audit.training import build_runner

    # mmengine goes on writing to where its first runner wrote.
    with tempfile.TemporaryDirectory() as scratch:
        stock = build_runner(request(), Path(scratch))
        write(prepare(max(FURTHER) + ITERATIONS * (len(FURTHER) + 3)), stock)


def write(training: Any, stock: Any) -> None:
    """Measure and write."""
    about = {name: value for name, value in machine(training).items() if name != "batch_hashes"}
    result = {"starts": measure(training, stock), "machine": about}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
