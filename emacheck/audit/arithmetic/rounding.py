"""Ways in which a kernel may round a result to 16 bits, other than to the nearest."""

from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emacheck.dispatch.autocast import PRODUCTS

# Bits of float32's mantissa that each type lacks.
_DROPPED = {torch.bfloat16: 16, torch.float16: 13}
# Operators that compute something which 16 bits cannot hold; all others move or select values.
_COMPUTE = PRODUCTS | {
    "add",
    "sub",
    "mul",
    "div",
    "sum",
    "mean",
    "_softmax",
    "upsample_bilinear2d",
    "upsample_bilinear2d_backward",
}
# These change running statistics, so they may run only once; of their results the first is in 16 bits.
_NORMS = {"native_batch_norm", "native_batch_norm_backward"}


class Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Compute operators on 16-bit tensors in float32, and round the results in another way than to the nearest.

    Args:
        seed: Of stochastic rounding, which is right on average; None rounds towards zero, as dropping the bits does.
    """

    def __init__(self, seed: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Not torch's generator: what is drawn here is no draw of the model.
        self._generator = None if seed is None else np.random.default_rng(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name in _NORMS and _is_short(args[0]):
            first, *others = func(*_longer(args), **kwargs)
            return round_bits(first, args[0].dtype, self._generator), *others
        plain = func(*args, **kwargs)
        if name not in _COMPUTE or not any(map(_is_short, args)):
            return plain
        result = func(*_longer(args), **kwargs)
        if isinstance(plain, torch.Tensor):
            return self._rounded(plain, result)
        return tuple(self._rounded(*pair) for pair in zip(plain, result, strict=True))

    def _rounded(self, plain: Any, result: Any) -> Any:
        """Return a result in the type in which the operator gives it, rounded if that type is short."""
        if not _is_short(plain) or result.dtype is not torch.float32:
            return plain
        return round_bits(result, plain.dtype, self._generator)


def _longer(args: Any) -> list[Any]:
    return [item.float() if _is_short(item) else item for item in args]


def _is_short(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.dtype in _DROPPED


def round_bits(value: torch.Tensor, short: torch.dtype, generator: np.random.Generator | None) -> torch.Tensor:
    """Round a float32 tensor to 16 bits, stochastically or towards zero.

    Stochastic rounding adds to the bits that are dropped a number drawn evenly from all they can hold.

    Args:
        value: The tensor.
        short: bfloat16 or float16.
        generator: Of stochastic rounding; None rounds towards zero.

    Source: oneDNN, Primitive Attributes: rounding mode (stochastic).

    Example:
        >>> round_bits(torch.tensor([1.999]), torch.bfloat16, None).item()
        1.9921875
    """
    dropped = _DROPPED[short]
    bits = value.contiguous().view(torch.int32)
    if generator is not None:
        drawn = generator.integers(0, 1 << dropped, tuple(bits.shape), dtype=np.int32)
        bits = bits + torch.from_numpy(drawn).to(bits.device)
    kept: torch.Tensor = (bits & ~((1 << dropped) - 1)).view(torch.float32)
    return kept.to(short)
