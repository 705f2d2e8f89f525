"""Accepted precisions: what arithmetic the training is meant to use."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emacheck.dispatch.autocast import PRODUCTS, accelerator_lists, as_on_accelerators
from emacheck.errors import UsageError

NAMES = ("fp32", "tf32", "bf16", "fp16")
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Share of a unit roundoff; ten times it, the limit, is a third of what rounding towards zero does.
SLOPE_SHARE = 1 / 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The arithmetic that is accepted, on the CPU and on the candidate.

    Attributes:
        name: ``fp32``, ``tf32`` (products of factors with 10 bits of mantissa), ``bf16`` or ``fp16`` (autocast).
    """

    name: str = "fp32"

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UsageError(f"precision {self.name}: expected one of {', '.join(NAMES)}.")

    @property
    def half(self) -> bool:
        """Whether tensors are kept in 16 bits, for which a CPU without oneDNN has kernels that take minutes."""
        return self.name in _AUTOCAST

    @property
    def short(self) -> torch.dtype | None:
        """The type of 16 bits in which tensors are kept, None where there is none."""
        return _AUTOCAST.get(self.name)

    @property
    def smallest_slope(self) -> float:
        """Return the systematic relative error that is accepted in any tensor, 0 where none is looked for.

        In 16 bits rounding to nearest hides what is wrong by less than its error, but it cancels in the slope; rounding
        towards zero does not, and moves it by about a unit roundoff.
        """
        return self.unit_roundoff(_AUTOCAST[self.name]) * SLOPE_SHARE if self.half else 0.0

    @property
    def vague(self) -> float:
        """Return the relative error from which on a tensor counts as zero but for rounding.

        In float32 that is an error in the first digit. With fewer bits the gradients of a whole iteration of a healthy
        network have one as well, EMANet's of a quarter in bf16; there it is an error as large as the tensor.
        """
        return 0.1 if self.name == "fp32" else 1.0

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by before it is differentiated, so that fp16 gradients do not vanish."""
        return 2.0**10 if self.name == "fp16" else 1.0

    def context(self, device_type: str) -> AbstractContextManager[Any]:
        """Switch this arithmetic on for a forward pass."""
        if not self.half:
            return nullcontext()
        return torch.autocast(device_type, dtype=_AUTOCAST[self.name], cache_enabled=False)

    def lists(self) -> AbstractContextManager[None]:
        """Let autocast on the CPU choose types as autocast on accelerators does, where this arithmetic is autocast.

        :meth:`emulated` does so by itself; around many of those, it registers the lists once.
        """
        return accelerator_lists() if self.half else nullcontext()

    @contextmanager
    def emulated(self, device_type: str) -> Iterator[None]:
        """Compute on a CPU as accelerators do, forward and backward: products in tf32 and fp16, and types."""
        with ExitStack() as stack:
            if device_type == "cpu":
                stack.enter_context(as_on_accelerators(self.name))
            if self.name == "tf32" and device_type == "cpu":
                stack.enter_context(RoundedProducts())  # type: ignore[no-untyped-call]
            yield

    def unit_roundoff(self, dtype: torch.dtype) -> float:
        """Return the largest relative error of rounding once to a type: 2^-24 for float32."""
        return torch.finfo(dtype).eps / 2 if dtype.is_floating_point else torch.finfo(torch.float32).eps / 2


class RoundedProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Round the factors of every convolution and matrix product to 10 bits of mantissa, as tensor cores do for TF32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        if func.overloadpacket.__name__ in PRODUCTS:
            args = tuple(round_mantissa(item) if isinstance(item, torch.Tensor) else item for item in args)
        return func(*args, **(kwargs or {}))


def round_mantissa(value: torch.Tensor, bits: int = 10) -> torch.Tensor:
    """Round a float32 tensor to so many explicit bits of mantissa, halves away from zero.

    Example:
        >>> round_mantissa(torch.tensor([1 + 2.0**-10, 1 + 2.0**-12])).tolist()
        [1.0009765625, 1.0]
    """
    if value.dtype is not torch.float32:
        return value
    dropped = 23 - bits
    raw = value.detach().contiguous().view(torch.int32)
    rounded = (raw + (1 << (dropped - 1))) & ~((1 << dropped) - 1)
    return torch.where(torch.isfinite(value), rounded.view(torch.float32), value)
