"""Faults in what several processes exchange; each is put into every process, and knows in which of them it acts."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from emacheck.audit.faults.places import convolution, expectation_maximization
from emacheck.audit.faults.registry import PROCESSES, NotApplicableError, fault
from emacheck.audit.iteration.subject import Candidate


def _wrapped(candidate: Candidate) -> DistributedDataParallel:
    if not isinstance(candidate.model, DistributedDataParallel) or dist.get_world_size() == 1:
        raise NotApplicableError("there is one process")
    return candidate.model


def _is_last_rank() -> bool:
    return dist.get_rank() == dist.get_world_size() - 1


def _reduce_otherwise(candidate: Candidate, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Put something else in the place of the all-reduce that takes the mean: the sum of changed buckets."""

    def reduced(bucket: Any) -> Any:
        buffer = bucket.buffer()
        changed = change(buffer)
        future: Any = dist.all_reduce(changed, async_op=True).get_future()
        return future.then(lambda done: buffer.copy_(done.value()[0]))

    # torch looks at the annotations of a hook, so it gets one without.
    _wrapped(candidate).register_comm_hook(None, lambda _, bucket: reduced(bucket))


@fault(kind=PROCESSES)
def all_reduce_adds(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """The all-reduce adds the gradients of the processes and takes no mean."""
    _reduce_otherwise(candidate, lambda buffer: buffer)


@fault(kind=PROCESSES)
def all_reduce_in_bfloat16(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Gradients go through bfloat16 while they are reduced."""
    _reduce_otherwise(candidate, lambda buffer: buffer.to(torch.bfloat16).div_(dist.get_world_size()))


@fault(kind=PROCESSES)
def gradients_not_reduced(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Each process steps with its own gradients, as after a ``no_sync`` that was left on."""
    _wrapped(candidate).require_backward_grad_sync = False


@fault(kind=PROCESSES, severities=(2.0,), unit="times")
def one_rank_scales_its_gradients(candidate: Candidate, severity: float) -> None:
    """One process hands gradients that are too large to the all-reduce."""
    for parameter in _wrapped(candidate).parameters():
        if parameter.requires_grad and _is_last_rank():
            parameter.register_hook(lambda gradient: gradient * severity)  # type: ignore[no-untyped-call]


@fault(kind=PROCESSES, severities=(1.5,), unit="times")
def one_rank_scales_one_gradient(candidate: Candidate, severity: float) -> str:
    """One process hands one gradient that is too large to the all-reduce."""
    name, module = convolution(_wrapped(candidate).module, 0.6)
    if _is_last_rank():
        module.weight.register_hook(lambda gradient: gradient * severity)
    return name


@fault(kind=PROCESSES, severities=(1.000001,), unit="times")
def one_rank_scales_a_reduced_gradient(candidate: Candidate, severity: float) -> str:
    """One process changes a gradient after the all-reduce."""
    name, module = convolution(_wrapped(candidate).module, 0.4)

    def scale(_: Candidate) -> None:
        module.weight.grad.mul_(severity)

    candidate.before_step = scale if _is_last_rank() else None
    return name


@fault(kind=PROCESSES)
def bases_not_reduced(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """Each process keeps the EMA bases of its own samples."""
    name, module = expectation_maximization(_wrapped(candidate).module)
    import importlib

    source = importlib.import_module(type(module).__module__)
    if not hasattr(source, "reduce_mean"):
        raise NotApplicableError(f"{source.__name__} has no reduce_mean")
    candidate.patch(source, "reduce_mean", lambda tensor: tensor)
    return name


def _synchronised(model: torch.nn.Module) -> list[tuple[str, Any]]:
    kinds = ("SyncBatchNorm", "HostSyncBatchNorm")
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, SyncBatchNorm) or type(module).__name__ in kinds
    ]
    if not found:
        raise NotApplicableError("the model has no synchronised batch norm")
    return found


class LoneBatchNorm(_BatchNorm):
    """A batch norm of one process, for inputs of any number of dimensions."""

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002 - torch's name
        pass


@fault(kind=PROCESSES)
def batch_norm_not_synchronised(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Every batch norm takes its statistics from the samples of its own process."""
    for _, module in _synchronised(_wrapped(candidate).module):
        module.__class__ = LoneBatchNorm


@fault(kind=PROCESSES)
def one_batch_norm_not_synchronised(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One batch norm takes its statistics from the samples of its own process."""
    found = _synchronised(_wrapped(candidate).module)
    name, module = found[len(found) // 2]
    module.__class__ = LoneBatchNorm
    return name


@fault(kind=PROCESSES)
def one_rank_repeats_the_batch_of_another(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Two processes are fed the same samples, as by a sampler that does not know its rank."""
    _wrapped(candidate)
    last = dist.get_world_size() - 1

    def change(batch: Any) -> Any:
        held = [batch]
        dist.broadcast_object_list(held, src=0)
        return held[0] if dist.get_rank() == last else batch

    candidate.change_batch = change


@fault(kind=PROCESSES)
def one_rank_starts_one_ulp_off(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One weight of one process differs from that of the others in its last bit."""
    name, module = convolution(_wrapped(candidate).module, 0.5)
    if _is_last_rank():
        with torch.no_grad():
            flat = module.weight.view(-1)
            flat[0] = torch.nextafter(flat[0].cpu(), torch.tensor(2.0, dtype=flat.dtype)).to(flat.device)
    return name


@fault(kind=PROCESSES)
def one_rank_keeps_another_momentum(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """The momentum of one process decays more slowly than that of the others."""
    _wrapped(candidate)
    groups = [] if candidate.optimizer is None else candidate.optimizer.param_groups
    if not any("momentum" in group for group in groups):
        raise NotApplicableError("the optimizer has no momentum")
    for group in groups if _is_last_rank() else []:
        group["momentum"] *= 1.01
