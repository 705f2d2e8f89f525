"""What the CPU runs for an operator where it is another one than on the device, and which results mean the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

aten = torch.ops.aten
Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """One call as the CPU makes it.

    Attributes:
        func: The operator.
        given: Its arguments by name.
        compared: Names of those results that mean the same on any device, None for all.
        rounded: The shorter type that the device returns, None for that of the CPU.
    """

    func: Any
    given: Arguments
    compared: frozenset[str] | None = None
    rounded: torch.dtype | None = None


def stand_in(func: Any, given: Arguments) -> StandIn:
    """Return what the CPU runs for a call; mostly the same.

    Args:
        func: The operator.
        given: Its arguments by name, on the CPU.

    Example:
        >>> names = ("input", "weight", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
        >>> values = (torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3), [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
        >>> stand_in(aten.convolution_overrideable.default, dict(zip(names, values)) | {"bias": None}).func
        <OpOverload(op='aten.convolution', overload='default')>
    """
    known = _KNOWN.get(func.overloadpacket.__name__) if func.namespace == "aten" else None
    return StandIn(func=func, given=given) if known is None else known(func, given)


def _convolution(_: Any, given: Arguments) -> StandIn:
    return StandIn(func=aten.convolution.default, given=given)


def _convolution_backward(_: Any, given: Arguments) -> StandIn:
    weight, groups = given["weight"], given["groups"]
    channels = weight.shape[1] * groups if given["transposed"] else weight.shape[0]
    sizes = [channels] if given["output_mask"][2] else None
    return StandIn(func=aten.convolution_backward.default, given={**given, "bias_sizes": sizes})


def _softmax(func: Any, given: Arguments) -> StandIn:
    """The CPU refuses to read 16 bits and write 32."""
    if not given.get("half_to_float"):
        return StandIn(func=func, given=given)
    value = given["self"]
    value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    return StandIn(func=func, given={**given, "self": value, "half_to_float": False})


def _softmax_backward(func: Any, given: Arguments) -> StandIn:
    """The CPU refuses to read 32 bits and write 16."""
    short, kind = given["input_dtype"], given["grad_output"].dtype
    if short == kind:
        return StandIn(func=func, given=given)
    return StandIn(func=func, given={**given, "input_dtype": kind}, rounded=short)


def _first_alone(func: Any, given: Arguments) -> StandIn:
    """What it returns beside its result is for its own backward pass, and another thing, or none, on each device."""
    return StandIn(func=func, given=given, compared=frozenset({"result.0", "output"}))


def _loss_of_pixels(func: Any, given: Arguments) -> StandIn:
    """Of losses that are not summed up CUDA leaves in the total weight what was in memory; nothing reads it."""
    return _first_alone(func, given) if given["reduction"] == 0 else StandIn(func=func, given=given)


def _batch_norm(func: Any, given: Arguments) -> StandIn:
    """What it saves for the backward pass has a meaning only in training, and what cuDNN reserves never."""
    momentum = given.get("momentum", given.get("exponential_average_factor"))
    eps = given.get("eps", given.get("epsilon"))
    names = ("input", "weight", "bias", "running_mean", "running_var")
    training = given.get("training", _always_trains(func))
    same = {name: given.get(name) for name in names}
    kept = ("result.0", "result.1", "result.2") if training else ("result.0",)
    return StandIn(
        func=aten.native_batch_norm.default,
        given={**same, "training": training, "momentum": momentum, "eps": eps},
        compared=frozenset((*kept, "running_mean", "running_var")),
    )


def _always_trains(func: Any) -> bool:
    """Return whether it is the batch norm that always trains."""
    return bool(func.overloadpacket.__name__ == "_batch_norm_with_update")


def _cudnn_batch_norm_backward(_: Any, given: Arguments) -> StandIn:
    return StandIn(
        func=aten.native_batch_norm_backward.default,
        given={
            "grad_out": given["grad_output"],
            "input": given["input"],
            "weight": given["weight"],
            "running_mean": given["running_mean"],
            "running_var": given["running_var"],
            "save_mean": given["save_mean"],
            "save_invstd": given["save_var"],
            "train": True,
            "eps": given["epsilon"],
            "output_mask": [True, True, True],
        },
    )


_KNOWN: dict[str, Callable[[Any, Arguments], StandIn]] = {
    "convolution_overrideable": _convolution,
    "convolution_backward_overrideable": _convolution_backward,
    "_softmax": _softmax,
    "_log_softmax": _softmax,
    "_softmax_backward_data": _softmax_backward,
    "_log_softmax_backward_data": _softmax_backward,
    "nll_loss_forward": _loss_of_pixels,
    "nll_loss2d_forward": _loss_of_pixels,
    "log_sigmoid_forward": _first_alone,
    "_embedding_bag": _first_alone,
    "_embedding_bag_forward_only": _first_alone,
    "native_batch_norm": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "miopen_batch_norm": _batch_norm,
    "_batch_norm_with_update": _batch_norm,
    "cudnn_batch_norm_backward": _cudnn_batch_norm_backward,
    "miopen_batch_norm_backward": _cudnn_batch_norm_backward,
}
