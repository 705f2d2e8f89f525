"""Whether float32 means float32 on CUDA, where torch lets convolutions use TF32 by default."""

from typing import Any

import torch


def notes_on_float32(device: torch.device, precision: str) -> tuple[str, ...]:
    """Return what to know of an audit in fp32 on a device whose float32 has the 10 bits of TF32, as switches stand.

    Args:
        device: The candidate's; only of ``cuda`` torch itself holds the switches.
        precision: The accepted one.

    Returns:
        One sentence, or nothing.

    Example:
        >>> notes_on_float32(torch.device("cpu"), "fp32")
        ()
    """
    if device.type != "cuda" or precision != "fp32":
        return ()
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    switches = {"matrix products": (cuda, cuda), "convolutions": (cudnn, getattr(cudnn, "conv", None))}
    found = " and ".join(name for name, (older, newer) in switches.items() if _is_on(older, newer))
    return (f"{device} computes {found} of float32 in TF32, which counts as an error",) if found else ()


def _is_on(older: Any, newer: Any) -> bool:
    """Tell what both generations of a switch say; torch refuses to read the older where only the newer was set."""
    if getattr(newer, "fp32_precision", None) == "tf32":
        return True
    try:
        return bool(older.allow_tf32)
    except RuntimeError:
        return False
