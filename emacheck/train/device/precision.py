"""Precisions: what a device may be asked for, and that float32 means float32."""

import importlib
import os
import warnings
from collections.abc import MutableMapping
from typing import Any

from emacheck.errors import TrainingError, UsageError
from emacheck.train.device.accelerator import attribute
from emacheck.train.device.devices import Device

AMPERE = (8, 0)
AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}
# What torch asks as well from 2.9 on, by ``fp32_precision``; once that was set, the older switch may not be readable.
NEWER = {
    "torch.backends.cuda.matmul.allow_tf32": ("torch.backends.cuda.matmul",),
    "torch.backends.cudnn.allow_tf32": ("torch.backends.cudnn.conv", "torch.backends.cudnn.rnn"),
}
HOST = ("torch.backends.mkldnn.matmul", "torch.backends.mkldnn.conv", "torch.backends.mkldnn.rnn")


def check_precision(device: Device, precision: str) -> None:
    """Refuse a precision that the table does not know for a device.

    Raises:
        UsageError: If it does not.

    Example:
        >>> from emacheck.train.device.devices import parse_device
        >>> check_precision(parse_device("cuda"), "tf32")
    """
    if precision not in device.kind.precisions:
        raise UsageError(
            f"--precision {precision}: {device.kind.title} ({device.type}) cannot be asked for it, expected one of "
            f"{', '.join(device.kind.precisions)}. A device that can needs it in its row of the table: docs/devices.md"
        )


def keep_float32(device: Device, precision: str, environment: MutableMapping[str, str]) -> tuple[str, ...]:
    """Set, where nobody has, the environment variables by which a device computes float32 in float32.

    To be called before the device's module is imported, which reads them.

    Args:
        device: The device.
        precision: The precision of the training; only fp32 needs them.
        environment: The environment of whoever opens the device.

    Returns:
        The variables that were set.

    Example:
        >>> from emacheck.train.device.devices import parse_device
        >>> environment = {"TORCH_SDAA_CONV_USE_FP32": "0"}
        >>> keep_float32(parse_device("sdaa"), "fp32", environment)
        ('TORCH_SDAA_CONV2D_BACKWARD_USE_FP32',)
        >>> environment
        {'TORCH_SDAA_CONV_USE_FP32': '0', 'TORCH_SDAA_CONV2D_BACKWARD_USE_FP32': '1'}
    """
    if precision != "fp32":
        return ()
    missing = tuple(name for name in device.kind.float32_variables if name not in environment)
    environment.update(dict.fromkeys(missing, "1"))
    return missing


def check_reference_precision(device: Device, precision: str) -> None:
    """Refuse a device that cannot train the reference in the candidate's precision; a reference has the same always.

    Raises:
        UsageError: If it cannot.
    """
    if precision not in device.kind.precisions:
        raise UsageError(
            f"--reference-device {device}: {device.kind.title} does not compute in {precision}, and a reference has "
            f"the candidate's precision. Choose a device that does, or another --precision: {device} has "
            f"{', '.join(device.kind.precisions)}."
        )


def check_autocast(device: Device, precision: str) -> None:
    """See that autocast lowers to a mixed precision on an opened device: where it does not, torch warns and goes on.

    Raises:
        UsageError: If the training would be one in float32.
    """
    if precision not in AUTOCAST:
        return
    import torch

    dtype, on, why = getattr(torch, AUTOCAST[precision]), False, ""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with torch.autocast(device.type, dtype=dtype):
                on = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == dtype
        why = " ".join(str(each.message) for each in said)
    except Exception as error:  # whatever a vendor's module lacks
        why = f"{type(error).__name__}: {error}"
    if not on:
        raise UsageError(
            f"--precision {precision}: autocast on {device} does not lower to {AUTOCAST[precision]}, so this would be "
            f"a training in fp32 ({' '.join(why.split()) or 'torch does not say why'}). Choose another --precision, or "
            "ask the vendor."
        )


def set_float32(device: Device, precision: str) -> dict[str, str]:
    """Make float32 mean float32, or TF32 where that is asked for; on the host, where arbiter and reference are, always.

    Args:
        device: An opened device.
        precision: The precision of the training. Only ``tf32`` lets float32 operators use fewer bits.

    Returns:
        Every switch that the device has and how it stands now, for the provenance.

    Raises:
        UsageError: If TF32 is asked for and the device has no switch for it, or a switch does not stay as it was set.
    """
    torch = importlib.import_module("torch")
    wanted, found = precision == "tf32", {}
    if wanted and device.type == "cuda" and os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        raise UsageError(
            "--precision tf32: found NVIDIA_TF32_OVERRIDE=0 in the environment, which keeps NVIDIA's libraries from "
            "TF32 whatever torch asks of them. Unset it, or use --precision fp32."
        )
    torch.set_float32_matmul_precision("highest")
    for part in HOST:
        _set_newer(part, tf32=False)
    for name in device.kind.tf32_switches:
        owner, switch = attribute(name.rpartition(".")[0]), name.rpartition(".")[2]
        if owner is None or not _has(owner, switch):
            continue
        setattr(owner, switch, wanted)
        for part in NEWER.get(name, ()):
            _set_newer(part, tf32=wanted)
        if any(state != wanted for state in _states(name)):
            raise UsageError(
                f"--precision {precision}: {name} was switched {_on(wanted)} and is {_on(not wanted)} still. Look for "
                f"environment variables that override it, or choose another --precision than {precision}."
            )
        found[name] = _on(wanted)
    if wanted and device.type == "cuda" and torch.cuda.is_available() and torch.version.cuda:
        capability = torch.cuda.get_device_capability()
        if capability < AMPERE:
            raise UsageError(
                f"--precision tf32: {torch.cuda.get_device_name()} has compute capability {capability}, expected "
                f"{AMPERE} or more; it would compute in fp32 and say nothing. Use --precision fp32."
            )
    if wanted and "on" not in found.values():
        raise UsageError(
            f"--precision tf32: torch {torch.__version__} has none of the switches for {device.kind.title}: "
            f"{', '.join(device.kind.tf32_switches)}. Use --precision fp32."
        )
    return found


def require_float32_kept(device: Device, precision: str) -> None:
    """See that nothing has changed what :func:`set_float32` has set, such as a hook or a model of the user's.

    Raises:
        TrainingError: If something has: float32 meant something else from then on.
    """
    changed = [part for part in HOST if (_newer(part) or "ieee") != "ieee"]
    changed += [
        name for name in device.kind.tf32_switches if any(state != (precision == "tf32") for state in _states(name))
    ]
    if changed:
        raise TrainingError(
            f"{', '.join(changed)}: found switched during the training, expected what --precision {precision} set, so "
            "the record is not one of that precision. Look for what sets it, or torch.set_float32_matmul_precision, in "
            "the configuration's hooks and modules."
        )


def _set_newer(owner: str, *, tf32: bool) -> None:
    """Ask by ``fp32_precision``, where torch has it."""
    if _newer(owner) is not None:
        attribute(owner).fp32_precision = "tf32" if tf32 else "ieee"


def _newer(owner: str) -> str | None:
    """Return what ``fp32_precision`` is; None where torch does not have it."""
    found = getattr(attribute(owner), "fp32_precision", None)
    return None if found is None else str(found)


def _states(name: str) -> list[bool]:
    """Return how a switch stands, and what goes by it; nothing if it is not there."""
    owner, switch = attribute(name.rpartition(".")[0]), name.rpartition(".")[2]
    if owner is None or not _has(owner, switch):
        return []
    newer = [state == "tf32" for part in NEWER.get(name, ()) if (state := _newer(part)) is not None]
    return newer or [bool(getattr(owner, switch))]


def _has(owner: Any, switch: str) -> bool:
    try:
        return getattr(owner, switch, None) is not None
    except RuntimeError:  # somebody set the newer switch, and torch does not say how the older one stands
        return True


def _on(state: bool) -> str:
    return "on" if state else "off"
