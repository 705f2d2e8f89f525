"""Faults in the state that a candidate starts from."""

import torch

from emacheck.audit.faults.places import convolution, norm
from emacheck.audit.faults.registry import NotApplicableError, fault
from emacheck.audit.iteration.subject import Candidate


@fault(kind="state", severities=(1e-5, 1e-3), unit="relative")
def one_weight_corrupted(candidate: Candidate, severity: float) -> str:
    """One element of one weight arrived wrong on the device, by a part of the largest."""
    name, module = convolution(candidate.model, 0.35)
    with torch.no_grad():
        module.weight.view(-1)[0] += severity * module.weight.abs().max()
    return name


@fault(kind="state")
def one_weight_stored_in_bfloat16(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One weight went through bfloat16 on its way to the device."""
    name, module = convolution(candidate.model, 0.75)
    with torch.no_grad():
        module.weight.copy_(module.weight.bfloat16())
    return name


@fault(kind="state")
def weight_layout_mixed_up(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One convolution's kernels are transposed: rows and columns changed places."""
    name, module = convolution(candidate.model, 0.5, lambda conv: conv.kernel_size == (3, 3))
    with torch.no_grad():
        module.weight.copy_(module.weight.transpose(-1, -2).clone())
    return name


@fault(kind="state")
def running_mean_not_updated_in_one_channel(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One channel of one batch norm keeps its old running mean."""
    name, module = norm(candidate.model, 0.45)
    kept: dict[str, torch.Tensor] = {}
    module.register_forward_pre_hook(lambda this, _: kept.__setitem__("mean", this.running_mean.clone()))

    def restore(this: torch.nn.BatchNorm2d, _: object, __: object) -> None:
        if this.training and this.running_mean is not None:
            this.running_mean.data[0] = kept["mean"][0]

    module.register_forward_hook(restore)
    return name


@fault(kind="state")
def counter_of_one_norm_lost(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The number of batches that one batch norm has seen starts from zero again."""
    name, module = norm(candidate.model, 0.55)
    if not getattr(module, "num_batches_tracked", None):
        raise NotApplicableError("the norm has seen no batch")
    module.num_batches_tracked.zero_()
    return name
