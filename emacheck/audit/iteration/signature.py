"""What a call of an operator is: whether it computes, what it writes to, what it is given."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

from emacheck.audit.iteration.draws import DRAWN, draws_nothing, is_random
from emacheck.audit.iteration.nested import tensors

VIEW, MEMORY, COPY, RANDOM, HOST = (
    "a view",
    "memory alone",
    "a copy between devices",
    "draws random numbers",
    "not on the device",
)
# Views and copies that torch's schemas do not call so.
_VIEWS = {"_unsafe_view", "lift", "set_"}
_MEMORY = {"resize_", "resize_as_", "record_stream", "_pin_memory", "is_pinned"}
_TO_HOST = {"_local_scalar_dense", "item"}
# What these write to held nothing that counts.
_OVERWRITING = {"copy_", "fill_", "zero_", "_foreach_copy_", "_foreach_zero_"}
# Where their losses are not summed up, the total weight is what CUDA found in memory (ATen/native/cuda/NLLLoss2d.cu).
_OF_PIXELS = {"nll_loss_backward", "nll_loss2d_backward"}
# The CPU's kernels of these are wrong where a gradient has the channels last.
_CONTIGUOUS = {"adaptive_max_pool3d_backward", "fractional_max_pool2d_backward"}
# The schema of these does not say that they change running statistics.
_UNSAID = {
    "native_batch_norm": ("running_mean", "running_var"),
    "cudnn_batch_norm": ("running_mean", "running_var"),
    "miopen_batch_norm": ("running_mean", "running_var"),
}


def base_name(func: Any) -> str:
    """Return an operator's name without its overload: ``_softmax``."""
    name: str = func.overloadpacket.__name__
    return name


@cache
def written(func: Any) -> frozenset[str]:
    """Return the names of the arguments that an operator writes to.

    Example:
        >>> sorted(written(torch.ops.aten.add_.Tensor)), sorted(written(torch.ops.aten.native_batch_norm.default))
        (['self'], ['running_mean', 'running_var'])
    """
    said = {each.name for each in func._schema.arguments if each.alias_info is not None and each.alias_info.is_write}
    return frozenset(said | set(_UNSAID.get(base_name(func), ())))


def unread(func: Any, given: dict[str, Any]) -> frozenset[str]:
    """Return the names of the arguments whose numbers an operator does not read, so that they may be anything.

    Args:
        func: The operator.
        given: Its arguments by name.

    Example:
        >>> sorted(unread(torch.ops.aten.copy_.default, {})), sorted(unread(torch.ops.aten.addmm.default, {"beta": 0}))
        (['self'], ['self'])
        >>> sorted(unread(torch.ops.aten.exp.out, {}))
        ['out']
    """
    out = {each.name for each in func._schema.arguments if each.kwarg_only and each.name in written(func)}
    if base_name(func) in _OF_PIXELS and given.get("reduction") == 0:
        out |= {"total_weight"}
    overwritten = base_name(func) in _OVERWRITING or given.get("beta", 1) == 0
    return frozenset(out | ({"self"} if overwritten else set()))


@cache
def is_view(func: Any) -> bool:
    """Return whether an operator returns its input in another shape, without computing anything.

    Example:
        >>> is_view(torch.ops.aten.permute.default), is_view(torch.ops.aten.relu_.default)
        (True, False)
    """
    aliases = [each.alias_info for each in func._schema.returns if each.alias_info is not None]
    return base_name(func) in _VIEWS or any(not alias.is_write for alias in aliases)


@cache
def any_layout(func: Any) -> bool:
    """Return whether an operator takes its inputs in any memory layout.

    Kernels of attention read the last dimension as one piece of memory, as torch sees to before it calls them, and
    some of pooling misread a gradient with the channels last. What custom operators expect is not known.

    Example:
        >>> any_layout(torch.ops.aten.convolution.default)
        True
        >>> any_layout(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default)
        False
    """
    return bool(func.namespace == "aten" and "attention" not in base_name(func) and base_name(func) not in _CONTIGUOUS)


def bound(func: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name.

    Example:
        >>> bound(torch.ops.aten._softmax.default, (torch.ones(2), 0, False), {})["dim"]
        0
    """
    return dict(zip([each.name for each in func._schema.arguments], args, strict=False)) | kwargs


def why_not(func: Any, args: Any, kwargs: dict[str, Any], device: torch.device) -> str | None:
    """Return why a call computes nothing that could be judged, or None.

    Args:
        func: The operator.
        args: Its arguments.
        kwargs: And those by keyword.
        device: The device that is looked at.

    Example:
        >>> cpu = torch.device("cpu")
        >>> why_not(torch.ops.aten.t.default, (torch.ones(2, 2),), {}, cpu)
        'a view'
        >>> why_not(torch.ops.aten.mul.Tensor, (torch.ones(2), torch.ones(2)), {}, cpu) is None
        True
    """
    name = base_name(func)
    if is_view(func):
        return VIEW
    if name in _MEMORY or "empty" in name or func.namespace == "profiler":
        return MEMORY
    places = _places(args, kwargs)
    if device.type not in places:
        return HOST
    if name in _TO_HOST or (name in ("_to_copy", "copy_") and len(places) > 1):
        return COPY
    if is_random(func) and not draws_nothing(func, args, kwargs):
        return HOST if name in DRAWN else RANDOM
    return None


def _places(args: Any, kwargs: dict[str, Any]) -> set[str]:
    """Return the types of the devices of what a call is given, and of where its result goes."""
    given = [tensor for _, tensor in tensors((args, kwargs))]
    # A tensor without dimensions may come from anywhere.
    places = {tensor.device.type for tensor in given if tensor.dim()} or {tensor.device.type for tensor in given}
    return places | ({torch.device(kwargs["device"]).type} if kwargs.get("device") is not None else set())


def results(func: Any, given: dict[str, Any], output: Any) -> dict[str, torch.Tensor]:
    """Return what a call made by name: what it returns, and the arguments that it wrote to.

    Args:
        func: The operator.
        given: Its arguments by name; what it wrote to holds the new numbers.
        output: What it returned.

    Example:
        >>> made = torch.ones(2)
        >>> list(results(torch.ops.aten.add_.Tensor, {"self": made, "other": 1}, made))
        ['self']
    """
    changed = dict(tensors({name: given[name] for name in sorted(written(func)) if given.get(name) is not None}))
    known = {id(tensor) for tensor in changed.values()}
    return {path: tensor for path, tensor in tensors(output, "result") if id(tensor) not in known} | changed


def inputs(func: Any, given: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors that a call reads, by name."""
    yield from tensors({name: value for name, value in given.items() if name not in unread(func, given)})


def settings(given: dict[str, Any]) -> dict[str, str]:
    """Return what a call is given beside tensors, as text.

    Example:
        >>> settings({"input": torch.ones(1), "training": True, "eps": 1e-5, "bias": None})
        {'training': 'True', 'eps': '1e-05'}
    """
    return {
        name: str(value) for name, value in given.items() if value is not None and next(tensors(value), None) is None
    }
