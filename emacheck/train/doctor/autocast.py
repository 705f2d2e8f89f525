"""Which types autocast of a device chooses, beside those that it chooses on the accelerators of PyTorch."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.nn import functional

from emacheck.dispatch.autocast import accelerator_lists
from emacheck.train.device.devices import Device
from emacheck.train.device.precision import AUTOCAST
from emacheck.train.doctor.line import Line, ok, warning

Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

# What EMANet runs, of an image (2, 4, 4, 4) in 16 bits, a kernel (4, 4, 3, 3) in 32 and labels (2, 4, 4).
OPERATORS: dict[str, Kernel] = {
    "conv2d": lambda image, kernel, _: functional.conv2d(image, kernel),
    "bmm": lambda image, _, __: image[0].bmm(image[1]),
    "batch_norm": lambda image, _, __: functional.batch_norm(image, None, None, training=True),
    "relu": lambda image, _, __: image.relu(),
    "max_pool2d": lambda image, _, __: functional.max_pool2d(image, 2),
    "softmax": lambda image, _, __: image.softmax(1),
    "sum": lambda image, _, __: image.sum(1),
    "normalize": lambda image, _, __: functional.normalize(image, dim=1),
    "interpolate": lambda image, _, __: functional.interpolate(image, scale_factor=2, mode="bilinear"),
    "cross_entropy": lambda image, _, labels: functional.cross_entropy(image, labels),
}


def autocast_lines(device: Device) -> Iterator[Line]:
    """Compare the types of EMANet's operators under autocast with those on PyTorch's accelerators.

    Yields:
        One line; none for the CPU, for which emacheck puts that list in the place of its own, and none where there is
        no mixed precision.
    """
    halves = [precision for precision in device.kind.precisions if precision in AUTOCAST]
    if device.is_cpu or not halves:
        return
    others = [each for precision in halves for each in _others(str(device), precision)]
    if others:
        yield warning(
            "autocast",
            "; ".join(others),
            "The vendor's list for autocast is not PyTorch's for accelerators. The audit says which tensors have "
            "another type; audit the kernels alone with --precision fp32.",
        )
    else:
        usual = f"{len(OPERATORS)} operators have the types that they have on PyTorch's accelerators"
        yield ok("autocast", f"{' and '.join(halves)}: {usual}")


def _others(device: str, precision: str) -> Iterator[str]:
    with accelerator_lists():
        usual = types_under_autocast("cpu", precision)
    found = types_under_autocast(device, precision)
    for operator, due in usual.items():
        if found[operator] != due:
            yield f"{precision}: {operator} in {found[operator]} (usual: {due})"


def types_under_autocast(device: str, precision: str) -> dict[str, str]:
    """Return the type of each operator's result, or what it raised.

    Example:
        >>> types_under_autocast("cpu", "bf16")["conv2d"]
        'bfloat16'
    """
    dtype = getattr(torch, AUTOCAST[precision])
    image, kernel = torch.ones(2, 4, 4, 4, dtype=dtype, device=device), torch.ones(4, 4, 3, 3, device=device)
    labels = torch.zeros(2, 4, 4, dtype=torch.long, device=device)
    with torch.autocast(torch.device(device).type, dtype=dtype):
        return {name: _type(partial(run, image, kernel, labels)) for name, run in OPERATORS.items()}


def _type(run: Callable[[], torch.Tensor]) -> str:
    try:
        return str(run().dtype).removeprefix("torch.")
    except Exception as problem:  # whatever a device's operators raise
        return type(problem).__name__
