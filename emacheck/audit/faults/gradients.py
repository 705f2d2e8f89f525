"""Faults in gradients, between the backward pass and the optimizer."""

from collections.abc import Callable

import torch

from emacheck.audit.faults.places import convolution, norm
from emacheck.audit.faults.registry import fault, finer_than
from emacheck.audit.iteration.subject import Candidate


@fault(kind="gradient", severities=(1.001, 1.01, 1.1), unit="times")
def one_gradient_scaled(candidate: Candidate, severity: float) -> str:
    """The gradient of one weight is scaled."""
    name, module = convolution(candidate.model, 0.55)
    module.weight.register_hook(lambda gradient: gradient * severity)
    return name


@fault(kind="gradient")
def one_gradient_zero(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The gradient of one weight is zero."""
    name, module = norm(candidate.model, 0.65)
    module.weight.register_hook(torch.zeros_like)
    return name


@fault(kind="gradient")
def one_weight_frozen(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One weight gets no gradient."""
    name, module = convolution(candidate.model, 0.15)
    module.weight.requires_grad_(False)
    return name


@fault(
    kind="gradient",
    severities=(1.001, 2.0, 8.0),
    unit="times",
    imitates="https://github.com/huggingface/transformers/issues/35203",
)
def gradients_summed_instead_of_averaged(candidate: Candidate, severity: float) -> None:
    """All gradients are too large, as when ranks or micro-batches are summed instead of averaged."""
    _change_all(candidate, lambda gradient: gradient * severity)


@fault(kind="gradient", imitates="https://github.com/deepspeedai/DeepSpeed/pull/8588")
def loss_scale_not_undone(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """The optimizer sees gradients that still carry the loss scale."""
    _change_all(candidate, lambda gradient: gradient * 65536.0)


@fault(kind="gradient", severities=(1.0, 0.1), unit="largest norm")
def gradients_clipped(candidate: Candidate, severity: float) -> None:
    """The norm of all gradients is clipped, which nobody asked for."""

    def clip(this: Candidate) -> None:
        torch.nn.utils.clip_grad_norm_(this.model.parameters(), severity)

    candidate.before_step = clip


@fault(kind="gradient", precisions=finer_than(7))
def gradients_reduced_in_bfloat16(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Gradients pass through bfloat16 on their way to the optimizer."""
    _change_all(candidate, lambda gradient: gradient.bfloat16().to(gradient.dtype))


@fault(kind="gradient")
def gradients_of_the_previous_iteration(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """The optimizer steps with the direction it went last time instead of this iteration's gradient."""

    def stale(this: Candidate) -> None:
        state = {} if this.optimizer is None else this.optimizer.state
        for parameter in this.model.parameters():
            old = next((v for v in state.get(parameter, {}).values() if _like(v, parameter)), None)
            if parameter.grad is not None and old is not None:
                parameter.grad.copy_(old)

    candidate.before_step = stale


@fault(kind="gradient", severities=(1e-7, 1e-4), unit="threshold")
def small_gradients_flushed(candidate: Candidate, severity: float) -> None:
    """Gradients below a threshold become zero, as in a type with a small exponent."""
    _change_all(
        candidate, lambda gradient: torch.where(gradient.abs() < severity, torch.zeros_like(gradient), gradient)
    )


def _like(value: object, parameter: torch.nn.Parameter) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


def _change_all(candidate: Candidate, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    def before_step(this: Candidate) -> None:
        for parameter in this.model.parameters():
            if parameter.grad is not None:
                parameter.grad = change(parameter.grad)

    candidate.before_step = before_step
