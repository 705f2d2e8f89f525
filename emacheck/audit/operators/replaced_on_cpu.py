"""Run some operators of a device on the CPU, for the proof that they are the cause."""

from collections.abc import Collection
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.iteration.signature import bound, results, why_not
from emacheck.audit.operators.host import host_call


class OnCpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Let the CPU compute what some operators return, in the accepted precision; all others run on the device.

    The device runs them as well, so that results lie in memory as it lays them out; then their numbers are replaced.

    Args:
        names: The operators, such as ``aten._softmax.default``.
        device: The device.
        precision: The accepted precision.

    Attributes:
        calls: How many calls were replaced.

    Example:
        >>> on_cpu = OnCpu({"aten.mul.Tensor"}, torch.device("cpu"), Precision())
        >>> with on_cpu:
        ...     _ = torch.ones(2) * 2
        >>> on_cpu.calls
        1
    """

    def __init__(self, names: Collection[str], device: torch.device, precision: Precision) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0
        self._names, self._device, self._precision = frozenset(names), device, precision

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        kwargs = kwargs or {}
        if str(func) not in self._names or why_not(func, args, kwargs, self._device) is not None:
            return func(*args, **kwargs)
        call = host_call(func, args, kwargs, self._precision)
        output = func(*args, **kwargs)
        right = call.run()
        with torch.no_grad():
            for name, made in results(func, bound(func, args, kwargs), output).items():
                if name in right and made.shape == right[name].shape:
                    made.copy_(right[name])
        self.calls += 1
        return output
