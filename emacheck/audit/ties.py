"""Max pooling without ties: of equal largest values a device may send the gradient to any one."""

import math
from typing import Any

import torch
from torch.nn.modules.pooling import _MaxPoolNd

from emacheck.audit.calls import Call

# Explicit bits of mantissa, those of them at the end that benign variations may change, and the integer type of the
# same size.
_BITS = {
    torch.float64: (52, 8, torch.int64),
    torch.float32: (23, 8, torch.int32),
    torch.float16: (10, 0, torch.int16),
    torch.bfloat16: (7, 0, torch.int16),
}
# Of the largest value: what zeros are lifted to, so small that they stay below whatever else there is.
_LIFT = 2.0**-20


def break_ties(call: Call, module: torch.nn.Module | None) -> None:
    """Give a recorded call of a max pooling module an input in which no window holds two equal values.

    Behind a ReLU most windows hold several zeros. Each choice among equals is a subgradient, so two sides that choose
    otherwise are both right, and only an input without ties tells whether they compute the same.

    Args:
        call: The call; its input is replaced by one of the same shape and type.
        module: The module that it calls.
    """
    if isinstance(module, _MaxPoolNd) and call.args and isinstance(call.args[0], torch.Tensor):
        call.args = (without_ties(call.args[0], module), *call.args[1:])


def without_ties(value: torch.Tensor, module: _MaxPoolNd) -> torch.Tensor:
    """Return an input that differs in each window's places: some late bits say where in its window a value stands.

    Args:
        value: The input, finite; one that is not comes back as it is, and so does one whose type has too few bits.
        module: A max pooling module.

    Example:
        >>> without_ties(torch.zeros(1, 1, 4, 4), torch.nn.MaxPool2d(2)).unique().numel()
        4
    """
    sizes = module.kernel_size if isinstance(module.kernel_size, tuple) else (module.kernel_size,) * _dimensions(module)
    gaps = module.dilation if isinstance(module.dilation, tuple) else (module.dilation,) * len(sizes)
    widths = [math.ceil(math.log2(size)) for size in sizes]
    bits, spared, kind = _BITS.get(value.dtype, (0, 0, torch.int64))
    if sum(widths) > bits - spared or not bool(torch.isfinite(value).all()):
        return value
    place = torch.zeros((), dtype=torch.int64)
    for size, gap, width in zip(value.shape[-len(sizes) :], gaps, widths, strict=True):
        along = torch.arange(size) // gap % (1 << width)
        place = (place.unsqueeze(-1) << width) | along
    # Zeros are lifted first: the late bits of a zero make a subnormal number, which a device may flush.
    lift = max(float(value.abs().max()) * _LIFT, 2 * torch.finfo(value.dtype).tiny)
    marked = (value + lift).contiguous().view(kind) & ~((1 << sum(widths) + spared) - 1)
    return (marked | (place.to(kind) << spared)).view(value.dtype)


def _dimensions(module: Any) -> int:
    return {"MaxPool1d": 1, "MaxPool3d": 3}.get(type(module).__name__, 2)
