"""How far the device's result of one call is from float64, relative to what the accepted precision does to it."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch

from emacheck.audit.isolated import MOVED, with_chance, with_scale
from emacheck.audit.measure import SAME, Distance, Truth, continuous, distance, on_host
from emacheck.audit.nested import replaced
from emacheck.audit.operators.host import HostCall
from emacheck.audit.operators.signature import base_name, inputs
from emacheck.audit.poison import LARGE
from emacheck.audit.reference import ISOLATED, ISOLATED_HALF
from emacheck.audit.variations import Variation

# A last bit of the inputs tells how much a rounding error matters where terms cancel.
LAST_BIT = Variation(last_bit=1)
# There a last bit may make a step.
_STEPS = {
    *("floor", "ceil", "round", "trunc", "frac", "sign", "sgn", "fmod", "remainder", "floor_divide", "heaviside"),
    *("bucketize", "searchsorted", "histc", "div_", "div"),
}
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
    """

    call: HostCall
    exact: dict[str, torch.Tensor]
    truth: dict[str, Truth]
    accepted: dict[str, Distance]
    undecided: frozenset[str]


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
    truth = {name: Truth(tensor=tensor) for name, tensor in right.items() if continuous(tensor)}
    if not thorough:
        variations = []
    elif _may_be_luck(call, plain, truth):
        variations.append(LAST_BIT)
    others = []
    for variation in variations:
        with suppress(Exception):  # what cannot run in a benign variation does not count there
            others.append(call.run(variation))
    exact = {name: tensor for name, tensor in plain.items() if not continuous(tensor)}
    undecided = _undecided(call, exact, [right, *others]) if thorough else set()
    accepted = {}
    for name, own in truth.items():
        if name not in plain:
            continue
        found = _floor(call, plain[name])
        for made in (plain, *others):
            if name in made and continuous(made[name]):
                tensor = made[name].to(plain[name].dtype)
                found = found.larger(distance(tensor, own, slope=precision.smallest_slope > 0))
        if not found.norm < precision.vague:
            found = with_scale(found, own, [*_scales(call), *(each.norm for each in truth.values())])
        if math.isfinite(found.absolute):
            accepted[name] = with_chance(found, own)
        else:
            undecided |= {name}
    return Truths(call=call, exact=exact, truth=truth, accepted=accepted, undecided=frozenset(undecided))


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
            same = name in made and _equal(made[name], tensor)
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


def swallowed(call: HostCall, made: Made) -> list[Deviation]:
    """Return the share of NaNs that became numbers, of a call with NaN among its inputs.

    NaN must arrive where float64 has one and where it matters which number is in its place: what is multiplied by zero
    may be left out.

    Args:
        call: The call.
        made: By name what the device made.
    """
    right = call.run(dtype=torch.float64)
    one, other = (_without_nan(call, number).run(dtype=torch.float64) for number in (LARGE, -LARGE))
    found = []
    for name, tensor in right.items():
        if not continuous(tensor) or name not in made or made[name].shape != tensor.shape:
            continue
        due = torch.isnan(tensor) & (one[name] != other[name])
        if bool(due.any()):
            share = float(torch.isfinite(on_host(made[name]))[due].double().mean())
            found.append(Deviation(result=name, error=share, accepted=0.0, measure="nan"))
    return found


def has_nan(call: HostCall) -> bool:
    """Return whether any number that a call is given is NaN."""
    # A sum that is a number has no NaN among its terms, and is quicker than to look for one.
    return any(bool(tensor.sum().isnan()) and bool(tensor.isnan().any()) for tensor in _floats(call))


def place(made: torch.Tensor, should: Truths, name: str) -> tuple[tuple[int, ...], float, float]:
    """Return where a tensor is worst: the index, the device's value there, and the right one."""
    right = should.truth[name].tensor if name in should.truth else should.exact[name]
    here, there = on_host(made).double(), on_host(right).double()
    if here.shape != there.shape or not here.numel():
        return (), math.nan, math.nan
    away = (here - there).abs().nan_to_num(nan=math.inf).masked_fill_(here == there, 0.0)
    away.masked_fill_(here.isnan() & there.isnan(), 0.0)
    at = int(away.argmax())
    index = tuple(int(each) for each in torch.unravel_index(torch.tensor(at), away.shape))
    return index, float(here.reshape(-1)[at]), float(there.reshape(-1)[at])


def _may_be_luck(call: HostCall, plain: Made, truth: Mapping[str, Truth]) -> bool:
    """Return whether a last bit of the inputs is to be tried: where something is rounded, and no bit makes a step."""
    if base_name(call.func) in _STEPS and (base_name(call.func)[:3] != "div" or "rounding_mode" in call.given):
        return False
    return any(
        own.tensor.numel() <= _MANY or distance(plain[name], own) != SAME
        for name, own in truth.items()
        if name in plain
    )


def _floor(call: HostCall, tensor: torch.Tensor) -> Distance:
    unit = call.precision.unit_roundoff(tensor.dtype)
    return Distance(norm=unit, peak=unit, slope=call.precision.smallest_slope)


def _scales(call: HostCall) -> list[float]:
    return [float(tensor.double().norm()) for tensor in _floats(call)]


def _floats(call: HostCall) -> list[torch.Tensor]:
    return [tensor for _, tensor in inputs(call.func, call.given) if continuous(tensor)]


def _undecided(call: HostCall, exact: Made, others: list[dict[str, torch.Tensor]]) -> set[str]:
    """Return the names of integer results that another way to compute, or the last bits of the inputs, decide.

    Equal values are moved apart by as much as the last bits of the largest, because any of them may be chosen.
    """
    found = {n for n, t in exact.items() for other in others if n not in other or not _equal(other[n], t)}
    indices = [n for n, t in exact.items() if t.dtype is not torch.bool and n not in found]
    if not indices or not _floats(call):
        return found
    moved = _apart(call).run()
    return found | {name for name in indices if not _equal(moved[name], exact[name])}


def _apart(call: HostCall) -> HostCall:
    generator = torch.Generator().manual_seed(0)

    def move(_: str, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor
        size = MOVED.ulps * torch.finfo(tensor.dtype).eps * (float(tensor.double().abs().max()) or 1.0)
        away = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * size
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


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool((on_host(one) == on_host(other)).all())
