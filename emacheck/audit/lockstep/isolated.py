"""Modules in isolation: each call of the reference repeated alone on the candidate and on the float64 arbiter."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch

from emacheck.audit.arithmetic.measure import FAR, SAME, Distance, Truth, continuous, distance, unlike
from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.findings.result import PHASE_OF
from emacheck.audit.iteration.calls import Call
from emacheck.audit.iteration.nested import tensors
from emacheck.audit.lockstep.borrowed import borrowed
from emacheck.audit.lockstep.parts import COPIED, OPTIONAL, Part, Results
from emacheck.audit.lockstep.poison import Masks, nan_masks
from emacheck.audit.lockstep.replay import replay
from emacheck.audit.lockstep.side import Side
from emacheck.audit.lockstep.variations import Variation, moves

# Several times what a device's rounding does to what it compares.
MOVED = Variation(last_bit=1, ulps=16)
# So few numbers may all be right by luck; more never are.
FEW = 4
# Of an integer output in which more elements than this share move with the last bits nothing could be over a limit.
RARE = 1 / 30

# Of the largest tensor of a call; what a benign variation moves by more was no rounding.
SHARE = 0.5
BACKWARD = "backward"

# Told the name of what cannot run in a variation, the variation and what was raised.
Refused = Callable[[str, Variation, Exception], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Baseline:
    """What one call should give, and how far from it the accepted precision is.

    Attributes:
        call: The call.
        truth: The arbiter's tensors.
        accepted: Distance of the accepted precision by part, the largest of its variations, at least a unit roundoff.
        unjudged: Parts to which nothing can be held: the accepted precision itself overflows, or its last bits decide
            an integer.
        nans: Where NaN must arrive when the call is poisoned.
        unable: What the reference or the arbiter raised when it repeated the call; then there is nothing to compare.
        reference: Where the call is repeated in the accepted precision.
        types: In which type the reference keeps each part.
    """

    call: Call
    truth: dict[Part, Truth]
    accepted: dict[Part, Distance]
    unjudged: tuple[Part, ...] = ()
    nans: Masks = field(default_factory=Masks)
    unable: Exception | None = None
    reference: Side | None = None
    types: dict[Part, torch.dtype] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One tensor of one call on the candidate.

    Attributes:
        part: Which tensor.
        distance: How far it is from the arbiter.
        accepted: How far the accepted precision is.
        types: In which type the candidate keeps it, and in which the reference does, if these differ.
    """

    part: Part
    distance: Distance
    accepted: Distance
    types: tuple[torch.dtype, torch.dtype] | None = None

    @property
    def ratio(self) -> float:
        """The one over the other."""
        return self.distance.over(self.accepted)


def baselines(
    calls: Sequence[Call],
    arbiter: Side,
    accepted: list[Side],
    *,
    wanted: Callable[[Call], bool],
    poison: Callable[[Call], bool],
    elsewhere: bool,
    refused: Refused,
) -> Iterator[Baseline]:
    """Yield what each call should give; a caller comes after those it called, as it needs their gradients.

    Args:
        calls: The reference's calls in the order in which they returned.
        arbiter: The float64 side.
        accepted: The accepted precision in one or more benign variations; the first is the reference.
        wanted: Whether a call is to be compared; others run only as far as those need them.
        poison: Whether to find out where NaN goes in a call.
        elsewhere: Whether the candidate is not on the CPU, so that what a caller uses has to be moved.
        refused: Told of a variation, other than the first, that a call cannot run in; it is then left out there.
    """
    needed: set[int] = set()
    for call in reversed(calls):  # a caller comes before those it called, which may need the gradients of others
        if wanted(call) or id(call) in needed:
            needed |= {id(child) for child in call.children}
    for call in calls:
        if wanted(call):
            try:
                baseline = _baseline(call, arbiter, accepted, poison=poison, refused=refused)
                if elsewhere:
                    call.borrowed = borrowed(call, accepted[0])
            except Exception as error:  # of the user's code, so it can be anything
                baseline = Baseline(call=call, truth={}, accepted={}, unable=error.with_traceback(None))
            yield baseline
        elif id(call) in needed:
            # Its caller then gets no gradient from it, on every side.
            with suppress(Exception):
                call.input_gradients = _input_gradients(replay(call, accepted[0]))


def _baseline(
    call: Call, arbiter: Side, accepted: list[Side], *, poison: Callable[[Call], bool], refused: Refused
) -> Baseline:
    truth = {part: Truth(tensor=tensor) for part, tensor in replay(call, arbiter).items()}
    found: dict[Part, Distance] = {}
    types: dict[Part, torch.dtype] = {}
    for at, side in enumerate(accepted):
        results = _varied(call, side, None if at == 0 else refused)
        here = _distances(results or {}, truth, side)
        floats = {part: away for part, away in here.items() if results and continuous(results[part])}
        if side.variation.channels_last and _misread(floats, found, truth, call):
            refused(call.name, side.variation, ValueError("a kernel of the CPU misreads this memory layout"))
            results = _varied(call, replace(side, variation=side.variation.attempts()[-1]), refused)
            here = _distances(results or {}, truth, side)
        if results is None:
            continue
        smallest = side.precision.smallest_slope
        for part, away in here.items():
            kind = _source_type(part, results[part], call)
            floor = side.precision.unit_roundoff(kind) if kind.is_floating_point or kind.is_complex else 0.0
            found[part] = away.larger(found.get(part, Distance(norm=floor, peak=floor, slope=smallest)))
        if at == 0:
            call.input_gradients = _input_gradients(results)
            types = {part: tensor.dtype for part, tensor in results.items()}
    found |= _undecided(call, accepted, truth)
    vague = [part for part, here in found.items() if not here.norm < arbiter.precision.vague]
    found |= {part: _with_scale(found[part], part, truth, call) for part in vague}
    judged = {p: with_chance(here, truth[p]) for p, here in found.items() if math.isfinite(here.absolute)}
    return Baseline(
        call=call,
        truth={part: tensor for part, tensor in truth.items() if part in judged},
        accepted=judged,
        unjudged=tuple(part for part in truth if part not in judged),
        nans=nan_masks(call, arbiter, truth) if poison(call) else Masks(),
        reference=accepted[0],
        types=types,
    )


def _distances(results: Results, truth: Mapping[Part, Truth], side: Side) -> dict[Part, Distance]:
    """Return how far each tensor is from the arbiter's; what was copied on the CPU arrived there as it was."""
    slope = side.precision.smallest_slope > 0
    return {
        part: SAME if part.kind in COPIED else distance(tensor, truth[part], slope=slope)
        for part, tensor in results.items()
        if part in truth
    }


def _misread(
    here: Mapping[Part, Distance], plain: Mapping[Part, Distance], truth: Mapping[Part, Truth], call: Call
) -> bool:
    """Return whether a tensor is off by half of the largest that the call makes or is given, where it is not plainly.

    No rounding does that: some kernels, as of attention or of a library of the user's, expect one memory layout. What
    is made in the backward pass is held against what is made or given there, for gradients are often far smaller.
    """
    far = [part for part, away in here.items() if part in plain and not away.absolute <= SHARE * truth[part].norm]
    if not far:
        return False
    given = [t for _, t in tensors((call.args, call.kwargs, call.output_gradients)) if continuous(t)]
    scale = max(each.norm for each in (*truth.values(), *(Truth(tensor=each) for each in given)))
    backward = max(_scales_of(BACKWARD, truth, call)) if call.output_gradients else scale

    def most(part: Part) -> float:
        return SHARE * (backward if PHASE_OF[part.kind] == BACKWARD else scale)

    return any(not here[part].absolute <= most(part) and plain[part].absolute <= most(part) for part in far)


def _undecided(call: Call, accepted: list[Side], truth: Mapping[Part, Truth]) -> dict[Part, Distance]:
    """Return what is accepted of integer outputs of which a variation, or last bits of inputs, decide some elements.

    Two values are nearly equal there, and any device may decide otherwise. It is the largest share of elements that
    change, or endless where too many do.
    """
    if not any(path not in call.by_products and not continuous(tensor) for path, tensor in tensors(call.output)):
        return {}
    moved = [replace(each, ulps=MOVED.ulps) for each in moves(half=accepted[0].precision.half)]
    sides = [*accepted, *(replace(accepted[0], variation=each) for each in (MOVED, *moved))]
    every = [results for side in sides if (results := _varied(call, side, _silent)) is not None]
    parts = [p for p, each in every[0].items() if p.kind == "output" and p in truth and not continuous(each)]
    most = {p: max(unlike(each[p], truth[p]).norm if p in each else math.inf for each in every) for p in parts}
    return {p: Distance(norm=m, peak=m, absolute=m) if m < RARE else FAR for p, m in most.items() if m}


def _silent(name: str, variation: Variation, error: Exception) -> None:
    """Say nothing of what cannot run in a variation: that was said before."""


def _with_scale(accepted: Distance, part: Part, truth: Mapping[Part, Truth], call: Call) -> Distance:
    """Return what is accepted of a tensor that is zero but for rounding.

    The scale is that of the largest tensor that the call makes in the same phase, or is given in the backward pass.
    """
    return with_scale(accepted, truth[part], _scales_of(PHASE_OF[part.kind], truth, call))


def _scales_of(phase: str, truth: Mapping[Part, Truth], call: Call) -> list[float]:
    """Return the norms of what a call makes in a phase, and of what it is given in the backward pass."""
    scales = [each.norm for part, each in truth.items() if PHASE_OF[part.kind] == phase]
    if phase == BACKWARD:
        scales += [float(gradient.norm()) for gradient in call.output_gradients.values()]
    return scales


def with_scale(accepted: Distance, truth: Truth, scales: Sequence[float]) -> Distance:
    """Return what is accepted of a tensor that is zero but for rounding.

    Where terms cancel the reference may be right by luck, so a unit roundoff of the largest of the numbers at hand is
    accepted as well.

    Args:
        accepted: What is accepted of it so far.
        truth: The tensor.
        scales: Norms of the tensors at hand.
    """
    least = 2.0**-24 * max(filter(math.isfinite, scales), default=0.0)
    if not truth.norm:
        return replace(accepted, absolute=max(accepted.absolute, least))
    return accepted.larger(Distance(norm=least / truth.norm, peak=least / truth.norm, absolute=least))


def _varied(call: Call, side: Side, refused: Refused | None) -> Results | None:
    """Repeat a call in a variation, or in what stands for it; return None if it cannot run there and need not."""
    for variation in side.variation.attempts():
        try:
            return replay(call, side if variation == side.variation else replace(side, variation=variation))
        except Exception as error:  # of the user's code, so it can be anything
            if refused is None:
                raise
            refused(call.name, variation, error)
    return None


def with_chance(accepted: Distance, truth: Truth) -> Distance:
    """Return what is accepted, the slope at least as far off as chance makes it."""
    if not accepted.slope or not accepted.finite:
        return accepted
    return accepted.larger(Distance(norm=0.0, peak=0.0, slope=accepted.norm / math.sqrt(truth.values())))


def _input_gradients(results: Results) -> dict[str, torch.Tensor]:
    return {part.path: tensor for part, tensor in results.items() if part.kind == "input gradient"}


def _source_type(part: Part, tensor: torch.Tensor, call: Call) -> torch.dtype:
    """Return the type in which a tensor was computed; the change of a buffer is a difference in float64."""
    return call.buffers[part.path].dtype if part.kind == "buffer" and part.path in call.buffers else tensor.dtype


def measure(baseline: Baseline, candidate: Side) -> list[Measured]:
    """Repeat one call on the candidate and compare every tensor.

    Args:
        baseline: What it should give.
        candidate: Where to repeat it.

    Returns:
        One entry for each tensor of the reference; a tensor that is missing, or that only the candidate has, is
        infinitely far off.
    """
    results = replay(baseline.call, candidate)
    measured = compare(results, baseline.truth, baseline.accepted, ignored=baseline.unjudged)
    types = {p: (results[p].dtype, kind) for p, kind in baseline.types.items() if p in results}
    return [
        replace(each, types=types[each.part]) if len(set(types.get(each.part, ()))) > 1 else each for each in measured
    ]


def without_luck(baseline: Baseline, measured: list[Measured], limit: float) -> list[Measured]:
    """Accept of a few numbers what moves of the last bits do to them, where nothing else of a call is over the limit.

    The sum of terms that cancel, such as a bias's gradient in a trained regression, may be exact in the reference by
    luck; then what another order of the terms does to it is many times what the reference did.

    Args:
        baseline: What the call should give.
        measured: What it gave on the candidate.
        limit: The largest ratio that passes.

    Returns:
        The same, in which more may be accepted of tensors that were over the limit.
    """
    over = {each.part for each in measured if not each.ratio <= limit}
    if not over or baseline.reference is None:
        return measured
    short = baseline.reference.precision.short
    few = {part for part in over if part in baseline.truth and _are_few(baseline.truth[part], short)}
    if over != few:
        return measured
    accepted = {part: baseline.accepted[part] for part in few}
    for variation in moves(half=short is not None):
        with suppress(Exception):  # of the user's code, which may refuse what is moved
            results = replay(baseline.call, replace(baseline.reference, variation=variation))
            for part in few & results.keys():
                moved = distance(results[part], baseline.truth[part], slope=short is not None)
                once = _rounded_once(results[part], baseline.reference.precision)
                accepted[part] = accepted[part].larger(moved if moved.finite else SAME).larger(once)
    return [replace(each, accepted=accepted.get(each.part, each.accepted)) for each in measured]


def _are_few(truth: Truth, short: torch.dtype | None) -> bool:
    """Return whether a tensor is a few numbers, in 16 bits also whether it is carried by a few that are large."""
    return truth.tensor.numel() <= FEW or (short is not None and truth.values() <= FEW)


def _rounded_once(tensor: torch.Tensor, precision: Precision) -> Distance:
    """Return a unit roundoff of 16 bits for what was kept in them, though it came back in a longer type.

    So is the gradient of a bias under autocast. A true value close to one that 16 bits hold seldom rounds to another.
    """
    short = precision.short
    if short is None or not tensor.is_floating_point() or not torch.equal(tensor, tensor.to(short).to(tensor.dtype)):
        return SAME
    unit = precision.unit_roundoff(short)
    return Distance(norm=unit, peak=unit, slope=unit)


def compare(
    results: Results, truth: dict[Part, Truth], accepted: dict[Part, Distance], *, ignored: tuple[Part, ...] = ()
) -> list[Measured]:
    """Compare the candidate's tensors with the arbiter's."""
    found = [
        Measured(part=p, distance=_away(results[p], a, accepted[p]) if p in results else FAR, accepted=accepted[p])
        for p, a in truth.items()
        if p in results or p.kind not in OPTIONAL
    ]
    extra = [part for part in results if part not in truth and part not in ignored and part.kind not in OPTIONAL]
    return found + [Measured(part=part, distance=FAR, accepted=SAME) for part in extra]


def _away(tensor: torch.Tensor, truth: Truth, accepted: Distance) -> Distance:
    if accepted.norm and not continuous(tensor):
        return unlike(tensor, truth)
    return distance(tensor, truth, slope=accepted.slope > 0)
