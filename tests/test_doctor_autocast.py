"""The doctor's line about the types that autocast chooses."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

# In a process of its own: what is registered for the device stays for the rest of it.
PROGRAM = """
import inspect, sys, torch, torch_sdaa
from emacheck.train.device.devices import parse_device
from emacheck.train.doctor.autocast import autocast_lines
library = torch.library.Library("aten", "IMPL")
known = inspect.signature(library.impl).parameters
override = {"allow_override": True} if "allow_override" in known else {}
for operator in sys.argv[1:]:
    library.impl(operator, torch.library.fallthrough_kernel, "AutocastPrivateUse1", **override)
for line in autocast_lines(parse_device("sdaa")):
    print(line.status.value, line.found)
"""


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ((), "ok bf16 and fp16: 10 operators have the types that they have on PyTorch's accelerators"),
        (
            ("upsample_bilinear2d",),
            "warning bf16: interpolate in bfloat16 (usual: float32); fp16: interpolate in float16 (usual: float32)",
        ),
    ],
)
def test_operators_with_another_type_than_on_accelerators_are_named(simulated_device, without, said):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *without],
        env={**os.environ, **simulated_device()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [said], done.stderr


def test_the_cpu_has_no_such_line():
    from emacheck.train.device.devices import parse_device
    from emacheck.train.doctor.autocast import autocast_lines

    assert list(autocast_lines(parse_device("cpu"))) == []
