"""Tensors inside lists, tuples, mappings, dataclasses and objects: walk them, copy them, move them."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from emacheck.audit.arithmetic.measure import counterpart
from emacheck.audit.iteration.layout import moved

Change = Callable[[str, torch.Tensor], Any]


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor in a nested value with the path that leads to it.

    Args:
        value: A tensor, or lists, tuples, deques, mappings, dataclasses and objects of tensors and anything else.
        path: Put in front of each path.

    Yields:
        Pairs of path and tensor; the path of a bare tensor is ``path`` itself.

    Example:
        >>> [path for path, _ in tensors({"loss": torch.ones(1), "more": [3, torch.ones(1)]})]
        ['loss', 'more.1']
    """
    if isinstance(value, torch.Tensor):
        yield path, value
    else:
        for key, item in _parts(value):
            yield from tensors(item, f"{path}.{key}" if path else str(key))


def kept_in_objects(value: Any, path: str = "", depth: int = 4) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor that an object in a nested value keeps, such as the labels in mmengine's samples.

    Args:
        value: A nested value; its own tensors, which :func:`tensors` yields, are passed over, and so are modules.
        path: Put in front of each path.
        depth: How many objects deep to look.

    Example:
        >>> from types import SimpleNamespace
        >>> [path for path, _ in kept_in_objects([torch.ones(1), SimpleNamespace(_label=torch.ones(1))])]
        ['1.label']
    """
    if isinstance(value, Mapping):
        pairs = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        pairs = [(str(index), item) for index, item in enumerate(value)]
    elif depth and hasattr(value, "__dict__") and not isinstance(value, torch.nn.Module | torch.Tensor | type):
        pairs = [(key.lstrip("_"), item) for key, item in vars(value).items()]
        for key, item in pairs:
            yield from tensors(item, f"{path}.{key}" if path else key)
        depth -= 1
    else:
        return
    for key, item in pairs:
        yield from kept_in_objects(item, f"{path}.{key}" if path else key, depth)


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield every plain number in a nested value, such as an ``ignore_index``, with the path that leads to it.

    Example:
        >>> list(numbers({"weight": None, "ignore_index": 255}))
        [('ignore_index', 255.0)]
    """
    if isinstance(value, int | float):
        yield path, float(value)
    else:
        for key, item in _parts(value):
            yield from numbers(item, f"{path}.{key}" if path else str(key))


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return what a value consists of, with keys; nothing for a tensor, a plain value or an object of unknown make."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, list | tuple | deque):
        return enumerate(value)
    if _is_record(value):
        names = [each.name for each in fields(value)] if is_dataclass(value) else list(vars(value))
        return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return ()


def _is_record(value: Any) -> bool:
    """Return whether a value is a dataclass, or an object that holds tensors as attributes.

    One that can move itself is one only if it holds a tensor itself, as a box does and mmengine's samples do not.
    """
    if isinstance(value, type | torch.nn.Module):
        return False
    held = getattr(value, "__dict__", {}).values()
    holds = _is_tensor if hasattr(value, "to") else _holds_tensors
    return is_dataclass(value) or any(holds(item) for item in held)


def _is_tensor(item: Any) -> bool:
    return isinstance(item, torch.Tensor)


def _holds_tensors(item: Any) -> bool:
    """Return whether something is a tensor, or holds one in lists, tuples and mappings."""
    if isinstance(item, Mapping):
        return any(_holds_tensors(each) for each in item.values())
    if isinstance(item, list | tuple | deque):
        return any(_holds_tensors(each) for each in item)
    return isinstance(item, torch.Tensor)


def replaced(value: Any, change: Change, other: Callable[[Any], Any] = lambda item: item, path: str = "") -> Any:
    """Return a nested value of the same shape with every tensor replaced.

    Args:
        value: A nested value; it is not modified.
        change: Called with path and tensor, returns what takes its place.
        other: Called with each item that is neither a tensor nor a list, tuple, mapping or dataclass.
        path: Put in front of each path.

    Example:
        >>> replaced((torch.ones(2), "x"), lambda path, tensor: tensor.sum().item())
        (2.0, 'x')
    """
    if isinstance(value, torch.Tensor):
        return change(path, value)
    if isinstance(value, Mapping | list | tuple | deque) or _is_record(value):
        return _rebuilt(
            value, {k: replaced(v, change, other, f"{path}.{k}" if path else str(k)) for k, v in _parts(value)}
        )
    return other(value)


def _rebuilt(value: Any, parts: dict[Any, Any]) -> Any:
    """Return a value of the same make with other parts."""
    if type(value) is dict:
        return parts
    if isinstance(value, PackedSequence):
        # Torch wants these on the CPU, wherever the data are.
        parts[1] = value.batch_sizes
    if isinstance(value, deque):
        return deque(parts.values(), value.maxlen)
    if isinstance(value, list | tuple):
        items = parts.values()
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    same: Any = copy.copy(value)
    for key, item in parts.items():
        if isinstance(value, Mapping):
            same[key] = item
        else:
            # A frozen dataclass refuses a plain assignment.
            object.__setattr__(same, key, item)
    return same


def snapshot(
    value: Any, *, device: torch.device | None = None, dtype: torch.dtype | None = None, channels_last: bool = False
) -> Any:
    """Return a copy whose tensors share nothing with the original, carry no gradient history and lie in memory as it.

    Args:
        value: A nested value.
        device: Where its tensors go, and objects that are no tensors but have a method ``to``; None to stay.
        dtype: What floating-point tensors become, and complex ones accordingly; None to keep what they are.
        channels_last: Lay out four-dimensional tensors with the channels last.
    """

    def convert(_: str, tensor: torch.Tensor) -> torch.Tensor:
        return moved(tensor, device=device, dtype=counterpart(tensor.dtype, dtype), channels_last=channels_last)

    def move(item: Any) -> Any:
        # What is immutable or a module stays itself.
        if not hasattr(item, "to") or isinstance(item, torch.nn.Module | type):
            return item
        same = copy.deepcopy(item)
        return same if device is None else same.to(device)

    return replaced(value, convert, move)
