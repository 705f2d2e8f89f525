"""The optimizer in isolation: one step from the shared state with the reference's own gradients."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from emacheck.audit.arithmetic.measure import difference, float64
from emacheck.audit.iteration.calls import MODEL, OPTIMIZER
from emacheck.audit.iteration.nested import numbers, tensors
from emacheck.audit.iteration.subject import Candidate
from emacheck.audit.lockstep.end_to_end import Conditions, Found, active, offered, placed, preserved
from emacheck.audit.lockstep.parts import Part


@contextmanager
def stepped(candidate: Candidate, gradients: Mapping[str, torch.Tensor], conditions: Conditions) -> Iterator[Found]:
    """Give a candidate the reference's gradients, let its optimizer step, offer what changed, and undo it.

    Args:
        candidate: On the CPU; it is moved to the device and back.
        gradients: The gradient of each parameter that has one, by name.
        conditions: How to compute.

    Yields:
        For the update of every parameter, every tensor and number of the optimizer's state and what the step changed in
        its groups a function that returns it in float64 on the CPU.
    """
    optimizer = candidate.optimizer
    if optimizer is None:
        yield {}
        return
    with preserved(candidate) as starts, placed(candidate, conditions):
        for name, parameter in candidate.model.named_parameters():
            given = gradients.get(name)
            parameter.grad = None if given is None else given.to(parameter, copy=True)
        with active(candidate, conditions):
            if candidate.before_step is not None:
                candidate.before_step(candidate)
            settings = dict(_settings(optimizer))
            optimizer.step()
            if candidate.mark_step is not None:
                candidate.mark_step()
        found: Found = {}
        for name, parameter in candidate.model.named_parameters():
            module, _, own = name.rpartition(".")
            found[module or MODEL, Part("update", own)] = partial(difference, parameter, starts[name])
            for path, value in _values(optimizer.state.get(parameter, {})):
                found[module or MODEL, Part("state", f"{path} of {own}")] = partial(float64, value)
        # What a step changes in a group, such as a counter; its settings are what they are.
        for path, setting in _settings(optimizer):
            if path not in settings or not torch.equal(setting, settings[path]):
                found[OPTIMIZER, Part("state", path)] = partial(float64, setting)
        with offered(found):
            yield found


def _values(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor and every number in a nested value with the path that leads to it."""
    yield from tensors(value, path)
    for where, number in numbers(value, path):
        yield where, torch.tensor(number, dtype=torch.float64)


def _settings(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield copies of the tensors and numbers in an optimizer's groups, other than the parameters."""
    for at, group in enumerate(optimizer.param_groups):
        for path, value in _values({key: value for key, value in group.items() if key != "params"}):
            yield f"{path} of group {at}", value.detach().to("cpu", copy=True)
