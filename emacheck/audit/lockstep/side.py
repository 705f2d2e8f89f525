"""A side of the audit: a model on a device in an arithmetic, where recorded calls are repeated."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.iteration.calls import MODEL, module_names
from emacheck.audit.iteration.capture import LossFunction
from emacheck.audit.iteration.draws import Draws
from emacheck.audit.iteration.nested import snapshot
from emacheck.audit.lockstep.variations import PLAIN, Variation

Context = Callable[[], Any]


@dataclass(slots=True, kw_only=True, eq=False)
class Side:
    """Where calls are repeated: a model, a device and an arithmetic.

    Attributes:
        model: A copy of the network in the shared state, on the CPU.
        loss: The loss function.
        device: Where each module is moved while it runs.
        dtype: float64 for the arbiter, None for the precision of the model.
        precision: The arithmetic of the forward pass.
        variation: A benign variation of how it is computed.
        seed: Seed of all random draws.
        around: Context managers entered while anything of this side runs.
        mark_step: Lets a lazy device compute what it has put off, or None.
        names: Name of each module by identity.
    """

    model: torch.nn.Module
    loss: LossFunction
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype | None = None
    precision: Precision = field(default_factory=Precision)
    variation: Variation = PLAIN
    seed: int = 0
    around: tuple[Context, ...] = ()
    mark_step: Callable[[], Any] | None = None
    names: dict[int, str] = field(init=False)
    modules: dict[str, torch.nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self.names = module_names(self.model)
        self.modules = {name or MODEL: module for name, module in self.model.named_modules()}

    @contextmanager
    def active(self, draws: Draws) -> Iterator[None]:
        """Everything that holds while this side computes, forward and backward."""
        with ExitStack() as stack:
            if self.dtype is None:
                stack.enter_context(self.precision.emulated(self.device.type))
            stack.enter_context(self.variation.active())
            for context in self.around:
                stack.enter_context(context())
            stack.enter_context(draws)
            yield

    def forward(self) -> AbstractContextManager[Any]:
        """What holds during a forward pass only."""
        return nullcontext() if self.dtype is not None else self.precision.context(self.device.type)

    def bring(self, value: Any, seed: int = 0, *, labels: bool = False) -> Any:
        """Return a copy of recorded values as this side takes them; there may be labels among them."""
        value = snapshot(value, device=self.device, dtype=self.dtype, channels_last=self.variation.channels_last)
        return self.variation.nudged(value, seed, labels=labels)
