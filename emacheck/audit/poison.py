"""Feed a module NaN: where the arbiter's output is NaN, the candidate's may not be a number."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from emacheck.audit.calls import Call
from emacheck.audit.nested import replaced, tensors
from emacheck.audit.replay import Part, Side, replay


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks:
    """Where NaN must arrive when a call is poisoned.

    Attributes:
        parts: A mask for each tensor that the call makes and NaN reaches.
        inside: Whether what the modules that it calls return is poisoned as well.
    """

    parts: dict[Part, torch.Tensor] = field(default_factory=dict)
    inside: bool = False


def poisoned(call: Call, *, inside: bool = False) -> Call | None:
    """Return a call with one NaN in the middle of its first floating-point input, None if it has no such input.

    Args:
        call: The call.
        inside: Put one into what each module that it calls returns as well, which is what a container's own code sees;
            elsewhere, so that neither hides the other in a sum of both.

    Example:
        >>> bad = poisoned(Call(name="relu", index=0, kind="ReLU", args=(torch.zeros(3),)))
        >>> bad.args[0].tolist()
        [0.0, nan, 0.0]
    """
    args, kwargs = _spoilt((call.args, call.kwargs), 1 / 2)
    if not _first(call.args, call.kwargs):
        return None
    children = [replace(child, output=_spoilt(child.output, 1 / 3)) if inside else child for child in call.children]
    return replace(call, args=args, kwargs=kwargs, children=children, gradients_on=False)


def _first(*values: Any) -> str:
    return next((path for path, t in tensors(values) if t.is_floating_point() and t.numel()), "")


def _spoilt(value: Any, place: float) -> Any:
    """Return a nested value with one NaN in its first floating-point tensor, if it has one."""
    first = _first(value)

    def spoil(path: str, tensor: torch.Tensor) -> torch.Tensor:
        if path != first:
            return tensor
        spoilt = tensor.clone(memory_format=torch.contiguous_format)
        spoilt.view(-1)[int(spoilt.numel() * place)] = float("nan")
        return spoilt

    return replaced((value,), spoil)[0]


def nan_masks(call: Call, arbiter: Side) -> Masks:
    """Return where NaN must arrive when a call is poisoned; empty if nowhere."""
    for inside in (True, False) if call.children else (False,):
        bad = poisoned(call, inside=inside)
        if bad is None:
            break
        try:
            results = replay(bad, arbiter)
        except Exception:  # noqa: S112 - a module may refuse NaN, as an assertion on its input does
            continue
        masks = {part: torch.isnan(tensor) for part, tensor in results.items() if part.kind in ("output", "input of")}
        return Masks(parts={part: mask for part, mask in masks.items() if bool(mask.any())}, inside=inside)
    return Masks()


def swallowed(call: Call, masks: Masks, candidate: Side) -> dict[Part, float]:
    """Return for each tensor the share of those NaNs that became numbers on the candidate.

    More NaNs than the arbiter's are allowed: fast convolution algorithms spread one over a whole tile.
    """
    bad = poisoned(call, inside=masks.inside) if masks.parts else None
    if bad is None:
        return {}
    results: dict[Part, Any] = replay(bad, candidate)
    return {part: _share(results.get(part), mask) for part, mask in masks.parts.items()}


def _share(tensor: torch.Tensor | None, mask: torch.Tensor) -> float:
    if tensor is None or tensor.shape != mask.shape:
        return 1.0
    return float(torch.isfinite(tensor.detach().to("cpu"))[mask].double().mean())
