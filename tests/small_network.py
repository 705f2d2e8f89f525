"""A small network that drops, normalises and works in place; how it is audited, and how it is broken."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import emacheck


class Block(nn.Module):
    """A residual block that works in place and calls one module twice."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout2d(0.2)

    def forward(self, value):
        out = self.drop(self.relu(self.bn(self.conv(value))))
        out += value
        return self.relu(out)


class Net(nn.Module):
    """Two blocks, and a head whose forward is called without its hooks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.head = Head()

    def forward(self, value):
        return self.head.forward(F.max_pool2d(self.blocks(self.stem(value)), 2))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 5)
        self.unused = nn.Parameter(torch.ones(2))
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, value):
        return self.linear(value.mean((2, 3)) * self.scale)


def loss(model, batch):
    return F.cross_entropy(model(batch["image"]), batch["label"])


def trained(model, batch, function=loss):
    """Return model, optimizer, batch and loss in a live state."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        function(model, batch).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, optimizer, batch, function


def trained_net():
    """Return the network, its optimizer, a batch and the loss; the same each time."""
    torch.manual_seed(0)
    batch = {"image": torch.randn(4, 3, 16, 16), "label": torch.randint(0, 5, (4,))}
    return trained(Net(), batch)


def audited(subject, prepare=None, **options):
    return emacheck.audit_step(*subject, "cpu", prepare=prepare, **options)


def hook(name, change):
    def prepare(candidate):
        candidate.model.get_submodule(name).register_forward_hook(lambda _, __, output: change(output))

    return prepare


def set_group(**settings):
    def prepare(candidate):
        for group in candidate.optimizer.param_groups:
            group.update(settings)

    return prepare


def set_on(name, **settings):
    def prepare(candidate):
        for key, value in settings.items():
            setattr(candidate.model.get_submodule(name), key, value)

    return prepare
