"""A call of an operator repeated on the CPU: in float64, or in the accepted precision and its benign variations."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from emacheck.audit.arithmetic.measure import counterpart
from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.iteration.nested import replaced, snapshot
from emacheck.audit.iteration.signature import any_layout, base_name, bound, results, unread
from emacheck.audit.lockstep.variations import PLAIN, Variation
from emacheck.audit.operators.stand_ins import stand_in

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HostCall:
    """A call as it was before the device made it, on the CPU.

    Attributes:
        func: The operator.
        given: Its arguments by name, copied.
        precision: The accepted precision.
    """

    func: Any
    given: dict[str, Any]
    precision: Precision

    def run(self, variation: Variation = PLAIN, *, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
        """Repeat the call; return what it makes by name.

        Args:
            variation: A benign variation.
            dtype: float64 for the arbiter, None for the accepted precision.

        Raises:
            IndexError: If the device gave it an index at which the CPU would write to memory of others.
        """
        last = variation.channels_last and any_layout(self.func)
        given = _retyped(snapshot(self.given, device=CPU, dtype=dtype, channels_last=last), dtype)
        given = variation.nudged(given, seed=1)
        call = stand_in(self.func, given)
        _refuse_outside(call.func, call.given)
        with _alone(), variation.active():
            if dtype is None:
                with self.precision.emulated("cpu"):
                    output = call.func(**_known(call.func, call.given))
            else:
                output = call.func(**_known(call.func, call.given))
        made = results(call.func, call.given, output)
        made = {name: made[name] for name in made if call.compared is None or name in call.compared}
        return made if call.rounded is None else {name: tensor.to(call.rounded) for name, tensor in made.items()}


def host_call(func: Any, args: Any, kwargs: dict[str, Any], precision: Precision) -> HostCall:
    """Copy a call to the CPU before the device makes it.

    Args:
        func: The operator.
        args: Its arguments.
        kwargs: And those by keyword.
        precision: The accepted precision.

    Example:
        >>> call = host_call(torch.ops.aten.mul.Tensor, (torch.ones(2), 3.0), {}, Precision())
        >>> call.run(dtype=torch.float64)["result"]
        tensor([3., 3.], dtype=torch.float64)
    """
    with _alone():
        given = bound(func, args, kwargs)
        blank = unread(func, given)
        given = {
            name: replaced(value, _blank) if name in blank else snapshot(value, device=CPU)
            for name, value in given.items()
        }
    return HostCall(func=func, given=replaced(given, lambda _, tensor: tensor, _on_cpu), precision=precision)


def _refuse_outside(func: Any, given: dict[str, Any]) -> None:
    """Let no wrong index of a device end this process: the CPU's kernels of pooling write wherever one says."""
    name = base_name(func)
    if "max_pool" not in name or not name.endswith("backward") or not given["indices"].numel():
        return
    places = math.prod(given["self"].shape[-3 if "3d" in name else -2 :])
    low, high = given["indices"].aminmax()
    if low < 0 or high >= places:
        raise IndexError("one of its indices lies outside of its input")


def _blank(_: str, tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tensor, device=CPU)


def _on_cpu(item: Any) -> Any:
    return CPU if isinstance(item, torch.device) else item


def _retyped(given: dict[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    """Let an operator that is told a type compute in the one that is wanted."""
    return {k: counterpart(v, dtype) if isinstance(v, torch.dtype) else v for k, v in given.items()}


def _known(func: Any, given: dict[str, Any]) -> dict[str, Any]:
    names = {each.name for each in func._schema.arguments}
    return {name: value for name, value in given.items() if name in names}


@contextmanager
def _alone() -> Iterator[None]:
    """Let nothing see or change what is computed: no mode, no autocast, no autograd."""
    no_autocast = torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU))
    with _disable_current_modes(), no_autocast, torch.no_grad():
        yield
