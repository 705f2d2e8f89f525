"""Activation checkpointing switched off, so that each call of a module happens once, in the forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.checkpoint as torch_checkpoint

from emacheck.dispatch.checkpointing import NOT_REENTRANT, REENTRANT


@dataclass(slots=True)
class Checkpoints:
    """How deep the program is in checkpointed functions at this moment."""

    depth: int = 0

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1


@contextmanager
def run_plainly() -> Iterator[Checkpoints]:
    """Run what ``torch.utils.checkpoint`` is given as if it were called itself: nothing is repeated backward.

    The two variants are replaced below ``checkpoint`` itself, because models import that by name.

    Yields:
        Whether a checkpointed function is running.

    Example:
        >>> def call(value):
        ...     print("called")
        ...     return value.sin()
        >>> with run_plainly():
        ...     output = torch_checkpoint.checkpoint(call, torch.ones(1, requires_grad=True), use_reentrant=True)
        called
        >>> output.backward()
    """
    checkpoints = Checkpoints()

    class Reentrant:
        @staticmethod
        def apply(function: Callable[..., Any], _: bool, *args: Any) -> Any:
            # Without an input that carries a gradient, the real one gives none to the weights either.
            carried = any(isinstance(each, torch.Tensor) and each.requires_grad for each in args)
            with checkpoints._inside(), torch.set_grad_enabled(carried and torch.is_grad_enabled()):
                return function(*args)

    def not_reentrant(_: Any, *given: Any, **named: Any) -> Iterator[None]:
        contexts = named["context_fn"] if "context_fn" in named else given[1]
        with checkpoints._inside(), contexts()[0]:
            yield

    ours = {REENTRANT: Reentrant, NOT_REENTRANT: not_reentrant}
    before = {name: getattr(torch_checkpoint, name) for name in ours if hasattr(torch_checkpoint, name)}
    for name in before:
        setattr(torch_checkpoint, name, ours[name])
    try:
        yield checkpoints
    finally:
        for name, own in before.items():
            setattr(torch_checkpoint, name, own)
