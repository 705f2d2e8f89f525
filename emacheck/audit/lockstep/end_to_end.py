"""One whole iteration on the candidate against the arbiter: for what lies between the modules."""

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import set_checkpoint_early_stop

from emacheck.audit.arithmetic.measure import FAR, Distance, Truth, difference, distance, float64, on_host
from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.iteration.attributes import put_back
from emacheck.audit.iteration.calls import LOSS, MODEL
from emacheck.audit.iteration.capture import named_losses, total
from emacheck.audit.iteration.draws import Draws
from emacheck.audit.iteration.nested import snapshot, tensors
from emacheck.audit.iteration.subject import Candidate, buffer_slots, move, parameters_of
from emacheck.audit.lockstep.parts import Part
from emacheck.audit.lockstep.variations import PLAIN, Variation

Owner = tuple[str, Part]
Found = dict[Owner, Callable[[], torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conditions:
    """How an iteration is computed.

    Attributes:
        device: Where.
        dtype: float64 for the arbiter, None for the precision of the model.
        precision: The arithmetic of the forward pass.
        variation: A benign variation.
        seed: Seed of all random draws.
        draws: How they are drawn.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant
    dtype: torch.dtype | None = None
    precision: Precision = Precision()  # noqa: RUF009 - frozen
    variation: Variation = PLAIN
    seed: int = 0
    draws: type[Draws] = Draws


@contextmanager
def preserved(candidate: Candidate) -> Iterator[dict[str, torch.Tensor]]:
    """Put weights, buffers and optimizer state back afterwards, on the device where they were.

    Yields:
        The weights by name, as they were.
    """
    model, optimizer = candidate.model, candidate.optimizer
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    places = buffer_slots(model)
    buffers = {id(buffer): buffer.clone() for _, _, buffer in places}
    modes = [(module, module.training) for module in model.modules()]
    # Some optimizers count their steps in the group, or in themselves.
    kept = None if optimizer is None else _kept(optimizer, model)
    try:
        yield weights
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        for module, key, before in places:
            module._buffers[key] = buffers[id(before)]
        for module, mode in modes:
            module.training = mode
        if optimizer is not None and kept is not None:
            own, names, state, groups = kept
            for name in vars(optimizer).keys() - names:
                delattr(optimizer, name)
            vars(optimizer).update(own)
            optimizer.state.clear()
            for parameter, values in zip(parameters_of(optimizer), state, strict=True):
                if values:
                    optimizer.state[parameter] = values
            for group, values in zip(optimizer.param_groups, groups, strict=True):
                group.update(values)


def _kept(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module
) -> tuple[dict[str, Any], set[str], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return copies of an optimizer's own attributes, the names of all, and copies of states and groups' settings."""
    # Whatever points to a weight, to the model or to the optimizer itself goes on pointing to it.
    same: dict[int, Any] = {id(each): each for each in (optimizer, *model.modules(), *parameters_of(optimizer))}

    def copied(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: copy.deepcopy(value, same) for name, value in values.items()}

    own = {}
    for name, value in vars(optimizer).items():
        if name in ("state", "param_groups") or name.startswith("_optimizer_") or callable(value):
            continue
        # A weight that an attribute holds may be another object by then.
        if any(isinstance(tensor, torch.nn.Parameter) for _, tensor in tensors(value)):
            continue
        with suppress(Exception):  # what cannot be copied, such as a group of processes, stays as it is
            own[name] = copy.deepcopy(value, same)
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    states = [copied(optimizer.state.get(parameter, {})) for parameter in parameters_of(optimizer)]
    return own, set(vars(optimizer)), states, [copied(each) for each in settings]


@contextmanager
def active(candidate: Candidate, conditions: Conditions) -> Iterator[Draws]:
    """Everything that holds while a candidate computes, forward, backward and in the step."""
    with ExitStack() as stack:
        if conditions.dtype is None:
            stack.enter_context(conditions.precision.emulated(conditions.device.type))
        stack.enter_context(conditions.variation.active())
        for context in candidate.around:
            stack.enter_context(context())
        # A checkpoint is repeated to its end: else what comes last in it, such as a dropout, is cut off unseen.
        stack.enter_context(set_checkpoint_early_stop(False))
        yield stack.enter_context(conditions.draws(conditions.seed))


@contextmanager
def iterated(candidate: Candidate, batch: Any, conditions: Conditions) -> Iterator[Found]:
    """Run one whole iteration, offer everything it changed, and undo it.

    Args:
        candidate: On the CPU; it is moved to the device and back.
        batch: The batch, on the CPU.
        conditions: How to compute.

    Yields:
        For every loss, gradient, update and buffer a function that returns the tensor, dense and real, on the CPU; what
        is a difference, or one number, in float64.
    """
    with (
        preserved(candidate) as weights,
        placed(candidate, conditions),
        put_back(candidate.model.modules()),
        offered(observed(candidate, batch, conditions, weights)) as found,
    ):
        yield found


@contextmanager
def offered(found: Found) -> Iterator[Found]:
    """Offer what an iteration changed for a while; afterwards nothing here keeps its tensors in memory."""
    try:
        yield found
    finally:
        found.clear()


def observed(candidate: Candidate, batch: Any, conditions: Conditions, weights: dict[str, torch.Tensor]) -> Found:
    """Run one whole iteration where the candidate is; return what :func:`iterated` yields.

    Args:
        candidate: Where and in the precision in which it computes.
        batch: The batch, on the CPU.
        conditions: How to compute.
        weights: The weights by name, before the iteration.
    """
    nudged = nudge(candidate.model, conditions.variation)
    starts = {n: p.detach().clone() for n, p in candidate.model.named_parameters()} if nudged else weights
    # A buffer that modules share is named in each: in several processes torch has moved it, and each has its own.
    buffers = {n: float64(b) for n, b in candidate.model.named_buffers(remove_duplicate=False)}
    losses = iterate(candidate, batch, conditions)
    found: Found = {}
    for name, value in losses.items():
        found[LOSS, Part("output", name)] = partial(float64, value)
    for name, parameter in candidate.model.named_parameters():
        module, _, own = name.rpartition(".")
        if parameter.grad is not None:
            found[module or MODEL, Part("gradient", own)] = partial(on_host, parameter.grad)
        if candidate.optimizer is not None:
            found[module or MODEL, Part("update", own)] = partial(difference, parameter, starts[name])
    for name, buffer in candidate.model.named_buffers(remove_duplicate=False):
        module, _, own = name.rpartition(".")
        found[module or MODEL, Part("buffer", own)] = partial(difference, buffer, buffers[name])
    return found


@contextmanager
def placed(candidate: Candidate, conditions: Conditions) -> Iterator[None]:
    """Move a candidate to where it computes and into its precision and layout, and back."""
    kinds = {parameter.dtype for parameter in candidate.model.parameters()}
    stay = conditions.device.type == "cpu" and conditions.dtype is None
    if conditions.variation.channels_last:
        _lay_out(candidate.model, torch.channels_last)
    if not stay:
        move(candidate, device=conditions.device, dtype=conditions.dtype)
    try:
        yield
    finally:
        if not stay:
            before = kinds.pop() if conditions.dtype and len(kinds) == 1 else None
            move(candidate, device=torch.device("cpu"), dtype=before)
        if conditions.variation.channels_last:
            _lay_out(candidate.model, torch.contiguous_format)


def _lay_out(model: torch.nn.Module, layout: torch.memory_format) -> None:
    """Change the memory layout of what has four dimensions; torch refuses this one for the weights of volumes."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=layout)


def iterate(candidate: Candidate, batch: Any, conditions: Conditions) -> dict[str, torch.Tensor]:
    """Run forward, backward and the optimizer's step; return the losses."""
    model, layout = candidate.model, conditions.variation.channels_last
    with _seeded(conditions.seed), ExitStack() as computing:
        data = candidate.change_batch(batch) if candidate.change_batch else batch
        data = snapshot(data, device=conditions.device, dtype=conditions.dtype, channels_last=layout)
        draws = computing.enter_context(active(candidate, conditions))
        model.zero_grad(set_to_none=True)
        with nullcontext() if conditions.dtype else conditions.precision.context(conditions.device.type):
            losses = named_losses(candidate.loss(model, data))
        (total(losses) * conditions.precision.loss_scale).backward()  # type: ignore[no-untyped-call]
        _step(candidate, conditions.precision.loss_scale)
        if candidate.mark_step is not None:
            candidate.mark_step()
    draws.require_own()
    return {name: value for name, value in losses.items() if value.requires_grad}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python and numpy for models that draw from them; afterwards they go on as before."""
    before, before_in_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what models draw from
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_in_numpy)  # noqa: NPY002


def nudge(model: torch.nn.Module, variation: Variation) -> bool:
    """Move the weights by about their last bit, where the variation says so; return whether it did."""
    if variation.last_bit:
        with torch.no_grad():
            for at, parameter in enumerate(model.parameters(), 3):
                parameter.copy_(variation.nudged(parameter.detach(), seed=at))
    return bool(variation.last_bit)


def _step(candidate: Candidate, scale: float) -> None:
    """Undo the loss scale, let faults and the user's code see the gradients, and step."""
    for parameter in candidate.model.parameters():
        if scale != 1.0 and parameter.grad is not None:
            parameter.grad = parameter.grad / scale
    if candidate.before_step is not None:
        candidate.before_step(candidate)
    if candidate.optimizer is not None:
        candidate.optimizer.step()


def distances(found: Found, truth: dict[Owner, Truth]) -> dict[Owner, Distance]:
    """Return how far every tensor of an iteration is from the arbiter's; what only one of them has is far off."""
    here = {owner: distance(found[owner](), tensor) if owner in found else FAR for owner, tensor in truth.items()}
    return here | {owner: FAR for owner in found if owner not in truth}
