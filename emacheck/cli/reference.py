"""``emacheck reference``: make, list, show and verify stored references."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from emacheck.cli import TROUBLE
from emacheck.cli.outputs import Directory
from emacheck.cli.training import (
    ask_for_float32,
    describe_training,
    has_data_of_its_own,
    processes_asked_for,
    require_devices,
    train_and_read,
    training_options,
)
from emacheck.counted import counted
from emacheck.errors import BundleError, OutputError, UsageError
from emacheck.experiment import digest
from emacheck.printable import printable
from emacheck.strict_json import to_json
from emacheck.train.launching.processes import Processes
from emacheck.train.packages import require_training_packages
from emacheck.train.request import TrainingRequest

# Far from the seeds of the benchmarks, so that no repeat is ever judged against itself.
FIRST_REPEAT_SEED = 1000


@click.group()
def reference() -> None:
    """Make, list, show and verify stored references."""


@reference.command()
@training_options
@click.option("--into", type=Directory(), default="references", show_default=True, help="Folder of bundles.")
@click.option("--name", metavar="NAME", help="<experiment>/<name> of the bundle.  [default: see above]")
@click.option(
    "--repeats",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Train this many benign repeats as well (other last bits, every second with one thread), for the envelope.",
)
@click.option("--rewrite", is_flag=True, help="Replace a stored reference; exits with 2 even when it succeeds.")
def make(into: Path, name: str | None, *, repeats: int, rewrite: bool, timeout: float, **options: Any) -> int:
    """Train and store a reference.

    By default it is named <experiment>/<device>-<precision>, followed by what is not the default: the number of
    processes, the seed, and eight digits of a digest of overrides and data.
    """
    from emacheck.reference.making import claim_name, write_bundle

    require_training_packages()
    processes = processes_asked_for(options)
    request = describe_training(processes, **options)
    if processes.nnodes > 1:
        raise UsageError(f"--nnodes {processes.nnodes}: a reference is made on one node. Drop the option.")
    name = name or _default_name(request, processes)
    parts = Path(name).parts
    if len(parts) != 2 or any(part in ("..", "/", ".") for part in parts):
        raise UsageError(f"--name {name}: expected two parts, <experiment>/<device>-<precision>.")
    require_devices(request.device, processes)
    ask_for_float32(request.device, request.precision)
    with claim_name(into, name, rewrite=rewrite), _scratch_directory() as scratch:
        title = f"Training the reference {name} on {request.device}"
        run = scratch / "run"
        run.mkdir()
        train = partial(train_and_read, timeout=timeout, processes=processes)
        train(request, run, title=title)
        others = []
        for at in range(1, repeats + 1):
            others.append(scratch / f"repeat-{at}")
            others[-1].mkdir()
            # Summing in another order is as benign as another last bit; repeats of one kind would vary too little.
            threads = 1 if at % 2 else request.threads
            repeat = replace(request, last_bit_seed=FIRST_REPEAT_SEED + at, threads=threads)
            train(repeat, others[-1], title=f"Training repeat {at} of {repeats}")
        existed = (into / name).exists()
        bundle = write_bundle(run, into, name=name, repeats=others, rewrite=rewrite)
    click.echo(
        f"{bundle.name}: {counted(bundle.iterations, 'iteration')} and {counted(len(bundle.repeats), 'repeat')} stored "
        f"in {bundle.path}"
    )
    if existed:
        click.echo("A stored reference was rewritten: exit code 2, so that no pipeline blesses itself.", err=True)
        return TROUBLE
    return 0


def _default_name(request: TrainingRequest, processes: Processes) -> str:
    """Return a name that another experiment does not have."""
    parts = [request.device.replace(":", "-"), request.precision]
    if processes.world_size > 1:
        parts.append(f"{processes.world_size}-processes")
    if request.seed:
        parts.append(f"seed{request.seed}")
    data_hash = request.data_hash if has_data_of_its_own(request) else None
    # Sorted by key only, for of two overrides of one key the last counts.
    overrides = sorted(request.in_common()["options"], key=lambda option: option.partition("=")[0])
    if overrides or data_hash:
        parts.append(digest([overrides, data_hash])[:8])
    return f"{request.experiment_name}/{'-'.join(parts)}"


@contextlib.contextmanager
def _scratch_directory() -> Iterator[Path]:
    """Make a directory to train in; it stays if that ends badly, for messages point to what is in it."""
    place = Path(tempfile.mkdtemp(prefix="emacheck-reference-"))
    try:
        yield place
    except UsageError:
        shutil.rmtree(place, ignore_errors=True)
        raise
    except (BundleError, OutputError) as error:
        raise type(error)(f"{error} What was trained is kept in {place}.") from error
    shutil.rmtree(place, ignore_errors=True)


@reference.command(name="list")
def list_() -> None:
    """List the stored references, damaged ones and those that another of the same name hides among them."""
    from emacheck.reference.bundle import name_of
    from emacheck.reference.stored import bundle_roots, stored_bundles

    seen = set[str]()
    for place in stored_bundles():
        name = name_of(place)
        hidden = "  (its name finds the one above)" if name in seen else ""
        click.echo(f"{printable(name):40} {printable(_describe(place))}  {printable(str(place))}{hidden}")
        seen.add(name)
    if not seen:
        places = ", ".join(str(root) for root in bundle_roots()) or "no folder of references"
        click.echo(f"No stored reference ({places}). Make one with: emacheck reference make")


def _describe(place: Path) -> str:
    """Return what a bundle holds and was made with, or that it is damaged."""
    from emacheck.reference.bundle import read_bundle

    try:
        bundle = read_bundle(place)
    except BundleError:
        return "DAMAGED, see: emacheck reference verify"
    provenance = bundle.record.provenance
    torch, device = (_stated(provenance, *entry) for entry in (("versions", "torch"), ("device", "name")))
    return f"{bundle.iterations:6} iterations {len(bundle.repeats):3} repeats  torch {torch:14} {device}"


def _stated(provenance: Mapping[str, Any], group: str, key: str) -> str:
    """Return one entry of a provenance, which another program may have written; ``?`` where it has none."""
    entries = provenance.get(group)
    return str(entries.get(key, "?")) if isinstance(entries, Mapping) else "?"


@reference.command()
@click.argument("name")
def show(name: str) -> None:
    """Show the provenance of one stored reference."""
    from emacheck.reference.stored import find_bundle

    bundle = find_bundle(name)
    iterations = counted(bundle.iterations, "iteration")
    click.echo(f"{printable(bundle.name)}  {iterations}  {printable(str(bundle.path))}")
    click.echo(f"metrics: {', '.join(map(printable, sorted(bundle.record.curves)))}")
    click.echo(to_json(dict(bundle.record.provenance)).rstrip())


@reference.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> int:
    """Verify the hashes of stored references (all of them if none is named)."""
    from emacheck.reference.stored import find_bundle, stored_bundles

    failed = 0
    places = names or tuple(str(place) for place in stored_bundles())
    for place in places:
        try:
            bundle = find_bundle(place)
        except BundleError as error:
            click.echo(f"emacheck: {printable(str(error), newlines=True, length=None)}", err=True)
            failed += 1
        else:
            repeats = counted(len(bundle.repeats), "repeat")
            click.echo(f"{printable(bundle.name)}: verified, {counted(bundle.iterations, 'iteration')}, {repeats}")
    if not places:
        click.echo("No stored reference to verify. Make one with: emacheck reference make", err=True)
    return TROUBLE if failed or not places else 0
