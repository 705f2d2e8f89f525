"""``emacheck run``: train on a device and judge the training."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emacheck.cli.judging import Judging, check_outputs, deliver, judging_options, reach_verdict
from emacheck.cli.training import default_work_dir, describe_training, train_and_read, training_options
from emacheck.errors import UsageError
from emacheck.train.launch import make_run_directory, require_training_packages
from emacheck.train.request import TrainingRequest

if TYPE_CHECKING:
    from emacheck.record import Record
    from emacheck.reference import Bundle


@click.command()
@training_options
@click.option("--work-dir", type=click.Path(path_type=Path), metavar="DIR", help="New directory for record and report.")
@click.option("--reference", metavar="NAME|DIR", help="Stored reference.  [default: the one that matches]")
@click.option("--reference-device", metavar="NAME", help="Train the reference now, on this device, instead.")
@judging_options
def run(
    work_dir: Path | None,
    reference: str | None,
    reference_device: str | None,
    timeout: float,
    judging: Judging,
    **options: Any,
) -> int:
    """Train EMANet on a device and judge the training against a reference.

    The reference is a stored bundle that matches preset, precision and data, or a run on --reference-device.
    """
    if reference and reference_device:
        raise UsageError(f"--reference {reference} and --reference-device {reference_device}: give one of the two.")
    check_outputs(judging)
    require_training_packages()
    request = describe_training(**options)
    repeats: tuple[Record, ...] = ()
    bundle = None if reference_device else _choose_bundle(request, reference)
    if reference_device:
        reference_device = _check_devices(request, reference_device)
    directory = work_dir or default_work_dir(request)
    make_run_directory(directory)
    if bundle is not None:
        record = bundle.record.until(request.iterations)
        repeats = tuple(repeat.until(request.iterations) for repeat in bundle.repeats)
        request = replace(request, must_match=bundle.experiment)
    else:
        reference_directory = directory / "reference"
        reference_directory.mkdir()
        record = train_and_read(
            replace(request, device=str(reference_device)),
            reference_directory,
            timeout=timeout,
            title=f"Training the reference on {reference_device}",
        )
    title = f"Training {request.experiment_name} on {request.device}"
    candidate = train_and_read(request, directory, timeout=timeout, title=title)
    from emacheck.judge.comparison import compare

    comparison = compare(record, candidate, metrics=judging.metric or ("loss",), repeats=repeats)
    return deliver(reach_verdict(comparison, judging), judging, directory=directory)


def _check_devices(request: TrainingRequest, reference_device: str) -> str:
    """See that both devices can do what is asked, before the first of two trainings starts."""
    from emacheck.train.devices import parse_device, probe
    from emacheck.train.precision import check_reference_precision

    device = parse_device(reference_device)
    check_reference_precision(device, request.precision)
    for each in (device, parse_device(request.device)):
        probe(each)
    return str(device)


def _choose_bundle(request: TrainingRequest, name: str | None) -> "Bundle":
    from emacheck.reference import find_bundle, match_bundle

    bundle = (
        find_bundle(name)
        if name
        else match_bundle(
            experiment_name=request.experiment_name, precision=request.precision, data_hash=request.data_hash
        )
    )
    if bundle is None:
        raise UsageError(
            f"no stored reference fits {request.experiment_name} in {request.precision} on this data set "
            f"(hash {str(request.data_hash)[:12]}). {_how_to_get_one(request)}. What is stored: emacheck reference list"
        )
    if request.iterations > bundle.iterations:
        raise UsageError(
            f"--iters {request.iterations}: the reference {bundle.name} holds {bundle.iterations} iterations. "
            f"Ask for at most --iters {bundle.iterations}, or train a reference now with --reference-device cpu."
        )
    return bundle


def _how_to_get_one(request: TrainingRequest) -> str:
    from emacheck.train.devices import KINDS

    if request.precision in KINDS["cpu"].precisions:
        return "Train one now with --reference-device cpu, or store one with: emacheck reference make"
    return (
        f"No CPU computes in {request.precision}: train one now on a trusted device that does, --reference-device "
        f"DEVICE, or store one there with: emacheck reference make --device DEVICE --precision {request.precision}"
    )
