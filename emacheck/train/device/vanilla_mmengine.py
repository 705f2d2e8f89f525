"""All that makes an unchanged mmengine train on a device that it has never heard of.

mmengine knows cuda, npu, mlu, musa and mps by name. Nothing of the user's installation is touched and nothing is copied
from it; each place that stands in the way has one answer. Lines are those of onedl-mmengine 0.10.12.

- ``device/utils.py:123`` ``DEVICE``: set by :func:`point_mmengine_at`. Read at call time, it is the only switch behind
  ``get_device()``, so models (``runner/runner.py:875``) and resumed checkpoints (``runner/runner.py:2022``) follow.
- ``dist/utils.py:130`` ``torch.cuda.set_device``: :func:`emacheck.train.device.accelerator.select_for_rank` selects the
  device, and the process group is joined, before the Runner is built, which then leaves both alone.
- ``dist/utils.py`` ``get_comm_device`` and ``dist/dist.py:429, 633, 790``, which know nccl, hccl, cncl and mccl: the
  group's backend is ``cpu:gloo,sdaa:tccl``, a name that mmengine does not know, so it sends objects by the CPU.
- ``runner/runner.py:893`` ``device_ids=[LOCAL_RANK]``, refused by DistributedDataParallel on a CPU and read as numbers
  of CUDA devices elsewhere: :func:`adapt` asks for None, which means the device that the model is on.
- ``optim/optimizer/amp_optimizer_wrapper.py:16-22``, a GradScaler for cuda that silently disables itself on every other
  device, and ``:78``, an assertion that there is one of four devices: :class:`DeviceAmpOptimWrapper`.
- ``runner/amp.py:62-102`` ``autocast``, a ValueError on other devices and bfloat16 alone on a CPU:
  :meth:`DeviceAmpOptimWrapper.optim_context` uses ``torch.autocast`` itself.
- torch 2.4 to 2.6 pin memory for CUDA unless ``pin_memory_device`` names another device: :func:`adapt` names it.
- ``runner/log_processor.py:232, 505``, ``utils/dl_utils/collect_env.py:60``: no memory column and no device in
  mmengine's own log. The provenance has both.
- Validation, checkpoints, resuming and SyncBN (reverted by ``runner/runner.py:877`` in one process) need no answer.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import mmengine.device.utils
import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, ApexOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from emacheck.errors import UsageError
from emacheck.train.device.devices import Device
from emacheck.train.device.precision import AUTOCAST

AMP_WRAPPER = "DeviceAmpOptimWrapper"
MIXED_SETTINGS = ("dtype", "loss_scale", "use_fsdp")
DDP = "MMDistributedDataParallel"
DYNAMIC = "dynamic"
SCALER_SETTINGS = frozenset({"init_scale", "growth_factor", "backoff_factor", "growth_interval"})


def point_mmengine_at(device: Device) -> None:
    """Make mmengine put models and checkpoints on a device.

    Args:
        device: An opened device; its number was selected when it was opened.
    """
    mmengine.device.utils.DEVICE = device.type


def adapt(config: Any, device: Device) -> None:
    """Change what a configuration must say for a device; nothing of it decides the numbers.

    Args:
        config: The mmengine configuration, changed in place.
        device: Where to train.
    """
    wrapper = config.get("model_wrapper_cfg") or {}
    if wrapper.get("type", DDP) == DDP:
        unused = config.get("find_unused_parameters", False)
        defaults = {"type": DDP, "broadcast_buffers": False, "find_unused_parameters": unused}
        config.model_wrapper_cfg = {**defaults, **wrapper, "device_ids": None}
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        loader = config.get(name)
        if loader and loader.get("pin_memory") and not device.is_cpu and _pins_for_cuda_alone():
            loader.pin_memory_device = device.type


def _pins_for_cuda_alone() -> bool:
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 7)


def ask_for_precision(config: Any, precision: str) -> None:
    """Make a configuration train under autocast, with loss scaling where the precision needs it.

    Args:
        config: The mmengine configuration, changed in place.
        precision: fp32, tf32, bf16 or fp16.

    Raises:
        UsageError: If the configuration asks for another precision, or for a wrapper that has no counterpart.
    """
    wrapper, settings = _wrapper_class(config), config.optim_wrapper
    mixed = issubclass(wrapper, AmpOptimWrapper | ApexOptimWrapper)
    if precision not in AUTOCAST:
        if mixed:
            raise UsageError(
                f"optim_wrapper.type: found {wrapper.__name__}, which is mixed precision, expected OptimWrapper with "
                f"--precision {precision}. Give --precision bf16 or fp16 (or --amp), or --cfg-options "
                "optim_wrapper.type=OptimWrapper"
            )
        if wrapper is OptimWrapper:
            for key in MIXED_SETTINGS:  # an override can replace the type of a wrapper, but not take these away
                settings.pop(key, None)
        return
    if wrapper not in (OptimWrapper, AmpOptimWrapper, DeviceAmpOptimWrapper):
        raise UsageError(
            f"--precision {precision}: found optim_wrapper.type {wrapper.__name__}, expected OptimWrapper or "
            "AmpOptimWrapper, for which emacheck has a counterpart that works on every device. "
            f"{'Give --cfg-options optim_wrapper.type=AmpOptimWrapper' if mixed else 'Use --precision fp32.'}"
        )
    asked = settings.get("dtype")
    if asked is not None and str(asked).removeprefix("torch.") != AUTOCAST[precision]:
        raise UsageError(
            f"optim_wrapper.dtype: found {asked}, expected {AUTOCAST[precision]} with --precision {precision}. "
            f"Give another --precision, or --cfg-options optim_wrapper.dtype={AUTOCAST[precision]}"
        )
    _check_loss_scale(settings.get("loss_scale", DYNAMIC))
    if settings.pop("use_fsdp", False):
        raise UsageError(
            "optim_wrapper.use_fsdp: found True, expected False: emacheck trains several processes with "
            f"{DDP}. Leave it out."
        )
    settings.type = AMP_WRAPPER
    settings.dtype = AUTOCAST[precision]


def _check_loss_scale(asked: Any) -> None:
    numbers = list(asked.values()) if isinstance(asked, dict) else [asked]
    known = not isinstance(asked, dict) or asked.keys() <= SCALER_SETTINGS
    if asked != DYNAMIC and not (known and all(type(each) in (int, float) and 0 < each < math.inf for each in numbers)):
        raise UsageError(
            f"optim_wrapper.loss_scale: found {asked!r}, expected {DYNAMIC!r}, a number above 0, or a dict of such "
            f"numbers for {', '.join(sorted(SCALER_SETTINGS))}. Correct it, or leave it out."
        )


def step_in_float32(config: Any) -> None:
    """Take mixed precision out of a configuration whose optimizer alone is wanted, or that is trained in float32.

    Args:
        config: The mmengine configuration, changed in place.
    """
    if issubclass(_wrapper_class(config), AmpOptimWrapper | ApexOptimWrapper):
        config.optim_wrapper.type = "OptimWrapper"
        for key in MIXED_SETTINGS:
            config.optim_wrapper.pop(key, None)


def _wrapper_class(config: Any) -> type:
    """Return the class of the optimizer wrapper; a configuration names it, with or without a scope, or holds it."""
    found = named = config.optim_wrapper.get("type", "OptimWrapper")
    if isinstance(named, str):
        # mmengine looks into the default scope first; nobody has imported the library of that name yet.
        found = _registered(f"{config.get('default_scope')}.{named}") or _registered(named)
    if not isinstance(found, type):
        raise UsageError(
            f"optim_wrapper.type: found {named}, which mmengine does not know, expected OptimWrapper, AmpOptimWrapper "
            "or a registered class. Correct it, or name the module that registers it in custom_imports."
        )
    return found


def _registered(name: str) -> Any:
    try:
        return OPTIM_WRAPPERS.get(name)
    except RuntimeError:  # what mmengine raises for some names that it does not know
        return None


@OPTIM_WRAPPERS.register_module(name=AMP_WRAPPER)
class DeviceAmpOptimWrapper(AmpOptimWrapper):  # type: ignore[misc]
    """mmengine's AmpOptimWrapper for the device in use, whichever it is.

    Loss scaling is on for float16 and off for bfloat16, whose exponents reach as far as float32's.

    Args:
        dtype: ``float16`` or ``bfloat16``.
        loss_scale: ``dynamic``, a constant number, or arguments of ``torch.amp.GradScaler``.
        kwargs: Arguments of mmengine's OptimWrapper.

    Attributes:
        used_scale: What the loss of the last backward pass was multiplied with.
        skipped_steps: How many steps were left out because a scaled gradient was not finite.
    """

    def __init__(self, dtype: str, loss_scale: Any = DYNAMIC, **kwargs: Any) -> None:
        # AmpOptimWrapper.__init__ asserts one of four devices, and would build the scaler for cuda.
        OptimWrapper.__init__(self, **kwargs)
        self.cast_dtype = getattr(torch, dtype)
        constant = float(loss_scale) if isinstance(loss_scale, int | float) else None
        self._scale_update_param = constant
        settings = {"init_scale": constant} if constant is not None else loss_scale
        settings = {} if settings == DYNAMIC else dict(settings)
        self.loss_scaler = torch.amp.GradScaler(get_device(), enabled=dtype == "float16", **settings)
        self.used_scale = 1.0
        self.skipped_steps = 0

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Scale the loss and go backward, and note the scale: gradients may be accumulated before a step."""
        self.used_scale = self.loss_scaler.get_scale()
        super().backward(loss, **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Update the parameters, unless a gradient is not finite, and count the steps that were left out.

        Unscaling comes first, and the step is left out here: a fused optimizer would do both by itself, unseen.
        """
        scaler = self.loss_scaler
        if not scaler.is_enabled():
            super().step(**kwargs)
            return
        scaler.unscale_(self.optimizer)
        if self.clip_grad_kwargs:
            self._clip_grad()
        if any(found.item() for found in scaler._found_inf_per_device(self.optimizer).values()):
            self.skipped_steps += 1
        else:
            scaler.step(self.optimizer, **kwargs)
        scaler.update(self._scale_update_param)

    @contextlib.contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        """Run the forward pass under torch's own autocast for the device."""
        with OptimWrapper.optim_context(self, model), torch.autocast(get_device(), dtype=self.cast_dtype):
            yield
