"""The recorder: writes down every iteration of an mmengine run at full precision."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from mmengine.hooks import Hook
from torch.utils._python_dispatch import _disable_current_modes

from emacheck.rank_files import rank_file
from emacheck.record import hash_of_samples
from emacheck.strict_json import encode_value
from emacheck.train import ranks
from emacheck.train.device.accelerator import peak_memory
from emacheck.train.device.devices import Device
from emacheck.train.observed import call_before_clipping, optimizers
from emacheck.train.paired.fingerprint import batch_hash, sample_hashes, state_hash
from emacheck.train.tcap_log import TcapLog

# Devices on which torch computes the norms of many tensors in one launch; elsewhere it loops over them.
FUSED_NORM = frozenset({"cuda", "xpu"})
# So many squares a device adds in a row.
ROW = 256


class EnoughIterations(Exception):  # noqa: N818 - it ends a loop, it is not an error
    """Ends a loop that counts in epochs once enough iterations are recorded."""


class RecorderHook(Hook):  # type: ignore[misc]
    """Record losses, accuracy, learning rate, gradient norm, times and the batch's hash of every iteration.

    The gradient norm is sqrt(sum of squares over all parameters' gradients), unscaled and, as mmengine logs it, not yet
    clipped: that of clipped ones is mostly the limit. ``lr`` is the learning rate that the optimizer used for its first
    parameter group, and where there are several groups, ``lr_mean`` is the mean of all their rates. None of them is
    there in an iteration without a step. With loss scaling, ``loss_scale`` is the scale that the iteration used and
    ``skipped_steps`` how many steps were left out so far because a scaled gradient was not finite.

    Args:
        run_directory: Where ``iterations.jsonl`` (of rank 1 ``iterations.rank1.jsonl``, and so on) is written, one line
            per iteration, flushed at once.
        iterations: Number of iterations after which the training ends.
        tcap_log: A log of TCAPPDLL lines to write as well, or None.
        device: The device whose peak memory is watched, or None.

    Attributes:
        initial_state: The hash of the model's state before the first iteration.
        recorded: How many iterations were recorded.
        peak_memory: The most bytes that were seen on the device.
    """

    priority = "NORMAL"

    def __init__(
        self, run_directory: Path, iterations: int, tcap_log: Path | None = None, device: Device | None = None
    ) -> None:
        self.initial_state: str | None = None
        self.recorded = 0
        self.peak_memory: int | None = None
        self._device = device
        self._limit = iterations
        self._path = run_directory / rank_file(ranks.rank())
        self._tcap_log = TcapLog(tcap_log, rank=ranks.rank()) if tcap_log is not None else None
        self._file: TextIO | None = None
        self._square = 0.0
        self._unclipped: dict[torch.optim.Optimizer, float] = {}
        self._rate: float | None = None
        self._rates: list[float] = []
        self._samples: list[str] = []
        self._batch = ""
        self._mark = self._start = 0.0

    def before_train(self, runner: Any) -> None:
        """Hash the initial state and watch the optimizers."""
        ranks.require_equal_ranks(runner.model, "before training")
        self.initial_state = state_hash(ranks.unwrapped(runner.model))
        self._file = self._path.open("w", encoding="utf-8")
        for optimizer in optimizers(runner.optim_wrapper):
            optimizer.register_step_pre_hook(self._before_step)
        call_before_clipping(runner.optim_wrapper, self._before_clipping)
        self._mark = time.perf_counter()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        """Hash the batch before anything changes it."""
        self._start = time.perf_counter()
        self._samples = sample_hashes(data_batch)
        # Records that were drawn in the first way hold hashes over whole batches.
        self._batch = batch_hash(data_batch) if runner.cfg.draws == 1 else hash_of_samples(self._samples)
        self._square, self._unclipped, self._rate, self._rates = 0.0, {}, None, []

    def _before_clipping(self, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # Who watches the operators of the training is not to take ours for its own.
        with _disable_current_modes():
            self._unclipped[optimizer] = sum_of_squares(gradients) if gradients else 0.0

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        if optimizer not in self._unclipped:
            self._before_clipping(optimizer)
        self._square += self._unclipped.pop(optimizer)
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._rate = rates[0]
        self._rates += rates

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:  # noqa: ARG002
        """Write one line."""
        metrics = {name: _number(value) for name, value in (outputs or {}).items() if _is_scalar(value)}
        if self._rate is not None:
            metrics["lr"] = self._rate
            if len(self._rates) > 1:
                # A rate that is wrong in any group moves the mean.
                metrics["lr_mean"] = math.fsum(self._rates) / len(self._rates)
            metrics["grad_norm"] = math.sqrt(self._square)
        metrics |= _loss_scaling(runner.optim_wrapper)
        now = time.perf_counter()
        metrics["seconds"], metrics["data_seconds"] = now - self._mark, self._start - self._mark
        self._mark = now
        self.recorded += 1
        line = {
            "iteration": self.recorded,
            "batch": self._batch,
            # What the joined batch of all ranks is can be told from the samples of each.
            **({"samples": self._samples} if ranks.world_size() > 1 else {}),
            "metrics": {name: encode_value(value) for name, value in metrics.items()},
        }
        self._watch_memory()
        assert self._file is not None  # noqa: S101 - opened in before_train
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._tcap_log is not None and "loss" in metrics:
            self._tcap_log.write(self.recorded, metrics, images=len(self._samples))
        if self.recorded >= self._limit and self.recorded < runner.max_iters:
            raise EnoughIterations

    def _watch_memory(self) -> None:
        # mmengine's log starts the device's own peak anew with every line that it writes, on the devices that it knows.
        peak = None if self._device is None else peak_memory(self._device)
        if peak is not None:
            self.peak_memory = max(peak, self.peak_memory or 0)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def sum_of_squares(tensors: list[torch.Tensor]) -> float:
    """Return the sum of the squares of all elements of some tensors of one device.

    A device sums some hundred squares at a time, in the tensor's type, and the host the sums, in float64: kernels that
    add millions of squares one after the other lose up to the third digit.

    Example:
        >>> sum_of_squares([torch.tensor([3.0, 4.0]), torch.ones(2, 2)])
        29.0
    """
    if tensors[0].device.type in FUSED_NORM:
        norms = torch.stack(torch._foreach_norm(tensors))
    else:
        norms = torch.cat([norm for tensor in tensors for norm in _norms_of_rows(tensor.reshape(-1))])
    # One copy; not every device has float64.
    return float(norms.cpu().double().square().sum())


def _norms_of_rows(flat: torch.Tensor) -> Iterator[torch.Tensor]:
    whole = flat.numel() // ROW * ROW
    if whole:
        yield torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1)
    if whole < flat.numel():
        yield torch.linalg.vector_norm(flat[whole:]).reshape(1)


def _loss_scaling(wrapper: Any) -> dict[str, float]:
    scaler = getattr(wrapper, "loss_scaler", None)
    if scaler is None or not scaler.is_enabled():
        return {}
    return {"loss_scale": wrapper.used_scale, "skipped_steps": float(wrapper.skipped_steps)}


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _number(value: Any) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)
