"""Feed a module NaN: where the arbiter's output is NaN, the candidate's may not be a number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from emacheck.audit.arithmetic.measure import Truth
from emacheck.audit.iteration.calls import Call
from emacheck.audit.iteration.nested import replaced, tensors
from emacheck.audit.lockstep.parts import Part, Results
from emacheck.audit.lockstep.replay import replay
from emacheck.audit.lockstep.side import Side

# Times the largest magnitude of a tensor; far from everything in it.
LARGE = 1000.0
# Where the NaN goes, in parts of the input and of what a called module returns. The next pair is tried where the first
# reaches no output: the middle may be the first word of a sentence, which a causal attention lets look at itself only,
# whatever it is, and the second of three samples begins at a third of the logits, where there may be no label. Round
# parts would meet the beginning of a sample or of a class again.
PLACES = ((1 / 2, 1 / 3), (0.7, 0.59), (0.9, 0.83))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks:
    """Where NaN must arrive when a call is poisoned.

    Attributes:
        parts: A mask for each tensor that the call makes and NaN reaches.
        inside: Whether what the modules that it calls return is poisoned as well.
        place: Where the NaN was put, one of :data:`PLACES`.
    """

    parts: dict[Part, torch.Tensor] = field(default_factory=dict)
    inside: bool = False
    place: tuple[float, float] = PLACES[0]


def poisoned(
    call: Call, *, inside: bool = False, poison: float = math.nan, place: tuple[float, float] = PLACES[0]
) -> Call | None:
    """Return a call with one NaN in its first floating-point input, None if it has no such input.

    Args:
        call: The call.
        inside: Put one into what each module that it calls returns as well, which is what a container's own code sees;
            elsewhere, so that neither hides the other in a sum of both.
        poison: What to put there; a finite number is taken times the largest magnitude in the tensor plus 1.
        place: Where, in parts of the input and of what is returned.

    Example:
        >>> bad = poisoned(Call(name="relu", index=0, kind="ReLU", args=(torch.zeros(3),)))
        >>> bad.args[0].tolist()
        [0.0, nan, 0.0]
    """
    args, kwargs = _spoilt((call.args, call.kwargs), place[0], poison)
    if not _first(call.args, call.kwargs):
        return None
    children = [
        replace(child, output=_spoilt(child.output, place[1], poison)) if inside else child for child in call.children
    ]
    return replace(call, args=args, kwargs=kwargs, children=children, gradients_on=False)


def _first(*values: Any) -> str:
    """Return the path of the first floating-point tensor; a sparse or nested one has no place for a number."""
    return next((path for path, t in tensors(values) if t.is_floating_point() and _is_dense(t) and t.numel()), "")


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested


def _spoilt(value: Any, place: float, poison: float) -> Any:
    """Return a nested value with poison in its first floating-point tensor, if it has one."""
    first = _first(value)

    def spoil(path: str, tensor: torch.Tensor) -> torch.Tensor:
        if path != first:
            return tensor
        spoilt = tensor.clone(memory_format=torch.contiguous_format)
        spoilt.view(-1)[int(spoilt.numel() * place)] = poison * (1 + tensor.abs().max())
        return spoilt

    return replaced((value,), spoil)[0]


def nan_masks(call: Call, arbiter: Side, truth: Mapping[Part, Truth]) -> Masks:
    """Return where NaN must arrive when a call is poisoned; empty if nowhere.

    That is where the arbiter has NaN and a large number in the place of the NaN makes a difference. Elsewhere the NaN
    was multiplied by zero, which a device may leave out: a weight between pixels, the mask of a dropout.

    Args:
        call: The call.
        arbiter: The float64 side.
        truth: What the call gives there without poison.
    """
    most = Masks()
    for place in PLACES:
        masks = _masks_at(place, call, arbiter, truth)
        if masks is None:
            break
        if any(part.kind == "output" for part in masks.parts):
            return masks
        most = masks if len(masks.parts) > len(most.parts) else most
    return most


def _masks_at(place: tuple[float, float], call: Call, arbiter: Side, truth: Mapping[Part, Truth]) -> Masks | None:
    """Return where a NaN at one place arrives; None if the call has no input for one, or refuses it."""
    for inside in (True, False) if call.children else (False,):
        bad, large = (poisoned(call, inside=inside, poison=each, place=place) for each in (math.nan, LARGE))
        if bad is None or large is None:
            return None
        try:
            results, moved = replay(bad, arbiter), replay(large, arbiter)
        except Exception:  # noqa: S112 - a module may refuse NaN, as an assertion on its input does
            continue
        masks = {
            part: torch.isnan(tensor) & (moved[part] != truth[part].tensor)
            for part, tensor in results.items()
            if part.kind in ("output", "input of") and _comparable(part, tensor, moved, truth)
        }
        parts = {part: mask for part, mask in masks.items() if bool(mask.any())}
        return Masks(parts=parts, inside=inside, place=place)
    return None


def _comparable(part: Part, tensor: torch.Tensor, moved: Results, truth: Mapping[Part, Truth]) -> bool:
    shapes = (moved[part].shape, truth[part].tensor.shape) if part in moved and part in truth else ()
    return _is_dense(tensor) and shapes == (tensor.shape, tensor.shape)


def swallowed(call: Call, masks: Masks, candidate: Side, reference: Side | None = None) -> dict[Part, float]:
    """Return for each tensor the share of those NaNs that became numbers on the candidate.

    More NaNs than the arbiter's are allowed: fast convolution algorithms spread one over a whole tile.

    Args:
        call: The call.
        masks: Where NaN must arrive when it is poisoned.
        candidate: Where to repeat it.
        reference: The accepted precision. What it makes a number as well is nobody's fault, such as one row of a few
            words in the CPU's own kernel of attention, whatever float64 does there.
    """
    bad = poisoned(call, inside=masks.inside, place=masks.place) if masks.parts else None
    if bad is None:
        return {}
    results = replay(bad, candidate)
    shares = {part: _share(results.get(part), mask) for part, mask in masks.parts.items()}
    if reference is None or not any(shares.values()):
        return shares
    there = replay(bad, reference)
    masks_there = {part: mask & there[part].isnan() for part, mask in masks.parts.items() if part in there}
    return {part: _share(results.get(part), mask) for part, mask in masks_there.items()}


def _share(tensor: torch.Tensor | None, mask: torch.Tensor) -> float:
    if not bool(mask.any()):
        return 0.0
    if tensor is None or tensor.shape != mask.shape:
        return 1.0
    return float(torch.isfinite(tensor.detach().to("cpu"))[mask].double().mean())
