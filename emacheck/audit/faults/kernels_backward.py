"""Faults in backward kernels: the forward pass, and so the first loss, is right."""

from typing import Any

import torch

from emacheck.audit.faults.places import change_output, convolution, norm, pick, replace_operator, scaled, with_gradient
from emacheck.audit.faults.registry import fault
from emacheck.audit.iteration.subject import Candidate


@fault(
    kind="kernel",
    severities=(1e-3, 1e-1),
    unit="relative",
    imitates="https://github.com/kulinseth/pytorch/pull/179",
)
def convolution_input_gradient_wrong_in_a_tile(candidate: Candidate, severity: float) -> str:
    """The gradient of one convolution's input is off in its last column."""
    name, module = convolution(candidate.model, 0.65)

    def change(gradient: torch.Tensor) -> torch.Tensor:
        return scaled(gradient, (..., -1), 1 + severity)

    module.register_forward_pre_hook(lambda _, inputs: (with_gradient(inputs[0], change), *inputs[1:]))
    return name


@fault(kind="kernel")
def weight_gradient_loses_half_the_batch(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The gradient of one convolution's weight accumulates the first half of the batch only."""
    name, module = convolution(candidate.model, 0.25)

    def forward(value: torch.Tensor) -> torch.Tensor:
        half = max(len(value) // 2, 1)
        weights = (module.weight, module.weight.detach())
        parts = zip((value[:half], value[half:]), weights, strict=True)
        return torch.cat([module._conv_forward(part, weight, module.bias) for part, weight in parts if len(part)])

    module.forward = forward
    return name


@fault(
    kind="kernel",
    severities=(1e-3, 1.0),
    unit="share of the mean that is lost",
    imitates="https://github.com/pytorch/pytorch/issues/175189",
)
def norm_backward_loses_the_mean(candidate: Candidate, severity: float) -> str:
    """The gradient of one batch norm's input lacks part of the term of the mean."""
    name, module = norm(candidate.model, 0.55)

    def change(this: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        axes = tuple(axis for axis in range(output.dim()) if axis != 1)
        value, shape = inputs[0].float(), [1, -1] + [1] * (output.dim() - 2)
        scale = this.weight.detach().view(shape) / (value.detach().var(axes, False, keepdim=True) + this.eps).sqrt()
        mean = value.mean(axes, keepdim=True)
        # Zero by itself, and its gradient is what is lost.
        lost: torch.Tensor = severity * scale * (mean - mean.detach())
        return output + lost.to(output.dtype)

    module.register_forward_hook(change)
    return name


@fault(kind="kernel", severities=(1e-3, 1e-1), unit="relative")
def pooling_backward_scaled(candidate: Candidate, severity: float) -> str:
    """The gradient of max pooling is a little too large."""
    name, _ = pick(candidate.model, torch.nn.MaxPool2d)
    _scale_result(candidate, "max_pool2d_with_indices_backward", 1 + severity)
    return name


@fault(
    kind="kernel",
    severities=(1e-3, 1e-1),
    unit="relative",
    imitates="https://github.com/intel/torch-xpu-ops/pull/4380",
)
def upsampling_backward_scaled(candidate: Candidate, severity: float) -> None:
    """The gradient of bilinear upsampling is a little too large."""
    _scale_result(candidate, "upsample_bilinear2d_backward", 1 + severity)


@fault(
    kind="kernel",
    severities=(1e-3, 1e-1),
    unit="relative",
    imitates="https://github.com/pytorch/pytorch/pull/139740",
)
def log_softmax_backward_scaled(candidate: Candidate, severity: float) -> None:
    """The gradient of the cross entropy's log-softmax is a little too large."""
    _scale_result(candidate, "_log_softmax_backward_data", 1 + severity)


@fault(kind="kernel")
def relu_backward_passes_everything(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """The gradient of every activation passes where the input was negative."""
    replace_operator(candidate, ("threshold_backward",), lambda func, args, kwargs: args[0].clone())  # noqa: ARG005


def _scale_result(candidate: Candidate, name: str, factor: float) -> None:
    replace_operator(candidate, (name,), lambda func, args, kwargs: func(*args, **kwargs) * factor)


@fault(kind="kernel", imitates="https://github.com/pytorch/pytorch/issues/182952", precisions=("fp16",))
def subnormals_flushed(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One convolution flushes what lies below the smallest normal number to zero, in its output and its gradient."""
    name, module = convolution(candidate.model, 0.5)

    def flush(value: torch.Tensor) -> torch.Tensor:
        # In float32 that is 1e-38, which no tensor of a training comes near.
        return torch.where(value.abs() < torch.finfo(value.dtype).tiny, torch.zeros_like(value), value)

    change_output(module, lambda output: with_gradient(flush(output), flush))
    return name
