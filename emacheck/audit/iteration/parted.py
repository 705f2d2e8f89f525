"""What each of several processes does with its own share of a batch, done by one process with the joined batch.

Of N processes, rank r has the samples r, r + N, r + 2 N, ... of the joined batch.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch.nn.modules.batchnorm import _BatchNorm

from emacheck.audit.iteration.nested import replaced


class PartedBatchNorm(_BatchNorm):
    """Batch norm that is not synchronised: each share is normalised by itself, the running statistics are rank 0's.

    Attributes:
        shares: How many processes share the batch.
    """

    shares: int

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002 - torch's name
        pass

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """Normalise a joined batch of shape (N b, C, ...)."""
        if not self.training:
            return super().forward(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else momentum
        parts = []
        for rank in range(self.shares):
            statistics = (self.running_mean, self.running_var) if rank == 0 else (None, None)
            share = input[rank :: self.shares]
            parts.append(F.batch_norm(share, *statistics, self.weight, self.bias, True, momentum, self.eps))
        return torch.stack(parts, 1).flatten(0, 1)


def part_batch_norms(model: torch.nn.Module, shares: int, *, synchronised: type[torch.nn.Module]) -> list[str]:
    """Make every batch norm that is not synchronised treat each share of a batch by itself.

    Args:
        model: The network, changed in place.
        shares: How many processes share the batch.
        synchronised: The class of those layers that several processes synchronise.

    Returns:
        The names of the layers that were changed.
    """
    found = []
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, synchronised):
            module.__class__ = PartedBatchNorm
            parted: Any = module
            parted.shares = shares
            found.append(name)
    return found


def share(value: Any, rank: int, shares: int) -> Any:
    """Return a rank's share of tensors and lists whose first axis is that of the samples.

    Example:
        >>> share((torch.arange(4), list("abcd")), 1, 2)
        (tensor([1, 3]), ['b', 'd'])
    """
    if isinstance(value, tuple):
        return tuple(share(item, rank, shares) for item in value)
    if isinstance(value, list):
        return value[rank::shares]
    return replaced(value, lambda _, tensor: tensor[rank::shares])
