"""Networks over rows of numbers and of identities: a perceptron, a regression and a recommender."""

from typing import Any

import torch
from torch import nn

from zoo.data import CLASSES, WORDS


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
