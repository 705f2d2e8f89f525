"""The simulated device, for tests: how to start a program that finds a ``torch_sdaa``. See README.md."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "package"


def environment(*faults, devices=2, rng="cpu"):
    """Return the environment variables with which a program finds the simulated device.

    Args:
        faults: What is broken, such as ``"scale _softmax by=1e-3"``; see package/torch_sdaa/faults.py.
        devices: How many devices there are.
        rng: ``cpu`` draws what names no generator from the CPU's generator, so that dropout masks are those of the CPU;
            ``device`` draws it from the device's own, as real devices do.

    Returns:
        Variables to add to ``os.environ``.
    """
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PACKAGE), os.environ.get("PYTHONPATH")))),
        "SDAA_SIMULATED_DEVICES": str(devices),
        "SDAA_SIMULATED_FAULTS": "; ".join(faults),
        "SDAA_SIMULATED_RNG": rng,
    }


@functools.cache
def why_not():
    """Build the simulated device if that was not done yet; return None, or what this machine lacks to build it.

    Raises:
        RuntimeError: If the tools are there and it does not build or load: that is a defect, and no reason to skip.
    """
    command = [sys.executable, "-c", "import torch_sdaa"]
    done = subprocess.run(command, env={**os.environ, **environment()}, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    _, lacks, what = done.stderr.rpartition("ToolsMissingError: ")
    if not lacks:
        raise RuntimeError(f"the simulated device is broken:\n{done.stderr}")
    return what.strip()


def require_simulated_device():
    """Skip the test where the device cannot be built, or fail it if EMACHECK_REQUIRE_SIMULATED_DEVICE is set."""
    if reason := why_not():
        if os.environ.get("EMACHECK_REQUIRE_SIMULATED_DEVICE"):
            pytest.fail(f"EMACHECK_REQUIRE_SIMULATED_DEVICE is set, but {reason}")
        pytest.skip(reason)
