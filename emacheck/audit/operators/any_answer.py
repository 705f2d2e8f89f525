"""Where torch leaves the answer to the device: what comes in any order, and what several values are written to."""

from collections.abc import Mapping
from typing import Any

import torch

from emacheck.audit.operators.signature import base_name

UNORDERED = "it is asked for no order, and gives right values in another one than the CPU"
SEVERAL = "several values are written to one place, where any of them may stay"


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
