"""One iteration of EMANet on a device against the CPU: forward, backward, update."""

import copy
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from emacheck.train.device.accelerator import open_device, step_marker
from emacheck.train.device.devices import Device, parse_device
from emacheck.train.device.precision import set_float32
from emacheck.train.doctor.line import REPAIR, Line, Status, error, ok, warning
from emacheck.train.launching.hints import is_broken_import

CROP = (32, 64)
BATCH = 2
# Another order of summation stays far below both (tests/test_doctor.py); what stays below is judged by emacheck run.
LOSS_LIMIT, GRADIENT_LIMIT = 1e-4, 2e-2
WRONG_LOSS, WRONG_GRADIENTS = 1e-2, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """What one iteration left behind, in float64 on the CPU.

    Attributes:
        loss: The sum of EMANet's losses.
        gradients: By parameter.
        state: Parameters and buffers after the update.
    """

    loss: float
    gradients: dict[str, torch.Tensor]
    state: dict[str, torch.Tensor]


def training_lines(device: Device) -> Iterator[Line]:
    """Train one iteration on the device and on the CPU, and once more on the device, and compare.

    Yields:
        ``training``, and ``repeatability`` unless the former is an error.
    """
    missing = [name for name in ("mmengine", "mmcv", "mmseg") if find_spec(name) is None]
    if missing:
        yield error(
            "training", f"not tried: {', '.join(missing)} is not installed", "Install what the lines above name."
        )
        return
    open_device(device)
    set_float32(device, "fp32")
    try:
        start = Start.draw()
        reference = start.train(parse_device("cpu"))
        candidate, again = start.train(device), start.train(device)
    except Exception as problem:  # anything may be wrong with a device
        yield error(
            "training",
            f"EMANet failed: {type(problem).__name__}: {problem}",
            REPAIR
            if is_broken_import(f"{type(problem).__name__}: {problem}")
            else "The operator named, or the memory, is the vendor's to provide.",
        )
        return
    line = judge(reference, candidate)
    yield line
    if line.status is not Status.ERROR:
        yield judge_again(candidate, again)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What every iteration starts from, drawn on the CPU.

    Attributes:
        model: The smoke preset's EMANet.
        optim_wrapper: The configuration of its optimizer.
        images: A small batch.
        labels: Its labels.
    """

    model: Any
    optim_wrapper: Any
    images: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def draw(cls) -> "Start":
        """Build the network and draw its weights and a batch."""
        from mmengine.model import revert_sync_batchnorm
        from mmseg.registry import MODELS
        from mmseg.utils import register_all_modules

        from emacheck.train.presets import resolve
        from emacheck.train.request import TrainingRequest

        register_all_modules()
        with tempfile.TemporaryDirectory() as folder:
            config, _ = resolve(TrainingRequest(preset="smoke", config=None), Path(folder))
        config.model.data_preprocessor.size = CROP
        torch.manual_seed(0)
        model = revert_sync_batchnorm(MODELS.build(config.model))
        model.init_weights()
        _enliven(model)
        return cls(
            model=model.train(),
            optim_wrapper=config.optim_wrapper,
            images=torch.randn(BATCH, 3, *CROP),
            labels=torch.randint(0, 19, (BATCH, 1, *CROP)),
        )

    def train(self, device: Device, *, memory_format: Any = torch.contiguous_format) -> Iteration:
        """Train a copy of the network for one iteration.

        Args:
            device: An opened device.
            memory_format: How weights and images lie in memory; another one is a benign variation.

        Returns:
            Loss, gradients and the state after the update.
        """
        from mmengine.optim import build_optim_wrapper
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        mark_step = step_marker(device) or (lambda: None)
        model = copy.deepcopy(self.model).to(str(device)).to(memory_format=memory_format)
        optimizer = build_optim_wrapper(model, copy.deepcopy(self.optim_wrapper))
        images = self.images.contiguous(memory_format=memory_format).to(str(device))
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=label), metainfo={"img_shape": CROP})
            for label in self.labels.to(str(device))
        ]
        loss: Any = sum(value for name, value in model.loss(images, samples).items() if "loss" in name)
        loss.backward()
        mark_step()
        gradients = {name: _kept(weight.grad) for name, weight in model.named_parameters() if weight.grad is not None}
        optimizer.step()
        mark_step()
        state = {name: _kept(value) for name, value in model.state_dict().items()}
        return Iteration(loss=loss.item(), gradients=gradients, state=state)


def _enliven(model: torch.nn.Module) -> None:
    """Let every branch and the classifiers take part: stock initialisation nearly switches them off."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bn3.weight"):
                weight.fill_(0.2)
            elif name.endswith("conv_seg.weight"):
                weight.mul_(10)


def _kept(tensor: torch.Tensor) -> torch.Tensor:
    # A copy even on the CPU, where the update would change what the gradients share.
    return tensor.detach().cpu().to(torch.float64, copy=True)


def judge(reference: Iteration, candidate: Iteration) -> Line:
    """Say how far two iterations are apart, relative to the reference."""
    loss = abs(candidate.loss - reference.loss) / abs(reference.loss)
    gradients = apart(reference.gradients, candidate.gradients)
    state = apart(reference.state, candidate.state)
    worst, name = _worst(reference.gradients, candidate.gradients)
    found = (
        f"EMANet forward, backward and update: relative difference to the CPU of the loss {loss:.1e} (limit "
        f"{LOSS_LIMIT:g}), all gradients {gradients:.1e} (limit {GRADIENT_LIMIT:g}), updated state {state:.1e}; "
        f"largest of one gradient {worst:.1e}{f' in {name}' if name else ''}"
    )
    if not (loss <= WRONG_LOSS and gradients <= WRONG_GRADIENTS and math.isfinite(state)):
        return error("training", found, "The device computes something else; find the operator before training.")
    if loss <= LOSS_LIMIT and gradients <= GRADIENT_LIMIT:
        return ok("training", found)
    return warning("training", found, "It trains, but not as float32 does on the CPU. See the precisions above.")


def judge_again(first: Iteration, second: Iteration) -> Line:
    """Say whether a device repeats itself: two iterations from one state, held to the limits of two devices."""
    if first.loss == second.loss and _equal(first.gradients, second.gradients) and _equal(first.state, second.state):
        return ok("repeatability", "a second iteration from the same state is equal in every bit")
    loss = abs(second.loss - first.loss) / abs(first.loss)
    gradients = apart(first.gradients, second.gradients)
    found = f"a second iteration from the same state differs: the loss by {loss:.1e}, all gradients by {gradients:.1e}"
    if loss <= LOSS_LIMIT and gradients <= GRADIENT_LIMIT:
        return ok("repeatability", f"{found}, as where a kernel adds in no fixed order")
    judge = warning if loss <= WRONG_LOSS and gradients <= WRONG_GRADIENTS else error
    advice = "Rounding does not do that: look for a race, memory that nobody has written to, or a card that fails."
    return judge("repeatability", f"{found} (limits {LOSS_LIMIT:g} and {GRADIENT_LIMIT:g})", advice)


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def apart(reference: dict[str, torch.Tensor], candidate: dict[str, torch.Tensor]) -> float:
    """Return ||candidate - reference|| / ||reference|| over all tensors together.

    Returns:
        The relative Frobenius difference; infinite if the names differ.
    """
    if reference.keys() != candidate.keys():
        return math.inf
    squares = sum(float((candidate[name] - tensor).square().sum()) for name, tensor in reference.items())
    return math.sqrt(squares / sum(float(tensor.square().sum()) for tensor in reference.values()))


def _worst(reference: dict[str, torch.Tensor], candidate: dict[str, torch.Tensor]) -> tuple[float, str]:
    """Return the largest relative difference of one tensor and its name; a tensor of zeros has none."""
    worst, where = 0.0, ""
    for name, tensor in reference.items():
        size = float(tensor.norm())
        difference = float((candidate[name] - tensor).norm()) / size if size and name in candidate else 0.0
        if not difference <= worst:
            worst, where = difference, name
    return worst, where
