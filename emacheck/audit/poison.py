"""Feed a module one NaN: where the arbiter's output is NaN, the candidate's may not be a number."""

from dataclasses import replace
from typing import Any

import torch

from emacheck.audit.calls import Call
from emacheck.audit.nested import replaced, tensors
from emacheck.audit.replay import Part, Side, replay

Masks = dict[Part, torch.Tensor]


def poisoned(call: Call) -> Call | None:
    """Return a call with one NaN in the middle of its first floating-point input, None if it has no such input.

    Example:
        >>> bad = poisoned(Call(name="relu", index=0, kind="ReLU", args=(torch.zeros(3),)))
        >>> bad.args[0].tolist()
        [0.0, nan, 0.0]
    """
    first = next((path for path, t in tensors((call.args, call.kwargs)) if t.is_floating_point() and t.numel()), None)
    if first is None:
        return None

    def spoil(path: str, tensor: torch.Tensor) -> torch.Tensor:
        if path != first:
            return tensor
        spoilt = tensor.clone(memory_format=torch.contiguous_format)
        spoilt.view(-1)[spoilt.numel() // 2] = float("nan")
        return spoilt

    args, kwargs = replaced((call.args, call.kwargs), spoil)
    return replace(call, args=args, kwargs=kwargs, gradients_on=False)


def nan_masks(call: Call, arbiter: Side) -> Masks:
    """Return where NaN must arrive when a call is poisoned, for each tensor that it makes; empty if nowhere."""
    bad = poisoned(call)
    if bad is None:
        return {}
    try:
        results = replay(bad, arbiter)
    except Exception:  # a module may refuse NaN, as an assertion on its input does
        return {}
    masks = {part: torch.isnan(tensor) for part, tensor in results.items() if part.kind in ("output", "input of")}
    return {part: mask for part, mask in masks.items() if bool(mask.any())}


def swallowed(call: Call, masks: Masks, candidate: Side) -> dict[Part, float]:
    """Return for each tensor the share of those NaNs that became numbers on the candidate.

    More NaNs than the arbiter's are allowed: fast convolution algorithms spread one over a whole tile.
    """
    bad = poisoned(call)
    if bad is None or not masks:
        return {}
    results: dict[Part, Any] = replay(bad, candidate)
    return {part: _share(results.get(part), mask) for part, mask in masks.items()}


def _share(tensor: torch.Tensor | None, mask: torch.Tensor) -> float:
    if tensor is None or tensor.shape != mask.shape:
        return 1.0
    return float(torch.isfinite(tensor.detach().to("cpu"))[mask].double().mean())
