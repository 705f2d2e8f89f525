"""Faults in batch normalisation."""

from typing import Any

import torch

from emacheck.audit.faults.places import change_output, norm, scaled
from emacheck.audit.faults.registry import fault
from emacheck.audit.iteration.subject import Candidate


@fault(
    kind="norm",
    severities=(1e-4, 1e-3),
    unit="epsilon",
    imitates="https://github.com/traveller59/second.pytorch/issues/364",
)
def epsilon_of_one_norm(candidate: Candidate, severity: float) -> str:
    """One batch norm uses another epsilon."""
    name, module = norm(candidate.model)
    module.eps = severity
    return name


@fault(kind="norm", imitates="https://github.com/r9y9/tacotron_pytorch/issues/19")
def epsilon_of_every_norm(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Every batch norm uses TensorFlow's epsilon of 1e-3."""
    norm(candidate.model)
    for module in candidate.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eps = 1e-3


@fault(
    kind="norm",
    severities=(0.101, 0.11, 0.0),
    unit="momentum",
    imitates="https://github.com/Cadene/pretrained-models.pytorch/issues/5",
)
def momentum_of_one_norm(candidate: Candidate, severity: float) -> str:
    """One batch norm updates its running statistics with another momentum."""
    name, module = norm(candidate.model, 0.6)
    module.momentum = severity
    return name


@fault(kind="norm", imitates="https://github.com/Oneflow-Inc/oneflow/pull/6055")
def momentum_of_every_norm_inverted(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Every batch norm takes its momentum by the opposite convention, 1 - momentum."""
    norm(candidate.model)
    for module in candidate.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = 1 - module.momentum


@fault(kind="norm", imitates="https://github.com/tenstorrent/tt-metal/issues/55438")
def running_variance_biased(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One batch norm updates its running variance with the biased estimate."""
    name, module = norm(candidate.model, 0.4)
    before: dict[str, torch.Tensor] = {}

    def remember(this: Any, inputs: Any) -> None:  # noqa: ARG001
        before["variance"] = this.running_var.clone()

    def correct(this: Any, inputs: Any, output: Any) -> None:  # noqa: ARG001
        count = inputs[0].numel() / inputs[0].shape[1]
        kept = before["variance"] * (1 - this.momentum)
        if this.training:
            # Past autograd, which keeps the buffer for the backward pass; a kernel would write it as well.
            this.running_var.data.copy_(kept + (this.running_var - kept) * (count - 1) / count)

    module.register_forward_pre_hook(remember)
    module.register_forward_hook(correct)
    return name


@fault(kind="norm")
def one_norm_in_evaluation_mode(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One batch norm normalises with its running statistics while it trains."""
    name, module = norm(candidate.model, 0.5)
    module.eval()
    return name


@fault(kind="norm", imitates="https://github.com/pytorch/pytorch/issues/62967")
def statistics_of_every_sample_alone(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One synchronised batch norm is not: each sample is normalised by its own statistics."""
    name, module = norm(candidate.model, 0.7)
    own = module.forward
    module.forward = lambda value: torch.cat([own(part) for part in value.split(1)])
    return name


@fault(kind="norm", severities=(1e-3, 1e-1), unit="relative")
def affine_weight_ignored_in_one_channel(candidate: Candidate, severity: float) -> str:
    """One batch norm applies a wrong weight to its first channel."""
    name, module = norm(candidate.model, 0.3)
    change_output(module, lambda output: scaled(output, (slice(None), 0), 1 + severity))
    return name
