"""What the numbers of a measurement on a CPU depend on."""

import os
import platform
from typing import Any


def cpu_name() -> str:
    """Return what this CPU is called."""
    from emacheck.train.device.accelerator import describe_device
    from emacheck.train.device.devices import parse_device

    return str(describe_device(parse_device("cpu"))["name"])


def cpu_facts(threads: int) -> dict[str, Any]:
    """Return the CPU, its cores, the threads that were used, and the versions of Python and torch."""
    import torch

    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": threads,
    }
