"""The optimizer in isolation: one step from the shared state with the reference's own gradients."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch

from emacheck.audit.calls import MODEL
from emacheck.audit.end_to_end import Conditions, Found, active, offered, placed, preserved
from emacheck.audit.measure import difference, float64
from emacheck.audit.replay import Part
from emacheck.audit.subject import Candidate


@contextmanager
def stepped(candidate: Candidate, gradients: Mapping[str, torch.Tensor], conditions: Conditions) -> Iterator[Found]:
    """Give a candidate the reference's gradients, let its optimizer step, offer what changed, and undo it.

    Args:
        candidate: On the CPU; it is moved to the device and back.
        gradients: The gradient of each parameter that has one, by name.
        conditions: How to compute.

    Yields:
        For the update of every parameter and every tensor of the optimizer's state a function that returns it in
        float64 on the CPU.
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
            optimizer.step()
        found: Found = {}
        for name, parameter in candidate.model.named_parameters():
            module, _, own = name.rpartition(".")
            found[module or MODEL, Part("update", own)] = partial(difference, parameter, starts[name])
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    found[module or MODEL, Part("state", f"{key} of {own}")] = partial(float64, value)
        with offered(found):
            yield found
