"""One process of an audit of several, started by torch's launcher: ``python -m emacheck.cli.audit.rank DIRECTORY``.

It starts from the shared state, takes its share of each joined batch, and reports what its iteration did.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emacheck.audit.findings.processes import RankBatch, RankReport, key
from emacheck.cli.audit.job import read_job
from emacheck.errors import TrainingError, UsageError
from emacheck.rank_files import rank_file
from emacheck.strict_json import strict
from emacheck.train.launching.program import leave_with, watched_over
from emacheck.train.request import TrainingRequest

if TYPE_CHECKING:
    import torch

    from emacheck.audit.iteration.subject import Candidate
    from emacheck.audit.lockstep.end_to_end import Conditions, Found
    from emacheck.train.device.devices import Device

JOB_FILE, REPORTS_FILE = "rank_job.json", "ranks.json"
WRAPPED = "module."


@dataclass(frozen=True, slots=True, kw_only=True)
class RankJob:
    """What each process is asked to do.

    Attributes:
        request: The training that is audited.
        device: The candidate device.
        backend: Another communication backend than the device's own, or None.
        precision: The accepted precision.
        batches: Number of batches.
        place: Where the shared state is kept.
        state_hash: Its SHA-256.
        fault: A fault of the class ``processes``, by which the audit is tested; None for none.
        double: Compute in float64, which proves the arbiter and says nothing about the device.
    """

    request: TrainingRequest
    device: str
    backend: str | None = None
    precision: str = "fp32"
    batches: int = 3
    place: str
    state_hash: str
    fault: str | None = None
    double: bool = False


def tensors_file(batch: int) -> str:
    """Return the name of the file with all tensors of rank 0 on a batch."""
    return f"batch{batch}.pt"


def main(arguments: list[str]) -> int:
    """Do one process's part of a directory's job.

    Returns:
        0 when it is done, 4 when it was refused (the reason is in ``refusal.txt``).
    """
    return watched_over(
        lambda directory: audit_rank(read_job(RankJob, directory / JOB_FILE), directory), Path(arguments[0])
    )


def audit_rank(job: RankJob, directory: Path) -> None:
    """Run this process's iterations and report them; rank 0 writes the reports of all.

    Raises:
        UsageError: If the device, the backend or the configuration cannot be used, or other ranks are asked for another
            audit.
        DataError: If the shared state does not match its hash.
        TrainingError: If it is not the same on all nodes.
    """
    import torch
    import torch.distributed as dist

    warnings.filterwarnings("ignore")
    torch.set_num_threads(job.request.threads)
    from emacheck.train import ranks
    from emacheck.train.device.devices import parse_device
    from emacheck.train.device.precision import check_autocast, check_precision, set_float32

    device = parse_device(job.device)
    check_precision(device, job.precision)
    scratch = directory / f"rank{ranks.rank()}"
    ranks.agree(_task(job, device, scratch))
    device = ranks.open_device_of_rank(device, job.backend)
    check_autocast(device, job.precision)
    candidate, batches = _prepared(job, device, scratch)
    # Last, for what a configuration imports may have set it otherwise.
    set_float32(device, job.precision)
    report = RankReport(rank=ranks.rank(), device=str(device), start=_hashes(candidate))
    conditions = _conditions(job, device)
    for number, batch in enumerate(batches, 1):
        report.batches.append(_iterate(candidate, batch, conditions, _keeping(directory, number)))
        _beat(directory, report.batches[-1])
    reports: list[Any] = [None] * ranks.world_size()
    dist.all_gather_object(reports, report.to_json())
    if ranks.rank() == 0:
        (directory / REPORTS_FILE).write_text(json.dumps(reports, allow_nan=False), encoding="utf-8")
    ranks.leave()


def _task(job: RankJob, device: "Device", scratch: Path) -> dict[str, Any]:
    """Return what must be equal on every rank; each resolves the configuration by itself."""
    from emacheck.train import ranks
    from emacheck.train.device.vanilla_mmengine import ask_for_precision
    from emacheck.train.presets import resolve
    from emacheck.train.worker import describe_experiment, describe_task

    request = replace(job.request, precision=job.precision)
    config, _ = resolve(request, scratch)
    ask_for_precision(config, request.precision)
    experiment = describe_experiment(request, config, processes=ranks.world_size())
    return {**describe_task(request, experiment, device), "batches": job.batches, "fault": job.fault}


def _prepared(job: RankJob, device: "Device", scratch: Path) -> tuple["Candidate", list[Any]]:
    """Build the training as :mod:`emacheck.train.worker` does, enter the shared state and draw this rank's batches."""
    import torch.distributed as dist

    from emacheck.audit.faults.loading import process_faults
    from emacheck.audit.iteration.subject import Candidate, named_tensors
    from emacheck.cli.audit.training import build_runner, draw_parts, enter_state, training_loss
    from emacheck.train import ranks
    from emacheck.train.device.accelerator import step_marker
    from emacheck.train.observed import elsewhere
    from emacheck.train.paired.dropout import start_masks

    with _default_type(double=job.double):
        runner = build_runner(job.request, scratch, device, drawn=False)
    if found := elsewhere(runner.model, device):
        raise TrainingError(found)
    digests: list[Any] = [None] * ranks.world_size()
    dist.all_gather_object(digests, enter_state(runner, Path(job.place)))
    if set(digests) != {job.state_hash}:
        raise TrainingError(
            f"found other states in the caches of the nodes ({', '.join(sorted(set(digests)))}), expected one: each "
            f"node made its own. Copy {job.place} from node 0 to all others."
        )

    def loss(model: "torch.nn.Module", batch: Any) -> dict[str, Any]:
        start_masks(model)
        return training_loss(model, batch)

    candidate = Candidate(model=runner.model, optimizer=runner.optim_wrapper.optimizer, loss=loss)
    candidate.mark_step = step_marker(device)
    candidate.model.train()
    batches = draw_parts(runner, job.batches, job.request.seed)
    if job.double:
        # What is not in the state, such as the mean of the images, must be what float32 makes of it here as well.
        for _, tensor in named_tensors(candidate.model):
            tensor.detach().copy_(tensor.detach().float())
    if job.fault is not None:
        process_faults()[job.fault](candidate)
    return candidate, batches


@contextmanager
def _default_type(*, double: bool) -> Iterator[None]:
    """Make what is built float64; what distributes a model keeps the type in which it was built."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if double else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _conditions(job: RankJob, device: "Device") -> "Conditions":
    import torch

    from emacheck.audit.arithmetic.precision import Precision
    from emacheck.audit.iteration.draws import DrawsOfSamples
    from emacheck.audit.lockstep.end_to_end import Conditions

    return Conditions(
        device=torch.device(str(device)),
        dtype=torch.float64 if job.double else None,
        precision=Precision(name=job.precision),
        seed=job.request.seed,
        draws=DrawsOfSamples,
    )


def _hashes(candidate: "Candidate") -> dict[str, str]:
    from emacheck.audit.iteration.subject import named_tensors
    from emacheck.train.paired.fingerprint import tensor_hash

    named = named_tensors(candidate.model, remove_duplicate=False)
    return {name.removeprefix(WRAPPED): tensor_hash(tensor) for name, tensor in named}


Keep = Callable[[dict[str, Any]], None]


def _keeping(directory: Path, number: int) -> Keep | None:
    from emacheck.train import ranks

    def keep(tensors: dict[str, Any]) -> None:
        import torch

        torch.save(tensors, directory / tensors_file(number))

    return keep if ranks.rank() == 0 else None


def _iterate(candidate: "Candidate", batch: Any, conditions: "Conditions", keep: Keep | None) -> RankBatch:
    """Run one iteration, look at it, and undo it."""
    from emacheck.audit.iteration.calls import LOSS
    from emacheck.audit.iteration.draws import ForeignDrawError
    from emacheck.audit.lockstep.end_to_end import observed, preserved
    from emacheck.cli.audit.training import ALONE
    from emacheck.train.paired.fingerprint import sample_hashes, tensor_hash

    fed: list[Any] = []
    change = candidate.change_batch

    def feed(given: Any) -> Any:
        fed.append(change(given) if change else given)
        return fed[-1]

    candidate.change_batch = feed
    own, handles = _own_gradients(candidate.model)
    try:
        with preserved(candidate) as weights:
            found = observed(candidate, batch, conditions, weights)
            losses = {part.path: float(tensor()) for (name, part), tensor in found.items() if name == LOSS}
            reduced = _reduced(candidate.model, own, conditions.precision.loss_scale)
            hashes, kept = {}, {}
            for name, tensor in _named(found):
                value = tensor()
                hashes[name] = tensor_hash(value)
                if keep is not None:
                    kept[name] = _smallest(value)
            if keep is not None:
                keep(kept)
    except ForeignDrawError as error:
        raise UsageError(
            f"{error} draws random numbers for the whole batch of a process, so several processes cannot be held "
            f"against one. Set the rate of this dropout to 0 with --cfg-options. {ALONE}"
        ) from error
    finally:
        candidate.change_batch = change
        for handle in handles:
            handle.remove()
    return RankBatch(samples=sample_hashes(fed[-1]), losses=losses, hashes=hashes, reduced=reduced)


def _named(found: "Found") -> list[tuple[str, Callable[[], Any]]]:
    """Return what is compared between ranks, by name; each has losses of its own."""
    from emacheck.audit.iteration.calls import LOSS

    return [
        (key(part.kind, name.removeprefix(WRAPPED), part.path), tensor)
        for (name, part), tensor in found.items()
        if name != LOSS
    ]


def _smallest(value: "torch.Tensor") -> "torch.Tensor":
    """Return a tensor in float32 if that loses nothing: gradients are float32, updates are differences."""
    import torch

    small = value.to(torch.float32)
    return small if torch.equal(small.to(value.dtype), value) else value


def _own_gradients(model: "torch.nn.Module") -> tuple[dict[str, "torch.Tensor"], list[Any]]:
    """Note the gradients of this process as they reach the parameters, before they are reduced."""
    own: dict[str, Any] = {}
    handles = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:

            def note(gradient: Any, name: str = name) -> None:
                own[name] = gradient.detach().clone()

            handles.append(parameter.register_hook(note))  # type: ignore[no-untyped-call]
    return own, handles


def _reduced(model: "torch.nn.Module", own: dict[str, "torch.Tensor"], scale: float) -> dict[str, float]:
    """Return how far each reduced gradient is from the mean of all processes' own; gloo takes it in float64."""
    import torch
    import torch.distributed as dist

    found = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        mine = own.pop(name, None)
        value = torch.zeros(parameter.shape, dtype=torch.float64)
        if mine is not None:
            value += mine.to(device="cpu", dtype=torch.float64) / scale
        norms = torch.stack([torch.linalg.vector_norm(value), value.abs().max()])
        dist.all_reduce(norms, op=dist.ReduceOp.MAX)
        dist.all_reduce(value)
        if parameter.grad is None:
            continue
        value.div_(dist.get_world_size()).sub_(parameter.grad.detach().to(device="cpu", dtype=torch.float64))
        away = torch.stack([torch.linalg.vector_norm(value), value.abs().max()])
        found[name.removeprefix(WRAPPED)] = float(torch.where(away == 0, 0.0, away / norms).max())
    return found


def _beat(directory: Path, batch: RankBatch) -> None:
    """Write a line into this rank's record, which the command watches."""
    from emacheck.train import ranks

    with suppress(OSError), (directory / rank_file(ranks.rank())).open("a", encoding="utf-8") as record:
        record.write(json.dumps(strict({"metrics": {"loss": sum(batch.losses.values())}})) + "\n")


if __name__ == "__main__":
    leave_with(main)
