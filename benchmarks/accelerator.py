"""An accelerator against the CPU of its own host: how the difference grows, what the audit says, seconds per iteration.

Trains the presets on the CPU and on the device in every precision that both have, audits the device in each, and stores
a reference bundle of it. Every step is a command that a user would type, and is kept when it is done: a second call goes
on with what is missing or failed. The device's trainings run one by one, because they are timed.

    python benchmarks/accelerator.py --device cuda
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerator_figures import audited_figures, equal, machine, trained_figures
from accelerator_page import write_page

HERE = Path(__file__).parent
ITERATIONS = {"fp32": 100, "tf32": 100, "bf16": 20, "fp16": 20}
LARGE_ITERATIONS = {"fp32": 20, "tf32": 20, "bf16": 10, "fp16": 5}
JUDGED = (0, 1, 3)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command; ``place`` exists when it is done."""

    name: str
    place: Path
    arguments: tuple[str, ...]
    exit_codes: tuple[int, ...] = (0,)
    keep: str = ""

    @property
    def done(self) -> bool:
        """Whether there is a result."""
        return self.place.exists()

    def run(self) -> None:
        """Run the command, keep what it said, and leave no half of a result."""
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "emacheck", *self.arguments],
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = self.place.parent / f"{self.place.name}.said.txt"
        said.parent.mkdir(parents=True, exist_ok=True)
        said.write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode not in self.exit_codes and self.place.exists():
            self.place.rename(self.place.with_name(f"{self.place.name}.failed-{time.time_ns()}"))
        elif self.keep:
            self.place.write_text(done.stdout, encoding="utf-8")
        last = (done.stdout if done.returncode in self.exit_codes else done.stderr).strip().splitlines()[-1:]
        print(
            f"{time.perf_counter() - started:6.1f} s  exit {done.returncode}  {self.name}  {''.join(last)[:160]}",
            flush=True,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured where."""

    device: str
    presets: tuple[str, ...]
    precisions: tuple[str, ...]
    most: int
    repeats: int
    threads: int
    batches: int = 3
    work: Path
    references: Path

    def iterations(self, preset: str, precision: str) -> int:
        """Return how long a training is."""
        return min(self.most, (ITERATIONS if preset == "smoke" else LARGE_ITERATIONS)[precision])

    def reference(self, preset: str, precision: str) -> Path:
        """Return where the CPU's training is; no CPU computes in TF32, and the reference of that is fp32."""
        return self.work / preset / f"cpu-{'fp32' if precision == 'tf32' else precision}"

    def candidate(self, preset: str, precision: str) -> Path:
        """Return where the device's training is."""
        return self.work / preset / f"{self.device}-{precision}"

    def audit(self, preset: str, precision: str) -> Path:
        """Return where the report of the audit is."""
        return self.work / preset / f"audit-{precision}.json"

    @property
    def repeat(self) -> Path:
        """Where the second, equal training on the device is."""
        return self.work / "smoke" / f"{self.device}-fp32-again"

    @property
    def bundle(self) -> Path:
        """Where the reference bundle of the device is."""
        return self.references / "emanet_r50-d8_smoke" / f"{self.device}-fp32"

    def trained(self, preset: str, device: str, precision: str) -> tuple[str, ...]:
        """Return the options that describe a training."""
        return (
            "--preset", preset, "--device", device, "--precision", precision,
            "--iters", str(self.iterations(preset, precision)), "--threads", str(self.threads),
        )  # fmt: skip

    def make(self, place: Path, preset: str, device: str, precision: str) -> Step:
        """Return the step that trains without judging."""
        arguments = ("reference", "make", *self.trained(preset, device, precision))
        where = ("--into", str(place.parent.parent), "--name", f"{preset}/{place.name}")
        return Step(name=f"train {preset}, {place.name}", place=place, arguments=(*arguments, *where))

    def on_the_cpu(self) -> list[Step]:
        """Return the trainings of the references."""
        names = {
            (preset, self.reference(preset, precision)) for preset in self.presets for precision in self.precisions
        }
        return [
            self.make(place, preset, "cpu", place.name.removeprefix("cpu-"))
            for preset, place in sorted(names, key=lambda name: (name[0] == "smoke", name[1].name))
        ]

    def on_the_device(self) -> list[Step]:
        """Return the trainings of the device: judged against the CPU's, where a reference of the same precision can be."""
        steps = []
        for preset in self.presets:
            for precision in self.precisions:
                place = self.candidate(preset, precision)
                if precision == "tf32":
                    steps.append(self.make(place, preset, self.device, precision))
                    continue
                judged = ("--no-audit", "--reference", str(self.reference(preset, precision)), "--work-dir", str(place))
                arguments = ("run", *self.trained(preset, self.device, precision), *judged)
                steps.append(
                    Step(name=f"run {preset}, {place.name}", place=place, arguments=arguments, exit_codes=JUDGED)
                )
        if "smoke" in self.presets and "fp32" in self.precisions:
            steps.append(self.make(self.repeat, "smoke", self.device, "fp32"))
        return steps

    def at_last(self) -> list[Step]:
        """Return the bundle and the audits."""
        steps = []
        if self.repeats:
            made = ("reference", "make", "--device", self.device, "--iters", str(min(self.most, 100)))
            options = ("--repeats", str(self.repeats), "--into", str(self.references))
            steps.append(Step(name="store the reference bundle", place=self.bundle, arguments=(*made, *options)))
        for preset in self.presets:
            for precision in self.precisions:
                large = preset != "smoke"
                if large and precision != "fp32":
                    continue
                place = self.audit(preset, precision)
                batches = ("--batches", "1" if large else str(self.batches), "--threads", str(self.threads))
                arguments = ("audit", "--preset", preset, "--device", self.device, "--precision", precision, *batches)
                steps.append(
                    Step(
                        name=f"audit {preset}, {precision}", place=place, arguments=(*arguments, "--json"),
                        exit_codes=JUDGED, keep="stdout",
                    )
                )  # fmt: skip
        return steps


def carry_out(steps: Iterable[Step], *, at_once: int, until: float) -> None:
    """Run the steps that are not done; none is started after the time is up."""

    def one(step: Step) -> None:
        if step.done:
            return
        if time.monotonic() < until:
            step.run()
        else:
            print(f"     left out: {step.name}", flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, steps))


def figures(plan: Plan) -> dict[str, Any]:
    """Return everything that is there to be told."""
    result: dict[str, Any] = {"device": plan.device, "trainings": {}, "audits": {}, "missing": []}
    for preset in plan.presets:
        for precision in plan.precisions:
            reference, candidate = plan.reference(preset, precision), plan.candidate(preset, precision)
            name = f"{preset}, {precision}"
            if reference.exists() and candidate.exists():
                result["trainings"][name] = trained_figures(reference, candidate)
                result["machine"] = machine(reference, candidate)
            if plan.audit(preset, precision).exists():
                result["audits"][name] = audited_figures(plan.audit(preset, precision))
    first = plan.candidate("smoke", "fp32")
    if first.exists() and plan.repeat.exists():
        result["a second training is equal in every bit"] = equal(first, plan.repeat)
    tensor_floats = plan.candidate("smoke", "tf32")
    if first.exists() and tensor_floats.exists():
        result["tf32 against fp32 on the device"] = trained_figures(first, tensor_floats)
    steps = (*plan.on_the_cpu(), *plan.on_the_device(), *plan.at_last())
    result["missing"] = [step.name for step in steps if not step.done]
    return result


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", required=True, help="the accelerator, such as cuda or sdaa")
    parser.add_argument("--presets", nargs="+", default=["smoke", "smoke-256x512"], choices=["smoke", "smoke-256x512"])
    parser.add_argument("--precisions", nargs="+", help="all that the device has by default")
    parser.add_argument("--iterations", type=int, default=100, help="at most so many of each training")
    parser.add_argument("--repeats", type=int, default=8, help="benign repeats in the bundle; 0 stores none")
    parser.add_argument("--batches", type=int, default=3, help="of each audit of the smoke preset")
    parser.add_argument("--notes", type=Path, help="Markdown that the page begins with")
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 2), help="of the CPU's side")
    parser.add_argument(
        "--at-once", type=int, default=max(1, (os.cpu_count() or 2) // 5), help="commands that are not timed"
    )
    parser.add_argument("--minutes", type=float, default=600.0, help="no step is started after so many")
    parser.add_argument("--work-dir", type=Path, help="where records are kept (work_dirs/accelerator-DEVICE)")
    parser.add_argument("--references", type=Path, default=HERE.parent / "references", help="folder of bundles")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of figures")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="folder of the page")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write figures and page."""
    given = parse(arguments)
    from emacheck.train.device.devices import parse_device

    plan = Plan(
        device=given.device,
        presets=tuple(given.presets),
        precisions=tuple(given.precisions or parse_device(given.device).kind.precisions),
        most=given.iterations,
        repeats=given.repeats,
        threads=given.threads,
        batches=given.batches,
        work=(given.work_dir or Path("work_dirs") / f"accelerator-{given.device}").resolve(),
        references=given.references.resolve(),
    )
    until = time.monotonic() + 60 * given.minutes
    carry_out(plan.on_the_cpu(), at_once=given.at_once, until=until)
    carry_out(plan.on_the_device(), at_once=1, until=until)
    carry_out(plan.at_last(), at_once=given.at_once, until=until)
    result = figures(plan)
    if given.notes is not None:
        result["notes"] = given.notes.read_text(encoding="utf-8")
    stored = given.results / f"accelerator_{plan.device}.json"
    stored.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if result["trainings"]:
        write_page(result, given.docs)
    print(
        f"{stored}: {len(result['trainings'])} trainings, {len(result['audits'])} audits; missing: {result['missing'] or 'nothing'}"
    )
    return 1 if result["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
