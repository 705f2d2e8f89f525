"""Dropout whose masks are drawn on the CPU, so that they are the same on every device."""

import torch
from torch import nn

from emacheck.train.draws import stream

KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


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

    def __init__(self, seed: int, rank: int, processes: int = 1) -> None:
        self._seed, self._rank, self._processes = seed, rank, processes
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
        """
        kept = torch.stack([torch.rand(shape[1:], generator=each) for each in self._of_samples(shape[0])]) >= p
        # With p = 1 nothing is kept.
        return kept * (1.0 / (1.0 - p) if p < 1 else 0.0)

    def _of_samples(self, count: int) -> list[torch.Generator]:
        for at in range(len(self._generators), count):
            place = at * self._processes + self._rank
            number = int(stream(self._seed, "dropout", self._iteration, place).random_raw() >> 1)
            self._generators.append(torch.Generator().manual_seed(number))
        return self._generators[:count]


def start_masks(model: nn.Module, iteration: int) -> None:
    """Seed the masks of a model for an iteration."""
    for module in model.modules():
        if isinstance(module, HostDropout):
            module.masks.start(iteration)


def draw_dropout_on_the_host(model: nn.Module, masks: Masks) -> int:
    """Replace every dropout layer that would draw its mask on the device.

    Args:
        model: The network, changed in place; it has no dropout layers itself.
        masks: Where the masks come from.

    Returns:
        How many layers were replaced. Functional dropout is out of reach.
    """
    replaced = 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, KINDS):
                host = HostDropout(layer.p, channels=not isinstance(layer, nn.Dropout), masks=masks)
                setattr(parent, name, host.train(layer.training))
                replaced += 1
    return replaced
