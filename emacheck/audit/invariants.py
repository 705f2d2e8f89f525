"""What holds after any iteration on any device."""

from collections.abc import Callable

import torch

from emacheck.audit.measure import real

Invariant = Callable[[torch.nn.Module], str | None]


def everything_is_finite(model: torch.nn.Module) -> str | None:
    """Complain about a parameter, gradient or buffer that holds NaN or an infinity.

    Example:
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> _ = layer.weight.data.fill_(float("nan"))
        >>> everything_is_finite(layer)
        'parameter weight is not finite'
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"parameter {name} is not finite"
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"gradient of {name} is not finite"
    return next((f"buffer {name} is not finite" for name, buffer in model.named_buffers() if not _finite(buffer)), None)


def variances_are_not_negative(model: torch.nn.Module) -> str | None:
    """Complain about a running variance below zero."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_var") and buffer.numel() and float(buffer.min()) < 0:
            return f"buffer {name} is a variance and holds {float(buffer.min()):g}"
    return None


DEFAULT: tuple[Invariant, ...] = (everything_is_finite, variances_are_not_negative)


def _finite(tensor: torch.Tensor) -> bool:
    numbers = real(tensor.detach())
    return not numbers.is_floating_point() or bool(torch.isfinite(numbers).all())
