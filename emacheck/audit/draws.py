"""Random draws that are the same on every device, in every precision and in every memory layout."""

from types import TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_INPLACE = {"bernoulli_", "uniform_", "normal_", "random_", "exponential_", "geometric_", "cauchy_", "log_normal_"}
_FACTORIES = {"rand", "randn", "randint", "randperm"}
_LIKE = {"rand_like", "randn_like", "randint_like"}


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draw every random number on the CPU, contiguous and in float32, and carry it to where it was asked for.

    A device has its own generator, and the layout of a tensor decides the order of its elements, so the same seed gives
    other dropout masks on another device. Here the n-th draw depends on the seed and on n alone.

    Args:
        seed: Seed of all draws.

    Attributes:
        position: Number of draws so far; set it back to repeat them.
        foreign: Names of random operators that could not be drawn here and came from the device's generator.

    Example:
        >>> draws = Draws(0)
        >>> with draws:
        ...     one = torch.nn.functional.dropout(torch.ones(8), 0.5)
        >>> draws.position = 0
        >>> with draws:
        ...     two = torch.nn.functional.dropout(torch.ones(8, dtype=torch.float64), 0.5)
        >>> bool((one == two).all())
        True
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed = seed
        self.position = 0
        self.foreign: set[str] = set()

    def __enter__(self) -> "Draws":
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: PLR0911
        """Run one operator; a random one is drawn on the CPU."""
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in {"native_dropout", "dropout"} and (args[1] == 0 or args[2] is False):
            return func(*args, **kwargs)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.position)
        self.position += 1
        if name == "native_dropout":
            return self._native_dropout(args[0], args[1], generator)
        kwargs["generator"] = generator
        if name in _INPLACE and not _tensor_parameters(args[1:]):
            drawn = torch.empty(args[0].shape, dtype=_drawable(args[0].dtype))
            return args[0].copy_(func(drawn, *args[1:], **kwargs))
        if name in _FACTORIES:
            dtype, device = kwargs.pop("dtype", None), kwargs.pop("device", None)
            kwargs.pop("layout", None), kwargs.pop("pin_memory", None)
            packet = getattr(torch, name)
            return packet(*args, **kwargs, dtype=None if name in {"randint", "randperm"} else torch.float32).to(
                device=device, dtype=dtype or (torch.int64 if name in {"randint", "randperm"} else None)
            )
        if name in _LIKE:
            drawn = getattr(torch, name.removesuffix("_like"))(*args[1:], tuple(args[0].shape), generator=generator)
            return drawn.to(device=args[0].device, dtype=kwargs.get("dtype") or args[0].dtype)
        if name == "bernoulli" and len(args) == 1:
            return torch.bernoulli(args[0].detach().float().cpu().contiguous(), generator=generator).to(args[0])
        kwargs.pop("generator")
        self.foreign.add(name)
        return func(*args, **kwargs)

    @staticmethod
    def _native_dropout(value: torch.Tensor, rate: float, generator: torch.Generator) -> Any:
        keep = torch.empty(value.shape).bernoulli_(1 - rate, generator=generator).to(value.device).bool()
        scale = 0.0 if rate == 1 else 1 / (1 - rate)
        return value * keep * scale, keep


def _tensor_parameters(args: Any) -> bool:
    return any(isinstance(item, torch.Tensor) for item in args)


def _drawable(dtype: torch.dtype) -> torch.dtype:
    """Draw floats in float32, so that a float64 arbiter sees the same numbers."""
    return torch.float32 if dtype.is_floating_point else dtype
