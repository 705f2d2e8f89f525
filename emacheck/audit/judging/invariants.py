"""What holds after any iteration on any device."""

from collections.abc import Callable, Sequence

import torch

from emacheck.audit.arithmetic.measure import real

# Called with the model after the iteration and the same model before it, returns a complaint.
Invariant = Callable[[torch.nn.Module, torch.nn.Module], str | None]


def everything_is_finite(model: torch.nn.Module, before: torch.nn.Module) -> str | None:
    """Complain about a parameter, gradient or buffer that holds NaN or an infinity.

    Where a buffer held one before, such as the -inf of a causal mask, it may hold one afterwards.

    Example:
        >>> layer, before = (torch.nn.Linear(1, 1, bias=False) for _ in range(2))
        >>> _ = layer.weight.data.fill_(float("nan"))
        >>> everything_is_finite(layer, before)
        'parameter weight is not finite'
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"parameter {name} is not finite"
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"gradient of {name} is not finite"
    # With every name of a buffer that modules share: a candidate's may each have their own.
    known = dict(before.named_buffers(remove_duplicate=False))
    for name, buffer in model.named_buffers():
        if not _finite(buffer) and not _infinite_before(buffer, known.get(name)):
            return f"buffer {name} is not finite"
    return None


def variances_are_not_negative(model: torch.nn.Module, before: torch.nn.Module) -> str | None:  # noqa: ARG001
    """Complain about a running variance below zero."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_var") and buffer.numel() and float(buffer.min()) < 0:
            return f"buffer {name} is a variance and holds {float(buffer.min()):g}"
    return None


DEFAULT: tuple[Invariant, ...] = (everything_is_finite, variances_are_not_negative)


def first_complaint(invariants: Sequence[Invariant], model: torch.nn.Module, before: torch.nn.Module) -> str:
    """Return the first complaint of all invariants about a model after an iteration, empty if there is none."""
    return next((text for text in (check(model, before) for check in invariants) if text), "")


def _infinite_before(now: torch.Tensor, before: torch.Tensor | None) -> bool:
    """Return whether everything that is not finite now was so before."""
    if before is None or before.shape != now.shape:
        return False
    odd, known = (~torch.isfinite(real(each.detach()).cpu()) for each in (now, before))
    return bool((known | ~odd).all())


def _finite(tensor: torch.Tensor) -> bool:
    numbers = real(tensor.detach())
    return not numbers.is_floating_point() or bool(torch.isfinite(numbers).all())
