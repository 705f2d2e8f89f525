"""How far a tensor is from the arbiter's, relative to the accepted precision."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """Relative distances of one tensor c from the arbiter's tensor a.

    Attributes:
        norm: ||c - a|| / ||a||, Frobenius; sees what is wrong everywhere.
        peak: max |c - a| / max |a|; sees what is wrong in one place.
    """

    norm: float
    peak: float

    @property
    def finite(self) -> bool:
        """Whether both distances are finite numbers."""
        return math.isfinite(self.norm) and math.isfinite(self.peak)

    def larger(self, other: "Distance") -> "Distance":
        """Return the larger norm and the larger peak of two."""
        return Distance(norm=max(self.norm, other.norm), peak=max(self.peak, other.peak))

    def over(self, accepted: "Distance") -> float:
        """Return the larger of the two ratios to accepted distances."""
        return max(_ratio(self.norm, accepted.norm), _ratio(self.peak, accepted.peak))


FAR = Distance(norm=math.inf, peak=math.inf)
SAME = Distance(norm=0.0, peak=0.0)


def distance(candidate: torch.Tensor, arbiter: torch.Tensor) -> Distance:
    """Measure how far a tensor is from the arbiter's.

    Args:
        candidate: Of any precision, on any device.
        arbiter: The same in float64.

    Returns:
        Infinite distances where shapes differ, or where one is finite and the other is not.

    Example:
        >>> distance(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0]).double())
        Distance(norm=0.17149858514250882, peak=0.2)
    """
    if candidate.shape != arbiter.shape:
        return FAR
    if arbiter.numel() == 0:
        return SAME
    truth = arbiter.detach().double().cpu()
    difference = candidate.detach().cpu().double()
    odd = ~torch.isfinite(truth)
    if bool(odd.any()):
        if not torch.equal(difference[odd].nan_to_num(nan=0.5), truth[odd].nan_to_num(nan=0.5)):
            return FAR
        difference, truth = difference.masked_fill(odd, 0.0), truth.masked_fill(odd, 0.0)
    difference = difference - truth
    return Distance(
        norm=_ratio(float(torch.linalg.vector_norm(difference)), float(torch.linalg.vector_norm(truth))),
        peak=_ratio(float(difference.abs().max()), float(truth.abs().max())),
    )


def _ratio(part: float, whole: float) -> float:
    if not math.isfinite(part):
        return math.inf
    if whole == 0:
        return 0.0 if part == 0 else math.inf
    return part / whole
