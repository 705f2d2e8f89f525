"""A simulated ``torch_sdaa``: importing it gives this process a device ``sdaa`` that is host memory and nothing else.

It registers the device type ``sdaa`` (PyTorch's PrivateUse1), the module ``torch.sdaa``, autocast, random number
generators and the communication backend ``tccl``, and injects the faults that ``SDAA_SIMULATED_FAULTS`` names. It is
test equipment: what runs on it is never evidence about a vendor's hardware or software.
"""

import os
import sys

import torch
import torch.distributed

from torch_sdaa import _build

_C = _build.load()

from torch_sdaa import faults, sdaa  # noqa: E402 - both need the library

__version__ = "0.0+simulated"
__all__ = ["faults", "sdaa"]


def _make_tccl(store, rank, size, timeout):
    inner = torch.distributed.ProcessGroupGloo(torch.distributed.PrefixStore("tccl", store), rank, size, timeout)
    return _C.make_tccl(inner)


torch.utils.rename_privateuse1_backend("sdaa")
torch._register_device_module("sdaa", sdaa)
sys.modules["torch.sdaa"] = sdaa
torch.utils.generate_methods_for_privateuse1_backend(for_packed_sequence=True, for_storage=True)
if torch.distributed.is_available():
    torch.distributed.Backend.register_backend("tccl", _make_tccl, devices=["sdaa"])
for _text in filter(None, map(str.strip, os.environ.get("SDAA_SIMULATED_FAULTS", "").split(";"))):
    faults.inject(_text)
