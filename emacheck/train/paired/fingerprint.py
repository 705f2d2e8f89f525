"""Fingerprints: hashes that prove two runs started from the same state and saw the same batches."""

import hashlib
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement


def state_hash(module: torch.nn.Module) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of all parameters and buffers.

    Args:
        module: The network, on any device.

    Returns:
        The hash as 64 hexadecimal digits.

    Example:
        >>> one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> state_hash(one) == state_hash(two), state_hash(one) == state_hash(one)
        (False, True)
    """
    seen = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        seen.update(f"{name}\n".encode())
        _add(seen, tensor)
    return seen.hexdigest()


def tensor_hash(tensor: torch.Tensor) -> str:
    """Return the SHA-256 over type, shape and bytes of a tensor on any device."""
    return _hash(tensor)


def batch_hash(batch: Any) -> str:
    """Return the SHA-256 over all tensors and arrays in a batch, in order; paths and other metadata do not count.

    Example:
        >>> batch_hash({"inputs": [torch.ones(2)]}) == batch_hash({"inputs": [torch.zeros(2)]})
        False
    """
    return _hash(batch)


def sample_hashes(batch: Any) -> list[str]:
    """Return for each sample of a batch the SHA-256 over its tensors and arrays; paths and other metadata do not count.

    Args:
        batch: What the data loader yields: a mapping of sequences or tensors with one item per sample. Anything else
            counts as one sample.

    Returns:
        The hashes in the order of the batch, each of 64 hexadecimal digits.

    Example:
        >>> ones, mixed = torch.ones(2), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
        >>> sample_hashes({"inputs": mixed})[0] == sample_hashes({"inputs": [ones]})[0]
        True
    """
    if isinstance(batch, dict) and batch:
        lengths = {len(part) if isinstance(part, list | tuple | torch.Tensor) else -1 for part in batch.values()}
        if len(lengths) == 1 and (length := lengths.pop()) > 0:
            return [_hash({key: part[at] for key, part in batch.items()}) for at in range(length)]
    return [_hash(batch)]


def _hash(value: Any) -> str:
    seen = hashlib.sha256()
    _add(seen, value)
    return seen.hexdigest()


def _add(seen: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous()
        seen.update(f"{array.dtype}{tuple(array.shape)}\n".encode())
        seen.update(array.reshape(-1).view(torch.uint8).numpy().data if array.numel() else b"")
    elif isinstance(value, np.ndarray):
        seen.update(f"{value.dtype}{value.shape}\n".encode())
        seen.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, BaseDataElement):
        _add(seen, dict(value.items()))
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            seen.update(f"{key}\n".encode())
            _add(seen, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _add(seen, item)
