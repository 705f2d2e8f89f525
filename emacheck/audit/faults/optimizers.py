"""Faults in the optimizer and its schedule; all of them sit in the optimizer."""

from typing import Any

import torch

from emacheck.audit.faults.registry import NotApplicableError, fault
from emacheck.audit.iteration.calls import OPTIMIZER
from emacheck.audit.iteration.subject import Candidate


def _optimizer(candidate: Candidate, setting: str | None = None) -> Any:
    if candidate.optimizer is None or (setting is not None and setting not in candidate.optimizer.param_groups[0]):
        raise NotApplicableError(f"the optimizer has no {setting or 'step'}")
    return candidate.optimizer


def _set(candidate: Candidate, setting: str, value: Any) -> str:
    for group in _optimizer(candidate, setting).param_groups:
        group[setting] = value(group[setting]) if callable(value) else value
    return OPTIMIZER


@fault(kind="optimizer", severities=(1.001, 1.01, 2.0), unit="times")
def learning_rate_off(candidate: Candidate, severity: float) -> str:
    """The learning rate is off."""
    return _set(candidate, "lr", lambda rate: rate * severity)


@fault(kind="optimizer", imitates="https://github.com/Abe404/segmentation_of_roots_in_soil_with_unet/pull/4")
def schedule_one_iteration_ahead(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The schedule is one iteration ahead: polynomial decay of power 0.9 over 100 iterations."""
    return _set(candidate, "lr", lambda rate: rate * (1 - 1 / 100) ** 0.9)


@fault(kind="optimizer", severities=(0.899, 0.89, 0.0), unit="momentum")
def momentum_off(candidate: Candidate, severity: float) -> str:
    """The momentum is off."""
    return _set(candidate, "momentum", severity)


@fault(kind="optimizer")
def nesterov_switched_on(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The optimizer uses Nesterov's momentum."""
    return _set(candidate, "nesterov", value=True)


@fault(kind="optimizer", severities=(0.01, 0.1), unit="dampening")
def momentum_dampened(candidate: Candidate, severity: float) -> str:
    """New gradients enter the momentum with less weight."""
    return _set(candidate, "dampening", severity)


@fault(kind="optimizer", severities=(0.99, 0.0, 2.0), unit="times")
def weight_decay_off(candidate: Candidate, severity: float) -> str:
    """The weight decay is off."""
    return _set(candidate, "weight_decay", lambda decay: decay * severity)


@fault(kind="optimizer", imitates="https://github.com/keras-team/keras/issues/19051")
def weight_decay_decoupled(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The weight decay acts on the weights instead of the gradients."""
    optimizer = _optimizer(candidate, "weight_decay")
    decays = [group["weight_decay"] for group in optimizer.param_groups]

    def decay(this: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        with torch.no_grad():
            for group, amount in zip(this.param_groups, decays, strict=True):
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.mul_(1 - group["lr"] * amount)

    _set(candidate, "weight_decay", 0.0)
    optimizer.register_step_pre_hook(decay)
    return OPTIMIZER


@fault(kind="optimizer")
def one_parameter_forgotten(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The optimizer does not know one of the parameters."""
    group = _optimizer(candidate).param_groups[0]
    trained = [at for at, parameter in enumerate(group["params"]) if parameter.requires_grad]
    del group["params"][trained[len(trained) // 2]]
    return OPTIMIZER


@fault(kind="optimizer", imitates="https://github.com/nntrainer/nntrainer/pull/3565")
def state_in_bfloat16(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The optimizer keeps its state in bfloat16."""

    def shorten(this: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        for values in this.state.values():
            for value in values.values():
                if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim():
                    value.copy_(value.bfloat16())

    _optimizer(candidate).register_step_post_hook(shorten)
    return OPTIMIZER


@fault(kind="optimizer")
def master_weights_lost(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The step rounds the weights to bfloat16."""

    def shorten(this: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        with torch.no_grad():
            for group in this.param_groups:
                for parameter in group["params"]:
                    parameter.copy_(parameter.bfloat16())

    _optimizer(candidate).register_step_post_hook(shorten)
    return OPTIMIZER


@fault(kind="optimizer", imitates="https://github.com/pytorch/pytorch/issues/118117")
def one_parameter_not_written(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The step computes one parameter's update and does not store it."""
    optimizer = _optimizer(candidate)
    at = len(_trained(optimizer)) // 3
    kept: dict[str, torch.Tensor] = {}

    def remember(this: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        kept["weight"] = _trained(this)[at].detach().clone()

    def restore(this: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001
        with torch.no_grad():
            _trained(this)[at].copy_(kept["weight"])

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(restore)
    return OPTIMIZER


def _trained(optimizer: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in optimizer.param_groups[0]["params"] if parameter.requires_grad]
