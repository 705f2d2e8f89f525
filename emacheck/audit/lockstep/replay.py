"""Run one recorded call alone: a module with the reference's inputs and output gradients, its own calls played back."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes

from emacheck.audit.arithmetic.measure import difference, float64
from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.iteration.calls import LOSS, MODEL, Asked, Call, intercepted, module_names
from emacheck.audit.iteration.capture import LossFunction, named_losses, total
from emacheck.audit.iteration.checkpoints import run_plainly
from emacheck.audit.iteration.draws import Draws
from emacheck.audit.iteration.nested import converted, kept_in_objects, numbers, replaced, tensors
from emacheck.audit.iteration.subject import named_tensors, reunite, slots
from emacheck.audit.lockstep.variations import PLAIN, Variation


class Part(NamedTuple):
    """Which tensor of a call: what it is to the module, and its path or name.

    ``kind`` is ``output``, ``input of`` (of a module it calls), ``input gradient``, ``gradient at`` (the output of a
    module it calls), ``gradient`` or ``weight`` (a parameter), ``buffer``, ``update`` (of a parameter) or ``state``
    (of the optimizer), ``start of buffer`` (as it arrived on the device) or ``gradient history of output`` (only where
    it is other than the reference's).
    """

    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}".rstrip()


# What is not computed, but only carried to the device.
COPIED = frozenset({"weight", "start of buffer"})
# What only some implementations of a module make: whether one works in place is its own business.
OPTIONAL = frozenset({"input after the call"})

Results = dict[Part, torch.Tensor]
Context = Callable[[], Any]


@dataclass(slots=True, kw_only=True, eq=False)
class Side:
    """Where calls are repeated: a model, a device and an arithmetic.

    Attributes:
        model: A copy of the network in the shared state, on the CPU.
        loss: The loss function.
        device: Where each module is moved while it runs.
        dtype: float64 for the arbiter, None for the precision of the model.
        precision: The arithmetic of the forward pass.
        variation: A benign variation of how it is computed.
        seed: Seed of all random draws.
        around: Context managers entered while anything of this side runs.
        names: Name of each module by identity.
    """

    model: torch.nn.Module
    loss: LossFunction
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype | None = None
    precision: Precision = field(default_factory=Precision)
    variation: Variation = PLAIN
    seed: int = 0
    around: tuple[Context, ...] = ()
    names: dict[int, str] = field(init=False)
    modules: dict[str, torch.nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self.names = module_names(self.model)
        self.modules = {name or MODEL: module for name, module in self.model.named_modules()}

    @contextmanager
    def active(self, draws: Draws) -> Iterator[None]:
        """Everything that holds while this side computes, forward and backward."""
        with ExitStack() as stack:
            if self.dtype is None:
                stack.enter_context(self.precision.emulated(self.device.type))
            stack.enter_context(self.variation.active())
            for context in self.around:
                stack.enter_context(context())
            stack.enter_context(draws)
            yield

    @contextmanager
    def forward(self) -> Iterator[None]:
        """What holds during a forward pass only."""
        if self.dtype is not None:
            yield
        else:
            with self.precision.context(self.device.type):
                yield

    def bring(self, value: Any, seed: int = 0) -> Any:
        """Return a copy of recorded values as this side takes them."""
        value = converted(value, device=self.device, dtype=self.dtype, channels_last=self.variation.channels_last)
        return self.variation.nudged(value, seed)


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
    leaves: dict[str, torch.Tensor] = {}
    draws = Draws(side.seed)

    def entrance(path: str, tensor: torch.Tensor) -> torch.Tensor:
        if path not in call.needs_gradient:
            return tensor
        leaves[path] = tensor.requires_grad_()
        return tensor.clone()  # a leaf may not be modified in place

    with (
        _unwritten(call, side),
        side.active(draws),
        _in_place(module, call, side) as change,
        torch.set_grad_enabled(call.gradients_on),
    ):
        args, kwargs = replaced(side.bring((call.args, call.kwargs), seed=1), entrance)
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
        results |= {Part("input gradient", p): leaf.grad for p, leaf in leaves.items() if leaf.grad is not None}
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
    player = _Player(call=call, side=side, results=results)
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


@dataclass(slots=True, kw_only=True, eq=False)
class _Player:
    """Answers the calls that a call makes with what the reference recorded for them."""

    call: Call
    side: Side
    results: Results
    at: int = 0

    def __call__(self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the recorded output of the next recorded call, and note the inputs that it was given."""
        if self.at >= len(self.call.children) or self.call.children[self.at].name != asked.name:
            expected = [child.name for child in self.call.children][self.at : self.at + 1] or ["no further call"]
            raise CallMismatchError(f"{self.call.label} called {asked.name}, where the reference has {expected[0]}")
        child = self.call.children[self.at]
        prefix = child.label
        self.at += 1
        given = dict(tensors((args, kwargs)))
        for path, tensor in (*given.items(), *kept_in_objects((args, kwargs))):
            self.results[Part("input of", f"{prefix} {path}")] = tensor.detach().clone()
        for path, number in numbers((args, kwargs)):
            self.results[Part("input of", f"{prefix} {path}")] = torch.tensor(number, dtype=torch.float64)
        output = self.side.bring(child.output)
        flowing = [(p, t) for p, t in given.items() if t.requires_grad]
        if not torch.is_grad_enabled() or not child.differentiable:
            return output
        return self._with_gradients(child, prefix, output, flowing)

    def _with_gradients(self, child: Call, prefix: str, output: Any, flowing: list[tuple[str, torch.Tensor]]) -> Any:
        paths = [path for path, _ in tensors(output) if path in child.differentiable]
        found = dict(tensors(output))

        def note(gradients: tuple[torch.Tensor | None, ...]) -> list[torch.Tensor]:
            for path, gradient in zip(paths, gradients, strict=True):
                if gradient is not None:
                    self.results[Part("gradient at", f"{prefix} {path}".rstrip())] = gradient.detach().clone()
            return [self._answer(child, path, tensor) for path, tensor in flowing]

        anchor = torch.zeros((), device=self.side.device, requires_grad=True)
        played = _Played.apply(note, [found[p] for p in paths], anchor, *(t for _, t in flowing))  # type: ignore[no-untyped-call]
        carried = dict(zip(paths, played, strict=True))
        return replaced(output, carried.get)

    def _answer(self, child: Call, path: str, tensor: torch.Tensor) -> torch.Tensor:
        gradient = child.input_gradients.get(path)
        if gradient is None or gradient.shape != tensor.shape:
            return torch.zeros_like(tensor)
        brought: torch.Tensor = self.side.bring(gradient)
        return brought.to(tensor.dtype)

    def finish(self) -> None:
        """Complain about recorded calls that were not made."""
        if self.at < len(self.call.children):
            raise CallMismatchError(f"{self.call.label} did not call {self.call.children[self.at].label}")


class CallMismatchError(Exception):
    """A candidate's module calls other modules than the reference's does."""


class _Played(torch.autograd.Function):
    """Returns recorded outputs and, backward, recorded gradients."""

    @staticmethod
    def forward(ctx: Any, note: Any, outputs: list[torch.Tensor], *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:  # noqa: ARG004
        ctx.note = note
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        return (None, None, None, *ctx.note(gradients))
