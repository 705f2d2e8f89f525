"""Processes of one training join by the backend of their device."""

import os
import subprocess
import sys

import pytest
from conftest import free_port

JOIN = """
import datetime, sys
from dataclasses import replace
from emacheck.errors import EmacheckError
from emacheck.train.device.accelerator import join_processes, select_for_rank
from emacheck.train.device.devices import Device, parse_device

device = parse_device(sys.argv[1])
if len(sys.argv) > 2:
    device = Device(kind=replace(device.kind, backend=sys.argv[2]))
try:
    mine = select_for_rank(device)
    join_processes(mine, timeout=datetime.timedelta(seconds=20))
except EmacheckError as error:
    sys.exit(f"{type(error).__name__}: {error}")
import torch, torch.distributed as dist
tensor = torch.ones(3, device=str(mine))
dist.all_reduce(tensor)
found = [None]
dist.all_gather_object(found, {"device": str(tensor.device)})
print(mine, found, dist.get_backend_config() if hasattr(dist, "get_backend_config") else "")
dist.destroy_process_group()
"""


def join(*arguments, env):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    world = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", **address}
    return subprocess.run(
        [sys.executable, "-c", JOIN, *arguments],
        env={**os.environ, **world, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_process_joins_with_its_own_device_and_sends_tensors_and_objects(simulated_device):
    done = join("sdaa", env=simulated_device())
    assert done.stdout.startswith("sdaa:0 [{'device': 'sdaa:0'}]"), done.stderr
    done = join("cpu", env={})
    assert done.stdout.startswith("cpu [{'device': 'cpu'}]"), done.stderr


def test_a_backend_that_torch_does_not_know_is_refused_with_those_that_it_knows(simulated_device):
    done = join("sdaa", "xyz", env=simulated_device())
    assert done.returncode == 1
    assert done.stderr.startswith("UsageError: --device sdaa: the communication backend xyz does not serve sdaa in")
    assert "gloo" in done.stderr
