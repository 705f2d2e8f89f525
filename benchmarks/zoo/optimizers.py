"""The optimizers of the zoo: each is made over the parameters of a network."""

from typing import Any

import torch
from torch import nn


def clipped(optimizer: torch.optim.Optimizer, norm: float) -> torch.optim.Optimizer:
    """Clip the norm of all gradients before each step, as many trainings do."""

    def clip(this: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        nn.utils.clip_grad_norm_([weight for group in this.param_groups for weight in group["params"]], norm)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    """Return SGD with momentum and weight decay."""
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def nesterov(model: nn.Module) -> torch.optim.Optimizer:
    """Return SGD with Nesterov's momentum."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam."""
    return torch.optim.Adam(model.parameters(), lr=2e-3)


def adam_clipped(model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam over clipped gradients."""
    return clipped(adam(model), 0.5)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW in two groups: vectors and scalars do not decay."""
    thick = [weight for weight in model.parameters() if weight.dim() > 1]
    thin = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": thick, "weight_decay": 0.05}, {"params": thin, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=2e-3)


def rmsprop(model: nn.Module) -> torch.optim.Optimizer:
    """Return RMSprop with momentum."""
    return torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9, momentum=0.9, eps=1e-3)


def adagrad(model: nn.Module) -> torch.optim.Optimizer:
    """Return Adagrad."""
    return torch.optim.Adagrad(model.parameters(), lr=0.05)


def amsgrad(model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam with AMSGrad."""
    return torch.optim.Adam(model.parameters(), lr=2e-3, amsgrad=True)
