"""Training data that do not depend on the number of data loading workers, nor on what else was drawn.

mmengine seeds each worker once (``dataset/utils.py``, ``worker_init_fn``), so another number of workers augments other
images in another way. Here every sample is drawn from a seed of its own: that of the run and of its position in the
order of the samples. The position goes with the index from the sampler to whichever process loads the sample. Images
are computed alike on every host.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS

from emacheck.train.paired.draws import stream
from emacheck.train.paired.images import as_on_x86


class PlacedIndex(int):
    """An index of a sample that knows its position in the order in which all processes together see samples."""

    position: int

    def __new__(cls, index: int, position: int) -> "PlacedIndex":
        """Make it; pickling needs both arguments."""
        made = super().__new__(cls, index)
        made.position = position
        return made

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.position


class PlacingSampler:
    """A sampler of mmengine, whose indices know their position.

    Args:
        sampler: The configuration of the sampler.
        dataset: What is sampled.
        seed: The sampler's seed.
    """

    def __init__(self, sampler: dict[str, Any], dataset: Any, seed: int | None = None) -> None:
        self._sampler = DATA_SAMPLERS.build(dict(sampler), default_args={"dataset": dataset, "seed": seed})
        self._rank, self._processes = get_dist_info()
        self._start = 0

    def __iter__(self) -> Iterator[PlacedIndex]:
        # Workers are fed ahead, so an epoch may be set while this one still runs: it keeps its own count.
        for count, index in enumerate(self._sampler, self._start):
            self._start = count + 1
            yield PlacedIndex(index, count * self._processes + self._rank)

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._sampler, name)
        return partial(self._skip, found) if name == "skip" else found

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for an epoch; positions go on from the end of the epoch before."""
        self._sampler.set_epoch(epoch)
        self._start = epoch * len(self._sampler)

    def _skip(self, skip: Callable[[int], None], samples: int) -> None:
        """Go on where an interrupted training ended, if the sampler can."""
        skip(samples)
        self._start = samples


class SeededSamples:
    """A data set whose every sample is augmented from the seed of its position.

    Args:
        dataset: The configuration of the data set.
        seed: The run's seed.
    """

    def __init__(self, dataset: dict[str, Any], seed: int) -> None:
        self._dataset = DATASETS.build(dict(dataset))
        self._seed = seed

    def __getitem__(self, index: int) -> Any:
        position = getattr(index, "position", int(index))
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        seed_host(self._seed, position)
        try:
            with as_on_x86():
                return self._dataset[int(index)]
        finally:
            # In the training process the model may draw from these generators as well.
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            torch.set_rng_state(before[2])

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataset, name)


def seed_host(seed: int, position: int) -> None:
    """Seed the generators of the host that augmentations draw from: Python's, numpy's and torch's.

    Args:
        seed: The run's seed.
        position: The position of the sample.
    """
    numbers = stream(seed, "sample", position).random_raw(3) >> np.uint64(32)
    random.seed(int(numbers[0]))
    np.random.seed(int(numbers[1]))  # noqa: NPY002 - the augmentations of mmcv and mmseg draw from this generator
    # torch.manual_seed would reach for the accelerator, which a forked worker must not.
    torch.default_generator.manual_seed(int(numbers[2]))


def independent_of_workers(dataloader: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the configuration of a data loader whose batches do not depend on its workers.

    Args:
        dataloader: mmengine's configuration of a data loader.
        seed: The run's seed.
    """
    if not isinstance(dataloader.get("dataset"), dict) or not isinstance(dataloader.get("sampler"), dict):
        return dataloader
    return {
        **dataloader,
        "dataset": {"type": SeededSamples, "dataset": dataloader["dataset"], "seed": seed},
        "sampler": {"type": PlacingSampler, "sampler": dataloader["sampler"]},
    }
