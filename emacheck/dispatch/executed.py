"""What really ran: where the operators of an iteration computed, and in which types.

A device that lacks an operator does not always say so. Its vendor may have given torch a fallback, which carries the
inputs to the CPU and the result back; and a port may do the same in the model's own code. Either way the result is
right, and says nothing about the device.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# What brings numbers to another place, and computes nothing.
COPIES = frozenset({"_to_copy", "copy_", "_copy_from", "clone", "detach", "lift_fresh", "_local_scalar_dense"})
DEFAULT_KERNEL = "[default backend kernel]"
# How torch names a kernel that serves whatever has none of its own; vendors' files that register such kernels for some
# operators alone have names like MPSFallback.mm.
FALLBACK = "fallback"


class Executed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watch the operators that run while it is active; it changes none of them.

    What torch.compile compiled runs as it was written while this is active, and with some versions from then on.

    Attributes:
        types: How many floating-point results there were of each type, such as ``float32``.
        without_kernel: Operators on tensors of a device that torch gave to the device's fallback.
        on_host: Operators on the CPU whose inputs came from a device and whose results went back to one.

    Example:
        >>> with Executed() as executed:
        ...     _ = torch.ones(2, 2, dtype=torch.bfloat16) @ torch.ones(2, 2, dtype=torch.bfloat16)
        >>> executed.types, executed.without_kernel
        (Counter({'bfloat16': 3}), set())
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.types: Counter[str] = Counter()
        self.without_kernel: set[str] = set()
        self.on_host: set[str] = set()
        # By storage: a tensor of the host that came from a device, and what has computed with it since. It is kept, so
        # that no other tensor gets its place.
        self._brought: dict[int, tuple[torch.Tensor, frozenset[str]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and note where and in which type."""
        result = func(*args, **(kwargs or {}))
        given, made = list(_tensors((args, kwargs))), list(_tensors(result))
        name = func.overloadpacket.__name__
        self.types.update(str(each.dtype).removeprefix("torch.") for each in made if each.is_floating_point())
        computes = not func.is_view and name not in COPIES and func.namespace != "c10d"
        device = next((each.device.type for each in (*given, *made) if _is_away(each)), None)
        if device is not None and computes and _falls_back(func, device):
            self.without_kernel.add(f"{func.namespace}::{name}")
        made += _written(func, args, kwargs or {})
        self._follow(f"{func.namespace}::{name}" if computes else None, given, made)
        return result

    def __exit__(self, *raised: Any) -> None:
        """Let go of the tensors that were followed."""
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self._brought.clear()

    def _follow(self, name: str | None, given: list[torch.Tensor], made: list[torch.Tensor]) -> None:
        """Note what the host computes with tensors that came from a device, until it goes back there."""
        known = [self._brought[place] for each in given if (place := _place(each)) in self._brought]
        if not known and not any(_is_away(each) for each in given):
            return
        done = frozenset[str]().union(*(names for _, names in known))
        if any(_is_away(each) for each in made):
            self.on_host |= done
        elif known and name is not None:
            done |= {name}
        for each in made:
            if (place := _place(each)) is not None:
                self._brought[place] = each, done


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """Return the tensors that an operator was given to write into."""
    arguments = func._schema.arguments
    named = {each.name: value for each, value in zip(arguments, args, strict=False)} | kwargs
    into = [each.name for each in arguments if each.alias_info is not None and each.alias_info.is_write]
    return [tensor for name in into for tensor in _tensors(named.get(name))]


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    return (each for each in tree_iter(value) if isinstance(each, torch.Tensor))


def _is_away(tensor: torch.Tensor) -> bool:
    return tensor.device.type not in ("cpu", "meta")


def _place(tensor: torch.Tensor) -> int | None:
    """Return where a tensor of the host lies; None for one of a device and one without a storage."""
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        return None
    return tensor.untyped_storage().data_ptr() or None


@cache
def _falls_back(func: Any, device: str) -> bool:
    """Tell whether an operator on a device is run by the device's fallback, for want of a kernel of its own."""
    kernel = _kernel(f"{func.namespace}::{func._schema.name.rpartition('::')[2]}", func._overloadname, device)
    if DEFAULT_KERNEL in kernel:
        # torch makes the functional form, and the one in place, of that which writes into a given tensor.
        kernel = next((_kernel(*name, device) for name in _forms_with_out(func)), kernel)
    return FALLBACK in kernel.lower()


def _forms_with_out(func: Any) -> Iterator[tuple[str, str]]:
    """Yield the forms of an operator that take the same inputs, and tensors to write into."""
    name = func._schema.name.rstrip("_")
    wanted = [str(each.type) for each in func._schema.arguments]
    for schema in torch._C._jit_get_schemas_for_operator(name):
        given = [str(each.type) for each in schema.arguments if not each.is_out]
        if len(given) < len(schema.arguments) and given == wanted:
            yield name, schema.overload_name


def _kernel(name: str, overload: str, device: str) -> str:
    """Return how torch describes the kernel that it takes for an operator on a device; empty if it does not say."""
    key = "PrivateUse1" if device == torch._C._get_privateuse1_backend_name() else device.upper()
    full = name if overload in ("", "default") else f"{name}.{overload}"
    try:
        table = torch._C._dispatch_dump_table(full)
    except RuntimeError:  # torch does not know the operator by this name
        return ""
    return next((line for line in table.splitlines() if line.startswith(f"{key}:")), "")
