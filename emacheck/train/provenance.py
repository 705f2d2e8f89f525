"""Provenance: what a run was made with."""

import os
import platform
import resource
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import emacheck
from emacheck.train.device import accelerator
from emacheck.train.device.devices import Device

# Two distributions may supply one import name; the one that is installed is written down.
DISTRIBUTIONS = (
    "torch",
    "onedl-mmengine",
    "mmengine",
    "onedl-mmcv",
    "mmcv",
    "mmcv-lite",
    "onedl-mmsegmentation",
    "mmsegmentation",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
)


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part in the numbers."""
    found = {"emacheck": emacheck.__version__, "python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def host() -> dict[str, Any]:
    """Return what the host is, without naming it."""
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}


def peak_memory(device: Device, watched: int | None = None) -> Mapping[str, int]:
    """Return the peak memory of this process in bytes: resident on the host, allocated on the device.

    Args:
        device: Where it trained.
        watched: The largest peak that was seen on the device while it trained, where it may have been started anew.
    """
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    on_device = accelerator.peak_memory(device)
    if on_device is not None:
        peak["device"] = max(on_device, watched or 0)
    return peak


def git_commit() -> str | None:
    """Return the commit of the working directory, with ``-dirty`` if it has changes, or None outside of git."""
    command: list[str] = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done: Any = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
