"""What emacheck imports first: it gives torch the module ``torch.xla``, and lets the device run eagerly."""

from types import ModuleType
from typing import Any

import torch
import torch_xla
import torch_xla.core.xla_model
import torch_xla.distributed.xla_backend  # registers the backend of torch.distributed
import torch_xla.experimental

# What is copied to the host is computed by itself otherwise, and all that it needs is compiled for each copy anew.
torch_xla.experimental.eager_mode(True)


def _state() -> torch.Tensor:
    return torch.tensor([torch_xla.core.xla_model.get_rng_state()])


xla: Any = ModuleType("torch.xla")
xla.device_count = torch_xla.device_count
xla.is_available = lambda: torch_xla.device_count() > 0
xla.manual_seed_all = torch_xla.manual_seed
xla.get_rng_state = _state
torch._register_device_module("xla", xla)
