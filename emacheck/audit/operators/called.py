"""What operators a side calls, and how: for faults in which every operator is right and another one is called."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emacheck.audit.iteration.signature import bound, inputs, settings, why_not
from emacheck.audit.operators.stand_ins import stand_in
from emacheck.dispatch.executed import COPIES

# Where a result goes and how it lies in memory is each device's own, and which gradients a kernel makes besides those
# that are asked for: cuDNN's backward of a batch norm makes all, whatever is frozen.
_OWN = {"device", "memory_format", "layout", "pin_memory", "output_mask"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One call of an operator without its numbers.

    Attributes:
        operator: Name and overload.
        settings: What it was given beside tensors.
        inputs: Types and shapes of its tensors.
    """

    operator: str
    settings: tuple[tuple[str, str], ...]
    inputs: tuple[str, ...]


class Called(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note every operator that computes.

    Args:
        device: Where.

    Attributes:
        calls: In order.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Made] = []
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and note it."""
        kwargs = kwargs or {}
        # A device that has no views copies instead.
        if torch.Tag.view_copy not in func.tags and why_not(func, args, kwargs, self._device) is None:
            # Under the name that the CPU has for it, so that the same call of both sides is the same.
            call = stand_in(func, bound(func, args, kwargs))
            said = {name: value for name, value in settings(call.given).items() if name not in _OWN}
            self.calls.append(
                Made(
                    operator=str(call.func),
                    settings=tuple(said.items()),
                    inputs=tuple(
                        f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
                        for name, tensor in inputs(call.func, call.given)
                    ),
                )
            )
        return func(*args, **kwargs)


def unseen(here: Called, there: Called) -> str:
    """Return the first operator of the reference in whose place the candidate calls none; empty if there is no such.

    Some vendors compute an operator beneath torch's dispatcher, in a kernel that comes before autograd. Then nothing of
    it shows, and that every other operator is right says nothing about it.

    Example:
        >>> value, sides = torch.ones(2), [Called(torch.device("cpu")) for _ in range(2)]
        >>> with sides[1]:
        ...     _ = torch.nn.functional.silu(value)
        >>> unseen(*sides)
        'aten.silu.default'
        >>> with sides[0]:
        ...     _ = value.sigmoid()
        >>> unseen(*sides)
        ''
    """
    made, due = ({each.operator: None for each in side.calls if not _copies(each)} for side in (here, there))
    if any(operator not in due for operator in made):
        return ""
    return next((operator for operator in due if operator not in made), "")


def _copies(made: Made) -> bool:
    # A device that keeps a tensor in another type has nothing to convert.
    return made.operator.split(".")[1] in COPIES


def differing(here: Called, there: Called) -> str:
    """Return in words the first call that the candidate makes otherwise than the reference; empty if there is none.

    The first call of an operator is held against its first call there, and so on, because a device may have other
    operators between; where there are more or less of them, that is said.

    Example:
        >>> sides = [Called(torch.device("cpu")) for _ in range(2)]
        >>> for side, dim in zip(sides, (0, 1)):
        ...     with side:
        ...         _ = torch.ones(2, 2).softmax(dim)
        >>> differing(*sides)
        'aten._softmax.default is called with dim=0, where the reference has dim=1'
    """
    made, due = (_by_operator(side.calls) for side in (here, there))
    at: Counter[str] = Counter()
    for each in here.calls:
        others = due.get(each.operator, [])
        if len(others) == len(made[each.operator]) and others[at[each.operator]] != each:
            return _said(each, others[at[each.operator]])
        at[each.operator] += 1
    for operator in {**made, **due}:
        counts = [len(side.get(operator, [])) for side in (made, due)]
        if counts[0] != counts[1]:
            return f"{operator} is called {_times(counts[0])}, by the reference {_times(counts[1])}"
    return ""


def _by_operator(calls: list[Made]) -> dict[str, list[Made]]:
    found: dict[str, list[Made]] = {}
    for each in calls:
        found.setdefault(each.operator, []).append(each)
    return found


def _said(here: Made, there: Made) -> str:
    one, other = dict(here.settings), dict(there.settings)
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    if names:
        said, due = (
            ", ".join(f"{name}={side.get(name, 'its default')}" for name in names[:3]) for side in (one, other)
        )
    else:
        pairs = [pair for pair in zip(here.inputs, there.inputs, strict=False) if pair[0] != pair[1]]
        said, due = pairs[0] if pairs else (f"{len(here.inputs)} tensors", f"{len(there.inputs)} tensors")
    return f"{here.operator} is called with {said}, where the reference has {due}"


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count} times")
