"""Networks that are unlike EMANet, each with a fault and the module in which it sits."""

import warnings
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


@dataclass(frozen=True)
class Features:
    now: torch.Tensor
    all: list
    name: str = "features"


class Box:
    """Moves itself."""

    def __init__(self, tensor):
        self.tensor = tensor

    def to(self, device):
        return Box(self.tensor.to(device))


class Backbone(nn.Module):
    """Returns what ``make`` makes of two feature maps."""

    def __init__(self, make):
        super().__init__()
        self.linear, self.make = nn.Linear(8, 8), make

    def forward(self, x):
        y = self.linear(x).tanh()
        return self.make(y, [x, 2 * y])


class Network(nn.Module):
    """Two modules that hand over a structure."""

    def __init__(self, make, take):
        super().__init__()
        self.backbone, self.head, self.take = Backbone(make), nn.Linear(8, 1), take

    def forward(self, x):
        return self.head(self.take(self.backbone(x)))


class Spectrum(nn.Module):
    """Scales a spectrum; weights, buffer and output are complex."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 9, dtype=torch.complex64))
        self.register_buffer("mean", torch.zeros(9, dtype=torch.complex64))

    def forward(self, x):
        y = torch.fft.rfft(x) * self.weight
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * y.detach().mean((0, 1))
        return y


class Magnitude(nn.Module):
    """Makes complex numbers real."""

    def forward(self, x):
        return x.abs().flatten(1)


class Causal(nn.Module):
    """Attention with a mask, for which torch runs a fused kernel that may draw, and here does not."""

    def __init__(self):
        super().__init__()
        self.attend, self.out = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 1)

    def forward(self, x):
        mask = torch.full((x.shape[1],) * 2, float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        return self.out(self.attend(x, x, x, attn_mask=mask, need_weights=False)[0]).mean(1)


class Teacher(nn.Module):
    """Its forward pass writes to the weights of a mean teacher."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher, self.head = nn.Linear(8, 8), nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 1)

    def forward(self, x):
        with torch.no_grad():
            for mine, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.mul_(0.9).add_(other, alpha=0.1)
        return self.head(self.student(x) - self.teacher(x))


class Queue(nn.Module):
    """Its buffer is longer after each iteration."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 1)
        self.register_buffer("seen", torch.zeros(0, 8))

    def forward(self, x):
        self.seen = torch.cat((self.seen, x.detach().tanh()))
        return self.linear(x) + self.seen.mean()


class Centred(nn.Module):
    """Writes to a running mean that may be another module's as well."""

    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return x - self.mean


def centred():
    mean = torch.zeros(8)
    return nn.Sequential(Centred(mean), nn.Linear(8, 8), nn.Tanh(), Centred(mean), nn.Linear(8, 1))


class ToSparse(nn.Module):
    def forward(self, x):
        return x.relu().to_sparse()


class Graph(nn.Module):
    """Is given a sparse matrix."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4))

    def forward(self, x):
        return torch.sparse.mm(x, self.weight)


class Counting(torch.optim.Optimizer):
    """Keeps the number of its step in the group, as fused optimizers do."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1, "step": 1})

    @torch.no_grad()
    def step(self, closure=None):  # noqa: ARG002
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-group["lr"] / group["step"])
            group["step"] += 1


def squares(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


def normed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in every older model
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 1))


def volume():
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 1))


def plain():
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def scaled(name):
    """Return a fault: what a module returns is 1 % too large."""

    def prepare(candidate):
        candidate.model.get_submodule(name).register_forward_hook(lambda _, __, output: output * 1.01)

    return prepare


def turned(candidate):
    """Only the imaginary part is wrong."""

    def turn(_, __, output):
        return torch.complex(output.real, output.imag * 1.01)

    candidate.model[0].register_forward_hook(turn)


def second_feature_scaled(candidate):
    def scale(_, __, output):
        return Features(output.now, [output.all[0], output.all[1] * 1.01])

    candidate.model.backbone.register_forward_hook(scale)


def rate(candidate):
    candidate.optimizer.param_groups[0]["lr"] *= 1.01


SGD = torch.optim.SGD
# Network, its input's shape, optimizer, fault and the module in which the fault sits.
CASES = {
    "sparse gradients": (
        lambda: nn.Sequential(nn.Embedding(40, 8, sparse=True), nn.Flatten(), nn.Linear(24, 1)),
        None,
        SGD,
        rate,
        "(optimizer)",
    ),
    "complex numbers": (
        lambda: nn.Sequential(Spectrum(), Magnitude(), nn.Linear(36, 1)),
        (6, 4, 16),
        torch.optim.Adam,
        turned,
        "0",
    ),
    "a dataclass": (
        lambda: Network(Features, lambda f: f.now + f.all[1]),
        (6, 8),
        SGD,
        second_feature_scaled,
        "backbone",
    ),
    "an object": (
        lambda: Network(lambda y, _: SimpleNamespace(y=y), lambda f: f.y),
        (6, 8),
        SGD,
        scaled("backbone.linear"),
        "backbone.linear",
    ),
    "an object that moves itself": (
        lambda: Network(lambda y, _: Box(y), lambda box: box.tensor),
        (6, 8),
        SGD,
        scaled("backbone.linear"),
        "backbone.linear",
    ),
    "an object with a list": (
        lambda: Network(lambda _, both: SimpleNamespace(both=both), lambda f: f.both[0] + f.both[1]),
        (6, 8),
        SGD,
        scaled("backbone.linear"),
        "backbone.linear",
    ),
    "a deque": (
        lambda: Network(lambda _, both: deque(both, 2), lambda both: both[1]),
        (6, 8),
        SGD,
        scaled("backbone.linear"),
        "backbone.linear",
    ),
    "weights normed by a hook": (normed, (6, 8), SGD, scaled("2"), "2"),
    "convolutions of volumes": (volume, (2, 2, 4, 4, 8), SGD, scaled("1"), "1"),
    "fused attention": (Causal, (3, 5, 16), torch.optim.AdamW, scaled("out"), "out"),
    "weights written in the forward pass": (Teacher, (6, 8), SGD, scaled("teacher"), "teacher"),
    "a buffer that grows": (
        lambda: nn.Sequential(nn.Linear(8, 8), Queue()),
        (6, 8),
        SGD,
        scaled("1.linear"),
        "1.linear",
    ),
    "a buffer that two modules share": (centred, (6, 8), SGD, scaled("3"), "3"),
    "a sparse input": (lambda: nn.Sequential(ToSparse(), Graph(), nn.Linear(4, 1)), (6, 8), SGD, scaled("1"), "1"),
    "an optimizer that counts in its group": (plain, (6, 8), Counting, rate, "(optimizer)"),
}


def trained(name):
    """Return a live model, its optimizer and a batch."""
    torch.manual_seed(0)
    build, shape, optimize, *_ = CASES[name]
    model = build()
    optimizer = optimize(model.parameters()) if optimize is Counting else optimize(model.parameters(), lr=0.01)
    inputs = torch.randint(0, 40, (6, 3)) if shape is None else torch.randn(shape)
    batch = (inputs, torch.randn(len(inputs), 1))
    for _ in range(2):
        optimizer.zero_grad()
        squares(model, batch).backward()
        optimizer.step()
    return model, optimizer, batch
