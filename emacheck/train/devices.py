"""Devices: what must be switched before a training on one of them means what it says."""

from dataclasses import dataclass

from emacheck.errors import UsageError

SUPPORTED = ("cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device type with an optional index."""

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


def parse_device(text: str) -> Device:
    """Parse ``cpu``, ``cuda`` or ``cuda:1``.

    Args:
        text: What the user wrote.

    Returns:
        The device.

    Raises:
        UsageError: If this version cannot train on it.

    Example:
        >>> str(parse_device("cuda:1"))
        'cuda:1'
    """
    kind, _, index = text.partition(":")
    if kind not in SUPPORTED or (index and not index.isdecimal()) or (":" in text and not index):
        raise UsageError(
            f"--device {text}: this version trains on {' and '.join(SUPPORTED)} (with an index, such as cuda:1). "
            "Logs from any other device can be judged with: emacheck compare LOG_A LOG_B"
        )
    return Device(type=kind, index=int(index) if index else None)


def prepare_device(device: Device) -> dict[str, str]:
    """Make torch and mmengine use a device in honest float32.

    Args:
        device: Where to train.

    Returns:
        What the device is called and can do, for the provenance.

    Raises:
        UsageError: If torch does not see the device.
    """
    import mmengine.device.utils
    import torch

    # mmengine picks whatever accelerator it finds; read at call time, this is its only switch.
    mmengine.device.utils.DEVICE = device.type
    if device.type == "cpu":
        return {"type": "cpu", "name": _cpu_name(), "capability": torch.backends.cpu.get_cpu_capability()}
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {device}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices. "
            "Check the driver (nvidia-smi) and that torch was built with CUDA."
        )
    torch.cuda.set_device(device.index or 0)
    # Convolutions use TF32 by default; fp32 has to mean fp32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return {"type": "cuda", "name": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda), "tf32": "off"}


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()
