"""Random draws that are the same on every device, in every precision and in every memory layout."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_INPLACE = {"bernoulli_", "uniform_", "normal_", "random_", "exponential_", "geometric_", "cauchy_", "log_normal_"}
_FACTORIES = {"rand", "randn", "randint", "randperm"}
_SEEDS = 1 << 64
_ELSEWHERE = 1 << 31  # torch's generator takes the lower 32 bits of a seed
_LIKE = {"rand_like", "randn_like", "randint_like"}
# What is drawn here; what others see of these are the draws of this module itself.
DRAWN = _INPLACE | _FACTORIES | _LIKE | {"bernoulli", "native_dropout"}


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draw every random number on the CPU, contiguous and in float32, and carry it to where it was asked for.

    A device has its own generator, and the layout of a tensor decides the order of its elements, so the same seed gives
    other dropout masks on another device. Here the n-th draw depends on the seed and on n alone.

    The number of the draw is kept in the seed of the CPU's generator, so that a program that saves and restores the
    state of that, as activation checkpointing does, gets the same numbers again. If the device's own generator was not
    put back as well, the device would have drawn others, and so does this.

    Args:
        seed: Seed of all draws.

    Attributes:
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
        self.foreign: set[str] = set()
        self._start = seed * 1_000_003
        self._outside: torch.Tensor | None = None
        self.position = 0

    @property
    def position(self) -> int:
        """Number of draws so far; set it back to repeat them."""
        return self._position if self._outside is None else (torch.initial_seed() - self._start) % _SEEDS

    @position.setter
    def position(self, position: int) -> None:
        self._position = position
        self._witnesses: dict[int, float] = {}
        if self._outside is not None:
            torch.default_generator.manual_seed((self._start + position) % _SEEDS)

    def __enter__(self) -> "Draws":
        self._outside = torch.default_generator.get_state()
        torch.default_generator.manual_seed((self._start + self._position) % _SEEDS)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._position = self.position
        if self._outside is not None:
            torch.default_generator.set_state(self._outside)
        self._outside = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator; a random one is drawn on the CPU."""
        kwargs = dict(kwargs or {})
        if not is_random(func) or draws_nothing(func, args, kwargs):
            return func(*args, **kwargs)
        here = self.position
        number = (self._start + here) % _SEEDS
        generator = torch.Generator().manual_seed(number if self._put_back(here, args, kwargs) else number ^ _ELSEWHERE)
        drawn = _drawn(func, args, kwargs, generator)
        if drawn is None:
            self.foreign.add(func.overloadpacket.__name__)
            with self._without():
                return func(*args, **kwargs)
        torch.default_generator.manual_seed((number + 1) % _SEEDS)
        return drawn

    @contextmanager
    def _without(self) -> Iterator[None]:
        """Give the CPU's generator back for a while, as if nothing were drawn here."""
        inside = torch.default_generator.get_state()
        if self._outside is not None:
            torch.default_generator.set_state(self._outside)
        yield
        self._outside = torch.default_generator.get_state()
        torch.default_generator.set_state(inside)

    def _put_back(self, position: int, args: Any, kwargs: dict[str, Any]) -> bool:
        """Return whether the device's generator gives again what it gave at this draw, if there was one before."""
        device = (
            args[0].device
            if args and isinstance(args[0], torch.Tensor)
            else torch.device(kwargs.get("device") or "cpu")
        )
        if device.type in ("cpu", "meta"):
            return True
        try:
            witness = float(torch.empty(1, device=device).uniform_())
        except RuntimeError:  # a device without a generator has none to put back
            return True
        return self._witnesses.setdefault(position, witness) == witness

    def require_own(self) -> None:
        """Complain if anything was drawn by the device's generator.

        Raises:
            ForeignDrawError: If so.
        """
        if self.foreign:
            raise ForeignDrawError(", ".join(sorted(self.foreign)))


class DrawsOfSamples(Draws):  # type: ignore[no-untyped-call]
    """Leave alone what a program draws from a generator of its own, and let nothing else be drawn.

    Where a batch is parted among processes, a mask must belong to the sample, not to the n-th draw of a process.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator; a random one without a generator is foreign."""
        kwargs = dict(kwargs or {})
        own = kwargs.get("generator") is not None
        if is_random(func) and not own and not draws_nothing(func, args, kwargs):
            self.foreign.add(func.overloadpacket.__name__)
        return func(*args, **kwargs)


class ForeignDrawError(Exception):
    """A random operator drew from the device's generator; its text names the operator."""


@cache
def is_random(func: Any) -> bool:
    """Return whether an operator draws random numbers; asking torch takes as long as a small operator."""
    return torch.Tag.nondeterministic_seeded in func.tags


def draws_nothing(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether a random operator's rate is zero, or it was told not to train."""
    names = [argument.name for argument in func._schema.arguments]
    unsaid = {each.name: each.default_value for each in func._schema.arguments if each.has_default_value()}
    given = unsaid | dict(zip(names, args, strict=False)) | kwargs
    rate = given.get("dropout_p", given.get("p") if "dropout" in str(func) else None)
    return rate == 0 or ("dropout" in str(func) and given.get("train") is False)


def _drawn(func: Any, args: Any, kwargs: dict[str, Any], generator: torch.Generator) -> Any:
    """Return what a random operator returns, drawn by a generator of the CPU; None for an operator not known here."""
    name = func.overloadpacket.__name__
    if name == "native_dropout":
        keep = torch.empty(args[0].shape).bernoulli_(1 - args[1], generator=generator).to(args[0].device).bool()
        return args[0] * keep * (0.0 if args[1] == 1 else 1 / (1 - args[1])), keep
    if name in _INPLACE and not any(isinstance(item, torch.Tensor) for item in args[1:]):
        # Floats are drawn in float32, so that a float64 arbiter sees the same numbers.
        dtype = torch.float32 if args[0].is_floating_point() else args[0].dtype
        drawn = func(torch.empty(args[0].shape, dtype=dtype), *args[1:], **{**kwargs, "generator": generator})
        return args[0].copy_(drawn)
    if name in _FACTORIES:
        return _made(name, args, kwargs, generator)
    if name in _LIKE:
        drawn = getattr(torch, name.removesuffix("_like"))(*args[1:], tuple(args[0].shape), generator=generator)
        return drawn.to(device=args[0].device, dtype=kwargs.get("dtype") or args[0].dtype)
    if name == "bernoulli" and len(args) == 1:
        return torch.bernoulli(args[0].detach().float().cpu().contiguous(), generator=generator).to(args[0])
    return None


def _made(name: str, args: Any, kwargs: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return a new random tensor, drawn in float32 or int64 and converted."""
    natural = torch.int64 if name in {"randint", "randperm"} else torch.float32
    drawn: torch.Tensor = getattr(torch, name)(*args, generator=generator, dtype=natural)
    default = natural if natural is torch.int64 else torch.get_default_dtype()
    return drawn.to(device=kwargs.get("device"), dtype=kwargs.get("dtype") or default)
