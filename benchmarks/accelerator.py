"""An accelerator against the CPU of its own host: how the difference grows, what the audit says, seconds per iteration.

Trains the presets on the CPU and on the device in every precision that both have, audits the device in each, and stores
a reference bundle of it. Every step is a command that a user would type, and is kept when it is done: a second call goes
on with what is missing or failed. The device's trainings run one by one, because they are timed. What says most comes
first, and the figures are written after every step: where the time is up, or this is killed, nothing that was done is
lost. `python benchmarks/accelerator_page.py` makes the page of figures that were brought from elsewhere.

    python benchmarks/accelerator.py --device cuda
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerator_figures import audited_figures, equal, machine, trained_figures
from accelerator_page import write_page

HERE = Path(__file__).parent
ITERATIONS = {"fp32": 100, "tf32": 100, "bf16": 20, "fp16": 20}
LARGE_ITERATIONS = {"fp32": 20, "tf32": 20, "bf16": 10, "fp16": 5}
JUDGED = (0, 1, 3)
# A step that still runs so many seconds after the time is up is ended, and has as many to end what it has started.
GRACE_SECONDS = 30.0
LAST_WORDS = 3
UNRANKED = "--no-operators"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command; ``place`` exists when it is done, with the file in it that is written last where one is named."""

    name: str
    place: Path
    arguments: tuple[str, ...]
    exit_codes: tuple[int, ...] = (0,)
    last_file: str = ""
    keep: bool = False

    @property
    def done(self) -> bool:
        """Whether there is a result."""
        return (self.place / self.last_file).exists()

    @property
    def said(self) -> Path:
        """Where is kept what the command said."""
        return self.place.with_name(f"{self.place.name}.said.txt")

    @property
    def last_words(self) -> str | None:
        """What a command that failed said last; None if it was not run."""
        if self.done or not self.said.exists():
            return None
        lines = [line.strip() for line in self.said.read_text(encoding="utf-8").splitlines() if line.strip()]
        return " / ".join(lines[-LAST_WORDS:])

    def run(self, seconds: float = float("inf")) -> None:
        """Run the command for at most so many seconds, keep what it said, and leave no half of a result."""
        started = time.perf_counter()
        self.said.parent.mkdir(parents=True, exist_ok=True)
        self._set_aside()
        code, out, err = ended([sys.executable, "-m", "emacheck", *self.arguments], seconds)
        good = code in self.exit_codes
        self.said.write_text(f"{out}{err}\nexit code {code}\n", encoding="utf-8")
        if not good:
            self._set_aside()
        elif self.keep:
            write(self.place, out)
        last = (out if good else err).strip().splitlines()[-1:]
        print(f"{time.perf_counter() - started:6.1f} s  exit {code}  {self.name}  {''.join(last)[:160]}", flush=True)

    def _set_aside(self) -> None:
        """Move what is no result away, where a command that failed or was killed has left it."""
        if self.place.exists():
            self.place.rename(self.place.with_name(f"{self.place.name}.failed-{time.time_ns()}"))


def ended(command: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """Return exit code and outputs of a command, which is ended after so many seconds."""
    # Files and no pipes: what a command has started may keep a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, stdout=out, stderr=err)
        try:
            process.wait(None if seconds == float("inf") else max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        code = process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return code, texts[0], texts[1]


def write(place: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    half = place.with_name(f"{place.name}.half")
    half.write_text(text, encoding="utf-8")
    half.replace(place)


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
    minutes: float = 600.0
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

    def patience(self, most: float, share: float) -> tuple[str, str]:
        """Return the option that ends a command that hangs before it has taken more than its share of the time."""
        return "--timeout", f"{max(1.0, min(most, share * 60 * self.minutes)):g}"

    def trained(self, preset: str, device: str, precision: str) -> tuple[str, ...]:
        """Return the options that describe a training."""
        return (
            "--preset", preset, "--device", device, "--precision", precision,
            "--iters", str(self.iterations(preset, precision)), "--threads", str(self.threads),
            *self.patience(600.0, 0.25),
        )  # fmt: skip

    def make(self, place: Path, preset: str, device: str, precision: str) -> Step:
        """Return the step that trains without judging."""
        arguments = ("reference", "make", *self.trained(preset, device, precision))
        where = ("--into", str(place.parent.parent), "--name", f"{preset}/{place.name}")
        return Step(name=f"train {preset}, {place.name}", place=place, arguments=(*arguments, *where))

    def on_the_cpu(self, preset: str) -> list[Step]:
        """Return the trainings of the references."""
        places = {self.reference(preset, precision) for precision in self.precisions}
        longest_first = sorted(places, key=lambda place: (place.name != "cpu-fp32", place.name))
        return [self.make(place, preset, "cpu", place.name.removeprefix("cpu-")) for place in longest_first]

    def on_the_device(self, preset: str) -> list[Step]:
        """Return the trainings of the device: judged against the CPU's, where a reference of the same precision can be."""
        steps = []
        for precision in self.precisions:
            place = self.candidate(preset, precision)
            if precision == "tf32":
                steps.append(self.make(place, preset, self.device, precision))
                continue
            judged = ("--no-audit", "--reference", str(self.reference(preset, precision)), "--work-dir", str(place))
            steps.append(
                Step(
                    name=f"run {preset}, {place.name}", place=place, exit_codes=JUDGED, last_file="report.json",
                    arguments=("run", *self.trained(preset, self.device, precision), *judged),
                )
            )  # fmt: skip
        if preset == "smoke" and "fp32" in self.precisions:
            steps.append(self.make(self.repeat, "smoke", self.device, "fp32"))
        return steps

    def audits(self, preset: str) -> list[Step]:
        """Return the audits: in every precision of the smoke preset, of a larger one in fp32."""
        steps = []
        large = preset != "smoke"
        for precision in self.precisions:
            if large and precision != "fp32":
                continue
            batches = ("--batches", "1" if large else str(self.batches), "--threads", str(self.threads))
            arguments = ("audit", "--preset", preset, "--device", self.device, "--precision", precision, *batches)
            steps.append(
                Step(
                    name=f"audit {preset}, {precision}", place=self.audit(preset, precision), exit_codes=JUDGED, keep=True,
                    arguments=(*arguments, *self.patience(1800.0, 1.0 if large else 0.5), UNRANKED, "--json"),
                )
            )  # fmt: skip
        return steps

    def rankings(self) -> list[Step]:
        """Return the audits that failed so far, once more and with their operators: to rank them takes minutes."""
        return [
            replace(
                step, name=f"operators of {step.name}", place=step.place.with_name(f"operators-of-{step.place.name}"),
                arguments=tuple(each for each in step.arguments if each != UNRANKED),
            )
            for preset in self.presets for step in self.audits(preset) if step.done and has_failed(step.place)
        ]  # fmt: skip

    def bundles(self) -> list[Step]:
        """Return the bundle."""
        if not self.repeats:
            return []
        made = ("reference", "make", "--device", self.device, "--iters", str(min(self.most, 100)))
        options = ("--repeats", str(self.repeats), "--into", str(self.references), *self.patience(600.0, 0.25))
        return [Step(name="store the reference bundle", place=self.bundle, arguments=(*made, *options))]

    def groups(self) -> Iterator[tuple[list[Step], bool]]:
        """Yield all steps, and of each group whether its steps may run beside each other: what says most comes first."""
        small = [preset for preset in self.presets if preset == "smoke"]
        large = [preset for preset in self.presets if preset != "smoke"]
        for preset in (*small, *large):
            yield [*(self.audits(preset) if preset in small else ()), *self.on_the_cpu(preset)], True
            yield self.on_the_device(preset), False
        # Sixteen times as many pixels in float64 take minutes, and nothing waits for them.
        yield [step for preset in large for step in self.audits(preset)], True
        yield self.rankings(), True
        yield self.bundles(), False


def has_failed(audit: Path) -> bool:
    """Tell whether the report of an audit can be read and says FAIL."""
    try:
        return bool(json.loads(audit.read_text(encoding="utf-8"))["outcome"] == "FAIL")
    except (ValueError, KeyError):
        return False


def carry_out(steps: Iterable[Step], *, at_once: int, until: float, then: Callable[[], None] = lambda: None) -> None:
    """Run the steps that are not done, and do something after each; none is started after the time is up."""
    one_by_one = threading.Lock()

    def one(step: Step) -> None:
        if step.done:
            return
        if time.monotonic() >= until:
            print(f"     left out: {step.name}", flush=True)
            return
        try:
            step.run(until + GRACE_SECONDS - time.monotonic())
            with one_by_one:
                then()
        except Exception as error:
            print(f"     {step.name}: {type(error).__name__}: {error}", flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, steps))


def figures(plan: Plan) -> dict[str, Any]:
    """Return everything that is there to be told."""
    steps = {step.place: step for group, _ in plan.groups() for step in group}
    result: dict[str, Any] = {"device": plan.device, "trainings": {}, "audits": {}}
    failed = {step.name: words for step in steps.values() if (words := step.last_words) is not None}

    def tell(where: dict[str, Any], name: str, told: Callable[..., Any], *places: Path) -> None:
        if not all(steps[place].done for place in places):
            return
        try:
            where[name] = told(*places)
        except Exception as error:  # what cannot be read must not hide the rest
            failed[f"figures of {name}"] = f"{type(error).__name__}: {error}"

    for preset in plan.presets:
        for precision in plan.precisions:
            pair = plan.reference(preset, precision), plan.candidate(preset, precision)
            tell(result["trainings"], f"{preset}, {precision}", trained_figures, *pair)
            tell(result, "machine", machine, *pair)
            if plan.audit(preset, precision) in steps:
                tell(result["audits"], f"{preset}, {precision}", audited_figures, plan.audit(preset, precision))
    first, tensor_floats = plan.candidate("smoke", "fp32"), plan.candidate("smoke", "tf32")
    if plan.repeat in steps:
        tell(result, "a second training is equal in every bit", equal, first, plan.repeat)
    if first in steps and tensor_floats in steps:
        tell(result, "tf32 against fp32 on the device", trained_figures, first, tensor_floats)
    result["missing"] = [step.name for step in steps.values() if not step.done]
    return result | ({"failed": failed} if failed else {})


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
    parser.add_argument(
        "--minutes", type=float, default=600.0, help="no step is started after so many, and none goes on for long"
    )
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
        minutes=given.minutes,
        work=(given.work_dir or Path("work_dirs") / f"accelerator-{given.device}").resolve(),
        references=given.references.resolve(),
    )
    until, stored = time.monotonic() + 60 * given.minutes, given.results / f"accelerator_{plan.device}.json"
    notes = {} if given.notes is None else {"notes": given.notes.read_text(encoding="utf-8")}
    given.results.mkdir(parents=True, exist_ok=True)

    def store() -> dict[str, Any]:
        result = figures(plan) | notes
        write(stored, json.dumps(result, indent=1) + "\n")
        return result

    for group, beside in plan.groups():
        carry_out(group, at_once=given.at_once if beside else 1, until=until, then=store)
    result = store()
    if result["trainings"]:
        write_page(result, given.docs)
    print(
        f"{stored}: {len(result['trainings'])} trainings, {len(result['audits'])} audits; missing: {result['missing'] or 'nothing'}"
    )
    return 1 if result["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
