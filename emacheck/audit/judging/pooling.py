"""Tensors of a whole iteration against the pooled tail of the benign variations."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from emacheck.audit.arithmetic.measure import Distance
from emacheck.audit.findings.result import ITERATION, PHASE_OF, TensorError
from emacheck.audit.judging.reference import Plan, Reference, Whole
from emacheck.audit.lockstep.end_to_end import Owner


def whole_errors(
    reference: Reference, whole: Whole, here: Mapping[Owner, Distance], *, depths: Mapping[str, int], level: str
) -> list[TensorError]:
    """Hold the tensors of a whole iteration against the pooled tail of the benign variations.

    The losses are few numbers, of which the reference may be right by luck. Where nothing else is over its limit, what
    moves of the last bits do to them is accepted as well.

    Args:
        reference: The reference of the batch.
        whole: What the iteration should give, and what is accepted.
        here: How far each tensor of the candidate is from the arbiter's.
        depths: Position of each module in the order of the forward pass.
        level: The level of the errors.
    """

    def held(accepted: Whole) -> list[TensorError]:
        return pooled_errors(accepted, here, plan=reference.plan, batch=reference.number, depths=depths, level=level)

    errors = held(whole)
    over = [error for error in errors if not error.ratio <= error.limit]
    if not over or any(error.phase != "loss" for error in over):
        return errors
    return held(replace(whole, accepted=(*whole.accepted, *reference.moved_losses(whole))))


def pooled_errors(
    whole: Whole, here: Mapping[Owner, Distance], *, plan: Plan, batch: int, depths: Mapping[str, int], level: str
) -> list[TensorError]:
    """Hold the tensors of a whole iteration against the pooled tail of the benign variations.

    A ReLU whose input changes sign in the last bit changes gradients in places, so one tensor's accepted error says
    little about that tensor. Each tensor is held against the largest accepted error of its kind, and the median of a
    kind against the largest median.

    A tensor that is zero but for rounding, such as the gradient of a bias before a batch norm, has a relative error
    that says nothing about others. It is left out of both, and its absolute error is held against

        max(largest accepted error of its kind x norm of its kind, largest absolute accepted error of such tensors)

    Args:
        whole: What the iteration should give, and what is accepted.
        here: How far each tensor of the candidate is from the arbiter's.
        plan: The limits and the precision.
        batch: Number of the batch.
        depths: Position of each module in the order of the forward pass.
        level: The level of the errors.
    """
    floor = plan.precision.unit_roundoff(torch.float32)
    found = []
    for kind, pool in _pools(whole, here, plan.precision.vague).items():
        tail = max([*pool.accepted, floor])
        rows = [(owner[0], str(owner[1]), here[owner].norm, tail, plan.limits.end_to_end) for owner in pool.clear]
        if pool.clear:
            median = statistics.median(here[owner].norm for owner in pool.clear)
            middle = max([*pool.medians, floor])
            rows.append((ITERATION, f"median of all {kind}s", median, middle, plan.limits.end_to_end_median))
        absolute = max([tail * pool.scale, *pool.absolute])
        vague = [(o[0], str(o[1]), here[o].absolute, absolute, plan.limits.end_to_end) for o in pool.vague]
        found += [
            TensorError(
                module=module,
                kind="",
                tensor=tensor,
                phase="loss" if kind == "output" else PHASE_OF[kind],
                level=level,
                batch=batch,
                depth=depths.get(module, 0),
                error=observed,
                accepted=accepted,
                limit=limit,
                measure=measure,
            )
            for measure, group in (("norm", rows), ("absolute", vague))
            for module, tensor, observed, accepted, limit in group
        ]
    return found


def overflowed(whole: Whole) -> list[str]:
    """Return the tensors of a whole iteration to which nothing can be held, as the accepted precision overflows."""
    return [
        f"{module} {part} of a whole iteration"
        for module, part in whole.truth
        if not all(math.isfinite(each[module, part].absolute) for each in whole.accepted)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """Tensors of one kind.

    Attributes:
        clear: Those that the accepted precision knows, and those of the candidate alone.
        vague: Those that are zero but for rounding.
        accepted: The largest accepted error of the clear ones in each variation.
        medians: Their median accepted error in each variation.
        absolute: The absolute accepted errors of the vague ones.
        scale: The norm of all of the arbiter's tensors of this kind together.
    """

    clear: Sequence[Owner]
    vague: Sequence[Owner]
    accepted: Sequence[float]
    medians: Sequence[float]
    absolute: Sequence[float]
    scale: float


def _pools(whole: Whole, here: Mapping[Owner, Distance], vague: float) -> dict[str, _Pool]:
    kinds: dict[str, list[Owner]] = {}
    for owner in here:
        kinds.setdefault(owner[1].kind, []).append(owner)
    return {kind: _pool(whole, owners, vague) for kind, owners in kinds.items()}


def _pool(whole: Whole, owners: Sequence[Owner], vague: float) -> _Pool:
    accepted = {owner: [each[owner] for each in whole.accepted if owner in each] for owner in owners}
    clear = [owner for owner in owners if all(each.norm < vague for each in accepted[owner])]
    pools = [[each[owner].norm for owner in clear if owner in each] for each in whole.accepted]
    rest = [owner for owner in owners if not all(each.norm < vague for each in accepted[owner])]
    absolute = {owner: max(each.absolute for each in accepted[owner]) for owner in rest}
    absolute = {owner: largest for owner, largest in absolute.items() if math.isfinite(largest)}
    norms = [whole.truth[owner].norm for owner in owners if owner in whole.truth]
    return _Pool(
        clear=clear,
        vague=list(absolute),
        accepted=[max(pool) for pool in pools if pool],
        medians=[statistics.median(pool) for pool in pools if pool],
        absolute=list(absolute.values()),
        scale=math.hypot(*filter(math.isfinite, norms)),
    )
