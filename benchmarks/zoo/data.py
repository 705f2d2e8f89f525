"""What the networks of the zoo learn from: every kind of data can be learned, and none is noise alone.

A batch is drawn from a generator; what all batches have in common comes from a generator of its own.
"""

import math
from typing import Any

import torch

CLASSES, SIZE, WORDS, LENGTH = 5, 16, 48, 20


def _fixed(*shape: int) -> torch.Tensor:
    """Return numbers that are the same for all batches: what the data have in common."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


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
