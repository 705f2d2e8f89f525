"""See, and answer, every call of a module: of the model's own and of every module inside it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

LOSS = "(loss)"
MODEL = "(model)"
OPTIMIZER = "(optimizer)"


class Handler(Protocol):
    """What is asked to answer each call."""

    def __call__(self, asked: "Asked", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the output of the module, from ``asked.run(*args, **kwargs)`` or from elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A module that is being called.

    Attributes:
        name: Its name in the model.
        module: The module.
        run: What would have answered.
        direct: Whether ``forward`` was called directly, past the module's hooks.
    """

    name: str
    module: torch.nn.Module
    run: Callable[..., Any]
    direct: bool


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One call of one module in the reference's iteration, with all that is needed to repeat it alone.

    Attributes:
        name: The module's name in the model; ``(model)`` for the model, ``(loss)`` for the iteration's forward pass.
        index: How many calls of this module came before it.
        kind: The module's class.
        args: Positional inputs, copied before the module ran.
        kwargs: Keyword inputs, copied before the module ran.
        needs_gradient: Paths of those input tensors through which gradients flow.
        buffers: The module's own buffers, and those of modules it did not call, before it ran.
        direct: Whether ``forward`` was called directly, past the module's hooks.
        gradients_on: Whether gradients were recorded.
        differentiates: Whether its own code computes gradients through modules that it calls, as for a penalty.
        draws: Number of random draws before it ran.
        output: Its output, copied when it returned.
        output_gradients: Gradient of the loss with respect to each output tensor, by path.
        differentiable: Paths of those output tensors that carry gradient history.
        by_products: Paths of those floating-point outputs that, in training, carry none beside others that do.
        children: The calls it made.
        input_gradients: Gradients with respect to its inputs when it runs alone in the accepted precision.
        depth: Position in the order in which calls began; 0 is the first.
        rewritten: Names of the model's weights that a forward pass writes to, such as those of a mean teacher.
        borrowed: Names of the model's weights and buffers that its own code uses, though a module that it calls has
            them, such as a tied weight; known where the candidate is not on the CPU.
    """

    name: str
    index: int
    kind: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    needs_gradient: frozenset[str] = frozenset()
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)
    direct: bool = False
    gradients_on: bool = True
    differentiates: bool = False
    draws: int = 0
    output: Any = None
    output_gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    differentiable: frozenset[str] = frozenset()
    by_products: frozenset[str] = frozenset()
    children: list["Call"] = field(default_factory=list)
    input_gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    depth: int = 0
    rewritten: frozenset[str] = frozenset()
    borrowed: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """Name, and the number of the call from the second on."""
        return self.name if self.index == 0 else f"{self.name} (call {self.index + 1})"


def module_names(model: torch.nn.Module) -> dict[int, str]:
    """Return the name of every module by its identity; of a module with several names the first."""
    return {id(module): name or MODEL for name, module in model.named_modules()}


def _transforming() -> bool:
    """Return whether a transform of ``torch.func``, such as ``vmap``, runs: its tensors have no numbers to record.

    What a module computes in it is its caller's own code.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


@contextmanager
def intercepted(modules: Iterable[torch.nn.Module], names: Mapping[int, str], handler: Handler) -> Iterator[None]:
    """Ask a handler at every call of a module, whether it is called itself or through its ``forward``.

    ``Module.__call__`` is replaced on the class, as ``torch.fx`` does, so that a module's hooks count as the module's;
    ``forward`` is replaced on the objects, because some code calls it directly and without hooks.

    Args:
        modules: The modules to watch.
        names: Their names by identity.
        handler: Asked at each call.
    """
    watched = {id(module) for module in modules}
    entered: list[int] = []
    original = torch.nn.Module.__call__

    def call(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if id(module) not in watched or _transforming():
            return original(module, *args, **kwargs)

        def run(*args: Any, **kwargs: Any) -> Any:
            entered.append(id(module))
            depth = len(entered)
            try:
                return original(module, *args, **kwargs)
            finally:
                del entered[depth - 1 :]

        return handler(Asked(name=names[id(module)], module=module, run=run, direct=False), args, kwargs)

    def forward_of(module: torch.nn.Module) -> Callable[..., Any]:
        own = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if entered and entered[-1] == id(module):
                entered[-1] = 0
                return own(*args, **kwargs)
            if _transforming():
                return own(*args, **kwargs)
            return handler(Asked(name=names[id(module)], module=module, run=own, direct=True), args, kwargs)

        return forward

    replaced = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
    before = [module.__dict__.get("forward") for module in replaced]
    for module in replaced:
        module.__dict__["forward"] = forward_of(module)
    torch.nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module.__call__ = original  # type: ignore[method-assign]
        for module, own in zip(replaced, before, strict=True):
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own
