"""How far a tensor is from the arbiter's, relative to the accepted precision."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """Relative distances of one tensor c from the arbiter's tensor a.

    Attributes:
        norm: ||c - a|| / ||a||, Frobenius; sees what is wrong everywhere.
        peak: max |c - a| / max |a|; sees what is wrong in one place.
        slope: |<c - a, a>| / <a, a>; sees what is too large or too small everywhere, however little. Rounding errors
            cancel in it. 0 where it is not asked for.
        absolute: ||c - a||, for where a is so small that a distance relative to it says nothing.
    """

    norm: float
    peak: float
    slope: float = 0.0
    absolute: float = 0.0

    @property
    def finite(self) -> bool:
        """Whether all relative distances are finite numbers."""
        return all(map(math.isfinite, (self.norm, self.peak, self.slope)))

    def larger(self, other: "Distance") -> "Distance":
        """Return the larger of two, each distance by itself."""
        return Distance(
            norm=max(self.norm, other.norm),
            peak=max(self.peak, other.peak),
            slope=max(self.slope, other.slope),
            absolute=max(self.absolute, other.absolute),
        )

    def worst(self, accepted: "Distance") -> tuple[str, float, float]:
        """Return name, distance and accepted distance of that measure whose ratio is the largest.

        Where the accepted precision is infinitely far off, as of a true value of zero, it is the absolute distance.
        """
        if math.isinf(accepted.norm):
            return "absolute", self.absolute, accepted.absolute
        measures = [(name, getattr(self, name), getattr(accepted, name)) for name in ("norm", "peak", "slope")]
        return max(measures, key=lambda measure: _ratio(*measure[1:]))

    def over(self, accepted: "Distance") -> float:
        """Return the largest of the ratios to accepted distances."""
        _, here, there = self.worst(accepted)
        return _ratio(here, there)


# What complex numbers become where real ones become this.
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def real(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same numbers dense and real: a sparse tensor with its zeros, a nested one in a row, complex as pairs.

    Example:
        >>> real(torch.tensor([1 + 2j])).tolist()
        [[1.0, 2.0]]
    """
    if tensor.is_nested:
        tensor = torch.cat([each.reshape(-1) for each in tensor.unbind()])
    dense = tensor if tensor.layout is torch.strided else tensor.to_dense()
    return torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense


def continuous(tensor: torch.Tensor) -> bool:
    """Return whether a tensor holds numbers that rounding may move: floating-point or complex ones."""
    return tensor.is_floating_point() or tensor.is_complex()


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor dense, real and on the CPU; one that is so already shares its numbers with what comes back."""
    return real(tensor.detach()).to(device="cpu")


def float64(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy, dense and real, in float64 on the CPU."""
    return real(tensor.detach()).to(device="cpu", dtype=torch.float64, copy=True)


def difference(now: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return now - start in float64 on the CPU; what is infinite and stays so has not changed.

    All of what takes another shape, as a buffer may that is replaced, is new.

    Example:
        >>> difference(torch.tensor([3.0, -math.inf]), torch.tensor([1.0, -math.inf])).tolist()
        [2.0, 0.0]
    """
    before, found = on_host(start), float64(now)
    if found.shape != before.shape:
        return found
    found.sub_(before)
    return found if bool(torch.isfinite(found.sum())) else found.masked_fill_(on_host(now) == before, 0.0)


def counterpart(kind: torch.dtype, accuracy: torch.dtype | None) -> torch.dtype:
    """Return the type that a tensor gets where floating-point numbers get a given one; None changes nothing.

    Example:
        >>> counterpart(torch.complex64, torch.float64), counterpart(torch.int64, torch.float64)
        (torch.complex128, torch.int64)
    """
    if accuracy is None:
        return kind
    if kind.is_complex:
        return COMPLEX.get(accuracy, kind)
    return accuracy if kind.is_floating_point else kind


PIECE = 1 << 17
# Above it a number counts as the largest of its type; outside of the other two a square may overflow, or lose bits.
ENDLESS = 2.0**1000
SMALLEST, LARGEST = 2.0**-500, 2.0**450
FAR = Distance(norm=math.inf, peak=math.inf, absolute=math.inf)
SAME = Distance(norm=0.0, peak=0.0)


@dataclass(slots=True, kw_only=True, eq=False)
class Truth:
    """The arbiter's tensor, with its norms, which are computed once.

    Attributes:
        tensor: In float64 on the CPU.
        norm: Its Frobenius norm.
        peak: Its largest magnitude.
    """

    tensor: torch.Tensor
    norm: float = field(init=False)
    peak: float = field(init=False)

    def __post_init__(self) -> None:
        self.tensor = real(self.tensor.detach()).to(device="cpu", dtype=torch.float64)
        self.norm, self.peak = _norms(self.tensor)

    def values(self) -> float:
        """Return how many values of equal size would carry this tensor: (sum a^2)^2 / sum a^4, at least 1.

        Independent errors of relative size e on each value move the slope by about e / sqrt(values).

        Source: the participation ratio; Bell and Dean, Discuss. Faraday Soc. 50 (1970), 55.

        Example:
            >>> Truth(tensor=torch.tensor([3.0, 3.0, -3.0, 0.0])).values()
            3.0
        """
        squares = self.tensor.square()
        whole, fourth = float(squares.sum()) ** 2, float(squares.square().sum())
        return whole / fourth if fourth and math.isfinite(whole / fourth) else 1.0


def distance(candidate: torch.Tensor, truth: Truth, *, slope: bool = False) -> Distance:
    """Measure how far a tensor is from the arbiter's.

    Args:
        candidate: Of any precision, on any device, real or complex, dense or sparse.
        truth: The arbiter's.
        slope: Measure the slope as well.

    Returns:
        Infinite distances where shapes differ, where one is finite and the other is not, or where integers or booleans
        are not equal.

    Example:
        >>> distance(torch.tensor([3.0, 4.0]), Truth(tensor=torch.tensor([3.0, 5.0])))
        Distance(norm=0.17149858514250882, peak=0.2, slope=0.0, absolute=1.0)
    """
    found = on_host(candidate)
    if found.shape != truth.tensor.shape:
        return FAR
    if not found.is_floating_point():
        return SAME if bool((found.double() == truth.tensor).all()) else FAR
    if not truth.peak <= ENDLESS:  # or NaN
        odd = ~(truth.tensor.abs() <= ENDLESS)
        if not _same(_endless(found[odd]), _endless(truth.tensor[odd])):
            return FAR
        return distance(found[~odd], Truth(tensor=truth.tensor[~odd]), slope=slope)
    if truth.peak and not SMALLEST <= truth.peak <= LARGEST:
        scale = 2.0 ** min(-math.frexp(truth.peak)[1], 1000)
        scaled = distance(found.double() * scale, Truth(tensor=truth.tensor * scale), slope=slope)
        return replace(scaled, absolute=scaled.absolute / scale)
    norm, peak = _norms(found, truth.tensor)
    along = abs(_product(found, truth.tensor) - truth.norm**2) if slope else 0.0
    return Distance(
        norm=_ratio(norm, truth.norm),
        peak=_ratio(peak, truth.peak),
        slope=_ratio(along, truth.norm**2),
        absolute=_ratio(norm, 1.0),
    )


def unlike(candidate: torch.Tensor, truth: Truth) -> Distance:
    """Return the share of a tensor's integers that are not the arbiter's, as every relative distance.

    Example:
        >>> unlike(torch.tensor([1, 2, 3, 4]), Truth(tensor=torch.tensor([1, 2, 3, 5]))).norm
        0.25
    """
    found = on_host(candidate)
    if found.shape != truth.tensor.shape or not found.numel():
        return distance(candidate, truth)
    share = float((found.double() != truth.tensor).double().mean())
    return Distance(norm=share, peak=share, absolute=share)


def _endless(tensor: torch.Tensor) -> torch.Tensor:
    """Return in float64 what is close to the largest number of its type, as in a mask of ``finfo(x.dtype).min``, at it.

    An infinity stays one.
    """
    values = tensor.double()
    kind = tensor.dtype if tensor.is_floating_point() else torch.float64
    close = (values.abs() > min(torch.finfo(kind).max / 2, ENDLESS)) & ~values.isinf()
    return torch.where(close, values.sign() * torch.finfo(torch.float64).max, values)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _norms(tensor: torch.Tensor, less: torch.Tensor | None = None) -> tuple[float, float]:
    """Return the Frobenius norm and the largest magnitude of a tensor, or of its difference from another one."""
    pieces = _pieces(tensor)
    others = [None] * len(pieces) if less is None else _pieces(less)
    squares, peak = 0.0, 0.0
    room = torch.empty(min(tensor.numel(), PIECE), dtype=torch.float64)
    for piece, other in zip(pieces, others, strict=True):
        values = room[: piece.numel()].copy_(piece)
        if other is not None:
            values -= other
        low, high = torch.aminmax(values)
        squares += float(torch.dot(values, values))
        largest = max(-float(low), float(high))
        peak = largest if not largest <= peak else peak  # NaN stays
        if math.isnan(peak):
            break
    return math.sqrt(squares), peak


def _product(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the sum of the products of two tensors' values, in float64."""
    pieces = zip(_pieces(one), _pieces(other), strict=True)
    return sum(float(torch.dot(here.double(), there)) for here, there in pieces)


def _pieces(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return a tensor in pieces that stay in a processor's cache, so that no large copy in float64 is made."""
    flat = tensor.reshape(-1)
    if not flat.numel():
        return ()
    return (flat,) if flat.numel() <= PIECE else torch.split(flat, PIECE)


def _ratio(part: float, whole: float) -> float:
    if not math.isfinite(part):
        return math.inf
    if whole == 0:
        return 0.0 if part == 0 else math.inf
    return part / whole
