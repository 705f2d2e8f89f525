"""What a training was while it ran: on which device, in which precision, whether it trained at all.

A configuration, an environment or another mmengine can make of a training something else than it was asked to be, and
its losses are those of a healthy device then: of the CPU, of float32, of a forward pass. What is seen here goes into
the record, and what contradicts the request ends the training without a verdict.
"""

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import mmengine.device
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict

from emacheck.dispatch.executed import Executed
from emacheck.errors import TrainingError
from emacheck.train.device.accelerator import fallback_allowed
from emacheck.train.device.devices import Device
from emacheck.train.device.precision import AUTOCAST, require_float32_kept

# As PyTorch and vendors say it, in the words of at::native::cpu_fallback's callers.
FELL_BACK = r"(?s).*fall(s|ing)?[ -]?back\b.*\bcpu\b"
NAMED = re.compile(r"operator '?(\w+::[\w.]+)", re.IGNORECASE)
SAID = 200
SAMPLE = 16


class ObserverHook(Hook):  # type: ignore[misc]
    """Observe a training, and end it after its first iteration if that was on another device.

    Args:
        device: Where this process was asked to train.
        precision: In which precision.
        iterations: For how many iterations.
        compiled: Whether the configuration asks mmengine to compile the model.

    Attributes:
        updates: In how many iterations an optimizer stepped.
        shows_updates: Whether any iteration began with weights that an earlier one had updated.
    """

    priority = "NORMAL"

    def __init__(self, device: Device, precision: str, *, iterations: int, compiled: bool) -> None:
        self.updates = 0
        self.shows_updates = False
        self._device, self._precision, self._compiled = device, precision, compiled
        self._iterations, self._last = 0, iterations
        self._stepped = self._watched = False
        self._executed = Executed()
        self._model: Any = None
        self._before: list[torch.Tensor] = []
        self.told = ToldToFallBack()

    def before_train(self, runner: Any) -> None:
        """Remember the weights and watch the optimizers."""
        self._model = runner.model
        self._before = _samples(runner.model)
        for optimizer in optimizers(runner.optim_wrapper):
            optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, *_: Any) -> None:
        self._stepped = True

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        """Watch the operators of the last iteration, by which it is known whether anything is compiled."""
        self.shows_updates = self.updates > 0
        self._stepped = False
        # What is compiled runs as it was written while it is watched.
        self._watched = self._iterations + 1 == self._last and not self._compiled and not compiled_graphs()
        if self._watched:
            self._executed.__enter__()  # type: ignore[no-untyped-call]

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:  # noqa: ARG002
        """Count the updates.

        Raises:
            TrainingError: If the first iteration was on another device.
        """
        self._iterations += 1
        self.updates += self._stepped
        if self._watched:
            self._executed.__exit__(None, None, None)
        if self._iterations == 1 and (found := elsewhere(runner.model, self._device)):
            raise TrainingError(found)

    def facts(self) -> dict[str, Any]:
        """Return what was observed, for the provenance."""
        facts: dict[str, Any] = {"updates": self.updates}
        if self._model is not None:
            facts["parameters"] = ", ".join(sorted({str(each.device) for each in self._model.parameters()}))
        if self._executed.types:
            facts["types"] = ", ".join(f"{name} {count}" for name, count in self._executed.types.most_common())
        if self._compiled:
            facts["graphs"] = compiled_graphs()
        return {
            **facts,
            "fallback": sorted(self._executed.without_kernel | self.told.operators),
            "on_host": sorted(self._executed.on_host),
            "allowed": fallback_allowed(self._device),
        }

    def require_as_asked(self) -> None:
        """See that the training, now that it is over, was what was asked for.

        Raises:
            TrainingError: If it was not.
        """
        require_float32_kept(self._device, self._precision)
        found = self._untrained() or self._uncompiled() or elsewhere(self._model, self._device) or self._otherwise()
        if found:
            raise TrainingError(found)

    def _untrained(self) -> str:
        if self._iterations > 1 and not self.shows_updates:
            # Two such runs are equal, whatever the device does in a step.
            return (
                f"no weight was updated before the last of {self._iterations} iterations, so the losses say nothing "
                "about training. In fp16 a step is left out while a scaled gradient is not finite (loss_scale and "
                "skipped_steps in the record); otherwise optim_wrapper.accumulative_counts is more than --iters."
            )
        if self.updates and all(map(torch.equal, self._before, _samples(self._model))):
            return (
                f"no weight has changed, although the optimizer stepped in {self.updates} of {self._iterations} "
                "iterations, so the losses say nothing about training. Look at lr in the record: expected a learning "
                "rate that moves a weight of float32 within --iters."
            )
        return ""

    def _uncompiled(self) -> str:
        if not self._compiled or compiled_graphs():
            return ""
        # The products of float16 are summed in float32 there by a mode, in which torch compiles nothing.
        on_cpu = self._device.is_cpu and self._precision == "fp16"
        why = "No CPU compiles in fp16" if on_cpu else "Look for TORCHDYNAMO_DISABLE or TORCH_COMPILE_DISABLE"
        how = ": use --precision bf16" if on_cpu else " in the environment"
        return (
            "compile: torch has compiled nothing, so this was a training of the code as it is written. "
            f"{why}{how}, or leave compile out."
        )

    def _otherwise(self) -> str:
        """Say that nothing was computed in the mixed precision that was asked for."""
        wanted, types = AUTOCAST.get(self._precision), self._executed.types
        if wanted is None or types[wanted] or not self._watched:
            return ""
        return (
            f"--precision {self._precision}: found no operator of iteration {self._last} that computed in {wanted}, "
            f"only in {', '.join(types)}, so this is no training in {self._precision}. Look for what leaves autocast "
            "out: an optimizer wrapper, its constructor, or a train_step of the configuration's own. Or use "
            "--precision fp32."
        )


class ToldToFallBack(logging.Handler):
    """Hear what torch and vendors say of operators that fall back to the CPU.

    Attributes:
        operators: The operators that they name; the sentence where they name none.

    Example:
        >>> told = ToldToFallBack()
        >>> told.hear("x.py:1: UserWarning: The operator 'aten::isin' will fall back to run on the CPU.")
        >>> told.operators
        {'aten::isin'}
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[str] = set()

    def listen(self) -> None:
        """Hear all warnings about it in this process from now on, whatever is done about warnings otherwise."""
        warnings.filterwarnings("always", message=FELL_BACK)
        logging.captureWarnings(capture=True)
        logging.getLogger("py.warnings").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take one warning."""
        self.hear(record.getMessage())

    def hear(self, text: str) -> None:
        """Take the text of one warning."""
        if re.match(FELL_BACK, text, re.IGNORECASE):
            named = NAMED.search(text)
            said = text.partition("Warning: ")[2] or text
            self.operators.add(named[1] if named else " ".join(said.split())[:SAID])


def elsewhere(model: torch.nn.Module, wanted: Device) -> str:
    """Say which parameters are on another device than they were asked to be on; nothing if none is."""
    placed = {name: parameter.device for name, parameter in model.named_parameters()}
    away = {
        name: found
        for name, found in placed.items()
        if found.type != wanted.type or (wanted.index is not None and found.index != wanted.index)
    }
    if not away:
        return ""
    first = next(iter(away))
    return (
        f"{wanted.option} {wanted}: found {len(away)} of {len(placed)} parameters on another device, the first of them "
        f"{first} on {away[first]}, so this is no training on {wanted}. Look for what moves them in the "
        "configuration's hooks and modules, or for an mmengine that chooses the device by itself: "
        f"mmengine.device.get_device() says {mmengine.device.get_device()}."
    )


def optimizers(wrapper: Any) -> Iterable[torch.optim.Optimizer]:
    """Return the optimizers of an optimizer wrapper of mmengine."""
    return [each.optimizer for each in _wrappers(wrapper)]


def call_before_clipping(wrapper: Any, call: Callable[[torch.optim.Optimizer], Any]) -> None:
    """Have an optimizer wrapper of mmengine call something whenever it is about to clip gradients.

    Args:
        wrapper: The optimizer wrapper, or several.
        call: Takes the optimizer whose gradients they are; in fp16 they are unscaled by then, and may be NaN.
    """
    for each in _wrappers(wrapper):
        calls = vars(each).setdefault("_before_clipping", [])
        calls.append(call)
        if len(calls) == 1 and hasattr(each, "_clip_grad"):
            each._clip_grad = partial(_clip, each, calls, each._clip_grad)


def _clip(wrapper: Any, calls: list[Callable[[torch.optim.Optimizer], Any]], clip: Callable[[], Any]) -> None:
    for call in calls:
        call(wrapper.optimizer)
    clip()


def _wrappers(wrapper: Any) -> list[Any]:
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def compiled_graphs() -> int:
    """Return how many graphs torch.compile has compiled in this process."""
    # To import it takes seconds; where nobody has, nothing is compiled.
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])


def _samples(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return the first numbers of each weight: an update changes some of them."""
    return [weight.detach().reshape(-1)[:SAMPLE].cpu().clone() for weight in model.parameters()]
