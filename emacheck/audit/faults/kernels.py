"""Faults in forward kernels."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name

from emacheck.audit.arithmetic.precision import round_mantissa
from emacheck.audit.arithmetic.rounding import Rounded
from emacheck.audit.faults.places import (
    change_output,
    container,
    convolution,
    expectation_maximization,
    norm,
    pick,
    replace_operator,
    rounded,
    scaled,
    with_attribute,
)
from emacheck.audit.faults.registry import fault, finer_than
from emacheck.audit.iteration.subject import Candidate


@fault(
    kind="kernel",
    severities=(13, 10, 7),
    unit="bits of mantissa",
    imitates="https://github.com/pytorch/pytorch/issues/107514",
    precisions=finer_than,
)
def convolutions_in_low_precision(candidate: Candidate, severity: float) -> None:
    """Every convolution rounds its factors to fewer bits of mantissa."""
    _round_factors(candidate, ("convolution", "convolution_backward"), int(severity))


@fault(kind="kernel", imitates="https://github.com/pytorch/pytorch/issues/78275", precisions=finer_than(10))
def matrix_products_in_tf32(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Every matrix product rounds its factors to 10 bits of mantissa."""
    _round_factors(candidate, ("bmm", "mm", "addmm", "baddbmm"), 10)


@fault(
    kind="kernel",
    imitates="https://github.com/tenstorrent/tt-metal/issues/57408",
    precisions=("bf16", "fp16"),
)
def rounded_towards_zero(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Results are brought to 16 bits by dropping bits, not by rounding to the nearest."""
    candidate.around.append(lambda: Rounded(None))


def _round_factors(candidate: Candidate, names: tuple[str, ...], bits: int) -> None:
    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*(shorter(a) if isinstance(a, torch.Tensor) else a for a in args), **kwargs)

    def shorter(factor: torch.Tensor) -> torch.Tensor:
        return round_mantissa(factor.float(), bits).to(factor.dtype)

    replace_operator(candidate, names, change)


@fault(kind="kernel", severities=(1e-4, 1e-3, 1e-2), unit="relative")
def convolution_output_scaled(candidate: Candidate, severity: float) -> str:
    """One convolution returns everything a little too large."""
    name, module = convolution(candidate.model, 0.3)
    change_output(module, lambda output: output * (1 + severity))
    return name


@fault(kind="kernel", severities=(1e-3, 1e-1, 1.0), unit="relative")
def simd_lane_wrong(candidate: Candidate, severity: float) -> str:
    """The last of every eight elements of a row of one convolution is wrong."""
    name, module = convolution(candidate.model, 0.6)
    change_output(module, lambda output: scaled(output, (..., slice(7, None, 8)), 1 - severity))
    return name


@fault(
    kind="kernel",
    severities=(1e-3, 1e-1),
    unit="relative",
    imitates="https://github.com/pytorch/pytorch/issues/82060",
)
def tile_edge_wrong(candidate: Candidate, severity: float) -> str:
    """The last element of the last row of one convolution, in one channel, is wrong."""
    name, module = convolution(candidate.model, 0.8)
    change_output(module, lambda output: scaled(output, (slice(None), 0, -1, -1), 1 + severity))
    return name


@fault(kind="kernel")
def dead_channel(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One channel of one convolution is zero."""
    name, module = convolution(candidate.model, 0.5)
    change_output(module, lambda output: scaled(output, (slice(None), 1), 0.0))
    return name


@fault(kind="kernel")
def duplicated_channel(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One channel of one convolution repeats its neighbour."""
    name, module = convolution(candidate.model, 0.45)

    def change(output: torch.Tensor) -> torch.Tensor:
        channels = torch.arange(output.shape[1], device=output.device)
        channels[1] = 0
        return output.index_select(1, channels)

    change_output(module, change)
    return name


@fault(kind="kernel", imitates="https://github.com/pytorch/pytorch/issues/180984")
def stride_of_the_input_ignored(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One convolution reads its input as if rows and columns of a channel lay the other way round."""
    name, module = convolution(candidate.model, 0.7)

    def change(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        value = inputs[0]
        return (value.transpose(-1, -2).reshape(value.shape), *inputs[1:])

    module.register_forward_pre_hook(change)
    return name


@fault(kind="kernel")
def strided_convolution_off_by_one(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One convolution with a stride starts one pixel too late."""
    name, module = convolution(candidate.model, 0.5, lambda conv: conv.stride != (1, 1))
    module.register_forward_pre_hook(lambda _, inputs: (torch.roll(inputs[0], 1, -1), *inputs[1:]))
    return name


@fault(kind="kernel")
def padding_repeats_the_border(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One convolution pads with the border's values instead of zeros."""
    name, module = convolution(candidate.model, 0.4, lambda conv: conv.padding != (0, 0))
    module.padding_mode = "replicate"
    module._reversed_padding_repeated_twice = [size for size in reversed(module.padding) for _ in range(2)]
    return name


@fault(kind="kernel")
def dilation_ignored(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One dilated convolution runs without dilation."""
    name, module = convolution(candidate.model, 0.5, lambda conv: conv.dilation != (1, 1))
    module.padding, module.dilation = (1, 1), (1, 1)
    return name


@fault(kind="kernel", severities=(6.0, 1.0), unit="upper bound")
def relu_has_an_upper_bound(candidate: Candidate, severity: float) -> str:
    """One activation is cut off above, like ReLU6."""
    name, module = pick(candidate.model, torch.nn.ReLU, 0.3)
    change_output(module, lambda output: output.clamp(max=severity))
    return name


@fault(kind="kernel", severities=(1e-3, 1e-2), unit="slope")
def relu_leaks(candidate: Candidate, severity: float) -> str:
    """One activation lets a little of its negative inputs through."""
    name, module = pick(candidate.model, torch.nn.ReLU, 0.6)
    module.forward = lambda value: F.leaky_relu(value, severity)
    return name


@fault(kind="kernel", imitates="https://github.com/pytorch/pytorch/issues/71549")
def pooling_rounds_up(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """Max pooling rounds its output size up instead of down."""
    name, module = pick(candidate.model, torch.nn.MaxPool2d)
    module.ceil_mode = True
    return name


@fault(kind="kernel")
def pooling_pads_with_a_value(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """Max pooling pads with 0.1 instead of minus infinity."""
    name, module = pick(candidate.model, torch.nn.MaxPool2d)

    def forward(value: torch.Tensor) -> torch.Tensor:
        padded = F.pad(value, (1, 1, 1, 1), value=0.1)
        return F.max_pool2d(padded, module.kernel_size, module.stride, 0)

    module.forward = forward
    return name


@fault(kind="kernel", imitates="https://github.com/pytorch/pytorch/issues/144245")
def align_corners_flipped(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """A head resizes its logits with the corners aligned the other way."""
    name, module = with_attribute(candidate.model, "align_corners", (torch.nn.Upsample,))
    module.align_corners = not module.align_corners
    return name


@fault(kind="kernel", severities=(1e-3, 1.0), unit="pixels")
def upsampling_off_by_part_of_a_pixel(candidate: Candidate, severity: float) -> None:
    """Bilinear upsampling samples a little to the right."""

    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = func(*args, **kwargs)
        return torch.lerp(output, torch.roll(output, 1, -1), severity)

    replace_operator(candidate, ("upsample_bilinear2d",), change)


@fault(kind="kernel", severities=(1e-3, 1e-2), unit="relative")
def residual_scaled(candidate: Candidate, severity: float) -> str:
    """One residual block adds its input with a factor that is not quite one."""
    name, module = container(candidate.model)
    module.register_forward_hook(lambda _, inputs, output: output + severity * inputs[0])
    return name


@fault(kind="kernel", imitates="https://github.com/pytorch/pytorch/issues/75923")
def softmax_over_the_wrong_axis(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The softmax of the attention runs over pixels instead of bases."""
    name, _ = expectation_maximization(candidate.model)
    replace_operator(candidate, ("_softmax",), lambda func, args, kwargs: func(args[0], 1, *args[2:], **kwargs))
    return name


# Autocast takes a softmax in float32, so that this is a fault in every precision.
@fault(kind="kernel")
def softmax_in_bfloat16(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The softmax of the attention computes its exponentials in bfloat16."""
    name, _ = expectation_maximization(candidate.model)

    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
        power = torch.exp((args[0] - args[0].amax(args[1], keepdim=True)).bfloat16().to(args[0].dtype))
        return power / power.sum(args[1], keepdim=True)

    replace_operator(candidate, ("_softmax",), change)
    return name


@fault(kind="kernel", severities=(1e-4, 1e-2), unit="threshold")
def small_values_flushed(candidate: Candidate, severity: float) -> str:
    """One norm layer flushes small values to zero."""
    name, module = norm(candidate.model, 0.35)
    change_output(module, lambda output: torch.where(output.abs() < severity, torch.zeros_like(output), output))
    return name


@fault(kind="kernel", precisions=finer_than(7))
def one_layer_in_bfloat16(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One convolution computes in bfloat16, outside of any autocast."""
    name, module = convolution(candidate.model, 0.9)
    module.forward = lambda value: module._conv_forward(rounded(value), rounded(module.weight), module.bias)
    return name


@fault(kind="kernel", imitates="https://github.com/tensorflow/tfjs/issues/1729")
def half_pixel_centres_ignored(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Bilinear upsampling takes the corners of pixels for their centres."""
    own = F.interpolate

    def interpolate(
        value: torch.Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        **named: Any,
    ) -> torch.Tensor:
        if size is None or mode != "bilinear" or align_corners:
            return own(value, size, scale_factor, mode, align_corners, **named)
        for axis, length in zip((-2, -1), size, strict=True):
            value = _stretched(value, axis, int(length))
        return value

    candidate.patch(F, "interpolate", interpolate)


def _stretched(value: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    before = value.shape[axis]
    place = torch.arange(length, device=value.device) * (before / length)
    low = place.long()
    weight = (place - low).to(value.dtype).view(-1, *[1] * (-1 - axis))
    return torch.lerp(value.index_select(axis, low), value.index_select(axis, (low + 1).clamp(max=before - 1)), weight)


@fault(kind="kernel")
def in_place_activation_read_too_early(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The last row of one activation is read before it was overwritten: a stale buffer."""
    name, module = pick(candidate.model, torch.nn.ReLU, 0.5)
    module.forward = lambda value: torch.cat([F.relu(value[..., :-1, :]), value[..., -1:, :]], dim=-2)
    return name


@fault(kind="kernel", imitates="https://github.com/tensorflow/tensorflow/issues/40072")
def nan_swallowed_by_an_activation(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """One activation turns NaN into zero."""
    name, module = pick(candidate.model, torch.nn.ReLU, 0.4)
    change_output(module, _without_nan)
    return name


@fault(kind="kernel", imitates="https://github.com/pytorch/pytorch/issues/7645")
def nan_swallowed_by_max_pooling(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """Max pooling drops NaN."""
    name, module = pick(candidate.model, torch.nn.MaxPool2d)
    change_output(module, _without_nan)
    return name


@fault(kind="kernel")
def nan_swallowed_by_a_block(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """What one residual block returns is cleaned of NaN."""
    name, module = container(candidate.model, 0.7)
    change_output(module, _without_nan)
    return name


def _without_nan(output: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(output, nan=0.0, posinf=torch.inf, neginf=-torch.inf)
