"""How far the device's result of one call is from float64, relative to what the accepted precision does to it."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from emacheck.audit.arithmetic.measure import (
    ENDLESS,
    SAME,
    Distance,
    Truth,
    continuous,
    distance,
    float64,
    on_host,
    real,
)
from emacheck.audit.arithmetic.precision import SLOPE_SHARE
from emacheck.audit.iteration.nested import replaced, tensors
from emacheck.audit.iteration.signature import base_name
from emacheck.audit.judging.reference import ISOLATED, ISOLATED_HALF
from emacheck.audit.lockstep.isolated import MOVED, with_chance, with_scale
from emacheck.audit.lockstep.poison import LARGE
from emacheck.audit.lockstep.variations import Variation
from emacheck.audit.operators.host import HostCall

# A last bit of the inputs tells how much a rounding error matters where terms cancel.
LAST_BIT = Variation(last_bit=1)
# There a last bit may make a step.
_STEPS = {"floor", "ceil", "round", "trunc", "frac", "fmod", "remainder", "floor_divide", "histc", "div"}
# These return which of their inputs is the largest or smallest, and those in what order they come: where several are
# equal, any device may choose otherwise.
_PICK = {
    *("max", "min", "argmax", "argmin", "cummax", "cummin", "max_pool2d_with_indices", "max_pool3d_with_indices"),
    *("adaptive_max_pool2d", "adaptive_max_pool3d", "fractional_max_pool2d", "fractional_max_pool3d"),
}
_ORDER = {"sort", "argsort", "topk", "kthvalue", "median", "nanmedian", "mode"}
# Parts equal values and keeps the order of others, whose distance is at least 2^-24 in float32; in place of infinity.
_PARTED, _HUGE = 2.0**-40, 2.0**1000
# These round each number once.
_ROUND = {"_to_copy", "copy_", "_foreach_copy_"}
# From this share of its type's largest number on, a number stands for infinity, as in a mask of finfo(x.dtype).min.
_ENDLESS = 31 / 32
# A ratio to the plain accepted precision that needs no benign variations.
ENOUGH = 3.0
# Above so many values an exact result is no luck.
_MANY = 64

Made = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One tensor that a call made on the device.

    Attributes:
        result: Which: ``result``, ``result.1`` or the name of the argument that was written to.
        error: How far it is from float64, in the measure that has the largest ratio.
        accepted: How far the accepted precision is.
        measure: ``norm``, ``peak``, ``slope``, ``absolute``, ``exact`` (integers) or ``nan`` (the share of NaNs that
            became numbers).
    """

    result: str
    error: float
    accepted: float
    measure: str

    @property
    def ratio(self) -> float:
        """Error over accepted error."""
        if self.error == 0:
            return 0.0
        return self.error / self.accepted if self.accepted else math.inf


@dataclass(slots=True, kw_only=True, eq=False)
class Truths:
    """What a call should give, and how far from it the accepted precision is.

    Attributes:
        call: The call, as it was before the device made it.
        exact: By name what must be equal, integers and booleans.
        truth: By name what was computed in float64.
        accepted: Distance of the accepted precision, the largest of its variations, by name.
        undecided: Names of results to which nothing can be held.
        free: By name those integers of a result to which nothing can be held.
    """

    call: HostCall
    exact: dict[str, torch.Tensor]
    truth: dict[str, Truth]
    accepted: dict[str, Distance]
    undecided: frozenset[str]
    free: dict[str, torch.Tensor] = field(default_factory=dict)


def truths(call: HostCall, *, thorough: bool = True) -> Truths:
    """Compute on the CPU what a call should give, and what is accepted.

    Args:
        call: The call.
        thorough: Try the benign variations of the accepted precision as well; without them less is accepted.

    Raises:
        Exception: Whatever the CPU raises, such as for an operator that it does not have.
    """
    precision = call.precision
    right = call.run(dtype=torch.float64)
    first, *variations = ISOLATED_HALF if precision.half else ISOLATED
    plain = call.run(first)
    truth = {
        name: Truth(tensor=_with_infinity(tensor, plain[name], call) if name in plain else tensor)
        for name, tensor in right.items()
        if continuous(tensor)
    }
    if not thorough:
        variations = []
    elif _may_be_luck(call, plain, truth):
        variations.append(LAST_BIT)
    others = []
    for variation in variations:
        with suppress(Exception):  # what cannot run in a benign variation does not count there
            others.append(call.run(variation))
    exact = {name: tensor for name, tensor in plain.items() if not continuous(tensor)}
    undecided, free = _undecided(call, exact, [right, *others]) if thorough else (set(), {})
    accepted = {}
    for name, own in truth.items():
        if name not in plain:
            continue
        found = _floor(call, plain[name])
        for made in (plain, *others):
            if name in made and continuous(made[name]):
                tensor = made[name].to(plain[name].dtype)
                away = distance(tensor, own, slope=found.slope > 0)
                # A variation in which a mask of the largest number overflows says nothing.
                found = found.larger(away) if made is plain or math.isfinite(away.absolute) else found
        if not found.norm < precision.vague:
            found = with_scale(found, own, [*_scales(call.given), *(each.norm for each in truth.values())])
        if math.isfinite(found.absolute):
            accepted[name] = with_chance(found, own)
        else:
            undecided |= {name}
    return Truths(call=call, exact=exact, truth=truth, accepted=accepted, undecided=frozenset(undecided), free=free)


def judged(call: HostCall, made: Made) -> tuple[Truths, list[Deviation]]:
    """Return what a call should give, and how far the device is from it.

    The benign variations are asked only where the plain accepted precision is not enough.

    Args:
        call: The call.
        made: By name what the device made.

    Raises:
        Exception: Whatever the CPU raises, such as for an operator that it does not have.
    """
    should = truths(call, thorough=False)
    found = deviations(should, made)
    if all(each.ratio <= ENOUGH for each in found):
        return should, found
    should = truths(call)
    return should, deviations(should, made)


def deviations(should: Truths, made: Made) -> list[Deviation]:
    """Compare what the device made with what it should have made.

    Args:
        should: What it should give.
        made: By name what the device made.
    """
    found = []
    for name, tensor in should.exact.items():
        if name not in should.undecided:
            same = name in made and _equal(made[name], tensor, but=should.free.get(name))
            found.append(Deviation(result=name, error=0.0 if same else math.inf, accepted=0.0, measure="exact"))
    for name, accepted in should.accepted.items():
        here = (
            distance(made[name], should.truth[name], slope=accepted.slope > 0)
            if name in made
            else Distance(norm=math.inf, peak=math.inf, absolute=math.inf)
        )
        measure, error, known = here.worst(accepted)
        found.append(Deviation(result=name, error=error, accepted=known, measure=measure))
    return found


def chose_otherwise(should: Truths, made: Made) -> bool:
    """Return whether the device chose others of equal values than the CPU, as any device may."""
    return base_name(should.call.func) in _PICK and any(
        name in made and made[name].shape == free.shape and not _equal(made[name], should.exact[name])
        for name, free in should.free.items()
    )


def swallowed(call: HostCall, made: Made) -> list[Deviation]:
    """Return the share of NaNs that became numbers, of a call with NaN among its inputs.

    NaN must arrive where float64 has one and where it matters which number is in its place: what is multiplied by zero
    may be left out. What is true or false, such as whether something is NaN, must be equal.

    Args:
        call: The call.
        made: By name what the device made.
    """
    right = call.run(dtype=torch.float64)
    one, other = (_without_nan(call, number).run(dtype=torch.float64) for number in (LARGE, -LARGE))
    found = []
    for name, tensor in right.items():
        if name not in made or made[name].shape != tensor.shape:
            continue
        if tensor.dtype is torch.bool and not _equal(made[name], tensor):
            found.append(Deviation(result=name, error=math.inf, accepted=0.0, measure="exact"))
        if not continuous(tensor):
            continue
        # Of a complex number either part may be NaN alone.
        due = torch.isnan(real(tensor)) & (real(one[name]) != real(other[name]))
        if bool(due.any()):
            share = float(torch.isfinite(on_host(made[name]))[due].double().mean())
            found.append(Deviation(result=name, error=share, accepted=0.0, measure="nan"))
    return found


def has_nan(call: HostCall) -> bool:
    """Return whether any number that a call is given is NaN."""
    # A sum that is a number has no NaN among its terms, and is quicker than to look for one.
    return any(bool(tensor.sum().isnan()) and bool(tensor.isnan().any()) for tensor in _floats(call.given))


def place(made: torch.Tensor, should: Truths, name: str) -> tuple[tuple[int, ...], float, float]:
    """Return where a tensor is worst: the index, the device's value there, and the right one."""
    right = should.truth[name].tensor if name in should.truth else should.exact[name]
    here, there = on_host(made).double(), on_host(right).double()
    if here.shape != there.shape or not here.numel():
        return (), math.nan, math.nan
    away = (here - there).abs().nan_to_num(nan=math.inf).masked_fill_(here == there, 0.0)
    away.masked_fill_(here.isnan() & there.isnan(), 0.0)
    if continuous(made):
        # A number that stands for infinity has no distance from another one.
        away.masked_fill_((there.abs() > ENDLESS) & (here.abs() > torch.finfo(made.dtype).max / 2), 0.0)
    elif name in should.free:
        away.masked_fill_(should.free[name], 0.0)
    at = int(away.argmax())
    index = tuple(int(each) for each in torch.unravel_index(torch.tensor(at), away.shape))
    return index, float(here.reshape(-1)[at]), float(there.reshape(-1)[at])


def _may_be_luck(call: HostCall, plain: Made, truth: Mapping[str, Truth]) -> bool:
    """Return whether a last bit of the inputs is to be tried: where something is rounded, and no bit makes a step."""
    name = base_name(call.func).removeprefix("_foreach_").removesuffix("_")
    divided = name == "div" and "rounding_mode" not in call.given
    if name.startswith("fake_quantize") or (name in _STEPS and not divided):
        return False
    return any(
        own.tensor.numel() <= _MANY or distance(plain[name], own) != SAME
        for name, own in truth.items()
        if name in plain
    )


def _floor(call: HostCall, tensor: torch.Tensor) -> Distance:
    unit, slope = call.precision.unit_roundoff(tensor.dtype), call.precision.smallest_slope
    if not slope and base_name(call.func) in _ROUND and tensor.dtype in (torch.bfloat16, torch.float16):
        # A cast in a network that computes in float32 is rounded to the nearest as well.
        slope = unit * SLOPE_SHARE
    return Distance(norm=unit, peak=unit, slope=slope)


def _scales(given: dict[str, object]) -> list[float]:
    return [float(float64(tensor).norm()) for tensor in _floats(given)]


def _floats(given: dict[str, object]) -> list[torch.Tensor]:
    return [tensor for _, tensor in tensors(given) if continuous(tensor)]


def _undecided(
    call: HostCall, exact: Made, others: list[dict[str, torch.Tensor]]
) -> tuple[set[str], dict[str, torch.Tensor]]:
    """Return the names of integer results that another way to compute, or the last bits of the inputs, decide.

    Of those that pick the largest of equal values, only the picks among equals are; a mask tells which. So it does of
    comparisons, whose scalar may be rounded first, as that of ``x > 0.1``.
    """
    name = base_name(call.func)
    alone = name in _PICK or (call.func.namespace == "aten" and name not in _ORDER and exact.keys() == others[0].keys())
    # What torch itself makes of floats is exact but for these choices; a custom operator may round before it decides.
    move = _parted if name in _PICK | _ORDER else None if call.func.namespace == "aten" else _apart
    moved: list[dict[str, torch.Tensor]] = []
    if move is not None and any(tensor.dtype is not torch.bool for tensor in exact.values()):
        # Of two equal values each is the larger in one of the two.
        moved = [move(call, way).run() for way in (1, -1)]
    found, free = set(), {}
    for result, tensor in exact.items():
        # What is a number there is no index but one of the values, which are no others if they are equal.
        indices = [each for each in moved if result in each and not continuous(each[result])]
        made = [*others, *(indices if tensor.dtype is not torch.bool else [])]
        if alone and all(result in each and each[result].shape == tensor.shape for each in made):
            free[result] = torch.stack([each[result] != tensor for each in made]).any(0)
            if name not in _PICK and tensor.numel() and bool(free[result].all()):
                found.add(result)
        elif any(result not in each or not _equal(each[result], tensor) for each in made):
            found.add(result)
        if result not in found and name in ("_to_copy", "copy_") and tensor.dtype is not torch.bool:
            free[result] = _too_large(call.given["self" if name == "_to_copy" else "src"], tensor)
    return found, free


def _too_large(source: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """Return which numbers no integer of a type can be; what a cast makes of them is each device's own."""
    values, limits = on_host(source).double(), torch.iinfo(made.dtype)
    # The largest integer of 64 bits is no float64; the next one is too large.
    inside = (values > limits.min - 1.0) & (values < limits.max + 1.0) | (values == limits.min)
    return ~inside.expand(made.shape)


def _parted(call: HostCall, way: int) -> HostCall:
    """Return a call in float64 without equal values, all others in the order in which they are."""
    generator = torch.Generator().manual_seed(0)

    def move(_: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex() or not tensor.numel():
            return tensor
        values = tensor.double().nan_to_num(nan=math.nan, posinf=_HUGE, neginf=-_HUGE)
        least = values.abs().masked_fill(values == 0, math.inf).min()
        size = torch.where(values == 0, least if bool(torch.isfinite(least)) else 1.0, values.abs())
        drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        return values + way * _PARTED * size * (drawn - 0.5)

    return HostCall(func=call.func, given=replaced(call.given, move), precision=call.precision)


def _apart(call: HostCall, way: int) -> HostCall:
    """Return a call whose numbers are moved by some last bits of the largest."""
    generator = torch.Generator().manual_seed(0)

    def move(_: str, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor
        size = MOVED.ulps * torch.finfo(tensor.dtype).eps * (float(tensor.double().abs().max()) or 1.0)
        away = way * torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * size
        return tensor + away.to(tensor.dtype) if math.isfinite(size) else tensor

    return HostCall(func=call.func, given=replaced(call.given, move), precision=call.precision)


def _without_nan(call: HostCall, number: float) -> HostCall:
    def fill(_: str, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        largest = tensor.double().nan_to_num(0.0, 0.0, 0.0).abs().max() if tensor.numel() else 0.0
        return torch.where(tensor.isnan(), float(number * (1 + largest)), tensor.double()).to(torch.float64)

    given = {name: replaced(value, fill) for name, value in call.given.items()}
    return HostCall(func=call.func, given=given, precision=call.precision)


def _with_infinity(tensor: torch.Tensor, plain: torch.Tensor, call: HostCall) -> torch.Tensor:
    """Return a tensor in float64 with its largest number where that of the accepted precision stands for infinity.

    What one rounding makes infinite, as of a mask in a shorter type, is so on any device.
    """
    right = real(tensor)
    least = _ENDLESS * torch.finfo(plain.dtype).max
    if not right.numel() or float(torch.linalg.vector_norm(right, math.inf)) < least:
        return tensor
    endless = (right.abs() >= least) & right.isfinite()
    largest = right.sign() * torch.finfo(torch.float64).max
    if base_name(call.func) in _ROUND and plain.shape == tensor.shape:
        made = real(plain).double()
        largest = torch.where(made.isinf(), made, largest)
    return torch.where(endless, largest, right)


def _equal(one: torch.Tensor, other: torch.Tensor, *, but: torch.Tensor | None = None) -> bool:
    """Return whether two tensors are equal, but perhaps for some of their elements."""
    if one.shape != other.shape:
        return False
    same = on_host(one) == on_host(other)
    return bool((same if but is None else same | but).all())
