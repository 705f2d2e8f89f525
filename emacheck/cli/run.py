"""``emacheck run``: audit a device, train on it and judge both."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from emacheck.audit.findings.verdict import audit_finding
from emacheck.cli.audit.before import BATCHES, audit_device
from emacheck.cli.audit.command import REPORTS as AUDIT_REPORTS
from emacheck.cli.audit.command import operators_option
from emacheck.cli.judging import REPORTS, Judging, check_rules, deliver, judging_options, reach_verdict, with_audit
from emacheck.cli.outputs import Directory, check_outputs
from emacheck.cli.refusals import heard_by_other_nodes
from emacheck.cli.training import (
    ask_for_float32,
    default_work_dir,
    describe_training,
    experiment_options,
    interruptible,
    processes_asked_for,
    refuse_unfit_device,
    require_devices,
    train_and_read,
    training_asked_for,
    training_options,
)
from emacheck.counted import counted
from emacheck.errors import TrainingError, UsageError
from emacheck.judge.verdict import Outcome
from emacheck.rank_files import RUN_FILE, rank_file
from emacheck.train.launching.processes import Processes, work_dir_of_node
from emacheck.train.launching.supervision import TRAINING
from emacheck.train.packages import require_training_packages
from emacheck.train.request import TrainingRequest
from emacheck.train.run_directory import new_run_directory

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult
    from emacheck.judge.comparison import Comparison
    from emacheck.record import Record
    from emacheck.reference.bundle import Bundle


@click.command()
@training_options
@click.option(
    "--work-dir", type=Directory(), metavar="DIR", help="New directory for the report.  [default: in work_dirs]"
)
@click.option("--reference", metavar="NAME|DIR", help="Stored reference.  [default: the one that matches]")
@click.option("--reference-device", metavar="NAME", help="Train the reference now, on this device, instead.")
@click.option(
    "--reference-nproc",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes of that reference; they share the joined batch of the candidate's.  [default: 1]",
)
@click.option(
    "--audit/--no-audit", default=True, show_default=True, help="First audit one iteration, tensor by tensor."
)
@click.option(
    "--audit-batches", type=click.IntRange(min=1), metavar="N", help=f"Batches to audit.  [default: {BATCHES}]"
)
@operators_option
@judging_options
def run(
    *,
    work_dir: Path | None,
    reference: str | None,
    reference_device: str | None,
    reference_nproc: int | None,
    audit: bool,
    audit_batches: int | None,
    operators: bool | None,
    timeout: float,
    judging: Judging,
    **options: Any,
) -> int:
    """Audit a device, train EMANet on it and judge the training against a reference.

    The audit holds one iteration, tensor by tensor, against float64 on the CPU. The reference of the training is a
    stored bundle that matches preset, precision and data, or a run on --reference-device.
    """
    if not audit:
        _refuse_without_audit(audit_batches, operators)
    processes = processes_asked_for(options)
    train, asked_for = partial(train_and_read, timeout=timeout), partial(training_asked_for, options)
    with contextlib.ExitStack() as claimed:
        with heard_by_other_nodes(TRAINING, processes, asked_for, timeout=timeout):
            _refuse_two_references(reference, reference_device, reference_nproc)
            check_rules(judging)
            check_outputs(judging.files, directory=work_dir, holds=(*REPORTS, *AUDIT_REPORTS, RUN_FILE, rank_file(0)))
            require_training_packages()
            request, live, bundles = _choose_trainings(
                describe_training(processes, **options), processes, reference, reference_device, reference_nproc or 1
            )
            directory = work_dir_of_node(work_dir or default_work_dir(request), processes)
            claimed.enter_context(new_run_directory(directory))
        result, record, candidate = _audit_and_train(
            processes,
            audit=partial(
                audit_device,
                request,
                processes,
                directory,
                batches=(audit_batches or BATCHES) if audit else None,
                timeout=timeout,
                operators=operators,
            ),
            reference=partial(_train_reference, train, live, directory),
            candidate=partial(
                train,
                request,
                directory,
                title=f"Training {request.experiment_name} on {request.device}",
                processes=processes,
            ),
        )
    if candidate is None:
        click.echo(
            f"This node has done its part of the training ({directory}); the verdict is reached where rank 0 ran."
        )
        return 0
    with interruptible(lambda: f"the training was complete, and its record is kept in {directory}"):
        comparison = _compared(record, candidate, bundles, iterations=request.iterations, metrics=judging.metric)
        verdict = with_audit(reach_verdict(comparison, judging), result)
        return deliver(verdict, judging, directory=directory, audit=result)


def _compared(
    record: "Record | None",
    candidate: "Record",
    bundles: Sequence["Bundle"],
    *,
    iterations: int,
    metrics: tuple[str, ...],
) -> "Comparison":
    """Measure the candidate against the reference that was trained, or against the stored one of its experiment."""
    from emacheck.judge.comparison import compare

    repeats: tuple[Record, ...] = ()
    if bundles:
        from emacheck.reference.stored import bundle_of

        bundle = bundle_of(candidate.provenance["experiment"], bundles)
        record = bundle.record.until(iterations)
        repeats = tuple(repeat.until(iterations) for repeat in bundle.repeats)
    return compare(cast("Record", record), candidate, metrics=metrics or ("loss",), repeats=repeats)


def _audit_and_train(
    processes: Processes,
    *,
    audit: "Callable[[], AuditResult | None]",
    reference: "Callable[[], Record | None]",
    candidate: "Callable[[], Record | None]",
) -> "tuple[AuditResult | None, Record | None, Record | None]":
    """Audit the device, train the reference and then the candidate.

    Of several nodes, the others wait for their processes to meet, not for an audit or a reference: there the candidate
    comes first, and the rest where rank 0 ran.
    """
    if processes.nnodes > 1:
        trained = candidate()
        return (None, None, None) if trained is None else (audit(), reference(), trained)
    result, record = audit(), reference()
    try:
        return result, record, candidate()
    except TrainingError as error:
        if result is None or result.outcome is not Outcome.FAIL:
            raise
        # There is no verdict that could say it.
        raise TrainingError(f"{error}\nThe audit before it was FAIL: {audit_finding(result).message}") from error


def _choose_trainings(
    request: TrainingRequest, processes: Processes, stored: str | None, device: str | None, nproc: int
) -> "tuple[TrainingRequest, tuple[TrainingRequest, Processes] | None, tuple[Bundle, ...]]":
    """Return the candidate, and the reference that is trained or the stored ones of which it must match one.

    Raises:
        UsageError: If there is no such reference, or a device is not there.
    """
    if device:
        device = _check_reference_device(request, processes, device, nproc)
    live = _reference_request(request, processes, device, nproc) if device else None
    bundles = () if live else _choose_bundles(request, processes, stored)
    require_devices(request.device, processes)
    ask_for_float32(request.device, request.precision)
    return replace(request, must_match=tuple(bundle.experiment for bundle in bundles)), live, bundles


def _refuse_without_audit(batches: int | None, operators: bool | None) -> None:
    if batches:
        raise UsageError(f"--no-audit and --audit-batches {batches}: give one of the two.")
    if operators:
        raise UsageError("--no-audit and --operators: give one of the two.")


def _refuse_two_references(stored: str | None, device: str | None, nproc: int | None) -> None:
    if stored and device:
        raise UsageError(f"--reference {stored} and --reference-device {device}: give one of the two.")
    if nproc and not device:
        raise UsageError(
            f"--reference-nproc {nproc}: found no --reference-device, and a stored reference is trained already. "
            "Add --reference-device NAME, or drop the option."
        )


def _reference_request(
    request: TrainingRequest, processes: Processes, device: str, nproc: int
) -> tuple[TrainingRequest, Processes]:
    """Describe a reference that trains on the joined batch of all the candidate's processes."""
    if processes.world_size % nproc:
        raise UsageError(
            f"--reference-nproc {nproc}: the candidate's {processes.world_size} processes do not part evenly into "
            f"{nproc}. Give a divisor of {processes.world_size}."
        )
    factor = processes.world_size // nproc
    return replace(request, device=device, backend=None, batch_factor=factor), _processes_of_reference(nproc)


def _train_reference(
    train: "Callable[..., Record | None]", live: tuple[TrainingRequest, Processes] | None, directory: Path
) -> "Record | None":
    if live is None:
        return None
    request, processes = live
    place = directory / "reference"
    with new_run_directory(place):
        return train(request, place, title=f"Training the reference on {request.device}", processes=processes)


def _check_reference_device(request: TrainingRequest, processes: Processes, name: str, nproc: int) -> str:
    """See that the reference can be trained, before anything is; of several nodes, that of rank 0 trains it."""
    from emacheck.train.device.devices import parse_device
    from emacheck.train.device.precision import check_reference_precision

    device, theirs = parse_device(name, "--reference-device"), _processes_of_reference(nproc)
    check_reference_precision(device, request.precision)
    if processes.node_rank in (0, None):
        refuse_unfit_device(device, None, theirs)
        require_devices(str(device), theirs, "--reference-device")
        ask_for_float32(str(device), request.precision)
    return str(device)


def _processes_of_reference(nproc: int) -> Processes:
    return Processes(launched=True, nproc_per_node=nproc) if nproc > 1 else Processes()


def _choose_bundles(request: TrainingRequest, processes: Processes, name: str | None) -> "tuple[Bundle, ...]":
    """Return the stored references that the training may turn out to fit, the preferred one first."""
    from emacheck.reference.stored import find_bundle, match_bundles

    bundles = (
        (find_bundle(name),)
        if name
        else match_bundles(
            experiment_name=request.experiment_name,
            precision=request.precision,
            data_hash=request.data_hash,
            seed=request.seed,
            iterations=request.iterations,
        )
    )
    if not bundles:
        data = (
            f"this data set (hash {request.data_hash[:12]})" if request.data_hash else "data of which no hash is known"
        )
        raise UsageError(
            f"no stored reference fits {request.experiment_name} in {request.precision} on {data}. "
            f"{_how_to_get_one(request, processes)}. What is stored: emacheck reference list"
        )
    first = bundles[0]
    if request.iterations > first.iterations:
        raise UsageError(
            f"--iters {request.iterations}: the reference {first.name} holds {counted(first.iterations, 'iteration')}. "
            f"Ask for at most --iters {first.iterations}, or for a longer one. {_how_to_get_one(request, processes)}."
        )
    return bundles


def _how_to_get_one(request: TrainingRequest, processes: Processes) -> str:
    from emacheck.train.device.devices import KINDS

    on_cpu = request.precision in KINDS["cpu"].precisions
    options = experiment_options(request, processes=processes.world_size)
    make = " ".join(
        ["emacheck reference make", *([] if on_cpu else ["--device DEVICE"]), *([options] if options else [])]
    )
    if on_cpu:
        return f"Train one now with --reference-device cpu, or store one with: {make}"
    return (
        f"No CPU computes in {request.precision}: train one now on a trusted device that does, --reference-device "
        f"DEVICE, or store one there with: {make}"
    )
