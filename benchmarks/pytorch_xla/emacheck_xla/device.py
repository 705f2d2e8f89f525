"""What emacheck imports first: it gives torch the module ``torch.xla``, and lets the device run eagerly or lazily."""

import os
from types import ModuleType
from typing import Any

import torch
import torch_xla
import torch_xla.core.xla_model
import torch_xla.distributed.xla_backend  # registers the backend of torch.distributed
import torch_xla.experimental

# One operator at a time, or all that is told until emacheck calls torch_xla.sync.
torch_xla.experimental.eager_mode(os.environ.get("EMACHECK_XLA_LAZY") != "1")


def _state() -> torch.Tensor:
    return torch.tensor([torch_xla.core.xla_model.get_rng_state()])


xla: Any = ModuleType("torch.xla")
xla.device_count = torch_xla.device_count
xla.is_available = lambda: torch_xla.device_count() > 0
xla.manual_seed_all = torch_xla.manual_seed
xla.get_rng_state = _state
torch._register_device_module("xla", xla)
