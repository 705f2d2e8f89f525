"""What is tried on the device, each stage in turn, in a process that may die of it."""

import importlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from emacheck.errors import EmacheckError
from emacheck.train.device.devices import PRECISIONS, Device, parse_device
from emacheck.train.doctor.host import readable
from emacheck.train.doctor.line import Line, Status, error, ok, warning
from emacheck.train.host_memory import host_memory

LITTLE_MEMORY = 2 << 30
SIZE = 128
# Relative Frobenius error of a matrix product and a convolution of standard normal numbers. Rounding every number to
# 24, 11, 8 and 11 bits stays below; for fp32, one that is rounded to fewer bits does not.
LIMITS = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2, "fp16": 2e-3}


def device_lines(name: str) -> Iterator[Line]:
    """Open the device and ask it who it is.

    Yields:
        ``device``, ``driver`` and ``memory``, or an error alone.
    """
    from emacheck.train.device.accelerator import describe_device, open_device

    try:
        device = parse_device(name)
        open_device(device)
        facts = describe_device(device)
    except EmacheckError as problem:
        yield error("device", str(problem), "emacheck doctor --device cpu looks at the rest.")
        return
    many = f", {facts['count']} of them" if "count" in facts else ""
    yield ok("device", f"{device}: {facts['name']}{many}")
    yield _answer("driver", partial(_driver_line, device, facts))
    yield _answer("memory", partial(_memory_line, device))


def _answer(name: str, look: Callable[[], Line]) -> Line:
    try:
        return look()
    except Exception as problem:  # a device that works may not answer
        return warning(name, f"no answer: {type(problem).__name__}: {problem}", "Ask the vendor's own tool.")


def _driver_line(device: Device, facts: dict[str, str]) -> Line:
    shown = {name: value for name, value in facts.items() if name not in ("type", "name", "count")}
    if not device.is_cpu:
        from emacheck.train.device.accelerator import device_module

        ask = getattr(device_module(device), "get_device_properties", None)
        driver = getattr(ask(device.index or 0), "driver_version", None) if ask is not None else None
        if driver is not None:
            shown["driver"] = str(driver)
    if shown.keys() <= {"capability"} and not device.is_cpu:
        return warning(
            "driver",
            f"torch.{device.type} says no version of its driver",
            "Write the driver's version down with your results; records of runs will lack it.",
        )
    return ok("driver", ", ".join(f"{name} {value}" for name, value in shown.items()))


def _memory_line(device: Device) -> Line:
    if device.is_cpu:
        memory = host_memory()
        if memory is None:
            return warning("memory", "the system does not say how much is free", "Ask the system's own tool.")
        free, total = memory.available, memory.total
    else:
        from emacheck.train.device.accelerator import device_module

        ask = getattr(device_module(device), "mem_get_info", None)
        if ask is None:
            return warning("memory", f"torch.{device.type} does not say how much is free", "Ask the vendor's own tool.")
        free, total = ask()
    found = f"{readable(free)} free of {readable(total)}"
    if free < LITTLE_MEMORY:
        return warning("memory", found, "Look for other programs on the device; use a smaller batch or crop.")
    return ok("memory", found)


def communication_lines(name: str) -> Iterator[Line]:
    """Let a group of one process add up one tensor of the device."""
    import torch

    from emacheck.train.device.accelerator import open_device

    device = parse_device(name)
    backend = device.kind.backend
    if not torch.distributed.is_available():
        yield warning("communication", "this torch has no torch.distributed", "Train in one process.")
        return
    if backend is None:
        yield warning("communication", f"none is known for {device.kind.title}", "Train in one process.")
        return
    open_device(device)
    known = [found for found in torch.distributed.Backend.backend_list if found != "undefined"]
    if backend not in known:
        yield warning(
            "communication",
            f"{backend} is not known to torch (known: {', '.join(known)})",
            f"Install what registers it ({device.kind.module or 'another torch'}), or train in one process.",
        )
        return
    try:
        _add_up(device)
    except Exception as problem:  # the backend is somebody else's
        yield warning(
            "communication",
            f"{device.communication} is registered and failed: {type(problem).__name__}: {problem}",
            "Several processes will not train here. Train in one process, or ask the vendor.",
        )
        return
    yield ok("communication", f"{device.communication}: a group of one process adds up a tensor of the device")


def _add_up(device: Device) -> None:
    import torch
    from torch import distributed

    # Documented, but not exported in the sense of torch's own type hints.
    store = distributed.HashStore()  # type: ignore[attr-defined]
    distributed.init_process_group(device.communication, store=store, rank=0, world_size=1)
    try:
        tensor = torch.full((4,), 3.0, device=str(device))
        distributed.all_reduce(tensor)
        if tensor.cpu().tolist() != [3.0] * 4:
            raise RuntimeError(f"expected four times 3, found {tensor.cpu().tolist()}")
    finally:
        distributed.destroy_process_group()


def precision_lines(name: str) -> Iterator[Line]:
    """Multiply two matrices in every precision and measure the error against float64 on the CPU."""
    from emacheck.train.device.accelerator import open_device

    device = parse_device(name)
    open_device(device)
    for precision in PRECISIONS:
        if precision not in device.kind.precisions:
            yield ok(precision, f"not offered: emacheck knows no {precision} of {device.kind.title}")
            continue
        try:
            yield _precision_line(device, precision)
        except Exception as problem:  # whatever a device's operators raise
            judge = error if precision == "fp32" else warning
            yield judge(
                precision,
                f"failed: {type(problem).__name__}: {problem}",
                f"Do not ask for --precision {precision}, or ask the vendor.",
            )


def _precision_line(device: Device, precision: str) -> Line:
    import torch

    from emacheck.train.device.precision import AUTOCAST, set_float32

    switches = set_float32(device, precision)
    dtype = getattr(torch, AUTOCAST[precision]) if precision in AUTOCAST else None
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(2, SIZE, SIZE, generator=generator), torch.randn(2, SIZE, SIZE, generator=generator)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        results = _products(*(part.to(str(device)) for part in numbers))
    set_float32(device, "fp32")
    errors = [
        float((result.cpu().double() - exact).norm() / exact.norm())
        for result, exact in zip(results, _products(*(part.double() for part in numbers)), strict=True)
    ]
    difference = max(errors) if all(map(math.isfinite, errors)) else math.nan
    found = f"relative error of a matrix product {errors[0]:.1e}, of a convolution {errors[1]:.1e}"
    found += f" (limit {LIMITS[precision]:g})"
    types = {result.dtype for result in results}
    if types != {dtype or torch.float32}:
        return warning(precision, f"found results of {types}", f"Do not ask for --precision {precision}.")
    if precision == "fp16":
        if not _scaler_works(device):
            return warning(precision, "torch.amp.GradScaler disables itself", "fp16 will lose small gradients.")
        found += ", GradScaler enabled"
    if switches:
        found += f", {', '.join(f'{switch} {state}' for switch, state in switches.items())}"
    if difference <= LIMITS[precision]:
        return ok(precision, found)
    judge = error if precision == "fp32" else warning
    return judge(precision, found, f"The device computes with fewer bits than {precision} has; ask the vendor.")


def _products(one: Any, two: Any) -> tuple[Any, Any]:
    """Return a matrix product and a convolution with 3x3 kernels, made of two stacks of two matrices."""
    torch = importlib.import_module("torch")
    images, kernels = one.reshape(2, 64, 16, 16), two[..., :72].reshape(32, 64, 3, 3)
    return one[0] @ two[0], torch.nn.functional.conv2d(images, kernels)


def _scaler_works(device: Device) -> bool:
    torch = importlib.import_module("torch")
    scaler: Any = torch.amp.GradScaler(device.type)
    scaled = scaler.scale(torch.ones(1, device=str(device)))
    return bool(scaler.is_enabled()) and float(scaled) == scaler.get_scale()


def dropout_lines(name: str) -> Iterator[Line]:
    """Look at the device's own dropout."""
    from emacheck.train.doctor import dropout

    yield from dropout.dropout_lines(name)


def training_lines(name: str) -> Iterator[Line]:
    """Train EMANet one iteration on the device and on the CPU; if that works, ask for the types of autocast."""
    from emacheck.train.doctor import iteration
    from emacheck.train.doctor.autocast import autocast_lines

    device = parse_device(name)
    lines = list(iteration.training_lines(device))
    yield from lines
    if not any(line.status is Status.ERROR for line in lines):
        yield from autocast_lines(device)


STAGES = {
    "device": device_lines,
    "communication": communication_lines,
    "precisions": precision_lines,
    "training": training_lines,
    "dropout": dropout_lines,
}
