"""Max pooling without ties: of equal largest values a device may send the gradient to any one."""

import math
from typing import Any

import torch
from torch.nn.modules.pooling import _AdaptiveMaxPoolNd, _MaxPoolNd

from emacheck.audit.iteration.calls import Call
from emacheck.audit.iteration.layout import moved

# Explicit bits of mantissa, those of them at the end that benign variations may change, and the integer type of the
# same size.
_BITS = {
    torch.float64: (52, 8, torch.int64),
    torch.float32: (23, 8, torch.int32),
    torch.float16: (10, 0, torch.int16),
    torch.bfloat16: (7, 0, torch.int16),
}
MaxPool = _MaxPoolNd | _AdaptiveMaxPoolNd
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
    if isinstance(module, MaxPool) and call.args and isinstance(call.args[0], torch.Tensor):
        call.args = (without_ties(call.args[0], module), *call.args[1:])


def without_ties(value: torch.Tensor, module: MaxPool) -> torch.Tensor:
    """Return an input that differs in each window's places: some late bits say where in its window a value stands.

    Args:
        value: The input, finite; one that is not comes back as it is, and so does one whose type has too few bits.
        module: A max pooling module.

    Example:
        >>> without_ties(torch.zeros(1, 1, 4, 4), torch.nn.MaxPool2d(2)).unique().numel()
        4
    """
    sizes, gaps = _windows(value, module)
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
    apart = (marked | (place.to(kind) << spared)).view(value.dtype)
    same = moved(value)
    if 0 not in same.stride():
        same.copy_(apart)
    # What stands in several places, as in an expanded tensor, cannot be told apart where it is.
    return same if torch.equal(same, apart) else torch.empty_like(value).copy_(apart)


def _windows(value: torch.Tensor, module: MaxPool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the size of the largest window along each dimension, and the gaps between its places."""
    names = [base.__name__ for base in type(module).__mro__]
    dimensions = next(int(name[-2]) for name in names if name.endswith(("1d", "2d", "3d")))
    if isinstance(module, _MaxPoolNd):
        return _each(module.kernel_size, dimensions), _each(module.dilation, dimensions)
    # Window i of n goes from floor(i L / n) to ceil((i + 1) L / n).
    counts = _each(module.output_size, dimensions)
    lengths = value.shape[-dimensions:]
    sizes = [
        1 if n is None else max(-(-(i + 1) * length // n) - i * length // n for i in range(n))
        for n, length in zip(counts, lengths, strict=True)
    ]
    return tuple(sizes), (1,) * dimensions


def _each(setting: Any, dimensions: int) -> tuple[Any, ...]:
    return tuple(setting) if isinstance(setting, tuple | list) else (setting,) * dimensions
