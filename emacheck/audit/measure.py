"""How far a tensor is from the arbiter's, relative to the accepted precision."""

import math
from dataclasses import dataclass, field

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


@dataclass(slots=True, kw_only=True, eq=False)
class Truth:
    """The arbiter's tensor, with its norms, which are computed once.

    Attributes:
        tensor: On the CPU in float64; in float32 where that is the same numbers.
        norm: Its Frobenius norm.
        peak: Its largest magnitude.
    """

    tensor: torch.Tensor
    norm: float = field(init=False)
    peak: float = field(init=False)

    def __post_init__(self) -> None:
        self.tensor = self.tensor.detach().to(device="cpu", dtype=torch.float64)
        self.norm, self.peak = _norms(self.tensor)
        # What was copied and not computed, such as a weight, needs half the memory so.
        short = self.tensor.float()
        if math.isfinite(self.norm) and torch.equal(short.double(), self.tensor):
            self.tensor = short


def distance(candidate: torch.Tensor, truth: Truth) -> Distance:
    """Measure how far a tensor is from the arbiter's.

    Args:
        candidate: Of any precision, on any device.
        truth: The arbiter's.

    Returns:
        Infinite distances where shapes differ, or where one is finite and the other is not.

    Example:
        >>> distance(torch.tensor([3.0, 4.0]), Truth(tensor=torch.tensor([3.0, 5.0])))
        Distance(norm=0.17149858514250882, peak=0.2)
    """
    if candidate.shape != truth.tensor.shape:
        return FAR
    difference = candidate.detach().to(device="cpu", dtype=torch.float64, copy=True)
    if math.isfinite(truth.norm):
        norm, peak = _norms(difference.sub_(truth.tensor))
        return Distance(norm=_ratio(norm, truth.norm), peak=_ratio(peak, truth.peak))
    odd = ~torch.isfinite(truth.tensor)
    if not torch.equal(difference[odd].nan_to_num(nan=0.5), truth.tensor[odd].nan_to_num(nan=0.5)):
        return FAR
    return distance(difference[~odd], Truth(tensor=truth.tensor[~odd]))


def _norms(tensor: torch.Tensor) -> tuple[float, float]:
    if tensor.numel() == 0:
        return 0.0, 0.0
    return float(torch.linalg.vector_norm(tensor)), float(torch.linalg.vector_norm(tensor, math.inf))


def _ratio(part: float, whole: float) -> float:
    if not math.isfinite(part):
        return math.inf
    if whole == 0:
        return 0.0 if part == 0 else math.inf
    return part / whole
