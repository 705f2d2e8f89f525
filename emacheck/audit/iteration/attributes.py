"""What modules keep as plain attributes, beside weights and buffers: a counter, a state, a table of a first call."""

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from emacheck.audit.arithmetic.measure import counterpart
from emacheck.audit.iteration.nested import replaced, tensors

_OF_TORCH = frozenset(vars(torch.nn.Module()))
_FIXED = (int, float, str, type(None))
_CONTAINERS = (list, deque, set, dict, Counter, OrderedDict, defaultdict)


@contextmanager
def put_back(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Put back what modules keep as plain attributes, so that whatever runs next starts from the same state.

    That is which attributes there are, and what is in their tensors and containers; other objects are left as they are.
    """
    before = [(module, _plain(module)) for module in modules]
    seen: set[int] = set()
    values = (value for _, kept in before for value in kept.values() if not isinstance(value, _FIXED))
    refills = [refill for value in values for refill in _refills(value, seen)]
    try:
        yield
    finally:
        for module, kept in before:
            for name in vars(module).keys() - kept.keys() - _OF_TORCH:
                del vars(module)[name]
            vars(module).update(kept)
        for refill in refills:
            refill()


def _refills(value: Any, seen: set[int]) -> Iterator[Callable[[], Any]]:
    """Yield functions that put back what is in a tensor, or in a container and the tensors and containers in it."""
    if id(value) in seen:
        return
    if isinstance(value, torch.Tensor) and _moves(value) and not value.is_inference():
        seen.add(id(value))
        numbers, version = value.clone(), value._version
        yield lambda: None if value._version == version else value.copy_(numbers)
    elif type(value) in _CONTAINERS:
        seen.add(id(value))
        items = copy.copy(value)
        fill = value.extend if isinstance(value, list | deque) else value.update
        yield lambda: (value.clear(), fill(items))
        for item in items.values() if isinstance(items, dict) else items:
            yield from _refills(item, seen)
    elif isinstance(value, tuple):
        for item in value:
            yield from _refills(item, seen)


def bring(
    modules: Iterable[torch.nn.Module], *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> None:
    """Move tensors among the plain attributes of modules, which ``Module.to`` leaves where they are.

    Where a training runs on the device, a table that a module made in its first call is there, and a state as well.

    Args:
        modules: The modules; what several of them hold goes on being one thing.
        device: Where, None to stay.
        dtype: What floating-point tensors become, and complex ones accordingly; None to keep what they are.
    """

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device=device, dtype=counterpart(tensor.dtype, dtype)) if _moves(tensor) else tensor

    same: dict[int, Any] = {}
    for module in modules:
        for name, value in _plain(module).items():
            if not isinstance(value, torch.Tensor | list | tuple | deque | Mapping):
                continue
            if id(value) not in same and any(moved(tensor) is not tensor for _, tensor in tensors(value)):
                same[id(value)] = replaced(value, lambda _, tensor: moved(tensor))
            vars(module)[name] = same.get(id(value), value)


def _moves(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a state: no weight, which is none here, and no result with gradient history."""
    return not isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad


def _plain(module: torch.nn.Module) -> dict[str, Any]:
    own = vars(module)
    return {name: own[name] for name in own.keys() - _OF_TORCH}
