"""Small networks that are unlike EMANet and unlike each other, each trained a little on data that has a structure.

What a network needs stands in one :class:`Entry`: how it is built, its optimizer, its loss and its batches. All of it is
drawn from one seed, in the same way on every machine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from torch import nn

from emacheck.audit.subject import Subject

# The stock initialisation hides faults; so many iterations make a state that is alive.
WARM_UP = 40
CLASSES, SIZE, WORDS, LENGTH = 5, 16, 48, 20

Draw = Callable[[torch.Generator], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One network of the zoo.

    Attributes:
        about: What is in it.
        build: Returns the network.
        optimizer: Returns the optimizer over a network's parameters.
        trained_by: The optimizer in words.
        loss: Returns the loss of a network and a batch.
        draw: Returns a batch; what the data have in common is drawn from a generator of their own.
        warm_up: Plain iterations before the audit.
    """

    about: str
    build: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    trained_by: str
    loss: Callable[[nn.Module, Any], Any]
    draw: Draw
    warm_up: int = WARM_UP

    def trained(self, seed: int) -> Subject:
        """Return the network, its optimizer and its loss after the warm-up from a seed."""
        torch.manual_seed(seed)
        model = self.build()
        optimizer = self.optimizer(model)
        batches = torch.Generator().manual_seed(1000 + seed)
        for _ in range(self.warm_up):
            optimizer.zero_grad()
            total(self.loss(model, self.draw(batches))).backward()
            optimizer.step()
        optimizer.zero_grad()
        return Subject(model=model, optimizer=optimizer, loss=self.loss)

    def batch(self, seed: int) -> Any:
        """Return a batch that no warm-up has seen."""
        return self.draw(torch.Generator().manual_seed(500_000 + seed))


def total(losses: Any) -> torch.Tensor:
    """Return the sum of the losses."""
    return sum(losses.values()) if isinstance(losses, dict) else losses


def _fixed(*shape: int) -> torch.Tensor:
    """Return numbers that are the same for all batches: what the data have in common."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


# Data: every kind can be learned, and none is noise alone.


def clusters(generator: torch.Generator) -> Any:
    """Return points around the centre of their class."""
    label = torch.randint(0, CLASSES, (64,), generator=generator)
    return _fixed(CLASSES, 32)[label] + 2.0 * torch.randn(64, 32, generator=generator), label


def waves(generator: torch.Generator) -> Any:
    """Return images of waves whose direction is their class, in three colours, with noise."""
    label = torch.randint(0, CLASSES, (8,), generator=generator)
    phase = 6.28 * torch.rand(8, 3, 1, 1, generator=generator)
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    angle = math.pi * label.view(-1, 1, 1, 1) / CLASSES
    image = torch.sin(0.9 * (row * angle.cos() + column * angle.sin()) + phase)
    return image + 0.3 * torch.randn(8, 3, SIZE, SIZE, generator=generator), label


def discs(generator: torch.Generator) -> Any:
    """Return images of one bright disc each, and where it is."""
    centre = SIZE * (0.25 + 0.5 * torch.rand(8, 2, 1, 1, generator=generator))
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    mask = (((row - centre[:, 0]) ** 2 + (column - centre[:, 1]) ** 2) < 16.0).float().unsqueeze(1)
    tint = torch.tensor([1.0, 0.5, -0.5]).view(1, 3, 1, 1)
    return mask * tint + 0.4 * torch.randn(8, 3, SIZE, SIZE, generator=generator), mask


def sentences(generator: torch.Generator) -> torch.Tensor:
    """Return sequences in which each word has four likely followers."""
    likely = _fixed(WORDS, WORDS).topk(4).indices
    words = [torch.randint(0, WORDS, (8,), generator=generator)]
    for _ in range(LENGTH):
        at = torch.randint(0, 4, (8,), generator=generator)
        odd = torch.rand(8, generator=generator) < 0.1
        words.append(torch.where(odd, torch.randint(0, WORDS, (8,), generator=generator), likely[words[-1], at]))
    return torch.stack(words, 1)


def topics(generator: torch.Generator) -> Any:
    """Return sequences of words and which of the topics most of them belong to."""
    label = torch.randint(0, CLASSES, (16,), generator=generator)
    own = torch.rand(16, LENGTH, generator=generator) < 0.5
    word = torch.randint(0, WORDS, (16, LENGTH), generator=generator)
    return torch.where(own, word // CLASSES * CLASSES % (WORDS - CLASSES) + label.unsqueeze(1), word), label


def signals(generator: torch.Generator) -> Any:
    """Return two noisy oscillations and the first one's next values."""
    time = torch.arange(40) / 5.0
    pitch = 0.5 + torch.rand(8, 2, 1, generator=generator)
    clean = torch.sin(pitch * time + 6.28 * torch.rand(8, 2, 1, generator=generator))
    seen = clean[..., :32] + 0.1 * torch.randn(8, 2, 32, generator=generator)
    return seen, clean[:, 0, 32:]


def ratings(generator: torch.Generator) -> Any:
    """Return users, items, each user's bag of words with its offsets, numbers, and whether the user liked the item."""
    user, item = (torch.randint(0, n, (48,), generator=generator) for n in (40, 60))
    sizes = torch.randint(1, 6, (48,), generator=generator)
    words = torch.randint(0, WORDS, (int(sizes.sum()),), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)[:-1]])
    numbers = torch.randn(48, 4, generator=generator)
    taste = (_fixed(40, 6)[user] * _fixed(60, 6)[item]).sum(1) + numbers[:, 0]
    return user, item, words, offsets, numbers, (taste > 0).float()


def surface(generator: torch.Generator) -> Any:
    """Return points and the noisy height of a surface there."""
    place = torch.randn(64, 6, generator=generator)
    height = (place @ _fixed(6, 2)).sin().sum(1, keepdim=True)
    return place, height + 0.1 * torch.randn(64, 1, generator=generator)


def discs_and_noise(generator: torch.Generator) -> Any:
    """Return images of discs and the noise of the latent space, which is so the same for every side."""
    return discs(generator)[0], torch.randn(8, 8, generator=generator)


# Networks.


class Perceptron(nn.Module):
    """Layer norms, and a dropout that is switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(32, 64),
            nn.LayerNorm(64),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(64, 64),
            nn.LayerNorm(64),
            nn.Tanh(),
            nn.Linear(64, CLASSES),
        )

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        result: torch.Tensor = self.layers(value)
        return result


def regression() -> nn.Module:
    """Return a network with one output, whose last bias has a gradient of terms that cancel."""
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))


class Block(nn.Module):
    """A residual block whose convolutions have a bias, which the norms behind them undo."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1), nn.BatchNorm2d(outer)
        self.relu = nn.ReLU()
        self.downsample = nn.Conv2d(inner, outer, 1, stride) if stride > 1 else None

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return a feature map."""
        same = value if self.downsample is None else self.downsample(value)
        inner = self.relu(self.bn1(self.conv1(value)))
        result: torch.Tensor = self.relu(self.bn2(self.conv2(inner)) + same)
        return result


def residual() -> nn.Module:
    """Return a small ResNet."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        Block(16, 16),
        Block(16, 24, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, CLASSES),
    )


class Inverted(nn.Module):
    """An inverted residual block: expand, depthwise, project."""

    def __init__(self, width: int, activation: type[nn.Module], groups: int = 1) -> None:
        super().__init__()
        wide = 4 * width
        self.expand = nn.Sequential(nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), activation())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), activation()
        )
        self.project = nn.Sequential(nn.Conv2d(wide, width, 1, groups=groups, bias=False), nn.BatchNorm2d(width))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return a feature map."""
        result: torch.Tensor = value + self.project(self.depthwise(self.expand(value)))
        return result


def mobile() -> nn.Module:
    """Return a small MobileNet."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1, bias=False),
        nn.BatchNorm2d(12),
        nn.Hardswish(),
        Inverted(12, nn.ReLU6),
        Inverted(12, nn.Hardswish, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, CLASSES),
    )


class LanguageModel(nn.Module):
    """A causal transformer that reads its logits off the embedding."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, WORDS, bias=False)
        self.logits.weight = self.words.weight
        nn.init.normal_(self.words.weight, std=0.1)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return logits of the next word at every place."""
        places = torch.arange(words.shape[1], device=words.device)
        value = self.words(words) + self.places(places)
        mask = torch.full((words.shape[1],) * 2, -math.inf, dtype=value.dtype, device=value.device).triu(1)
        result: torch.Tensor = self.logits(self.norm(self.encoder(value, mask=mask)))
        return result


class Attention(nn.Module):
    """Self-attention by hand, with a softmax that is a module."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.softmax = nn.Softmax(-1)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return what each token attends to."""
        shape = (*value.shape[:2], 3, self.heads, value.shape[2] // self.heads)
        query, key, content = self.qkv(value).view(shape).permute(2, 0, 3, 1, 4)
        weights = self.softmax(query @ key.transpose(-1, -2) * shape[-1] ** -0.5)
        result: torch.Tensor = self.out((weights @ content).transpose(1, 2).reshape(value.shape))
        return result


class VisionBlock(nn.Module):
    """A block of a vision transformer, with a learned scale of each branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width, 1e-6), Attention(width, 4)
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return tokens."""
        value = value + self.scale * self.attention(self.norm1(value))
        result: torch.Tensor = value + self.mlp(self.norm2(value))
        return result


class Vision(nn.Module):
    """A vision transformer with a token for the class."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(0.1 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.1 * torch.randn(1, (SIZE // 4) ** 2 + 1, width))
        self.blocks = nn.ModuleList(VisionBlock(width) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        value = torch.cat([self.token.expand(len(image), -1, -1), tokens], 1) + self.places
        for block in self.blocks:
            value = block(value)
        result: torch.Tensor = self.head(self.norm(value)[:, 0])
        return result


class Reader(nn.Module):
    """Two LSTM layers in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 24)
        self.lstm = nn.LSTM(24, 24, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        result: torch.Tensor = self.head(self.lstm(self.words(words))[0].mean(1))
        return result


class Forecast(nn.Module):
    """A convolution over time whose weight is normed, and a cell that is called once for every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 16, 3, padding=2, dilation=2))
        self.cell, self.head = nn.GRUCell(16, 24), nn.Linear(24, 8)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the next values."""
        features = F.elu(self.conv(value)).unbind(-1)
        state = value.new_zeros(len(value), 24)
        for moment in features[::4]:
            state = self.cell(moment, state)
        result: torch.Tensor = self.head(state)
        return result


class Double(nn.Sequential):
    """Two convolutions with their norms."""

    def __init__(self, inner: int, outer: int) -> None:
        layers: list[nn.Module] = []
        for width in (inner, outer):
            layers += [nn.Conv2d(width, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class UNet(nn.Module):
    """Down by pooling, up by a transposed convolution and by interpolation, with the skips joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = Double(3, 8), Double(8, 16), Double(16, 24)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(24, 16, 2, 2)
        self.up1 = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Conv2d(16, 8, 1))
        self.join2, self.join1 = Double(32, 16), Double(16, 8)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of a mask."""
        first = self.first(image)
        second = self.second(self.pool(first))
        third = self.third(self.pool(second))
        second = self.join2(torch.cat([second, self.up2(third)], 1))
        first = self.join1(torch.cat([first, self.up1(second)], 1))
        result: torch.Tensor = self.head(first)
        return result


def group_norms() -> nn.Module:
    """Return convolutions with group norms and instance norms."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1),
        nn.GroupNorm(4, 16),
        nn.LeakyReLU(0.1),
        nn.Conv2d(16, 24, 3, 2, 1),
        nn.InstanceNorm2d(24, affine=True),
        nn.PReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(24, 24, 3, 1, 1, padding_mode="reflect"),
        nn.GroupNorm(24, 24),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, CLASSES),
    )


class Gated(nn.Module):
    """A convolution whose channels are gated by what they hold, and whose places by a sigmoid of their mean."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(inner, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer), nn.SiLU()
        self.squeeze, self.excite = nn.Conv2d(outer, 4, 1), nn.Conv2d(4, outer, 1)
        self.place = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return a feature map."""
        value = self.act(self.norm(self.conv(value)))
        value = value * torch.sigmoid(self.excite(F.relu(self.squeeze(value.mean((2, 3), keepdim=True)))))
        seen = torch.cat([value.mean(1, keepdim=True), value.amax(1, keepdim=True)], 1)
        return value * torch.sigmoid(self.place(seen))


def gated() -> nn.Module:
    """Return a network with gates of channels and of places."""
    return nn.Sequential(
        Gated(3, 16),
        nn.AvgPool2d(2),
        Gated(16, 24),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, CLASSES),
    )


class Recommender(nn.Module):
    """Embeddings of users and items, bags of words, and the products of all of them."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(40, width), nn.Embedding(60, width)
        self.bag = nn.EmbeddingBag(WORDS, width, mode="mean")
        self.bottom = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(6 + width, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, user: Any, item: Any, words: Any, offsets: Any, numbers: Any) -> torch.Tensor:
        """Return the logit of a like."""
        dense = self.bottom(numbers)
        vectors = torch.stack([self.users(user), self.items(item), self.bag(words, offsets), dense], 1)
        products = vectors @ vectors.transpose(1, 2)
        row, column = torch.triu_indices(4, 4, 1)
        result: torch.Tensor = self.top(torch.cat([products[:, row, column], dense], 1)).squeeze(1)
        return result


class Autoencoder(nn.Module):
    """A variational autoencoder whose noise comes with the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ELU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ELU(), nn.Flatten()
        )
        self.mean, self.spread = nn.Linear(256, 8), nn.Linear(256, 8)
        self.decoder = nn.Sequential(
            nn.Linear(8, 256),
            nn.ELU(),
            nn.Unflatten(1, (16, 4, 4)),
            nn.ConvTranspose2d(16, 8, 4, 2, 1),
            nn.ELU(),
            nn.ConvTranspose2d(8, 3, 4, 2, 1),
        )

    def forward(self, image: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the image again, and where it lies in the latent space."""
        hidden = self.encoder(image)
        mean, spread = self.mean(hidden), self.spread(hidden)
        return self.decoder(mean + noise * torch.exp(0.5 * spread)), mean, spread


# Losses.


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


# Optimizers.


def clipped(optimizer: torch.optim.Optimizer, norm: float) -> torch.optim.Optimizer:
    """Clip the norm of all gradients before each step, as many trainings do."""

    def clip(this: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        nn.utils.clip_grad_norm_([weight for group in this.param_groups for weight in group["params"]], norm)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def _momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def _nesterov(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def _adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=2e-3)


def _adam_clipped(model: nn.Module) -> torch.optim.Optimizer:
    return clipped(_adam(model), 0.5)


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    thick = [weight for weight in model.parameters() if weight.dim() > 1]
    thin = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": thick, "weight_decay": 0.05}, {"params": thin, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=2e-3)


def _rmsprop(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9, momentum=0.9, eps=1e-3)


def _adagrad(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(model.parameters(), lr=0.05)


def _amsgrad(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=2e-3, amsgrad=True)


SGD = "SGD, momentum, weight decay"
ZOO: dict[str, Entry] = {
    "perceptron": Entry(
        about="linear layers, layer norms, ReLU, tanh, dropout of 0; cross entropy",
        build=Perceptron,
        optimizer=_momentum,
        trained_by=SGD,
        loss=cross_entropy,
        draw=clusters,
    ),
    "regression": Entry(
        about="two linear layers, tanh, one output; squared error",
        build=regression,
        optimizer=_adamw,
        trained_by="AdamW in two groups",
        loss=squares,
        draw=surface,
        warm_up=300,
    ),
    "residual": Entry(
        about="residual blocks, batch norms behind convolutions with a bias, max pooling; cross entropy",
        build=residual,
        optimizer=_momentum,
        trained_by=SGD,
        loss=cross_entropy,
        draw=waves,
    ),
    "mobile": Entry(
        about="depthwise and grouped convolutions, batch norms, ReLU6, hard swish; cross entropy",
        build=mobile,
        optimizer=_rmsprop,
        trained_by="RMSprop with momentum",
        loss=cross_entropy,
        draw=waves,
    ),
    "language": Entry(
        about="causal transformer, dropout of 0.1, embedding tied to the logits; cross entropy of the next word",
        build=LanguageModel,
        optimizer=_adamw,
        trained_by="AdamW in two groups",
        loss=next_word,
        draw=sentences,
    ),
    "vision": Entry(
        about="vision transformer, attention by hand, GELU, token of the class; smoothed cross entropy",
        build=Vision,
        optimizer=_adam_clipped,
        trained_by="Adam, gradients clipped",
        loss=smoothed,
        draw=waves,
    ),
    "reader": Entry(
        about="embedding, two LSTM layers in both directions; cross entropy",
        build=Reader,
        optimizer=_adam_clipped,
        trained_by="Adam, gradients clipped",
        loss=cross_entropy,
        draw=topics,
    ),
    "forecast": Entry(
        about="normed weight, dilated convolution over time, GRU cell called 8 times; Huber's loss",
        build=Forecast,
        optimizer=_amsgrad,
        trained_by="Adam with AMSGrad",
        loss=huber,
        draw=signals,
    ),
    "unet": Entry(
        about="transposed convolution, bilinear upsampling, joined skips, in-place ReLU; mask and overlap losses",
        build=UNet,
        optimizer=_adam,
        trained_by="Adam",
        loss=overlap,
        draw=discs,
    ),
    "group norms": Entry(
        about="group and instance norms, LeakyReLU, PReLU, softplus, reflecting padding; cross entropy",
        build=group_norms,
        optimizer=_nesterov,
        trained_by="SGD, Nesterov's momentum",
        loss=cross_entropy,
        draw=waves,
    ),
    "gated": Entry(
        about="squeeze and excitation, gates of places, SiLU, batch norms; cross entropy",
        build=gated,
        optimizer=_adamw,
        trained_by="AdamW in two groups",
        loss=cross_entropy,
        draw=waves,
    ),
    "recommender": Entry(
        about="embeddings, bags of words, products of vectors; binary cross entropy",
        build=Recommender,
        optimizer=_adagrad,
        trained_by="Adagrad",
        loss=likes,
        draw=ratings,
    ),
    "autoencoder": Entry(
        about="variational, noise in the batch, strided and transposed convolutions, ELU; image and divergence losses",
        build=Autoencoder,
        optimizer=_adam,
        trained_by="Adam",
        loss=evidence,
        draw=discs_and_noise,
    ),
}
