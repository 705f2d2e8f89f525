"""Dropout whose masks are drawn on the CPU, so that they are the same on every device.

Activation checkpointing repeats a part of the forward pass in the backward pass, and the gradients are right only with
the same masks. ``torch.utils.checkpoint`` puts back torch's default generators, which ours are not, and only if it is
asked to. So where a model has such layers, each function that it is given remembers where the masks were when it was
called, and goes back there whenever it is repeated.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from weakref import WeakSet

import torch
import torch.utils.checkpoint as torch_checkpoint
from torch import nn

from emacheck.dispatch.checkpointing import NOT_REENTRANT, REENTRANT
from emacheck.errors import TrainingError
from emacheck.train.paired.draws import stream

KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
NO_BACKWARD = -1  # torch's number of the backward pass that is running, if none is
_alive: "WeakSet[Masks]" = WeakSet()


class HostDropout(nn.Module):
    """Dropout with a mask from a generator of the host.

    Elements of the input, or whole channels, are zeroed with probability p, the others are divided by 1 - p. The mask
    is moved to the device of the input; for whole channels that is N x C numbers.

    Args:
        p: The probability.
        channels: Zero whole channels, as Dropout1d, Dropout2d and Dropout3d do.
        masks: Where the masks come from; shared by all layers of a model.
    """

    def __init__(self, p: float, *, channels: bool, masks: "Masks") -> None:
        super().__init__()
        self.p = p
        self.channels = channels
        self.masks = masks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply a new mask in training mode; the identity otherwise."""
        if not self.training or self.p == 0:
            return x
        shape = (*x.shape[:2], *[1] * (x.dim() - 2)) if self.channels else x.shape
        return x * self.masks.draw(shape, self.p).to(device=x.device, dtype=x.dtype)

    def extra_repr(self) -> str:
        """Return what is special about it."""
        return f"p={self.p}, channels={self.channels}"


class Masks:
    """The generators of a model's dropout masks, one for each sample of a batch, seeded anew for each iteration.

    A sample gets the same masks however the batch is parted among processes: sample k of rank r of N is number k N + r.

    Args:
        seed: The run's seed.
        rank: The rank of the process.
        processes: How many processes train.
    """

    def __new__(cls, *_: Any, **__: Any) -> "Masks":
        """Note every object, copies included: a checkpointed function does not say whose masks it draws."""
        masks = super().__new__(cls)
        _alive.add(masks)
        return masks

    def __init__(self, seed: int, rank: int, processes: int = 1) -> None:
        self._seed, self._rank, self._processes = seed, rank, processes
        self._repeating = False
        self.start(1)

    def start(self, iteration: int) -> None:
        """Seed for an iteration, so that a resumed training draws what an uninterrupted one does."""
        self._iteration = iteration
        self._generators: list[torch.Generator] = []

    def draw(self, shape: tuple[int, ...] | torch.Size, p: float) -> torch.Tensor:
        """Return a mask of zeros and 1 / (1 - p) for a batch, whose samples are along the first axis.

        Example:
            >>> sorted(set(Masks(0, 0).draw((2, 100), 0.5).flatten().tolist()))
            [0.0, 2.0]
            >>> bool((Masks(0, 0).draw((2, 9), 0.5)[1] == Masks(0, 1, processes=2).draw((1, 9), 0.5)[0]).all())
            True

        Raises:
            TrainingError: If something other than ``torch.utils.checkpoint`` calls the layer in the backward pass.
        """
        if not self._repeating and torch._C._current_graph_task_id() != NO_BACKWARD:
            raise TrainingError(
                "found a dropout layer that is called in the backward pass by something other than "
                "torch.utils.checkpoint, expected the calls of the forward pass only: the repeated call would draw "
                "another mask, and the gradients would be wrong. Use torch.utils.checkpoint.checkpoint, or set the "
                "rate of this dropout to 0 with --cfg-options."
            )
        kept = torch.stack([torch.rand(shape[1:], generator=each) for each in self._of_samples(shape[0])]) >= p
        # With p = 1 nothing is kept.
        return kept * (1.0 / (1.0 - p) if p < 1 else 0.0)

    def position(self) -> tuple[int, list[torch.Tensor]]:
        """Return where the masks are: the iteration and the state of each sample's generator."""
        return self._iteration, [generator.get_state() for generator in self._generators]

    @contextmanager
    def put_back(self, position: tuple[int, list[torch.Tensor]]) -> Iterator[None]:
        """Draw again what was drawn from a position on, and go on afterwards as if nothing had been repeated."""
        now = self._iteration, self._generators, self._repeating
        self._iteration, states = position
        self._generators = [_generator_at(state) for state in states]
        self._repeating = True
        try:
            yield
        finally:
            self._iteration, self._generators, self._repeating = now

    def _of_samples(self, count: int) -> list[torch.Generator]:
        for at in range(len(self._generators), count):
            place = at * self._processes + self._rank
            number = int(stream(self._seed, "dropout", self._iteration, place).random_raw() >> 1)
            self._generators.append(torch.Generator().manual_seed(number))
        return self._generators[:count]


def _generator_at(state: torch.Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def start_masks(model: nn.Module) -> None:
    """Seed the masks of a model for its first iteration."""
    for module in model.modules():
        if isinstance(module, HostDropout):
            module.masks.start(1)


def draw_dropout_on_the_host(model: nn.Module, masks: Masks) -> int:
    """Replace every dropout layer that would draw its mask on the device.

    Args:
        model: The network, changed in place; it has no dropout layers itself.
        masks: Where the masks come from.

    Returns:
        How many layers were replaced. Functional dropout is out of reach.
    """
    hosts: dict[nn.Module, HostDropout] = {}
    for parent in list(model.modules()):
        # Under every name: named_children leaves out the second one of a layer that has two.
        for name, layer in list(parent._modules.items()):
            if isinstance(layer, KINDS):
                host = HostDropout(layer.p, channels=not isinstance(layer, nn.Dropout), masks=masks)
                setattr(parent, name, hosts.setdefault(layer, host.train(layer.training)))
    if hosts:
        _repeat_masks_in_checkpoints()
    return len(hosts)


@cache
def _repeat_masks_in_checkpoints() -> None:
    """Make checkpointed functions repeat their masks, in this process from now on.

    The two variants are changed below ``checkpoint`` itself, because models import that by name.
    """
    if function := getattr(torch_checkpoint, REENTRANT, None):
        function.forward = staticmethod(_reentrant(function.forward))
    if generator := getattr(torch_checkpoint, NOT_REENTRANT, None):
        # What is given here is called in the backward pass only.
        setattr(torch_checkpoint, NOT_REENTRANT, lambda run, *args, **named: generator(_again(run), *args, **named))


def _reentrant(forward: Callable[..., Any]) -> Callable[..., Any]:
    def repeating(context: Any, run: Callable[..., Any], *args: Any) -> Any:
        again = _again(run)
        output = forward(context, run, *args)
        context.run_function = again
        return output

    return repeating


def _again(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that draws, whenever it is called, the masks that it would draw now."""
    positions = [(masks, masks.position()) for masks in _alive]

    def repeat(*args: Any, **named: Any) -> Any:
        with ExitStack() as stack:
            for masks, position in positions:
                stack.enter_context(masks.put_back(position))
            return run(*args, **named)

    return repeat
