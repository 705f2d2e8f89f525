"""Copies of tensors that lie in memory as the original does: a kernel may be wrong of a slice only."""

import torch

# So much of what lies before a tensor in its memory comes along that it begins at the same place of a vector.
_BEFORE = 64


def moved(
    tensor: torch.Tensor,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
) -> torch.Tensor:
    """Return a copy without gradient history that lies in memory as the original, and may be modified in place.

    ``Tensor.clone`` and ``Tensor.to`` close the gaps of a slice, write an expanded tensor out, and begin where their
    memory begins. So does this where the device has no strides.

    Args:
        tensor: What is copied.
        device: Where the copy is; None for where the original is.
        dtype: Its type; None for that of the original.
        channels_last: Lay out one with four dimensions with the channels last instead.

    Example:
        >>> half = torch.arange(8.0).reshape(2, 4)[:, 2:]
        >>> half.clone().stride(), moved(half).stride(), moved(half).storage_offset()
        ((2, 1), (4, 1), 2)
    """
    source = tensor.detach()
    there, kind = device or tensor.device, dtype or tensor.dtype
    if channels_last and tensor.dim() == 4:
        return source.to(device=there, dtype=kind, copy=True, memory_format=torch.channels_last)
    if _is_plain(tensor):
        return source.to(device=there, dtype=kind, copy=True)
    offset = tensor.storage_offset()
    before = (offset - 1) % _BEFORE + 1 if offset else 0
    span = before + 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    room = source.as_strided((span,), (1,), offset - before).to(device=there, dtype=kind, copy=True)
    try:
        copy = room.as_strided(tensor.shape, tensor.stride(), before)
    except (RuntimeError, NotImplementedError):
        copy = None
    if copy is None or copy.stride() != tensor.stride():  # a device that has no strides, such as XLA
        return source.to(device=there, dtype=kind, copy=True)
    # A view could not be modified in place once a function of autograd has returned it.
    return copy.data


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a clone lies in memory as the original, or whether that cannot be said of it."""
    if tensor.layout is not torch.strided or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return True
    if tensor.is_nested or tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or not tensor.numel():
        return True
    return not tensor.storage_offset() and torch.empty_like(tensor, device="meta").stride() == tensor.stride()
