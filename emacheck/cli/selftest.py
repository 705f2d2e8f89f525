"""``emacheck selftest``: faults and benign variations through every rule, to prove what each finds."""

import contextlib
import fnmatch
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emacheck.cli.audit.command import audited_request, audited_training_options
from emacheck.cli.audit.worker import candidate_device
from emacheck.cli.command_line import given_command
from emacheck.cli.judging import exit_code
from emacheck.cli.output_format import format_option
from emacheck.cli.outputs import check_outputs
from emacheck.errors import UsageError
from emacheck.strict_json import to_json
from emacheck.train.device.devices import PRECISIONS
from emacheck.train.launching.supervision import WORKER_ENVIRONMENT
from emacheck.train.packages import require_training_packages

if TYPE_CHECKING:
    from emacheck.audit.faults import Fault
    from emacheck.audit.selftest.curves import Training
    from emacheck.audit.selftest.trials import Selftest, Trial
    from emacheck.train.request import TrainingRequest

# A sort (repeat, fault or benign), and the name of the fault or the variation.
Work = tuple[str, Any]
Made = tuple["Trial | None", "Training | None"]


@click.command()
@click.option("--device", default="cpu", show_default=True, metavar="NAME[:INDEX]", help="Where candidates run.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Accepted.",
)
@click.option(
    "--faults", type=click.Path(path_type=Path), multiple=True, metavar="FILE.py", help="Add faults of your own."
)
@click.option("--only", metavar="GLOB", help="Only faults whose name matches, such as 'norm*'.")
@click.option("--list", "list_only", is_flag=True, help="List the faults and end.")
@click.option("--benign", default=20, show_default=True, type=click.IntRange(min=0), help="Benign trials.")
@click.option(
    "--curves",
    default=20,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Train each trial for N iterations and ask the curve rules as well; 0 asks the audit only.",
)
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes; about 8 GiB each.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.json", help="Write the result here as well.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw faults against rules.")
@format_option("text", "json")
@audited_training_options
def selftest(
    *,
    device: str,
    precision: str,
    faults: tuple[Path, ...],
    only: str | None,
    list_only: bool,
    benign: int,
    curves: int,
    jobs: int,
    output: Path | None,
    plot: Path | None,
    output_format: str,
    **options: Any,
) -> int:
    """Run faults and benign variations through every rule, and print what each finds and how often it is wrong.

    The audit decides: exit code 1 for a false alarm of it, or a fault that moves a gradient, update or buffer by 1 %
    and that it misses; exit code 3 if a fault changed no tensor at all.
    """
    if list_only:
        require_training_packages(("torch",), purpose="a list of the faults, which are functions on tensors,")
        _list(choose_faults(faults, only))
        return 0
    require_training_packages()
    check_outputs({"--output": output, "--plot": plot})
    chosen = choose_faults(faults, only)
    candidate_device(device, precision)
    setup = partial(_prepare, audited_request(options), device, precision, faults, curves)
    work = _planned(chosen, benign, curves, precision=precision, threads=options["threads"])
    # What mmengine and the device's libraries print is no part of the result.
    with contextlib.redirect_stdout(sys.stderr):
        made = list(_run(setup, work, jobs))
    result = _gathered(made, precision=precision, device=device, iterations=curves)
    _deliver(result, output, plot, as_json=output_format == "json")
    return exit_code(result.outcome)


def _planned(chosen: "dict[str, Fault]", benign: int, curves: int, *, precision: str, threads: int) -> list[Work]:
    from emacheck.audit.lockstep.variations import PLAIN
    from emacheck.audit.selftest.trials import benign_variations, repeats

    work: list[Work] = [("repeat", variation) for variation in (PLAIN, *repeats(threads))] if curves else []
    work += [("fault", name) for name in chosen]
    variations = benign_variations(benign, precision=precision, threads=threads)
    return work + [("benign", variation) for variation in variations]


def _gathered(made: "list[Made]", *, precision: str, device: str, iterations: int) -> "Selftest":
    """Judge the trainings by those of the reference and its repeats, and join what belongs to one trial."""
    from emacheck.audit.selftest.curve_rules import CurveJudge
    from emacheck.audit.selftest.trials import Selftest

    trials = [(trial, training) for trial, training in made if trial is not None]
    if iterations:
        reference, *others = [training for trial, training in made if trial is None and training is not None]
        judge = CurveJudge(reference=reference, repeats=others, precision=precision)
        trials = [(trial.with_curves(training, judge), training) for trial, training in trials]
    return Selftest(
        faults=tuple(trial for trial, _ in trials if trial.kind != "benign"),
        benign=tuple(trial for trial, _ in trials if trial.kind == "benign"),
        precision=precision,
        device=device,
        iterations=iterations,
    )


def choose_faults(files: tuple[Path, ...], only: str | None) -> "dict[str, Fault]":
    """Return the faults of the catalogue and of the user's files that match a glob.

    Raises:
        UsageError: If none does.
    """
    from emacheck.audit.faults import catalogue, load_faults

    found = catalogue()
    for file in files:
        found |= load_faults(file)
    chosen = {name: fault for name, fault in found.items() if only is None or fnmatch.fnmatchcase(name, only)}
    if not chosen:
        raise UsageError(f"--only {only}: no fault has such a name. See them with: emacheck selftest --list")
    return chosen


def _list(chosen: "dict[str, Fault]") -> None:
    for fault in chosen.values():
        click.echo(f"{fault.name:50} {fault.kind:10} {fault.about}{'  ' + fault.imitates if fault.imitates else ''}")


_prepared: dict[str, Any] = {}


def _prepare(request: "TrainingRequest", device: str, precision: str, files: tuple[Path, ...], iterations: int) -> None:
    """Build, in this process, what every trial needs."""
    import torch

    from emacheck.audit.arithmetic.precision import Precision
    from emacheck.audit.judging.reference import Plan, Reference
    from emacheck.audit.selftest.trials import plain_fingerprint
    from emacheck.cli.audit.training import invariants, prepare_training

    with tempfile.TemporaryDirectory(prefix="emacheck-selftest-") as scratch:
        training = prepare_training(request, batches=max(iterations, 1), scratch=Path(scratch))
    plan = Plan(
        device=torch.device(device), precision=Precision(name=precision), seed=request.seed, invariants=invariants()
    )
    reference: Reference = Reference(subject=training.subject, batch=training.batches[0], plan=plan, keep=True)
    _prepared.update(
        reference=reference,
        plain=plain_fingerprint(reference),
        faults=choose_faults(files, None),
        batches=training.batches[:iterations],
    )


def _try(work: Work) -> "Made":
    with _prepared["reference"].plan.precision.lists():
        return _made(work)


def _made(work: Work) -> "Made":
    from emacheck.audit.lockstep.end_to_end import Conditions
    from emacheck.audit.selftest.curves import train, train_with
    from emacheck.audit.selftest.trials import try_fault, try_variation

    sort, what = work
    reference, batches = _prepared["reference"], _prepared["batches"]
    plan, subject = reference.plan, reference.subject
    how = Conditions(device=plan.device, precision=plan.precision, seed=plan.seed)
    if sort == "fault":
        fault = _prepared["faults"][what]
        trial = try_fault(reference, fault, _prepared["plain"])
        return trial, train_with(fault, subject, batches, how) if batches else None
    if sort == "repeat":
        return None, train(
            subject.twin(), batches, Conditions(precision=plan.precision, variation=what, seed=plan.seed)
        )
    trial = try_variation(reference, what)
    return trial, train(subject.twin(), batches, replace(how, variation=what)) if batches else None


def _run(setup: Callable[[], None], work: list[Work], jobs: int) -> "Iterator[Made]":
    """Make all trials, here or in processes of their own, and say how far it is."""
    click.echo("Preparing the reference and the arbiter ...", err=True)
    if jobs == 1:
        setup()
        for at, each in enumerate(work, 1):
            yield _told(_try(each), at, len(work))
        return
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=partial(_set_up, setup)) as pool:
        try:
            for at, made in enumerate(pool.map(_try, work), 1):
                yield _told(made, at, len(work))
        except BaseException:
            # The pool would wait for the trials that it has begun, also for nobody, as if our output were read by head.
            for process in active_children():
                process.kill()
            raise


def _set_up(setup: Callable[[], None]) -> None:
    """Prepare a process of the pool, which ends with the command and whose output goes where errors go."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    setup()


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _told(made: "Made", at: int, of: int) -> "Made":
    trial, _ = made
    said = "trained"
    if trial is not None:
        said = "alarm" if "audit" in trial.detected_by else trial.message or "no alarm"
        if trial.put_back:
            said += f"; it left {', '.join(trial.put_back)} replaced, which was put back: use candidate.patch"
    click.echo(f"  {at}/{of} {trial.name if trial else 'reference or repeat'}: {said}", err=True)
    return made


def _deliver(result: "Selftest", output: Path | None, plot: Path | None, *, as_json: bool) -> None:
    from emacheck.audit.selftest.text import selftest_text
    from emacheck.report.write import write_together

    document = to_json(result.to_json())
    files: dict[Path, str | bytes] = {} if output is None else {output: document}
    if plot is not None:
        from emacheck.audit.selftest.picture import draw

        files[plot] = draw(result)
    write_together(files)
    if as_json:
        click.echo(document, nl=False)
    else:
        click.echo(selftest_text(result, command=given_command()))
