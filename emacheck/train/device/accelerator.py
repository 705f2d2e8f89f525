"""Devices at work: import what a device needs, see that it is there, select, seed and ask it."""

import contextlib
import datetime
import importlib
import os
import platform
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from emacheck.counted import counted
from emacheck.errors import MissingExtraError, TrainingError, UsageError
from emacheck.train.device.devices import OPTION, Device, DeviceKind, device_names, parse_device, without_module
from emacheck.train.launching.network import not_connected

CHECK_DRIVER = "Check the driver, that this container may use the device, and that this torch was built for it."


def open_device(device: Device, count: int = 1) -> None:
    """Make torch know a device, see that it is there, and select it.

    Args:
        device: Where to train.
        count: How many devices of its type there must be at least.

    Raises:
        UsageError: If the device's module cannot be imported, torch does not see as many devices, the device cannot be
            selected, or the environment lets it compute float32 with fewer bits.
    """
    lowered = _set(device.kind.lowering_variables)
    if lowered:
        raise UsageError(
            f"{device.option} {device}: found {', '.join(lowered)} in the environment, with which {device.kind.title} "
            "computes float32 with fewer bits, expected none of it. Unset it; for fewer bits give --precision."
        )
    _import(device.kind, device.option)
    if device.is_cpu:
        return
    import torch

    module = device_module(device)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = _count(module)
    except Exception as error:  # whatever a driver raises
        raise UsageError(
            f"{device.option} {device}: torch.{device.type} does not say how many devices there are "
            f"({type(error).__name__}: {error}). {CHECK_DRIVER}"
        ) from error
    numbered = (device.index or 0) + 1
    if found < max(numbered, count):
        brought = f"with {device.kind.module} imported " if device.kind.module else ""
        each = ", one for each process of this node (--nproc-per-node)" if count > numbered else ""
        raise UsageError(
            f"{device.option} {device}: torch {torch.__version__} {brought}sees "
            f"{counted(found, f'{device.type} device')}, expected at least {max(numbered, count)}{each}"
            f"{_reason(said)}. {CHECK_DRIVER}"
        )
    _select(device, module)
    step_marker(device)


def _reason(said: list[warnings.WarningMessage]) -> str:
    """Return what torch warned of when it was asked for devices, such as of a driver that is too old for it."""
    words = " ".join(" ".join(str(each.message).split()) for each in said)
    return f" (torch says: {words})" if words else ""


def step_marker(device: Device) -> Callable[[], Any] | None:
    """Return the function that lets a lazy device compute what it has put off; None for a device that is not lazy.

    Raises:
        UsageError: If the device's row names one that is not there.
    """
    name = device.kind.mark_step
    if name is None:
        return None
    found = attribute(name)
    if not callable(found):
        raise UsageError(
            f"{device.option} {device}: {name}, by which its DeviceKind says that it computes what it has put off, "
            f"is {'not there' if found is None else repr(found)}, expected a function. Correct mark_step, or let the "
            "module of the device import what it names: docs/devices.md#the-device-is-lazy"
        )
    return found  # type: ignore[no-any-return]


def _select(device: Device, module: Any) -> None:
    """Select a device by its own module, or by torch's generic door; the first one is selected without either."""
    import torch

    select = getattr(module, "set_device", None)
    if select is None and not device.index:
        return
    try:
        # torch has the generic one from 2.6 on.
        (select or torch.accelerator.set_device_index)(device.index or 0)
    except Exception as error:  # whatever a driver raises
        raise UsageError(
            f"{device.option} {device}: it cannot be selected ({type(error).__name__}: {error}). {CHECK_DRIVER}"
        ) from error
    current = _answer(module, "current_device")
    if type(current) is int and current != (device.index or 0):
        raise UsageError(
            f"{device.option} {device}: it was selected, and device {current} is selected still. Several processes "
            f"would share one device and one process would use another than it says. {CHECK_DRIVER}"
        )


def device_module(device: Device) -> Any:
    """Return torch's module of a device, such as ``torch.sdaa``.

    Raises:
        UsageError: If there is none, even though what the device needs was imported.
    """
    import torch

    try:
        return torch.get_device_module(device.type)
    except (RuntimeError, AttributeError) as error:
        brought, advice = "", f"Install a torch that was built for {device.kind.title}."
        if device.kind.module:
            brought = f"with {device.kind.module} imported "
            advice = (
                f"Install a torch and a {device.kind.module} that were made for each other; if the vendor registers no "
                "such module, one of yours can: docs/devices.md#the-vendor-registers-no-module-with-torch"
            )
        raise UsageError(
            f"{device.option} {device}: torch {torch.__version__} {brought}has no module torch.{device.type}. {advice}"
        ) from error


def seed_device(device: Device, seed: int) -> None:
    """Seed the generators of all devices of a type; a CPU is seeded with ``torch.manual_seed``."""
    module = device_module(device)
    seeding = getattr(module, "manual_seed_all", None) or getattr(module, "manual_seed", None)
    if seeding is not None and not device.is_cpu:
        seeding(seed)


def generator_state(device: Device) -> Any:
    """Return the state of a device's default generator as a tensor of bytes; None if the device does not say."""
    import torch

    if device.is_cpu:
        return torch.get_rng_state()
    state = _answer(device_module(device), "get_rng_state")
    return None if state is None else state.cpu()


def peak_memory(device: Device) -> int | None:
    """Return the most bytes that torch had allocated on a device at once; None if the device does not say."""
    if device.is_cpu:
        return None
    peak = _answer(device_module(device), "max_memory_allocated", "driver_allocated_memory")
    return None if peak is None else int(peak)


def describe_device(device: Device) -> dict[str, str]:
    """Return what a device is called and what drives it, for the provenance.

    Args:
        device: An opened device.

    Returns:
        ``type``, ``name``, and as far as the device says: ``capability``, ``count`` and the versions of its module,
        driver and libraries; the environment variables that its module reads.
    """
    import torch

    facts = {"type": device.type, "name": _name(device)}
    if device.is_cpu:
        facts["capability"] = torch.backends.cpu.get_cpu_capability()
        return facts
    module = device_module(device)
    facts["count"] = str(_count(module))
    capability = _answer(module, "get_device_capability")
    if capability is not None:
        facts["capability"] = str(capability)
    names = [*([f"{device.kind.module}.__version__"] if device.kind.module else []), *device.kind.versions]
    for name in names:
        value = attribute(name)
        if callable(value):
            value = _answer(attribute(name.rpartition(".")[0]), name.rpartition(".")[2])
        if value is not None:
            facts[name] = str(value)
    return facts | {name: os.environ[name] for name in sorted(os.environ) if name.startswith(device.kind.variables)}


def fallback_allowed(device: Device) -> list[str]:
    """Return the environment variables, with their values, that let the CPU run operators in a device's place."""
    return _set(device.kind.fallback_variables)


def _set(names: tuple[str, ...]) -> list[str]:
    given = {name: os.environ.get(name, "") for name in names}
    return [f"{name}={value}" for name, value in given.items() if value not in ("", "0")]


def select_for_rank(device: Device) -> Device:
    """Open the device of this process among those that torch's launcher started, and see that it can communicate.

    Args:
        device: The device as the user named it.

    Returns:
        The device of this process, selected: the one with the number of the local rank.

    Raises:
        UsageError: If the device is not there, or its communication backend is not known to torch.
    """
    import torch.distributed

    backend = str(device.kind.backend)
    mine = device.for_rank(int(os.environ["LOCAL_RANK"]))
    open_device(mine)
    known = [name for name in torch.distributed.Backend.backend_list if torch.distributed.is_backend_available(name)]
    serves = torch.distributed.Backend.backend_capability.get(backend, [])
    if device.communication and (backend not in known or device.type not in serves):
        serving = f"it serves {', '.join(serves)}" if backend in known else "it is not there"
        raise UsageError(
            f"{device.option} {device}: the communication backend {backend} does not serve {device.type} in torch "
            f"{torch.__version__}: {serving}; torch knows {', '.join(known)}. Choose another with --backend, or "
            f"install what registers it: {device.kind.module or 'another torch'}."
        )
    return mine


def join_processes(device: Device, *, timeout: datetime.timedelta) -> None:
    """Join this process to those that torch's launcher started, before anything of mmengine is built.

    The group has two backends, gloo for tensors of the host and the device's own for its tensors, so that mmengine's
    collectives of Python objects work on a device that it does not know.

    Args:
        device: The device of this process, selected.
        timeout: How long a collective may wait for the other processes.

    Raises:
        TrainingError: If the processes did not find each other.
    """
    import torch.distributed

    try:
        torch.distributed.init_process_group(device.communication, timeout=timeout)
    except (RuntimeError, ValueError, TimeoutError) as error:
        several_nodes = os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE")
        hint = f"\n{not_connected(str(error))}" if several_nodes else ""
        raise TrainingError(
            f"rank {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')} could not join the others at "
            f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')} with {device.communication}: {error}"
            f"{hint}"
        ) from error


def attribute(name: str) -> Any:
    """Return what a dotted name such as ``torch.version.cuda`` stands for; None if there is no such thing."""
    module, *path = name.split(".")
    try:
        value: Any = importlib.import_module(module)
        for part in path:
            value = getattr(value, part)
    except Exception:  # what is there may have to ask a driver, and what that raises is nobody's fault
        return None
    return value


def detect(option: str = OPTION) -> str:
    """Return the type of the accelerator that torch finds, ``cpu`` if there is none.

    Vendors' modules that are installed are imported first: torch older than 2.5 does not load them by itself.

    Args:
        option: The option for which a device is looked for, which messages name.

    Raises:
        UsageError: If a vendor's module is installed that cannot be imported or sees no device, or torch warns that it
            cannot use the device: what passed on the CPU would be taken for a PASS of that device.
    """
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found, installed = _found(option)
    # Where there is no device at all torch warns of nothing.
    unusable = [each for each in said if "initialization" in str(each.message)]
    if found == "cpu" and (installed or unusable):
        what = f"{', '.join(str(kind.module) for kind in installed)} is installed here, and " if installed else ""
        raise UsageError(
            f"{option} auto: {what}torch {torch.__version__} sees no device{' of it' if installed else ''}"
            f"{_reason(unusable)}. {CHECK_DRIVER} To train on the CPU all the same: {option} cpu"
        )
    return found


def _found(option: str) -> tuple[str, list[DeviceKind]]:
    """Return the type of the accelerator that torch finds, and the rows whose module is installed."""
    import torch

    installed = [kind for kind in _kinds(option) if kind.module is not None and _is_installed(kind.module)]
    for kind in installed:
        _import(kind, option)
    accelerator = getattr(torch, "accelerator", None)  # from torch 2.6 on
    if accelerator is not None:
        found = str(accelerator.current_accelerator().type) if accelerator.is_available() else "cpu"
        # Not every device of a vendor is one that torch calls an accelerator.
        found = next((kind.type for kind in installed if _is_there(kind)), found) if found == "cpu" else found
    else:
        found = next((kind.type for kind in _kinds(option) if kind.type != "cpu" and _is_there(kind)), "cpu")
    return found, installed


def _kinds(option: str) -> list[DeviceKind]:
    """Return the rows of the table, then those of entry points."""
    return [parse_device(name, option).kind for name in device_names()]


def _is_installed(module: str) -> bool:
    # Looking for a part of a package that is not there raises.
    return find_spec(module.partition(".")[0]) is not None


def _is_there(kind: DeviceKind) -> bool:
    try:
        return _count(device_module(Device(kind=kind))) > 0
    except UsageError:
        return False


def _import(kind: DeviceKind, option: str = OPTION) -> None:
    if find_spec("torch") is None:
        raise MissingExtraError(
            "training needs torch, which is not installed here. Install the extra: pip install 'emacheck[train]'"
        )
    if kind.module is None:
        return
    try:
        importlib.import_module(kind.module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == kind.module
        found = "is not installed here" if missing else f"cannot be imported ({type(error).__name__}: {error})"
        raise without_module(kind, option, found) from error


def _answer(module: Any, *names: str) -> Any:
    """Return the first answer that a device's module gives; one that it does not have, or cannot give, is None."""
    for name in names:
        ask = getattr(module, name, None)
        # Whatever is raised: a record must not be lost over what only describes a device.
        with contextlib.suppress(Exception):
            if ask is not None:
                return ask()
    return None


def _count(module: Any) -> int:
    available = getattr(module, "is_available", None)
    if available is not None and not available():
        return 0
    count = getattr(module, "device_count", None)
    return int(count()) if count is not None else 1


def _name(device: Device) -> str:
    if not device.is_cpu:
        return str(_answer(device_module(device), "get_device_name") or device.kind.title)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
