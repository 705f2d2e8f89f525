"""mmengine's Runner, with all that is drawn drawn on the CPU and from seeds of our own."""

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from emacheck.train import ranks
from emacheck.train.building import building
from emacheck.train.device.accelerator import generator_state, seed_device
from emacheck.train.device.devices import Device
from emacheck.train.device.sync_bn import synchronise_on_host
from emacheck.train.loading import EndingWithItsBatch
from emacheck.train.observed import call_before_clipping, optimizers
from emacheck.train.paired.batches import independent_of_workers
from emacheck.train.paired.draws import DrawsOfBuffers, OwnDraws
from emacheck.train.paired.dropout import Masks, draw_dropout_on_the_host


class SeededRunner(Runner):  # type: ignore[misc]
    """Draw on the CPU, from the run's seed alone, all that must be equal on two devices.

    mmengine initialises weights in ``Runner.train``, on the device and from the device's generator
    (mmengine/runner/runner.py, ``_init_model_weights``); that would give each device other weights. Dropout masks are
    drawn on the CPU as well. ``config.draws`` says how the rest is drawn:

    1. Weights from torch's generator and augmentations from generators that are seeded once, in the order in which they
       are drawn: equal on hosts with the same torch and vector instructions, and with the same number of workers.
       Records from before 2 existed were drawn so.
    2. Weights by :class:`emacheck.train.paired.draws.OwnDraws`, and each sample from a seed of its own.
    """

    own_draws = OwnDraws

    @classmethod
    def from_cfg(cls, cfg: Any) -> Any:
        """Build all but the loop, the optimizer and the data; refuse what the configuration has wrong."""
        with building(cfg):
            return super().from_cfg(cfg)

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimizer, or refuse it."""
        with building(self.cfg):
            return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedule, or refuse it."""
        with building(self.cfg):
            return super().build_param_scheduler(scheduler)

    def build_model(self, model: Any) -> torch.nn.Module:
        """Build the model and initialise it on the CPU from the run's seed."""
        torch.manual_seed(self.seed)
        own = self.own_draws(self.seed) if self.cfg.draws == 2 else None
        with own or contextlib.nullcontext():
            built: torch.nn.Module = super().build_model(model)
            if hasattr(built, "init_weights"):
                built.init_weights()  # type: ignore[operator]
        if own is not None:
            own.redraw(built)
        if self.cfg.get("last_bit_seed"):
            change_last_bits(built, self.cfg.last_bit_seed)
        self.masks = Masks(self.seed, get_rank(), get_world_size())
        draw_dropout_on_the_host(built, self.masks)
        return built

    def wrap_model(self, model_wrapper_cfg: Any, model: torch.nn.Module) -> torch.nn.Module:
        """Move the model to the device and, if there are several processes, make it train with the others."""
        # DistributedDataParallel hands out the weights of rank 0, and nobody would see that others were drawn.
        ranks.require_equal_ranks(model, "before training")
        if self.distributed and get_device() == "cpu":
            synchronise_on_host(model)
        return super().wrap_model(model_wrapper_cfg, model)  # type: ignore[no-any-return]

    def build_train_loop(self, loop: Any) -> Any:
        """Build the training loop with data that do not depend on the number of workers."""
        loader: Any = self._train_dataloader
        if self.cfg.draws == 2 and isinstance(loader, dict):
            self._train_dataloader: Any = independent_of_workers(loader, self.seed)
        with building(self.cfg):
            return super().build_train_loop(loop)

    @staticmethod
    def build_dataloader(*arguments: Any, **options: Any) -> Any:
        """Build the data loader, whose processes end where they cannot hand over a batch."""
        loader = Runner.build_dataloader(*arguments, **options)
        loader.worker_init_fn = EndingWithItsBatch(loader.worker_init_fn)
        return loader

    def _init_model_weights(self) -> None:
        """Keep the weights that build_model drew."""


class UndrawnRunner(SeededRunner):
    """Build a model whose weights come from a saved state: drawing those of EMANet takes seconds."""

    own_draws = DrawsOfBuffers


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


class StepMarkingHook(Hook):  # type: ignore[misc]
    """Let a lazy device compute what it has put off, before anything looks at numbers: ours, and mmengine's log.

    That is once the gradients are there and after each iteration. Else it computes all that a number needs anew for
    each number, and with the weights that it has put off every iteration needs all those before it.

    Args:
        mark_step: Lets the device compute.
    """

    priority = "HIGHEST"

    def __init__(self, mark_step: Callable[[], Any]) -> None:
        self._mark_step = mark_step

    def before_train(self, runner: Any) -> None:
        """Be called in front of each step of an optimizer, and of what clips its gradients."""
        for optimizer in optimizers(runner.optim_wrapper):
            optimizer.register_step_pre_hook(lambda *_: self._mark_step())
        call_before_clipping(runner.optim_wrapper, lambda _: self._mark_step())

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:  # noqa: ARG002
        """End the iteration on the device."""
        self._mark_step()


class PairingHook(Hook):  # type: ignore[misc]
    """Seed what a training draws on the host, and see whether anything is still drawn on the device.

    Args:
        seed: The run's seed.
        device: The device of the training.

    Attributes:
        unpaired: Whether the first iteration drew from torch's default generator of the device; what was drawn there
            is other on every other device. None before it is over, or if the device does not say.
    """

    def __init__(self, seed: int, device: Device) -> None:
        self.unpaired: bool | None = None
        self._seed = seed
        self._device = device
        self._before: torch.Tensor | None = None

    def before_train(self, runner: Any) -> None:  # noqa: ARG002
        """Seed Python, numpy and torch, so that building the model leaves no trace in the data."""
        random.seed(self._seed)
        np.random.seed(self._seed)  # noqa: NPY002 - the augmentations of mmcv and mmseg draw from this generator
        torch.manual_seed(self._seed)
        seed_device(self._device, self._seed)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        """Seed the dropout masks of this iteration."""
        runner.masks.start(runner.iter + 1)
        if self.unpaired is None:
            self._before = generator_state(self._device)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:  # noqa: ARG002
        """Compare the device's generator with what it was before the iteration."""
        if self.unpaired is None and self._before is not None:
            after = generator_state(self._device)
            self.unpaired = after is None or not torch.equal(self._before, after)
