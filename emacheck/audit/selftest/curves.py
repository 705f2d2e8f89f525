"""A short training of a candidate, for what the rules that judge curves see of a fault."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from emacheck.audit.faults.registry import BrokenFaultError, Fault, NotApplicableError
from emacheck.audit.iteration.capture import total
from emacheck.audit.iteration.shared_code import SharedCode
from emacheck.audit.iteration.subject import Candidate, Subject, parameters_of
from emacheck.audit.lockstep.end_to_end import Conditions, iterate, nudge, placed


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a recorder would write down of a short training, one number for each iteration.

    Attributes:
        loss: The sum of the losses.
        grad_norm: Norm of all gradients as the optimizer sees them.
        lr: Learning rate of the first group of parameters; empty without an optimizer.
        raised: What ended the training early, if anything.
    """

    loss: tuple[float, ...] = ()
    grad_norm: tuple[float, ...] = ()
    lr: tuple[float, ...] = ()
    raised: str = ""


def train(candidate: Candidate, batches: Sequence[Any], how: Conditions) -> Training:
    """Train a candidate, one iteration for each batch.

    Every iteration draws from a seed of its own, so that trainings of one seed are paired whatever they compute on.

    Args:
        candidate: A twin of the subject, perhaps with a fault; it ends in another state.
        batches: On the CPU; they are copied, not changed.
        how: Device, precision, variation and the seed.

    Returns:
        The curves, up to where the training raised something.
    """
    rows: list[tuple[float, float, float]] = []
    raised = ""
    try:
        with placed(candidate, how):
            nudge(candidate.model, how.variation)
            for iteration, batch in enumerate(batches, 1):
                losses = iterate(candidate, batch, replace(how, seed=how.seed + iteration))
                rows.append((float(total(losses).detach()), _gradient_norm(candidate), _rate(candidate)))
    except Exception as error:
        raised = "; ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    loss, norm, rate = zip(*rows, strict=True) if rows else ((), (), ())
    return Training(loss=loss, grad_norm=norm, lr=() if candidate.optimizer is None else rate, raised=raised)


def train_with(fault: Fault, subject: Subject, batches: Sequence[Any], how: Conditions) -> Training | None:
    """Train a twin with a fault; None if the fault does not apply, cannot, or is none in this precision."""
    candidate, code = subject.twin(), SharedCode(subject.model)
    if how.precision.name not in fault.precisions:
        return None
    try:
        fault(candidate)
        return train(candidate, batches, how)
    except (NotApplicableError, BrokenFaultError):
        return None
    finally:
        code.put_back()


def _parameters(candidate: Candidate) -> list[torch.nn.Parameter]:
    if candidate.optimizer is None:
        return list(candidate.model.parameters())
    return parameters_of(candidate.optimizer)


def _gradient_norm(candidate: Candidate) -> float:
    gradients = [parameter.grad for parameter in _parameters(candidate) if parameter.grad is not None]
    return math.sqrt(sum(float(torch.linalg.vector_norm(gradient)) ** 2 for gradient in gradients))


def _rate(candidate: Candidate) -> float:
    return math.nan if candidate.optimizer is None else float(candidate.optimizer.param_groups[0]["lr"])
