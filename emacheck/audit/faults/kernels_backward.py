"""Faults in backward kernels: the forward pass, and so the first loss, is right."""

from typing import Any

import torch

from emacheck.audit.faults.places import convolution, norm, pick, replace_operator, same_storage
from emacheck.audit.faults.registry import fault
from emacheck.audit.subject import Candidate


@fault(
    kind="kernel",
    severities=(1e-3, 1e-1),
    unit="relative",
    imitates="https://github.com/kulinseth/pytorch/pull/179",
)
def convolution_input_gradient_wrong_in_a_tile(candidate: Candidate, severity: float) -> str:
    """The gradient of one convolution's input is off in its last column."""
    name, module = convolution(candidate.model, 0.65)
    weight = module.weight

    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if same_storage(args[2], weight) and result[0] is not None:
            result[0][..., -1] *= 1 + severity
        return result

    replace_operator(candidate, ("convolution_backward",), change)
    return name


@fault(kind="kernel")
def weight_gradient_loses_half_the_batch(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The gradient of one convolution's weight accumulates the first half of the batch only."""
    name, module = convolution(candidate.model, 0.25)
    weight = module.weight

    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if not same_storage(args[2], weight):
            return result
        half = max(args[0].shape[0] // 2, 1)
        part = func(args[0][:half], args[1][:half], *args[2:], **kwargs)
        return result[0], part[1], result[2]

    replace_operator(candidate, ("convolution_backward",), change)
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
    weight = module.weight

    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if any(same_storage(argument, weight) for argument in args):
            mean = args[0].mean((0, 2, 3), keepdim=True) * weight.detach().view(1, -1, 1, 1)
            result[0].add_(mean, alpha=severity)
        return result

    replace_operator(candidate, ("native_batch_norm_backward", "batch_norm_backward"), change)
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
