"""The user's own model and optimizer: the copies of an audit must leave them as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from emacheck.audit.iteration.capture import checksum
from emacheck.audit.iteration.subject import Candidate, Subject
from emacheck.errors import UsageError


@contextmanager
def untouched(subject: Subject) -> Iterator[None]:
    """Put gradients and buffers of the originals back afterwards, and complain if an iteration of a copy changed them.

    Args:
        subject: What is audited.

    Raises:
        UsageError: If something that every side uses is not copied, such as a module that only the loss holds.
    """
    weights = dict(subject.model.named_parameters()) | {
        f"{at} of the optimizer": weight for at, weight in enumerate(outside(subject))
    }
    gradients = {name: (w.grad, None if w.grad is None else w.grad.clone()) for name, w in weights.items()}
    versions = {name: weight._version for name, weight in weights.items()}
    buffers = {name: (buffer, buffer.clone()) for name, buffer in subject.model.named_buffers()}
    changed: list[str] = []
    try:
        yield
    finally:
        with torch.no_grad():
            for name, (gradient, start) in gradients.items():
                if weights[name].grad is not gradient or not _same(gradient, start):
                    changed.append(f"the gradient of parameter {name}")
                    weights[name].grad = gradient
                    _put_back(gradient, start)
            for name, (buffer, start) in buffers.items():
                if not _same(buffer, start):
                    changed.append(f"buffer {name}")
                    _put_back(buffer, start)
        changed += [f"parameter {name}" for name in weights if weights[name]._version != versions[name]]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UsageError(
            f"found {changed[0]}{more} of the original changed by an iteration of a copy: the loss, a hook or a module "
            "holds on to the original (a module beside the model, a lambda over self), so that all sides would share "
            "it. Expected all of it inside the model that the loss is given, as a module of it."
        )


def outside(subject: Subject) -> list[torch.nn.Parameter]:
    """Return those parameters of the optimizer that are not the model's."""
    if subject.optimizer is None:
        return []
    known = {id(weight) for weight in subject.model.parameters()}
    return [w for group in subject.optimizer.param_groups for w in group["params"] if id(w) not in known]


def not_updated(subject: Subject, candidate: Candidate) -> list[str]:
    """Return the parameters that the subject's optimizer updates and the candidate's does not hold, as after a port."""
    if subject.optimizer is None or candidate.optimizer is None:
        return []
    ours = _not_held(candidate.model, candidate.optimizer)
    return [name for name in ours if name not in _not_held(subject.model, subject.optimizer)]


def _not_held(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    return [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in held]


def _same(now: torch.Tensor | None, start: torch.Tensor | None) -> bool:
    if now is None or start is None:
        return now is start
    return checksum(now) == checksum(start)


def _put_back(now: torch.Tensor | None, start: torch.Tensor | None) -> None:
    if now is not None and start is not None:
        now.copy_(start)
