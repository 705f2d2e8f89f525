"""The losses of the zoo: each takes a network and a batch."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from torch import nn


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    """Return the cross entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def smoothed(model: nn.Module, batch: Any) -> torch.Tensor:
    """Return the cross entropy with smoothed labels."""
    return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)


def next_word(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of every next word."""
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def huber(model: nn.Module, batch: Any) -> torch.Tensor:
    """Return Huber's loss of the next values."""
    return F.huber_loss(model(batch[0]), batch[1], delta=0.5)


def overlap(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    """Return the cross entropy of a mask and how little it overlaps."""
    logits, mask = model(batch[0]), batch[1]
    found = logits.sigmoid()
    shared = 2 * (found * mask).sum((1, 2, 3)) / (found.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1.0)
    return {"loss_mask": F.binary_cross_entropy_with_logits(logits, mask), "loss_overlap": 1 - shared.mean()}


def squares(model: nn.Module, batch: Any) -> torch.Tensor:
    """Return the mean squared error."""
    return F.mse_loss(model(batch[0]), batch[1])


def likes(model: nn.Module, batch: Any) -> torch.Tensor:
    """Return the binary cross entropy of likes."""
    return F.binary_cross_entropy_with_logits(model(*batch[:-1]), batch[-1])


def evidence(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    """Return the two terms of the evidence's lower bound."""
    image, noise = batch
    again, mean, spread = model(image, noise)
    divergence = -0.5 * (1 + spread - mean.square() - spread.exp()).sum(1).mean()
    return {"loss_image": F.mse_loss(again, image), "loss_divergence": 0.01 * divergence}
