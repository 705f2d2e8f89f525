"""What must hold inside of any module on any device: softmax rows sum to one, ignored labels get no gradient."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# A row that is masked as a whole is NaN in the one, and zero in the other, by definition.
_SAFE = "_safe_softmax"
_SOFTMAX = {"_softmax", _SAFE}
_LOSS_BACKWARD = {"nll_loss_backward", "nll_loss2d_backward"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How well one invariant held.

    Attributes:
        tensor: What was looked at.
        phase: The phase of the iteration.
        error: How far it is from what must hold, relative to it.
        accepted: How far rounding alone may bring it.
    """

    tensor: str
    phase: str
    error: float
    accepted: float


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watch the operators that a module runs and note how well their invariants hold.

    Example:
        >>> watch = Watch()
        >>> with watch:
        ...     _ = torch.softmax(torch.randn(4, 8), dim=1)
        >>> held = watch.drain()[0]
        >>> held.tensor, held.error <= held.accepted
        ('sum of the rows of a softmax', True)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held: list[Held] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in _SOFTMAX and output.numel():
            self._held.append(_rows_sum_to_one(output, args[1], scores=args[0] if name == _SAFE else None))
        elif name in _LOSS_BACKWARD:
            self._held.append(_ignored_labels_get_nothing(output, labels=args[2], ignored=args[5]))
        return output

    def drain(self) -> list[Held]:
        """Return what was noted since the last call, the worst of each kind."""
        held, self._held = self._held, []
        worst: dict[str, Held] = {}
        for one in held:
            if one.tensor not in worst or not one.error / one.accepted <= _ratio(worst[one.tensor]):
                worst[one.tensor] = one
        return list(worst.values())


def _ratio(held: Held) -> float:
    return held.error / held.accepted


def _rows_sum_to_one(output: torch.Tensor, dim: int, *, scores: torch.Tensor | None) -> Held:
    """Compare the sums over ``dim`` with 1, with 0 where all of the scores are -inf, if they are given.

    A row that is NaN as a whole is what the reference decides about.
    """
    sums = output.detach().to("cpu").double().sum(dim)
    due = torch.ones_like(sums) if scores is None else (scores.detach() != -math.inf).any(dim).to(sums)
    away = (sums - due)[torch.isfinite(sums)].abs()
    # Each element is rounded once, and the divisor is a sum of so many terms in float32.
    accepted = torch.finfo(output.dtype).eps / 2 + math.sqrt(output.shape[dim]) * 2.0**-24
    return Held(
        tensor="sum of the rows of a softmax",
        phase="forward",
        error=float(away.max()) if away.numel() else 0.0,
        accepted=accepted,
    )


def _ignored_labels_get_nothing(gradient: torch.Tensor, *, labels: torch.Tensor, ignored: int) -> Held:
    """Compare the gradient of the scores whose label is ignored with 0; classes are dimension 1, or the last of one."""
    values = gradient.detach().to("cpu").abs()
    of_each = values.movedim(1, -1) if values.dim() > 1 else values
    of_ignored = of_each[labels.detach().to("cpu") == ignored]
    largest, all_of_them = (float(part.max()) if part.numel() else 0.0 for part in (of_ignored, values))
    return Held(
        tensor="gradient of ignored labels",
        phase="backward",
        error=largest / all_of_them if largest else 0.0,
        accepted=torch.finfo(gradient.dtype).eps / 2,
    )
