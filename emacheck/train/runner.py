"""mmengine's Runner, with all that is drawn drawn on the CPU and in an order of our own."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner

from emacheck.train import ranks
from emacheck.train.sync_bn import synchronise_on_host


class SeededRunner(Runner):  # type: ignore[misc]
    """Draw the initial weights on the CPU before the model moves, whatever else has been drawn before.

    mmengine initialises weights in ``Runner.train``, on the device and from the device's generator
    (mmengine/runner/runner.py, ``_init_model_weights``); that would give each device other weights.
    """

    def build_model(self, model: Any) -> torch.nn.Module:
        """Build the model and initialise it on the CPU from the run's seed."""
        torch.manual_seed(self.seed)
        built: torch.nn.Module = super().build_model(model)
        if hasattr(built, "init_weights"):
            built.init_weights()  # type: ignore[operator]
        if self.cfg.get("last_bit_seed"):
            change_last_bits(built, self.cfg.last_bit_seed)
        return built

    def wrap_model(self, model_wrapper_cfg: Any, model: torch.nn.Module) -> torch.nn.Module:
        """Move the model to the device and, if there are several processes, make it train with the others."""
        # DistributedDataParallel hands out the weights of rank 0, and nobody would see that others were drawn.
        ranks.require_equal_ranks(model, "before training")
        if self.distributed and get_device() == "cpu":
            synchronise_on_host(model)
        return super().wrap_model(model_wrapper_cfg, model)  # type: ignore[no-any-return]

    def _init_model_weights(self) -> None:
        """Keep the weights that build_model drew."""


def change_last_bits(model: torch.nn.Module, seed: int) -> None:
    """Move a third of the weights up and a third down by about their last bit: a benign variation.

    Args:
        model: The network; its parameters are changed in place, w -> w (1 + k 2^-23) with k in -1, 0, 1.
        seed: Seed of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            step = torch.randint(0, 3, weight.shape, generator=generator) - 1
            weight.mul_(1 + step * 2.0**-23)


class ReseedHook(Hook):  # type: ignore[misc]
    """Seed the augmentation's generators when training starts, so that building the model leaves no trace in the data.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def before_train(self, runner: Any) -> None:  # noqa: ARG002
        """Seed Python, numpy and torch."""
        random.seed(self._seed)
        np.random.seed(self._seed)  # noqa: NPY002 - the augmentations of mmcv and mmseg draw from this generator
        torch.manual_seed(self._seed)
