"""Where a fault sits: modules are found by what they are, so that the catalogue breaks other models as well."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from emacheck.audit.faults.registry import NotApplicableError
from emacheck.audit.iteration.subject import Candidate

Place = tuple[str, Any]
Change = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def pick(model: torch.nn.Module, kind: type[torch.nn.Module], at: float = 0.5, where: Any = None) -> Place:
    """Return a module of a kind that trains, by its place in the network from 0 (first) to 1 (last).

    Raises:
        NotApplicableError: If there is none.
    """
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, kind)
        and all(p.requires_grad for p in module.parameters())
        and (where is None or where(module))
    ]
    if not found:
        raise NotApplicableError(f"the model has no trainable {kind}")
    return found[min(int(at * len(found)), len(found) - 1)]


def convolution(model: torch.nn.Module, at: float = 0.5, where: Any = None) -> Place:
    """Return a convolution."""
    return pick(model, torch.nn.Conv2d, at, where)


def norm(model: torch.nn.Module, at: float = 0.5) -> Place:
    """Return a batch norm."""
    return pick(model, _BatchNorm, at)


def container(model: torch.nn.Module, at: float = 0.5) -> Place:
    """Return a residual block: it holds a convolution and two norms, and keeps the shape of its input."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if {"Conv2d"} <= {type(child).__name__ for child in module.children()}
        and sum(isinstance(child, _BatchNorm) for child in module.children()) >= 2
        and getattr(module, "downsample", None) is None
    ]
    if not found:
        raise NotApplicableError("the model has no residual block")
    return found[min(int(at * len(found)), len(found) - 1)]


def expectation_maximization(model: torch.nn.Module) -> Place:
    """Return the module that keeps EMA bases."""
    for name, module in model.named_modules():
        if isinstance(module._buffers.get("bases"), torch.Tensor):
            return name, module
    raise NotApplicableError("the model keeps no EMA bases")


def with_attribute(model: torch.nn.Module, attribute: str, skip: tuple[type, ...] = ()) -> Place:
    """Return the first module inside the model that has an attribute; what the model itself has is often unused."""
    for name, module in model.named_modules():
        if name and attribute in module.__dict__ and not isinstance(module, skip):
            return name, module
    raise NotApplicableError(f"the model has no module with an attribute {attribute}")


def change_output(module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change what a module returns, as a wrong kernel would."""
    module.register_forward_hook(lambda _, __, output: change(output))


def scaled(value: torch.Tensor, where: Any, factor: float) -> torch.Tensor:
    """Return a tensor with the elements at an index multiplied by a factor."""
    factors = torch.ones_like(value)
    factors[where] = factor
    return value * factors


class ReplacedOperator(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run other code in place of some ATen operators.

    Args:
        names: Names such as ``convolution`` or ``convolution_backward``.
        change: Called with operator, arguments and keyword arguments; returns the operator's result.
    """

    def __init__(self, names: tuple[str, ...], change: Change) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names, self._change = frozenset(names), change

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        if func.overloadpacket.__name__ in self._names:
            return self._change(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def replace_operator(candidate: Candidate, names: tuple[str, ...], change: Change) -> None:
    """Run other code in place of ATen operators while the candidate computes."""
    candidate.around.append(lambda: ReplacedOperator(names, change))


def rounded(value: torch.Tensor) -> torch.Tensor:
    """Round to bfloat16 and back; the gradient passes as if nothing had happened."""
    return value + (value.detach().to(torch.bfloat16).to(value.dtype) - value.detach())


class _ChangedGradient(torch.autograd.Function):
    """Returns its input; changes the gradient."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, change: Any) -> torch.Tensor:
        ctx.change = change
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ctx.change(gradients[0]), None


def with_gradient(value: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return a tensor as it is; the gradient that flows back through it is changed."""
    same: torch.Tensor = _ChangedGradient.apply(value, change)  # type: ignore[no-untyped-call]
    return same
