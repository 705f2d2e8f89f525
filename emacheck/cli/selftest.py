"""``emacheck selftest``: faults and benign variations through the audit, to prove what it finds."""

import contextlib
import fnmatch
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emacheck.cli.audit import audited_request, audited_training_options
from emacheck.cli.audit_worker import candidate_device
from emacheck.cli.judging import exit_code
from emacheck.errors import OutputError, UsageError
from emacheck.train.launch import require_training_packages

if TYPE_CHECKING:
    from emacheck.audit.faults import Fault
    from emacheck.audit.selftest import Selftest, Trial
    from emacheck.train.request import TrainingRequest

Work = tuple[str, Any]


@click.command()
@click.option("--device", default="cpu", show_default=True, metavar="NAME[:INDEX]", help="Where candidates run.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
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
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes; about 5 GiB each.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.json", help="Write the result here as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
@audited_training_options
def selftest(
    *,
    device: str,
    precision: str,
    faults: tuple[Path, ...],
    only: str | None,
    list_only: bool,
    benign: int,
    jobs: int,
    output: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Run faults and benign variations through the audit, and print what it finds and how often it is wrong.

    Exit code 1: a false alarm, or a missed fault that moves a gradient, update or buffer by 1 %.
    Exit code 3: a fault changed no tensor at all.
    """
    require_training_packages()
    if output is not None and output.exists():
        raise OutputError(f"--output {output}: exists already and was not touched. Remove it or choose another name.")
    chosen = choose_faults(faults, only)
    if list_only:
        _list(chosen)
        return 0
    from emacheck.audit.selftest import Selftest, benign_variations

    candidate_device(device, precision)
    setup = partial(_prepare, audited_request(options), device, precision, faults)
    work: list[Work] = [("fault", name) for name in chosen]
    variations = benign_variations(benign, precision=precision, threads=options["threads"])
    work += [("benign", variation) for variation in variations]
    # What mmengine and the device's libraries print is no part of the result.
    with contextlib.redirect_stdout(sys.stderr):
        trials = list(_run(setup, work, jobs))
    result = Selftest(
        faults=tuple(trial for trial in trials if trial.kind != "benign"),
        benign=tuple(trial for trial in trials if trial.kind == "benign"),
        precision=precision,
        device=device,
    )
    _deliver(result, output, as_json=as_json)
    return exit_code(result.outcome)


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


def _prepare(request: "TrainingRequest", device: str, precision: str, files: tuple[Path, ...]) -> None:
    """Build, in this process, what every trial needs."""
    import torch

    from emacheck.audit.precision import Precision
    from emacheck.audit.reference import Plan, Reference
    from emacheck.audit.selftest import plain_fingerprint
    from emacheck.cli.audit_training import invariants, prepare_training

    with tempfile.TemporaryDirectory(prefix="emacheck-selftest-") as scratch:
        training = prepare_training(request, batches=1, scratch=Path(scratch))
    plan = Plan(
        device=torch.device(device), precision=Precision(name=precision), seed=request.seed, invariants=invariants()
    )
    reference: Reference = Reference(subject=training.subject, batch=training.batches[0], plan=plan, keep=True)
    _prepared.update(reference=reference, plain=plain_fingerprint(reference), faults=choose_faults(files, None))


def _try(work: Work) -> "Trial":
    from emacheck.audit.selftest import try_fault, try_variation

    sort, what = work
    if sort == "fault":
        return try_fault(_prepared["reference"], _prepared["faults"][what], _prepared["plain"])
    return try_variation(_prepared["reference"], what)


def _run(setup: Callable[[], None], work: list[Work], jobs: int) -> "Iterator[Trial]":
    """Make all trials, here or in processes of their own, and say how far it is."""
    click.echo("Preparing the reference and the arbiter ...", err=True)
    if jobs == 1:
        setup()
        for at, each in enumerate(work, 1):
            yield _told(_try(each), at, len(work))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=partial(_set_up, setup)) as pool:
        for at, trial in enumerate(pool.map(_try, work), 1):
            yield _told(trial, at, len(work))


def _set_up(setup: Callable[[], None]) -> None:
    """Prepare a process of the pool, whose output goes where errors go."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    setup()


def _told(trial: "Trial", at: int, of: int) -> "Trial":
    said = "alarm" if "audit" in trial.detected_by else "no alarm"
    click.echo(f"  {at}/{of} {trial.name}: {said}", err=True)
    return trial


def _deliver(result: "Selftest", output: Path | None, *, as_json: bool) -> None:
    from emacheck.audit.selftest_text import selftest_text
    from emacheck.report.write import write_atomically

    document = json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n"
    if output is not None:
        write_atomically(output, document)
    if as_json:
        click.echo(document, nl=False)
    else:
        import shlex

        click.echo(selftest_text(result, command=shlex.join(["emacheck", *sys.argv[1:]])))
