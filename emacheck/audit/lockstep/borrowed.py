"""Weights and buffers that a caller uses by itself, though a module that it calls has them, such as a tied weight."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from emacheck.audit.iteration.calls import LOSS, Call
from emacheck.audit.iteration.nested import tensors
from emacheck.audit.lockstep.replay import replay
from emacheck.audit.lockstep.side import Side


def borrowed(call: Call, side: Side) -> frozenset[str]:
    """Repeat a call once more and return the names of the weights and buffers that its own code touches.

    The modules that it calls are played back and touch nothing, so what is touched is the caller's own doing.

    Args:
        call: The call.
        side: The reference, on the CPU; its code runs there, which that of a candidate need not.

    Returns:
        Names in the whole model; all of them if the call cannot be watched.
    """
    if not call.children and call.name != LOSS:
        return frozenset()
    named = [
        *side.model.named_parameters(remove_duplicate=False),
        *side.model.named_buffers(remove_duplicate=False),
    ]
    watch = _Watch({id(tensor): name for name, tensor in named})
    try:
        replay(call, side, during=watch.watching)
    except Exception:  # of the user's code, so it can be anything
        return frozenset(name for name, _ in named)
    return frozenset(watch.touched)


class _Watch:
    """Note which of some tensors are used, by Python code (their device, say) or by an operator."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
        self.touched: set[str] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        with _Operators(self), _Functions(self):
            yield

    def note(self, *values: Any) -> None:
        self.touched |= {self.names[id(tensor)] for _, tensor in tensors(values) if id(tensor) in self.names}


class _Functions(TorchFunctionMode):
    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note what a function of torch, or an attribute of a tensor, is asked of."""
        self._watch.note(args, kwargs)
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, watch: _Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note what an operator takes."""
        self._watch.note(args, kwargs)
        return func(*args, **(kwargs or {}))
