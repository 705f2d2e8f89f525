"""Tensors of a whole iteration against the pooled tail of the benign variations."""

import statistics
from collections.abc import Mapping

import torch

from emacheck.audit.end_to_end import Owner
from emacheck.audit.measure import Distance
from emacheck.audit.reference import Plan, Reference, Whole
from emacheck.audit.result import ITERATION, PHASE_OF, TensorError


def whole_errors(reference: Reference, whole: Whole, here: Mapping[Owner, Distance]) -> list[TensorError]:
    """Hold the tensors of a whole iteration against the pooled tail of the benign variations."""
    depths = {call.name: call.depth for call in reference.capture.calls}
    return pooled_errors(whole, here, plan=reference.plan, batch=reference.number, depths=depths, level="end to end")


def pooled_errors(
    whole: Whole, here: Mapping[Owner, Distance], *, plan: Plan, batch: int, depths: Mapping[str, int], level: str
) -> list[TensorError]:
    """Hold the tensors of a whole iteration against the pooled tail of the benign variations.

    A ReLU whose input changes sign in the last bit changes gradients in places, so one tensor's accepted error says
    little about that tensor. Each tensor is held against the largest accepted error of its kind, and the median of a
    kind against the largest median.

    Args:
        whole: What the iteration should give, and what is accepted.
        here: How far each tensor of the candidate is from the arbiter's.
        plan: The limits and the precision.
        batch: Number of the batch.
        depths: Position of each module in the order of the forward pass.
        level: The level of the errors.
    """
    floor = plan.precision.unit_roundoff(torch.float32)
    kinds: dict[str, list[Owner]] = {}
    for owner in here:
        kinds.setdefault(owner[1].kind, []).append(owner)
    found = []
    for kind, owners in kinds.items():
        pools = [[accepted[owner].norm for owner in owners if owner in accepted] for accepted in whole.accepted]
        tail = max([max(pool, default=0.0) for pool in pools] + [floor])
        middle = max([statistics.median(pool) for pool in pools if pool] + [floor])
        rows = [(owner[0], str(owner[1]), here[owner].norm, tail, plan.limits.end_to_end) for owner in owners]
        median = statistics.median(here[owner].norm for owner in owners)
        rows.append((ITERATION, f"median of all {kind}s", median, middle, plan.limits.end_to_end_median))
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
            )
            for module, tensor, observed, accepted, limit in rows
        ]
    return found
