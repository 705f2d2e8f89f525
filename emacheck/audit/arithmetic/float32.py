"""Whether float32 means float32 on CUDA, where torch lets convolutions use TF32 by default."""

from typing import Any

import torch

# Of NVIDIA's, in which TF32 came; the switches are on for every other card as well, and mean nothing there.
AMPERE = (8, 0)


def notes_on_float32(device: torch.device, precision: str) -> tuple[str, ...]:
    """Return what to know of an audit in fp32 on a device that computes some of it with the 10 bits of TF32.

    Args:
        device: The candidate's; only of ``cuda`` torch itself holds the switches.
        precision: The accepted one.

    Returns:
        One sentence, or nothing.

    Example:
        >>> notes_on_float32(torch.device("cpu"), "fp32")
        ()
    """
    if device.type != "cuda" or precision != "fp32" or torch.version.cuda is None:
        return ()
    found = switched_to_tf32() if torch.cuda.get_device_capability(device) >= AMPERE else ()
    return (f"{device} computes {' and '.join(found)} of float32 in TF32, which counts as an error",) if found else ()


def switched_to_tf32() -> tuple[str, ...]:
    """Return what torch's switches let CUDA compute in TF32 now: matrix products, convolutions, both or none."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    switches = {"matrix products": (cuda, cuda), "convolutions": (cudnn, getattr(cudnn, "conv", None))}
    return tuple(name for name, (older, newer) in switches.items() if _is_on(older, newer))


def _is_on(older: Any, newer: Any) -> bool:
    """Tell what both generations of a switch say; torch refuses to read the older where only the newer was set."""
    if getattr(newer, "fp32_precision", None) == "tf32":
        return True
    try:
        return bool(older.allow_tf32)
    except RuntimeError:
        return False
