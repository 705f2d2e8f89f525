"""Networks over sequences: transformers over words and over an image's patches, recurrent ones over words and moments."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from torch import nn

from zoo.data import CLASSES, LENGTH, SIZE, WORDS


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
