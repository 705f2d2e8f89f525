"""Run one recorded call alone: a module with the reference's inputs and output gradients, its own calls played back."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from emacheck.audit.arithmetic.measure import difference, float64
from emacheck.audit.iteration.attributes import bring, put_back
from emacheck.audit.iteration.calls import LOSS, Call, intercepted
from emacheck.audit.iteration.capture import named_losses, total
from emacheck.audit.iteration.checkpoints import run_plainly
from emacheck.audit.iteration.draws import Draws
from emacheck.audit.iteration.nested import tensors
from emacheck.audit.iteration.subject import named_tensors, reunite, slots
from emacheck.audit.lockstep.parts import Part, Results
from emacheck.audit.lockstep.played import Player, computed
from emacheck.audit.lockstep.side import Context, Side


def replay(call: Call, side: Side, *, during: Context = nullcontext) -> Results:
    """Repeat one call alone.

    Args:
        call: What the reference recorded.
        side: Where to repeat it.
        during: Entered while its forward pass runs.

    Returns:
        Every tensor that came out of it, as it is (on the side's device and in its precision).
    """
    module = side.modules.get(call.name)
    results: Results = {}
    arrived: dict[str, torch.Tensor] = {}
    draws = Draws(side.seed)

    def arrive(gradients: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        arrived.update(gradients)
        return ()

    with (
        put_back((side.model if module is None else module).modules()),
        _unwritten(call, side),
        side.active(draws),
        _in_place(module, call, side) as change,
        torch.set_grad_enabled(call.gradients_on),
    ):
        args, kwargs = computed(side.bring((call.args, call.kwargs), seed=1, labels=True), call.needs_gradient, arrive)
        draws.position = call.draws
        given = [(path, tensor, tensor._version) for path, tensor in tensors((args, kwargs))]
        with side.forward(), run_plainly(), during():
            output = _run(call, side, args, kwargs, results=results)
        # An accuracy is a step function of its inputs, so that the last bit of a logit may move it by a whole pixel. In
        # evaluation mode nothing is differentiable, and what training says of an output holds.
        results |= {
            Part("output", path): tensor.detach() for path, tensor in tensors(output) if path not in call.by_products
        }
        results |= _changed_in_place(given, output)
        results |= _other_history(call, output)
        if call.gradients_on:
            _backward(call, side, output)
        if side.mark_step is not None:
            side.mark_step()
        results |= {Part("input gradient", path): gradient for path, gradient in arrived.items()}
        results |= change()
    if side.dtype is None:
        draws.require_own()
    return results


@contextmanager
def _unwritten(call: Call, side: Side) -> Iterator[None]:
    """Put back the weights that a forward pass writes to, so that each call starts from the shared state."""
    weights = {name: side.model.get_parameter(name).detach().clone() for name in call.rewritten}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                side.model.get_parameter(name).copy_(weight)


def _run(call: Call, side: Side, args: Any, kwargs: dict[str, Any], *, results: Results) -> Any:
    """Run the module, or the loss function, with its own calls played back."""
    module = side.modules.get(call.name)
    if module is None:
        run: Callable[..., Any] = lambda batch: side.loss(side.model, batch)  # noqa: E731
        inner = list(side.model.modules())
    else:
        run = module.forward if call.direct else module
        inner = [each for each in module.modules() if each is not module]
    if not call.children:
        return run(*args, **kwargs)
    player = Player(call=call, side=side, results=results)
    with intercepted(inner, side.names, player):
        output = run(*args, **kwargs)
    player.finish()
    return output


def _changed_in_place(given: list[tuple[str, torch.Tensor, int]], output: Any) -> Results:
    """Return those inputs that a call changed and does not return, so that only its caller would see them."""
    returned = {id(tensor) for _, tensor in tensors(output)}
    return {
        Part("input after the call", path): tensor.detach().clone()
        for path, tensor, version in given
        if tensor._version != version and id(tensor) not in returned
    }


def _other_history(call: Call, output: Any) -> Results:
    """Return an entry for each output through which gradients flow and should not, or do not and should.

    Where none should flow, the reference has no gradient to send, so that a backward pass would not show it.
    """
    if not call.gradients_on:
        return {}
    return {
        Part("gradient history of output", path): torch.tensor(float(tensor.requires_grad))
        for path, tensor in tensors(output)
        if tensor.requires_grad != (path in call.differentiable)
    }


def _backward(call: Call, side: Side, output: Any) -> None:
    if call.name == LOSS:
        (total(named_losses(output)) * side.precision.loss_scale).backward()  # type: ignore[no-untyped-call]
        return
    found = dict(tensors(output))
    paths = [
        path
        for path, gradient in call.output_gradients.items()
        if path in found and found[path].requires_grad and found[path].shape == gradient.shape
    ]
    if paths:
        gradients = side.bring({path: call.output_gradients[path] for path in paths}, seed=2)
        torch.autograd.backward([found[p] for p in paths], [gradients[p].to(found[p].dtype) for p in paths])


@contextmanager
def _in_place(module: torch.nn.Module | None, call: Call, side: Side) -> Iterator[Callable[[], Results]]:
    """Bring a module to the device and into the state before the call; afterwards undo both.

    Yields:
        A function that returns the parameter gradients and the changes of the buffers.
    """
    called = {child.name for child in call.children}
    # The loss function has no weights of its own; it may use the model's.
    scope = side.model if module is None else module
    own = [] if module is None else [each for each in module.modules() if not _within(side.names[id(each)], called)]
    with _moved(side.model if call.borrowed else scope, own, call.borrowed, side.device):
        if side.device.type != "cpu":
            bring(scope.modules(), device=side.device)
        for parameter in scope.parameters():
            parameter.grad = None
        places = {name: (holder, key) for name, holder, key in _buffers(scope, own)}
        for name, (holder, key) in places.items():
            start = holder._buffers[key]
            if start is not None:
                again = call.index > 0 and name in call.buffers
                holder._buffers[key] = call.buffers[name].to(start) if again else start.clone()
        starts = {name: _float64(holder._buffers[key]) for name, (holder, key) in places.items()}

        def change() -> Results:
            found: Results = {}
            for name, (holder, key) in places.items():
                now = _float64(holder._buffers[key])
                with _disable_current_modes():  # this is computed here, and is none of the module's operators
                    found[Part("buffer", name)] = difference(now, starts[name])
            for name, parameter in scope.named_parameters():
                if parameter.grad is not None:
                    found[Part("gradient", name)] = parameter.grad
            if module is not None and call.index == 0:
                # What arrived on the device; it was copied, not computed.
                found |= {Part("weight", n): p.detach() for n, p in module.named_parameters(recurse=False)}
                found |= {Part("start of buffer", n): start for n, start in starts.items()}
            return found

        try:
            yield change
        finally:
            for parameter in scope.parameters():
                parameter.grad = None


@contextmanager
def _moved(
    model: torch.nn.Module, own: list[torch.nn.Module], borrowed: Collection[str], device: torch.device
) -> Iterator[None]:
    """Move weights and buffers, of some modules and others by name, to a device; put the same objects back afterwards.

    Args:
        model: What holds all that moves.
        own: The modules all of whose weights and buffers move.
        borrowed: Names of further weights and buffers that move as well.
        device: Where they go.
    """
    tensors_of_own = (t for each in own for t in (*each._parameters.values(), *each._buffers.values()))
    lent = (tensor for name, tensor in named_tensors(model, remove_duplicate=False) if name in borrowed)
    moving = {id(tensor) for tensor in (*tensors_of_own, *lent) if tensor is not None}
    # A weight with several names moves under all of them.
    weights = [slot for slot in slots(model) if id(slot[2]) in moving]
    kept = {id(each) for each in own}
    buffers = [
        (each, key, buffer)
        for each in model.modules()
        for key, buffer in each._buffers.items()
        if id(each) in kept or id(buffer) in moving
    ]
    # A module may note the device that it is on, as mmengine's data preprocessor does, and move its inputs there.
    noted = [(each, key, value) for each in own for key, value in vars(each).items() if isinstance(value, torch.device)]
    if device.type != "cpu":
        for each in {id(each): each for each in (*own, *(each for each, *_ in (*weights, *buffers)))}.values():
            each._apply(lambda t: t.to(device) if id(t) in moving else t, recurse=False)  # type: ignore[no-untyped-call]
        reunite(weights)
        for each, key, _ in noted:
            setattr(each, key, device)
    try:
        yield
    finally:
        for each, key, value in noted:
            setattr(each, key, value)
        for holder, key, weight in weights:
            if holder._parameters[key] is not weight:
                setattr(holder, key, weight)
            elif weight.device.type != "cpu":
                weight.data = weight.data.to("cpu")
        for holder, key, buffer in buffers:
            holder._buffers[key] = buffer


def _float64(tensor: torch.Tensor | None) -> torch.Tensor:
    return torch.empty(0) if tensor is None else float64(tensor)


def _within(name: str, called: set[str]) -> bool:
    return name in called or any(name.startswith(f"{each}.") for each in called)


def _buffers(module: torch.nn.Module, own: list[torch.nn.Module]) -> Iterator[tuple[str, torch.nn.Module, str]]:
    kept = {id(each) for each in own}
    for prefix, holder in module.named_modules():
        if id(holder) in kept:
            for key in holder._buffers:
                yield (f"{prefix}.{key}" if prefix else key), holder, key
