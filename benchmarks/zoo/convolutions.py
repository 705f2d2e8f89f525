"""Networks of convolutions over images: they tell classes, mask what they see or draw it again."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from torch import nn

from zoo.data import CLASSES


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
