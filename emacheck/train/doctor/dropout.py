"""The device's own dropout, which no audit and no paired training calls: their masks are drawn on the CPU."""

import math
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

from emacheck.train.device.accelerator import open_device
from emacheck.train.device.devices import parse_device
from emacheck.train.doctor.line import Line, ok, warning

# Called with a tensor and the share that is to be dropped.
Dropout = Callable[[torch.Tensor, float], torch.Tensor]
# That of EMANet's heads, and the usual one.
SHARES = (0.1, 0.5)
COUNT = 1 << 20
# So many standard deviations of a share or a correlation chance makes in one of 10^9 looks.
CHANCE = 6.0
ROUNDING = 1e-5


def dropout_lines(name: str) -> Iterator[Line]:
    """Let the device drop elements and channels of ones, forward and backward.

    Yields:
        ``dropout``: a warning if the masks are none that dropout may draw; no verdict rests on them.
    """
    device = parse_device(name)
    open_device(device)
    wrong = [
        f"{kind} of {share:g}: {problem}"
        for kind, dropout in (("dropout", functional.dropout), ("dropout2d", functional.dropout2d))
        for share in SHARES
        if (problem := _tried(dropout, share, str(device)))
    ]
    if wrong:
        yield warning(
            "dropout",
            "; ".join(wrong),
            "No verdict sees it, for emacheck draws masks on the CPU; trainings of your own do not. Ask the vendor.",
        )
        return
    yield ok("dropout", f"drops {' and '.join(f'{share:.0%}' for share in SHARES)}, scales the rest, draws anew")


def _tried(dropout: Dropout, share: float, device: str) -> str:
    try:
        return problem_of(dropout, share, device)
    except Exception as problem:  # whatever a device's operators raise
        return f"failed: {type(problem).__name__}: {problem}"


def problem_of(dropout: Dropout, share: float, device: str) -> str:
    """Return what is wrong with a dropout of 2^20 ones, each a channel; empty if nothing is.

    Each element must be 0 or 1 / (1 - share), the zeros as many as chance allows and not alike among neighbours, the
    gradient of the sum the output itself, and a second mask another one.

    Args:
        dropout: What drops.
        share: The probability of a zero.
        device: Where.

    Example:
        >>> problem_of(functional.dropout, 0.1, "cpu")
        ''
        >>> problem_of(lambda x, share: functional.dropout(x, share) * 1.1, 0.5, "cpu")
        'keeps 2.2, expected 2'
    """
    ones = torch.ones(1 << 10, COUNT >> 10, 1, 1, device=device, requires_grad=True)
    made = dropout(ones, share)
    (passed,) = torch.autograd.grad(made.sum(), ones, allow_unused=True)
    found, again = (each.detach().cpu().double().flatten() for each in (made, dropout(ones, share)))
    gradient = None if passed is None else passed.cpu().double().flatten()
    kept, scale = found != 0, 1 / (1 - share)
    dropped = 1 - float(kept.double().mean())
    if not abs(dropped - share) <= CHANCE * math.sqrt(share * (1 - share) / COUNT):
        return f"drops {dropped:.3%}, expected {share:.0%}"
    off = (found[kept] - scale).abs()
    if not float(off.max()) <= ROUNDING * scale:
        return f"keeps {float(found[kept][off.argmax()]):g}, expected {scale:g}"
    if gradient is None or not float((gradient - found).abs().max()) <= ROUNDING * scale:
        return "the gradient passes where the output does not, or is scaled otherwise"
    # In memory next to each other, and at the same place of neighbouring images.
    for apart in (1, ones.shape[1]):
        if not abs(_correlation(kept[apart:], kept[:-apart])) <= CHANCE / math.sqrt(COUNT):
            return f"elements {apart} apart are dropped together"
    if not abs(_correlation(kept, again != 0)) <= CHANCE / math.sqrt(COUNT):
        return "a second mask is like the first one"
    return ""


def _correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1])
