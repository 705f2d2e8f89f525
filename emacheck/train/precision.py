"""Precisions: what a device may be asked for, and that float32 means float32."""

import importlib

from emacheck.errors import UsageError
from emacheck.train.accelerator import attribute
from emacheck.train.devices import Device

AMPERE = (8, 0)
AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}


def check_precision(device: Device, precision: str) -> None:
    """Refuse a precision that the table does not know for a device.

    Raises:
        UsageError: If it does not.

    Example:
        >>> from emacheck.train.devices import parse_device
        >>> check_precision(parse_device("cuda"), "tf32")
    """
    if precision not in device.kind.precisions:
        raise UsageError(
            f"--precision {precision}: {device.kind.title} ({device.type}) cannot be asked for it, expected one of "
            f"{', '.join(device.kind.precisions)}. A device that can needs it in its row of the table: docs/devices.md"
        )


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


def set_float32(device: Device, precision: str) -> dict[str, str]:
    """Make float32 mean float32, or TF32 where that is asked for.

    Args:
        device: An opened device.
        precision: The precision of the training. Only ``tf32`` lets float32 operators use fewer bits.

    Returns:
        Every switch that the device has and how it stands now, for the provenance.

    Raises:
        UsageError: If TF32 is asked for and the device has no switch for it.
    """
    wanted, found = precision == "tf32", {}
    for name in device.kind.tf32_switches:
        if attribute(name) is None:
            continue
        owner, _, switch = name.rpartition(".")
        setattr(attribute(owner), switch, wanted)
        found[name] = "on" if attribute(name) else "off"
    torch = importlib.import_module("torch")
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
