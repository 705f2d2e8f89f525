"""What audit_step is given: the right kinds of things, all of them on the CPU."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch

from emacheck.audit.iteration.nested import tensors
from emacheck.audit.iteration.subject import named_tensors
from emacheck.audit.limits import Limits
from emacheck.errors import UsageError

_PARALLEL = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)


def require_types(model: Any, optimizer: Any, loss: Any) -> None:
    """Complain about arguments in another order, about several optimizers, and about wrappers."""
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"found {type(model).__name__} as the model, expected a torch.nn.Module.")
    if isinstance(model, _PARALLEL):
        raise UsageError(
            f"found {type(model).__name__} as the model, expected the network that it wraps: model.module, with an "
            "optimizer over its parameters. What devices exchange is for emacheck audit --nproc-per-node."
        )
    if not isinstance(optimizer, torch.optim.Optimizer | None):
        raise UsageError(
            f"found {type(optimizer).__name__} as the optimizer, expected one torch.optim.Optimizer, or None; of "
            "several, as a GAN has them, audit each with the loss from which it steps."
        )
    if not callable(loss):
        raise UsageError(
            f"found {type(loss).__name__} as the loss, expected a function of model and batch; the order is "
            "audit_step(model, optimizer, batch, loss, device)."
        )
    if isinstance(loss, torch.nn.modules.loss._Loss):
        raise UsageError(
            f"found the criterion {type(loss).__name__} as the loss, expected a function of model and batch that calls "
            "both, such as lambda model, batch: criterion(model(batch[0]), batch[1])."
        )


def require_options(modules: Any, seed: Any, limits: Any) -> None:
    """Complain about options of another kind."""
    if not isinstance(modules, str | None):
        raise UsageError(
            f"found {modules!r} as the modules, expected one glob over names, such as 'backbone.*', or None."
        )
    if not isinstance(seed, int):
        raise UsageError(f"found {seed!r} as the seed, expected a whole number.")
    if not isinstance(limits, Limits | None):
        raise UsageError(
            f"found {limits!r} as the limits, expected None for the calibrated ones, or an "
            "emacheck.audit.limits.Limits such as Limits(isolated=30)."
        )


def require_steps_of(optimizer: torch.optim.Optimizer | None, model: torch.nn.Module) -> None:
    """Complain about an optimizer that cannot step from gradients alone, or that is another model's."""
    if optimizer is None:
        return
    name = type(optimizer).__name__
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UsageError(
            f"found optimizer {name}, whose step computes losses by itself (it requires a closure), expected one that "
            "steps from the gradients of one backward pass; audit all but the step with optimizer=None."
        )
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in known for parameter in model.parameters()):
        raise UsageError(
            f"found optimizer {name} without any parameter of the model, expected one over model.parameters(); a copy "
            "of a model needs an optimizer of its own, and so does one that was moved to some devices and back: load "
            "into it what optimizer.state_dict() of the other one returns."
        )


def require_on_the_cpu(model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, batch: Any) -> None:
    """Complain about whatever is on a device already: the audit moves copies there."""
    for what, tensor, fix in _given(model, optimizer, batch):
        if tensor.device.type != "cpu":
            raise UsageError(f"found {what} on {tensor.device}, expected it on the CPU: {fix}")
    default = torch.empty(0).device  # torch 2.4 does not tell of "with torch.device(...)"
    if default.type != "cpu":
        raise UsageError(
            f"found the default device {default} (torch.set_default_device), where every side would make its tensors, "
            "expected the CPU: torch.set_default_device('cpu') before the audit."
        )


def _given(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, batch: Any
) -> Iterator[tuple[str, torch.Tensor, str]]:
    for name, tensor in named_tensors(model):
        yield f"{name} of the model", tensor, "model.cpu(), then an optimizer over model.parameters()."
    for values in () if optimizer is None else optimizer.state.values():
        for name, tensor in tensors(values):
            fix = "load what its state_dict() returns into a new optimizer over model.parameters()."
            yield f"{name} in the state of the optimizer", tensor, fix
    for path, tensor in tensors(batch):
        yield f"tensor {path} of the batch".replace("  ", " "), tensor, "bring its tensors there with .cpu()."
