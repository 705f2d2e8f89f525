"""Run on the CPU what a device lacks, where the user allows it."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


class CpuFallback(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run an operator on the CPU if the device has none, and carry its result to the device.

    Attributes:
        used: Names of the operators that ran on the CPU.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        kwargs = kwargs or {}
        try:
            return func(*args, **kwargs)
        except NotImplementedError:
            device = _device_of((args, kwargs))
            if device is None:
                raise
        self.used.add(f"aten::{func.overloadpacket.__name__}")
        return _on_the_cpu(func, args, kwargs, device)


def _device_of(value: Any) -> torch.device | None:
    found: list[torch.device] = []

    def note(item: Any) -> Any:
        if isinstance(item, torch.Tensor) and item.device.type != "cpu":
            found.append(item.device)
        return item

    tree_map(note, value)
    return found[0] if found else None


def _on_the_cpu(func: Any, args: Any, kwargs: dict[str, Any], device: torch.device) -> Any:
    brought: list[tuple[torch.Tensor, torch.Tensor]] = []

    def down(item: Any) -> Any:
        if isinstance(item, torch.Tensor) and item.device.type != "cpu":
            brought.append((item, item.to("cpu")))
            return brought[-1][1]
        return torch.device("cpu") if isinstance(item, torch.device) else item

    def up(item: Any) -> Any:
        if not isinstance(item, torch.Tensor):
            return item
        # What was written in place is returned as the object that it is.
        return next((given for given, here in brought if here is item), item.to(device))

    here_args, here_kwargs = tree_map(down, (args, kwargs))
    output = func(*here_args, **here_kwargs)
    for given, here in brought:
        # Batch normalisation writes to its statistics without saying so in its schema.
        if not torch.equal(here, given.to("cpu")):
            given.copy_(here)
    return tree_map(up, output)
