"""Benign variations: other ways to compute the same thing, which must not alarm."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from emacheck.audit.arithmetic.rounding import Rounded
from emacheck.audit.iteration.nested import replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """One way to compute the same iteration.

    Attributes:
        threads: CPU threads of one operator, None for the current number; other threads sum in another order.
        channels_last: Lay out four-dimensional tensors with the channels last; other kernels run.
        onednn: Whether oneDNN may be used on a CPU; without it convolutions are other kernels.
        last_bit: Seed of changes in the last bit of inputs, gradients or weights, 0 for none. What is stored
            in bfloat16 or float16 stays: there it is a relative 0.8 % or 0.1 %, and every device is given the same one.
        ulps: Size of those changes in units of the last place.
        rounding: Seed of stochastic rounding where results are kept in 16 bits, 0 for rounding to the nearest.
    """

    threads: int | None = None
    channels_last: bool = False
    onednn: bool = True
    last_bit: int = 0
    ulps: int = 1
    rounding: int = 0

    def __str__(self) -> str:
        parts = [
            f"{self.threads} threads" if self.threads else "",
            "channels last" if self.channels_last else "",
            "" if self.onednn else "no oneDNN",
            f"last bit {self.last_bit}" if self.last_bit else "",
            f"{self.ulps} ulps" if self.last_bit and self.ulps > 1 else "",
            f"stochastic rounding {self.rounding}" if self.rounding else "",
        ]
        return ", ".join(part for part in parts if part) or "plain"

    def attempts(self) -> tuple["Variation", ...]:
        """Return this variation and what stands for it where a program cannot take its memory layout.

        After a convolution whose output has the channels last, ``x.view(len(x), -1)`` raises.

        Example:
            >>> [str(each) for each in Variation(threads=1, channels_last=True).attempts()]
            ['1 threads, channels last', '1 threads']
        """
        return (self, replace(self, channels_last=False)) if self.channels_last else (self,)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Compute this way."""
        with ExitStack() as stack:
            if self.rounding:
                stack.enter_context(Rounded(self.rounding))
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            if self.threads:
                torch.set_num_threads(self.threads)
            if not self.onednn:
                with warnings.catch_warnings():
                    # torch warns that its TF32 switch has no effect here.
                    warnings.simplefilter("ignore", UserWarning)
                    stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            yield

    def nudged(self, value: Any, seed: int, *, labels: bool = False) -> Any:
        """Return a nested value, floats moved by about their last bit: x (1 + k ulps eps) with k in -1, 0, 1.

        Args:
            value: The value.
            seed: What the moves depend on, besides the seed of the variation.
            labels: Leave whole numbers as they are: they may be labels kept as floats, which no device rounds, and
                which a program compares with ``==`` or cuts to integers.

        Example:
            >>> Variation(last_bit=1).nudged(torch.tensor([-1.0, 1.0, 3.0]), seed=1, labels=True).tolist()
            [-1.0, 1.0, 3.0]
        """
        if not self.last_bit or not seed:
            return value
        # Not torch's generator: while a module runs alone, torch's draws are those of the module.
        generator = np.random.default_rng([self.last_bit, seed])

        def nudge(_: str, tensor: torch.Tensor) -> torch.Tensor:
            if tensor.dtype not in (torch.float32, torch.float64):
                return tensor
            step = torch.from_numpy(generator.integers(-1, 2, tuple(tensor.shape), dtype=np.int8)).to(tensor.device)
            moved = tensor * (1 + step.to(tensor.dtype) * self.ulps * torch.finfo(tensor.dtype).eps)
            return torch.where(tensor == tensor.round(), tensor, moved) if labels else moved

        return replaced(value, nudge)


PLAIN = Variation()
OTHER_ORDER = Variation(threads=1, channels_last=True)
_MOVES = tuple(Variation(last_bit=n) for n in range(1, 9))


def moves(*, half: bool) -> tuple[Variation, ...]:
    """Return the variations that tell luck: last bits of what a number is made of move, in 16 bits roundings as well.

    Args:
        half: Whether results are kept in 16 bits, where last bits alone are rounded away.

    Example:
        >>> [str(each) for each in (moves(half=False)[0], moves(half=True)[0])]
        ['last bit 1', 'last bit 3, stochastic rounding 3']
    """
    # In 16 bits the first two roundings are those of the accepted precision itself.
    return tuple(Variation(last_bit=n, rounding=n) for n in range(3, 11)) if half else _MOVES
