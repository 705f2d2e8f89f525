"""Benign variations: other ways to compute the same thing, which must not alarm."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from emacheck.audit.nested import replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """One way to compute the same iteration.

    Attributes:
        threads: CPU threads of one operator, None for the current number; other threads sum in another order.
        channels_last: Lay out four-dimensional tensors with the channels last; other kernels run.
        onednn: Whether oneDNN may be used on a CPU; without it convolutions are other kernels.
        last_bit: Seed of changes in the last bit of inputs, gradients or weights, 0 for none.
        ulps: Size of those changes in units of the last place.
    """

    threads: int | None = None
    channels_last: bool = False
    onednn: bool = True
    last_bit: int = 0
    ulps: int = 1

    def __str__(self) -> str:
        parts = [
            f"{self.threads} threads" if self.threads else "",
            "channels last" if self.channels_last else "",
            "" if self.onednn else "no oneDNN",
            f"last bit {self.last_bit}" if self.last_bit else "",
            f"{self.ulps} ulps" if self.last_bit and self.ulps > 1 else "",
        ]
        return ", ".join(part for part in parts if part) or "plain"

    @contextmanager
    def active(self) -> Iterator[None]:
        """Compute this way."""
        threads = torch.get_num_threads()
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            if self.onednn:
                yield
            else:
                with warnings.catch_warnings():
                    # torch warns that its TF32 switch has no effect here.
                    warnings.simplefilter("ignore", UserWarning)
                    switched_off = torch.backends.mkldnn.flags(enabled=False)
                    switched_off.__enter__()
                try:
                    yield
                finally:
                    switched_off.__exit__(None, None, None)
        finally:
            torch.set_num_threads(threads)

    def nudged(self, value: Any, seed: int = 0) -> Any:
        """Return a nested value, float32 and longer moved by about the last bit: x (1 + k ulps eps) with k in -1, 0, 1.

        Shorter floats stay: every side is given the same ones, and their last bit is no noise to what is summed longer.
        """
        if not self.last_bit or not seed:
            return value
        generator = torch.Generator().manual_seed(self.last_bit * 1_000 + seed)

        def nudge(_: str, tensor: torch.Tensor) -> torch.Tensor:
            if not tensor.is_floating_point() or tensor.dtype.itemsize < 4:
                return tensor
            step = torch.randint(-1, 2, tensor.shape, generator=generator).to(tensor.device)
            return tensor * (1 + step.to(tensor.dtype) * self.ulps * torch.finfo(tensor.dtype).eps)

        return replaced(value, nudge)


PLAIN = Variation()
OTHER_ORDER = Variation(threads=1, channels_last=True)
