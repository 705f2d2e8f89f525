"""The options by which a training is described, shared by the commands that train."""

import contextlib
import datetime
import inspect
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from emacheck.cli.progress import show_progress
from emacheck.cli.seconds import Seconds
from emacheck.errors import DataError, UsageError
from emacheck.train.device.devices import PRECISIONS, Device, parse_device, probe, require_module
from emacheck.train.launching.network import has_loopback
from emacheck.train.launching.planning import LAUNCHERS, plan_processes
from emacheck.train.launching.processes import Processes
from emacheck.train.launching.supervision import left_in, train_in_worker
from emacheck.train.request import PRESETS, TrainingRequest

if TYPE_CHECKING:
    from emacheck.record import Record

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_ITERATIONS = 100
PROCESS_OPTIONS = (
    click.option("--nproc-per-node", type=click.IntRange(min=1), help="Processes of each node.  [default: 1]"),
    click.option("--nnodes", type=click.IntRange(min=1), help="Nodes.  [default: 1]"),
    click.option("--node-rank", type=click.IntRange(min=0), help="Which of the nodes this is."),
    click.option("--master-addr", metavar="HOST", help="Node 0."),
    click.option("--master-port", type=click.IntRange(1, 65535), help="Port of node 0.  [default: any, or 29500]"),
    click.option("--rdzv-endpoint", metavar="HOST:PORT", help="A rendezvous, instead of the address of node 0."),
    click.option("--rdzv-id", metavar="NAME", help="Tells this job from an equal one at the same rendezvous."),
    click.option("--launcher", type=click.Choice(LAUNCHERS), help="Who starts the processes: docs/processes.md."),
    click.option("--backend", metavar="NAME", help="Communication backend.  [default: the device's: gloo, nccl, ...]"),
)
OPTIONS = (
    click.option("--preset", type=click.Choice(list(PRESETS)), help="A named EMANet configuration.  [default: smoke]"),
    click.option("--config", metavar="FILE", help="Any mmengine configuration file, instead of a preset."),
    click.option(
        "--device",
        default="cpu",
        show_default=True,
        metavar="NAME[:INDEX]",
        help="Where to train: cpu, cuda, sdaa, npu, mlu, musa, xpu, mps, auto, or what an installed package describes.",
    ),
    click.option(
        "--iters",
        default=DEFAULT_ITERATIONS,
        show_default=True,
        type=click.IntRange(min=1),
        help="Training iterations.",
    ),
    click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Seed of every draw."),
    click.option(
        "--threads",
        default=2,
        show_default=True,
        type=click.IntRange(min=1),
        help="CPU threads; part of the arithmetic.",
    ),
    click.option("--data-root", metavar="DIR", help="A real Cityscapes.  [default: synthetic, made on first use]"),
    click.option(
        "--cfg-options", multiple=True, metavar="KEY=VALUE ...", help="Override the configuration, as in mmengine."
    ),
    *PROCESS_OPTIONS,
    click.option(
        "--log-format", type=click.Choice(["tcap"]), help="Write <device>.log with TCAPPDLL lines beside the record."
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="Arithmetic of the training; bf16 and fp16 are mixed precision.  [default: fp32]",
    ),
    click.option("--amp", is_flag=True, help="The device's usual mixed precision: fp16, on a CPU bf16."),
    click.option(
        "--timeout",
        default=600.0,
        show_default=True,
        type=Seconds(),
        help="Seconds without a new iteration after which the training counts as hung; inf: never.",
    ),
)


def training_options(command: Command) -> Command:
    """Add the options that describe a training; what follows ``--cfg-options`` without a dash belongs to it."""
    wrapped: Any = click.argument("more_options", nargs=-1, metavar="")(command)
    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def processes_asked_for(options: dict[str, Any]) -> Processes:
    """Take the options of the processes out of the others and decide how many there are.

    Raises:
        UsageError: If they contradict each other or the environment.
    """
    names = inspect.signature(plan_processes).parameters.keys() - {"environment"}
    return plan_processes(**{name: options.pop(name) for name in names})


def training_asked_for(options: Mapping[str, Any]) -> TrainingRequest:
    """Return what the options say of a training that they cannot have; nothing is looked at but their words."""
    device, amp = options["device"], "fp16"
    with contextlib.suppress(UsageError):
        place = parse_device(device)
        device, amp = str(place), place.kind.amp
    return TrainingRequest(
        preset=None if options["config"] else options["preset"] or "smoke",
        config=options["config"],
        cfg_options=(*options["cfg_options"], *options["more_options"]),
        device=device,
        precision=amp if options["amp"] else options["precision"] or "fp32",
        iterations=options["iters"],
        seed=options["seed"],
    )


def describe_training(
    processes: Processes,
    *,
    preset: str | None,
    config: str | None,
    device: str,
    iters: int,
    seed: int,
    threads: int,
    data_root: str | None,
    cfg_options: tuple[str, ...],
    more_options: tuple[str, ...],
    precision: str | None,
    amp: bool,
    backend: str | None,
    log_format: str | None,
) -> TrainingRequest:
    """Turn the options into a request that the processes can train, with the data set made or verified.

    Raises:
        UsageError: If options contradict each other or ask for what this version cannot do.
        DataError: If the data set is missing or broken.
    """
    from emacheck.train.provenance import git_commit

    _require_one_configuration(preset, config)
    place = parse_device(device)
    refuse_unfit_device(place, backend, processes)
    precision = _choose_precision(place, precision, amp=amp)
    overrides = (*cfg_options, *more_options)
    _require_assignments(overrides)
    preset = None if config else preset or "smoke"
    root, data_hash = _place_data(preset, data_root, overrides)
    return TrainingRequest(
        preset=preset,
        config=config,
        cfg_options=overrides,
        device=str(place),
        precision=precision,
        iterations=iters,
        seed=seed,
        threads=threads,
        data_root=root,
        data_hash=data_hash,
        git_commit=git_commit(),
        backend=backend,
        log_format=log_format,
    )


def _require_one_configuration(preset: str | None, config: str | None) -> None:
    """Refuse a preset beside a configuration file, and one that is no file."""
    if preset and config:
        raise UsageError(f"--preset {preset} and --config {config}: give one of the two.")
    if config is not None and not Path(config).is_file():
        found = "found a directory, expected a file" if Path(config).is_dir() else "no such file"
        raise UsageError(f"--config {config or repr(config)}: {found}. Give an mmengine configuration file.")


def _require_assignments(overrides: Iterable[str]) -> None:
    """Refuse what is no KEY=VALUE among the overrides."""
    for option in overrides:
        if not re.match(r"[A-Za-z_][\w.]*=", option):
            raise UsageError(
                f"found the argument {option!r}, expected KEY=VALUE after --cfg-options, such as "
                "optim_wrapper.optimizer.lr=0.02, and options otherwise"
            )


def refuse_unfit_device(device: Device, backend: str | None, processes: Processes) -> None:
    """Refuse a backend for one process, a numbered device for several, and what the processes cannot use.

    Raises:
        UsageError: If so.
    """
    if processes.need_loopback and not has_loopback():
        raise UsageError(
            "the loopback interface of this machine is down (found no way to 127.0.0.1), and processes meet through "
            "it. Start it: ip link set lo up. One process needs no network: drop --nproc-per-node."
        )
    if backend is not None and not processes.launched:
        raise UsageError(f"--backend {backend}: found one process, which talks to no other. Add --nproc-per-node N.")
    if processes.world_size > 1 and device.index is not None:
        raise UsageError(
            f"{device.option} {device}: found a number, but each of {processes.world_size} processes takes the device "
            f"of its own local rank. Say {device.option} {device.type}, and choose devices as the vendor provides for."
        )
    if processes.launched:
        _ = device.communication  # raises where several processes cannot use the device
    require_module(device)


def require_devices(name: str, processes: Processes, option: str = "--device") -> None:
    """See that each process of this node has its device, before anything is announced; on several nodes they do it.

    It takes seconds, so that it comes after whatever else may be refused.

    Args:
        name: The device.
        processes: Those that take one each.
        option: The option that named it.

    Raises:
        UsageError: If there are fewer devices, or one cannot be opened.
    """
    if processes.nnodes == 1:
        probe(parse_device(name, option), processes.nproc_per_node)


def _choose_precision(device: Device, precision: str | None, *, amp: bool) -> str:
    from emacheck.train.device.precision import check_precision

    if amp and precision not in (None, device.kind.amp):
        raise UsageError(f"--amp on {device} is --precision {device.kind.amp}, and --precision {precision}: give one.")
    chosen = device.kind.amp if amp else precision or "fp32"
    check_precision(device, chosen)
    return chosen


def ask_for_float32(name: str, precision: str) -> None:
    """Set the environment variables by which a device computes float32 in float32, and say which."""
    from emacheck.train.device.precision import keep_float32

    if names := keep_float32(parse_device(name), precision, os.environ):
        click.echo(f"{name} is to compute float32 in float32: {', '.join(f'{each}=1' for each in names)}", err=True)


def _place_data(preset: str | None, data_root: str | None, overrides: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Return the root of the data and its hash."""
    from emacheck.data.cityscapes import fingerprint_dataset
    from emacheck.data.manifest import is_synthetic
    from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset

    prefix = "train_dataloader.dataset.data_root="
    named = [option.removeprefix(prefix) for option in overrides if option.startswith(prefix)]
    root = named[-1] if named else data_root
    if preset is None and data_root is not None and root == data_root and not Path(data_root).is_dir():
        found = "a file" if Path(data_root).exists() else "nothing"
        raise UsageError(
            f"--data-root {data_root}: found {found}, expected the directory that the configuration's data_root shall "
            "be. Correct it. No data at hand: emacheck data make DIR draws a synthetic Cityscapes."
        )
    if root is not None:
        try:
            return str(Path(root).resolve()), fingerprint_dataset(Path(root)).data_hash
        except DataError:
            # A configuration may train on other data than Cityscapes, but not on ours once they are spoilt.
            if preset is None and not is_synthetic(Path(root)):
                return str(Path(root).resolve()), None
            raise
    if preset is None:
        return None, None
    place = cache_root() / DEFAULT_NAME
    if not place.exists():
        click.echo(f"Making the synthetic data in {place} (first use only) ...", err=True)
    return str(place), ensure_dataset(place).data_hash


def experiment_options(request: TrainingRequest, *, processes: int = 1) -> str:
    """Return the options with which a command trains the same experiment, as a shell reads them.

    Example:
        >>> request = TrainingRequest(preset="smoke", config=None, precision="bf16", seed=3, cfg_options=("a=(1, 2)",))
        >>> experiment_options(request)
        "--precision bf16 --seed 3 --cfg-options 'a=(1, 2)'"
    """
    given = {
        "--preset": request.preset if request.preset != "smoke" else None,
        "--config": request.config,
        "--precision": request.precision if request.precision != "fp32" else None,
        "--seed": request.seed or None,
        "--iters": request.iterations if request.iterations > DEFAULT_ITERATIONS else None,
        "--data-root": request.data_root if has_data_of_its_own(request) else None,
        "--nproc-per-node": processes if processes > 1 else None,
    }
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    return shlex.join([*words, *(["--cfg-options", *request.cfg_options] if request.cfg_options else [])])


def has_data_of_its_own(request: TrainingRequest) -> bool:
    """Tell whether a training was given data, instead of the synthetic ones or those that its configuration names."""
    from emacheck.data.synthetic import DEFAULT_NAME, cache_root

    return request.data_root not in (None, str(cache_root() / DEFAULT_NAME))


def default_work_dir(request: TrainingRequest) -> Path:
    """Return a new place for a run: ``work_dirs/<experiment>/<device>-<time>``; two may start in one second."""
    now = datetime.datetime.now().astimezone().strftime("%Y%m%d_%H%M%S_%f")
    device = request.device.replace(":", "-")
    return Path("work_dirs") / request.experiment_name / f"{device}-{now}"


def train_and_read(
    request: TrainingRequest, run_directory: Path, *, timeout: float, title: str, processes: Processes | None = None
) -> "Record | None":
    """Train in processes of their own behind a progress bar and read the record back.

    Returns:
        The record; None on a node on which rank 0 did not run, for the record is on that of rank 0.
    """
    from emacheck.logs import read_log
    from emacheck.rank_files import rank_files

    with interruptible(partial(left_in, run_directory)), show_progress(title, request.iterations) as progress:
        train_in_worker(request, run_directory, progress=progress, timeout=timeout, processes=processes)
    return read_log(run_directory) if 0 in rank_files(run_directory) else None


@contextlib.contextmanager
def interruptible(left: Callable[[], str]) -> Iterator[None]:
    """Say what is left after an interrupt.

    Args:
        left: Returns what is left then, as the end of a sentence.

    Raises:
        KeyboardInterrupt: If the user interrupted; its argument says what is left.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(left()) from None
