"""Faults in expectation-maximization attention."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name

from emacheck.audit.faults.places import expectation_maximization
from emacheck.audit.faults.registry import NotApplicableError, fault
from emacheck.audit.iteration.subject import Candidate


@fault(kind="attention", severities=(0.0, 0.09, 0.9), unit="momentum")
def momentum_of_the_bases(candidate: Candidate, severity: float) -> str:
    """The bases are updated with another momentum; 0 leaves them stale."""
    name, module = expectation_maximization(candidate.model)
    module.momentum = severity
    return name


@fault(kind="attention")
def one_stage_missing(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The expectation-maximization runs one stage too few."""
    name, module = expectation_maximization(candidate.model)
    if getattr(module, "num_stages", 1) < 2:
        raise NotApplicableError("the model runs a single stage")
    module.num_stages -= 1
    return name


@fault(kind="attention")
def bases_half_updated(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The second half of the bases keeps its old values."""
    name, module = expectation_maximization(candidate.model)

    def keep(now: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        half = now.shape[-1] // 2
        return torch.cat([now[..., :half], old[..., half:]], dim=-1)

    _after_update(module, keep)
    return name


@fault(kind="attention")
def bases_of_the_first_sample_only(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The bases are updated from the first sample instead of the mean: not reduced over ranks."""
    name, module = expectation_maximization(candidate.model)
    own = module.forward

    def forward(value: torch.Tensor) -> torch.Tensor:
        start = module.bases.clone()
        output: torch.Tensor = own(value)
        if module.training:
            module.bases = start
            with torch.no_grad():
                own(value[:1])
        return output

    module.forward = forward
    return name


@fault(kind="attention", severities=(1e-3, 1e-1), unit="relative")
def bases_not_quite_normalised(candidate: Candidate, severity: float) -> str:
    """The moving average of the bases is a little too long."""
    name, module = expectation_maximization(candidate.model)
    _after_update(module, lambda now, old: now * (1 + severity))  # noqa: ARG005
    return name


@fault(kind="attention")
def bases_normalised_over_the_wrong_axis(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The l2 norm of the bases is taken over bases instead of channels."""
    name, module = expectation_maximization(candidate.model)
    own, normalise = module.forward, F.normalize

    def other_axis(value: torch.Tensor, p: float = 2.0, dim: int = 1) -> torch.Tensor:
        return normalise(value, p=p, dim=2 if p == 2 else dim)

    def forward(value: torch.Tensor) -> torch.Tensor:
        F.normalize = other_axis  # type: ignore[assignment]
        try:
            output: torch.Tensor = own(value)
        finally:
            F.normalize = normalise
        return output

    module.forward = forward
    return name


def _after_update(module: Any, change: Any) -> None:
    """Change the bases right after the module updated them."""
    own = module.forward

    def forward(value: torch.Tensor) -> torch.Tensor:
        old = module.bases.clone()
        output: torch.Tensor = own(value)
        if module.training:
            module.bases = change(module.bases, old)
        return output

    module.forward = forward


@fault(kind="attention")
def gradient_through_the_iterations(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The expectation-maximization carries gradients, which the method leaves out."""
    name, module = expectation_maximization(candidate.model)
    own = module.forward

    def forward(*args: Any) -> Any:
        before = torch.no_grad
        torch.no_grad = torch.enable_grad  # type: ignore[assignment, misc]
        try:
            return own(*args)
        finally:
            torch.no_grad = before  # type: ignore[misc]
            module._buffers["bases"] = module.bases.detach()

    module.forward = forward
    return name
