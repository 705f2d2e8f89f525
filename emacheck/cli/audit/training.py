"""What ``emacheck audit`` and ``emacheck selftest`` audit: a training as ``emacheck run`` would do it."""

import contextlib
import hashlib
import io
import json
import random
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emacheck.train.request import TrainingRequest

if TYPE_CHECKING:
    import torch

    from emacheck.audit.iteration.subject import Subject
    from emacheck.audit.judging.invariants import Invariant
    from emacheck.train.device.devices import Device

WARM_UP = 30
PROGRESS_EVERY = 10
# Another pass over the data than that of the warm-up.
BATCH_SEED = 7919
# What mmengine makes of a model just before it trains.
TURNED_ON_LATER = ("activation_checkpointing", "efficient_conv_bn_eval")
ALONE = "The device of one process can be audited: emacheck audit without --nproc-per-node."


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedTraining:
    """A training in a live, well-conditioned state, and batches to audit it on.

    Attributes:
        subject: Model, optimizer and loss.
        batches: Batches as the data loader yields them.
        state_hash: SHA-256 of the state.
        batch_hashes: SHA-256 of each batch.
        place: Where the state is kept.
        joined: Joined batches of several processes.
        notes: What of the training is not audited.
    """

    subject: "Subject"
    batches: list[Any]
    state_hash: str
    batch_hashes: list[str]
    place: Path
    joined: list[Any] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def prepare_training(
    request: TrainingRequest,
    *,
    batches: int,
    scratch: Path,
    processes: int | None = None,
    check: Callable[["torch.nn.Module", list[Any]], None] = lambda model, batches: None,  # noqa: ARG005
    progress: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> AuditedTraining:
    """Build the training of a request and bring it into the state that is audited.

    The state is that after 30 iterations from the stock initialisation on the CPU: stock initialisation zeroes whole
    branches, which hides faults; random weights are ill-conditioned. It is kept in the cache and proven by its hash.

    Args:
        request: What would be trained.
        batches: How many batches to draw.
        scratch: Where mmengine may write its logs.
        processes: Of how many processes joined batches are wanted as well; None for none.
        check: Called with the model and the batches before anything takes long; it may refuse them.
        progress: Called with a line of text now and then.

    Raises:
        UsageError: If the configuration cannot be used.
        DataError: If the cached state does not match its hash.
    """
    import torch

    from emacheck.audit.iteration.state import require_place, save_state
    from emacheck.audit.iteration.subject import Subject
    from emacheck.train.paired.fingerprint import batch_hash

    warnings.filterwarnings("ignore")
    torch.set_num_threads(request.threads)
    runner = build_runner(request, scratch, drawn=False)
    drawn = _draw_batches(_loader(runner, request.seed), batches, request.seed)
    check(runner.model, drawn)
    place = _place(request, runner)
    if not place.exists():
        require_place(place)
        runner = build_runner(request, scratch)
        _warm_up(runner, progress)
        save_state(place, {"model": runner.model.state_dict(), "optimizer": _optimizer(runner).state_dict()})
    digest = enter_state(runner, place)
    joined = [] if processes is None else draw_parts(runner, batches, request.seed, factor=processes)
    return AuditedTraining(
        subject=Subject(model=runner.model, optimizer=_optimizer(runner), loss=training_loss),
        batches=drawn,
        state_hash=digest,
        batch_hashes=[batch_hash(batch) for batch in drawn],
        place=place,
        joined=joined,
        notes=left_out(runner),
    )


def left_out(runner: Any) -> tuple[str, ...]:
    """Return what a training of this configuration does and its audit does not, a sentence each."""
    import torch

    wrapper = runner.optim_wrapper
    notes = [
        f"{key} of the configuration was not turned on, so what it changes in a training was not audited"
        for key in TURNED_ON_LATER
        if runner.cfg.get(key)
    ]
    if wrapper.clip_grad_kwargs:
        settings = ", ".join(f"{name} {value}" for name, value in wrapper.clip_grad_kwargs.items())
        notes.append(
            f"the clipping of gradients ({settings}) was not audited: the optimizer stepped with them as the backward "
            "pass left them"
        )
    # The wrapper divides a loss by as many; mmengine tells the number itself to nobody.
    added = round(1 / float(wrapper.scale_loss(torch.ones((), dtype=torch.float64))))
    if added > 1:
        notes.append(
            f"a training adds up the gradients of {added} iterations before it steps; here each iteration stepped by "
            "itself"
        )
    return tuple(notes)


def enter_state(runner: Any, place: Path) -> str:
    """Bring the model and the optimizer of a runner into a saved state; return its digest.

    Raises:
        DataError: If the state does not match its hash.
    """
    from emacheck.audit.iteration.state import load_state
    from emacheck.train.ranks import unwrapped

    state, digest = load_state(place)
    unwrapped(runner.model).load_state_dict(state["model"])
    _optimizer(runner).load_state_dict(state["optimizer"])
    return digest


def draw_parts(runner: Any, count: int, seed: int, *, factor: int = 1) -> list[Any]:
    """Draw the batches of this process, or in one process the joined batches of several.

    Args:
        runner: A runner of mmengine.
        count: How many.
        seed: The run's seed; each sample is drawn from a seed of its own place in the order.
        factor: How many batches of the configuration make one.

    Raises:
        UsageError: If the data loader is none whose samples can be placed.
    """
    from emacheck.errors import UsageError
    from emacheck.train.paired.batches import independent_of_workers

    plain = runner.cfg.train_dataloader
    size = plain.get("batch_size")
    loader = independent_of_workers(plain, seed + BATCH_SEED)
    if loader is plain or not isinstance(size, int):
        raise UsageError(
            "train_dataloader: found no batch_size, sampler and dataset that are configured, expected them for an "
            f"audit of several processes, whose shares of a batch must be known. {ALONE}"
        )
    loader = {**loader, "batch_size": size * factor}
    return _draw_batches(runner.build_dataloader(loader, seed=seed + BATCH_SEED), count, seed)


def training_loss(model: "torch.nn.Module", batch: Any) -> dict[str, Any]:
    """Return the losses of a model of mmengine, as its ``train_step`` would sum them."""
    import torch

    from emacheck.train.ranks import unwrapped

    network: Any = model
    data: Any = unwrapped(network)
    data = data.data_preprocessor(batch, training=True)
    output = network(**data, mode="loss") if isinstance(data, dict) else network(*data, mode="loss")
    losses = {}
    for name, value in output.items():
        if "loss" in name:
            parts = [value] if isinstance(value, torch.Tensor) else value
            losses[name] = sum(part.mean() for part in parts)
    return losses


def invariants() -> tuple["Invariant", ...]:
    """Return what must hold after an iteration of EMANet, beside what must hold after any."""
    from emacheck.audit.judging.invariants import DEFAULT

    return (*DEFAULT, bases_are_means_of_unit_vectors)


def bases_are_means_of_unit_vectors(model: "torch.nn.Module", before: "torch.nn.Module") -> str | None:  # noqa: ARG001
    """Complain about EMA bases longer than 1: the buffer is a moving average of vectors of unit l2 norm."""
    for name, buffer in model.named_buffers():
        if name.rpartition(".")[2] == "bases" and buffer.dim() == 3:
            longest = float(buffer.detach().float().norm(dim=1).max())
            if not longest <= 1 + 1e-3:
                return f"buffer {name} holds a basis of length {longest:g}, expected at most 1"
    return None


def build_runner(request: TrainingRequest, scratch: Path, device: "Device | None" = None, *, drawn: bool = True) -> Any:
    """Build model, optimizer and data of a training, on the CPU or on an opened device.

    Args:
        request: What would be trained.
        scratch: Where mmengine may write its logs.
        device: Where this process of several computes; None for one process on the CPU.
        drawn: Draw the initial weights; not worth the time where a saved state is entered.
    """
    from emacheck.train.device.devices import parse_device
    from emacheck.train.device.vanilla_mmengine import adapt, point_mmengine_at, step_in_float32
    from emacheck.train.presets import resolve
    from emacheck.train.runner import SeededRunner, UndrawnRunner

    point_mmengine_at(device or parse_device("cpu"))
    config, _ = resolve(request, scratch)
    _refuse_compiled(config)
    # The audit has an autocast and a loss scale of its own.
    step_in_float32(config)
    if device is not None:
        adapt(config, device)
        config.launcher = "pytorch"
    if config.default_scope == "mmseg":
        # What mmsegmentation tells of packages that it can do without is not for whoever reads what the audit says.
        with contextlib.redirect_stdout(io.StringIO()):
            from mmseg.utils import register_all_modules

            register_all_modules(init_default_scope=False)
    config.log_level = "WARNING"
    runner = (SeededRunner if drawn else UndrawnRunner).from_cfg(config)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    _refuse_several_optimizers(runner.optim_wrapper)
    _refuse_capturable(_optimizer(runner))
    return runner


def _refuse_compiled(config: Any) -> None:
    """Refuse what mmengine would compile before it trains: the audit would run other code than the training.

    Raises:
        UsageError: If so.
    """
    from emacheck.errors import UsageError

    if config.get("compile"):
        raise UsageError(
            f"compile: found {config.compile!r}, expected a training of the code as it is written: the audit calls "
            "modules one by one, so what torch.compile makes of them would not run, and an error in it would pass. "
            "Audit and train what is written with --cfg-options compile=False; what the compiler makes of it shows in "
            "the curves alone."
        )


def _refuse_several_optimizers(wrapper: Any) -> None:
    """Refuse what trains with a train_step of its own, which says when each optimizer steps.

    Raises:
        UsageError: If so.
    """
    from mmengine.optim import OptimWrapperDict

    from emacheck.errors import UsageError

    if isinstance(wrapper, OptimWrapperDict):
        raise UsageError(
            f"optim_wrapper: found several optimizers ({', '.join(wrapper.keys())}), expected one, with which the "
            "audit steps after each backward pass. What several do shows in the curves alone."
        )


def _refuse_capturable(optimizer: "torch.optim.Optimizer") -> None:
    """Refuse what torch steps on no CPU, against which the audit holds the step of the device.

    Raises:
        UsageError: If so.
    """
    from emacheck.errors import UsageError

    if any(group.get("capturable") for group in optimizer.param_groups):
        raise UsageError(
            "optim_wrapper.optimizer: found capturable=True, expected an optimizer that steps on the CPU as well. "
            "Audit with --cfg-options optim_wrapper.optimizer.capturable=False; what capturable=True does shows in the "
            "curves alone."
        )


def _optimizer(runner: Any) -> Any:
    return runner.optim_wrapper.optimizer


def _place(request: TrainingRequest, runner: Any) -> Path:
    from emacheck.data.synthetic import cache_root

    return cache_root() / "audit-states" / _key(request, runner)


def _key(request: TrainingRequest, runner: Any) -> str:
    """Return the name of the cached state: a hash of all that decides it."""
    import torch

    from emacheck.experiment import digest, flatten

    config = {
        name: value for name, value in flatten(runner.cfg.to_dict()).items() if not name.startswith(("work_dir", "log"))
    }
    fields = {name: value for name, value in asdict(request).items() if name in ("seed", "threads", "data_hash")}
    fields |= {"config": digest(config), "draws": runner.cfg.draws, "torch": torch.__version__, "warm_up": WARM_UP}
    if runner.optim_wrapper.clip_grad_kwargs:
        fields["clipped"] = True
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _warm_up(runner: Any, progress: Callable[[str], None]) -> None:
    """Train 30 iterations on the CPU from the stock initialisation, the learning rate at its start."""
    runner.model.train()
    # It clips gradients where the configuration says so, without which some trainings diverge.
    wrapper = runner.optim_wrapper
    for iteration, batch in enumerate(_draw_batches(_loader(runner, 0), WARM_UP, 0), 1):
        if iteration % PROGRESS_EVERY == 0:
            progress(f"Preparing the state to audit, iteration {iteration} of {WARM_UP}")
        losses = training_loss(runner.model, batch)
        wrapper.zero_grad()
        sum(losses.values()).backward()
        wrapper.step()


def _loader(runner: Any, seed: int) -> Any:
    from emacheck.train.building import building

    with building(runner.cfg):
        return runner.build_dataloader(runner.cfg.train_dataloader, seed=seed + BATCH_SEED)


def _draw_batches(loader: Any, count: int, seed: int) -> list[Any]:
    """Draw batches with the seeds that follow from one seed, whatever was drawn before."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the augmentations draw from this generator
    torch.manual_seed(seed)
    found: list[Any] = []
    while len(found) < count:
        before = len(found)
        for batch in loader:
            found.append(batch)
            if len(found) == count:
                break
        if len(found) == before:
            break
    return found
