"""Where torch leaves the answer to the device: what comes in any order, and what several values are written to."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emacheck.audit.iteration.nested import tensors
from emacheck.audit.iteration.signature import base_name, bound

UNORDERED = "it is asked for no order, and gives right values in another one than the CPU"
UNASKED = "it is asked for no order"
EQUAL = "some of its values are equal, and may come in any order"
SEVERAL = "several values are written to one place, where any of them may stay"
# What tells equal values apart by their index; a median of all has none, and gives each of them its share.
_CHOOSING = {"sort", "topk", "median", "nanmedian", "kthvalue", "mode"}


def why_free(func: Any, given: dict[str, Any], made: Mapping[str, torch.Tensor]) -> str:
    """Return why a call may answer otherwise than the CPU; empty if it may not.

    Args:
        func: The operator.
        given: Its arguments by name, on the CPU.
        made: What the device made by name.

    Example:
        >>> given = {"self": torch.zeros(3), "index": torch.tensor([1, 1]), "source": torch.ones(2)}
        >>> why_free(torch.ops.aten.put.default, given, {})
        'several values are written to one place, where any of them may stay'
    """
    name = base_name(func).strip("_")
    if func.namespace != "aten":
        return ""
    if name == "topk" and not given.get("sorted", True):
        values, indices = (tensor.cpu() for tensor in made.values())
        return UNORDERED if _largest(given, values, indices) else ""
    return SEVERAL if _writes_twice(name, given) else ""


class LeftOpen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watch operators on the CPU for those whose answer torch leaves open on what they are given.

    Attributes:
        found: Why, by name of the operator.

    Example:
        >>> watch = LeftOpen()
        >>> with watch:
        ...     _ = torch.tensor([0.0, 1.0, 0.0]).sort(), torch.tensor([0.0, 1.0]).median(0)
        >>> watch.found
        {'sort': 'some of its values are equal, and may come in any order'}
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        # What it writes to is looked at as it was.
        given = bound(func, args, kwargs or {})
        name = base_name(func).strip("_")
        if func.namespace == "aten" and _writes_twice(name, given):
            self.found[name] = SEVERAL
        made = func(*args, **(kwargs or {}))
        if func.namespace == "aten" and name == "topk" and not given.get("sorted", True):
            self.found[name] = UNASKED
        elif func.namespace == "aten" and name in _CHOOSING and isinstance(made, tuple) and not given.get("stable"):
            values = next(tensors(made))[1]
            if _any_equal(given, values, chosen=name != "sort"):
                self.found[name] = EQUAL
        return made


def _any_equal(given: dict[str, Any], values: torch.Tensor, *, chosen: bool) -> bool:
    """Return whether some of the values that were sorted, or one that was chosen, stand in several places."""
    source, dim = given["self"], given.get("dim", -1)
    if not source.dim():
        return False
    if not chosen:
        return bool((values.diff(dim=dim) == 0).any())
    along = values if values.dim() == source.dim() else values.unsqueeze(dim)
    places = (source.movedim(dim, -1).unsqueeze(-2) == along.movedim(dim, -1).unsqueeze(-1)).sum(-1)
    return bool((places > 1).any())


def _largest(given: dict[str, Any], values: torch.Tensor, indices: torch.Tensor) -> bool:
    """Return whether these are the k largest or smallest values with their indices, in any order."""
    source, dim, largest = given["self"], given.get("dim", -1), given.get("largest", True)
    right = source.topk(given["k"], dim, largest).values
    return (
        torch.equal(values.sort(dim, descending=largest).values, right)
        and torch.equal(source.gather(dim, indices), values)
        and bool((indices.sort(dim).values.diff(dim=dim) != 0).all())
    )


def _writes_twice(name: str, given: dict[str, Any]) -> bool:
    if given.get("accumulate") or given.get("reduce") is not None:
        return False
    if name == "scatter" and "src" in given:
        times = _nowhere(given).scatter_add(given["dim"], given["index"], torch.ones(given["index"].shape))
    elif name == "index_copy":
        times = _nowhere(given).index_add(given["dim"], given["index"], torch.ones(given["source"].shape))
    elif name == "put":
        times = _nowhere(given).put(given["index"], torch.ones(given["index"].shape), accumulate=True)
    elif name in ("index_put", "index_put_impl", "unsafe_index_put") and given["values"].numel() > 1:
        times = _nowhere(given).index_put(given["indices"], torch.ones(()), accumulate=True)
    else:
        return False
    return bool((times > 1).any())


def _nowhere(given: dict[str, Any]) -> torch.Tensor:
    return torch.zeros(given["self"].shape)
