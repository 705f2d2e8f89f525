"""Hold one candidate against the reference of one batch."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import torch

from emacheck.audit.arithmetic.measure import SAME, Distance
from emacheck.audit.findings.result import ITERATION, PHASE_OF, ModuleFinding, TensorError
from emacheck.audit.iteration.calls import LOSS, OPTIMIZER, Call
from emacheck.audit.iteration.capture import forget
from emacheck.audit.iteration.nested import tensors
from emacheck.audit.iteration.repeats import Repeats
from emacheck.audit.iteration.subject import Candidate
from emacheck.audit.judging.invariants import first_complaint
from emacheck.audit.judging.pooling import overflowed, whole_errors
from emacheck.audit.judging.premises import find_unfit_afterwards, find_unfit_step
from emacheck.audit.judging.reference import Reference
from emacheck.audit.judging.watch import Held, Watch
from emacheck.audit.lockstep.any_answer import LeftOpen
from emacheck.audit.lockstep.end_to_end import Conditions, distances, iterated
from emacheck.audit.lockstep.isolated import Baseline, Measured, measure, without_luck
from emacheck.audit.lockstep.optimizer import stepped
from emacheck.audit.lockstep.parts import Part
from emacheck.audit.lockstep.poison import swallowed
from emacheck.audit.lockstep.replay import replay
from emacheck.audit.lockstep.side import Side
from emacheck.audit.lockstep.trouble import trouble, unable
from emacheck.audit.lockstep.variations import PLAIN, Variation
from emacheck.judge.verdict import Outcome


@dataclass(slots=True, kw_only=True, eq=False)
class Judged:
    """What was found about one candidate on one batch.

    Attributes:
        errors: Every tensor that was compared.
        troubles: What could not run, and invariants that do not hold.
        unjudged: Tensors in which the accepted precision itself overflows, or whose last bits decide an integer.
        accepted: Accepted error of every output of a module that ran alone, by module and path.
    """

    errors: list[TensorError] = field(default_factory=list)
    troubles: list[ModuleFinding] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    accepted: dict[tuple[str, str], Distance] = field(default_factory=dict)


@contextmanager
def evaluating(model: torch.nn.Module, *, on: bool) -> Iterator[None]:
    """Put a model into evaluation mode, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    if on:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def judge(reference: Reference, candidate: Candidate, *, variation: Variation = PLAIN) -> Judged:
    """Run everything that the plan asks for on the candidate and compare it.

    Args:
        reference: The reference and the arbiter on one batch.
        candidate: A twin of the subject, perhaps with a fault.
        variation: A benign variation of how the candidate computes.
    """
    plan, judged = reference.plan, Judged()
    judge_alone(reference, candidate, variation, judged, evaluation=False)
    if not reference.keep:
        forget(reference.capture)
    if plan.evaluation and reference.number == 1:
        judge_alone(reference, candidate, variation, judged, evaluation=True)
    # One step with one set of gradients says what an optimizer does; further batches would repeat it.
    if reference.subject.optimizer is not None and plan.wants(OPTIMIZER) and reference.number == 1:
        judge_optimizer(reference, candidate, variation, judged)
    if plan.end_to_end:
        judge_iteration(reference, candidate, variation, judged)
    return judged


def judge_alone(
    reference: Reference, candidate: Candidate, variation: Variation, judged: Judged, *, evaluation: bool
) -> None:
    """Judge every call that the plan wants, alone."""
    plan, watch = reference.plan, Watch()
    side = Side(
        model=candidate.model,
        loss=_loss(candidate),
        device=plan.device,
        precision=plan.precision,
        variation=variation,
        seed=plan.seed,
        # Entered last, the watch sees what a broken kernel returns.
        around=(*candidate.around, lambda: watch),
        mark_step=candidate.mark_step,
    )
    with evaluating(candidate.model, on=evaluation):
        for baseline in reference.isolated(evaluation=evaluation):
            call = baseline.call
            if baseline.unable is not None:
                if call.differentiates and plan.end_to_end:  # what is played back has no second derivative
                    continue
                judged.troubles.append(unable(baseline.unable, module=call.name, kind=call.kind))
                continue
            if not evaluation:
                _remember(judged, baseline)
            judged.unjudged += [f"{call.label} {part}" for part in baseline.unjudged]
            try:
                measured = without_luck(baseline, measure(baseline, side), plan.limit_alone)
                held = watch.drain()
                vanished = swallowed(call, baseline.nans, side, baseline.reference)
            except Exception as error:
                judged.troubles.append(
                    trouble(error, module=call.name, kind=call.kind, phase="forward", device=str(plan.device))
                )
            else:
                judged.errors += [_error(reference, call, one, evaluation=evaluation) for one in measured]
                if any(not one.ratio <= plan.limit_alone for one in measured) or any(vanished.values()):
                    reference.notes += _left_open(baseline)
                judged.errors += [_held(reference, call, one, evaluation=evaluation) for one in held]
                judged.errors += [_vanished(reference, call, part, share) for part, share in vanished.items()]
            watch.drain()


def _left_open(baseline: Baseline) -> list[str]:
    """Return a note for each operator of a call that is over a limit whose answer torch leaves to the device."""
    call, watch = baseline.call, LeftOpen()
    if baseline.reference is None:
        return []
    with suppress(Exception):  # of the user's code, which may refuse to be watched
        replay(call, replace(baseline.reference, around=(*baseline.reference.around, lambda: watch)))
    return [
        f"{call.name} ({call.kind}) is over a limit and runs {name}, whose answer torch leaves to the device there "
        f"({why}): before you believe it, allow one answer only (stable=True, sorted=True, no index twice)"
        for name, why in watch.found.items()
    ]


def _remember(judged: Judged, baseline: Baseline) -> None:
    for part, accepted in baseline.accepted.items():
        if part.kind == "output":
            place = baseline.call.name, part.path
            judged.accepted[place] = accepted.larger(judged.accepted.get(place, SAME))


def _loss(candidate: Candidate) -> Callable[[torch.nn.Module, object], object]:
    change = candidate.change_batch
    if change is None:
        return candidate.loss
    return lambda model, batch: candidate.loss(model, change(batch))


def _error(reference: Reference, call: Call, measured: Measured, *, evaluation: bool) -> TensorError:
    part = measured.part
    scalar = part.kind == "output" and (call.name == LOSS or _is_scalar(call, part))
    which, error, accepted = measured.distance.worst(measured.accepted)
    return TensorError(
        module=_owner(call, part),
        kind=call.kind,
        tensor=f"{part}" if call.index == 0 else f"{part} of call {call.index + 1}",
        phase="loss" if scalar else PHASE_OF[part.kind],
        level="evaluation" if evaluation else "isolated",
        batch=reference.number,
        depth=call.depth,
        error=error,
        accepted=accepted,
        limit=reference.plan.limit_alone,
        measure=which,
        types=_types(measured),
    )


def _types(measured: Measured) -> str:
    if measured.types is None:
        return ""
    here, there = (str(each).removeprefix("torch.") for each in measured.types)
    return f"which is {here} there and {there} on the reference"


def _held(reference: Reference, call: Call, held: Held, *, evaluation: bool) -> TensorError:
    return TensorError(
        module=call.name,
        kind=call.kind,
        tensor=held.tensor,
        phase=held.phase,
        level="evaluation" if evaluation else "isolated",
        batch=reference.number,
        depth=call.depth,
        error=held.error,
        accepted=held.accepted,
        limit=reference.plan.limit_alone,
    )


def _vanished(reference: Reference, call: Call, part: Part, share: float) -> TensorError:
    return TensorError(
        module=_owner(call, part),
        kind=call.kind,
        tensor=f"NaN that became a number in {part}",
        phase="forward",
        level="isolated",
        batch=reference.number,
        depth=call.depth,
        error=share,
        accepted=0.0,
        limit=reference.plan.limit_alone,
    )


def _is_scalar(call: Call, part: Part) -> bool:
    return any(path == part.path and tensor.dim() == 0 for path, tensor in tensors(call.output))


def _owner(call: Call, part: Part) -> str:
    """Return the module whose code made a tensor.

    What a module hands to a module deep inside another one is made by code of that other one: a head's loss function
    is called by the model and calls a module of the head.
    """
    if part.kind not in ("input of", "gradient at"):
        return call.name
    inner = part.path.split(" ", 1)[0]
    prefix = "" if call.name.startswith("(") else f"{call.name}."
    below = inner.removeprefix(prefix).split(".")
    # A module that is not inside of the caller was lent to it.
    if not inner.startswith(prefix) or len(below) == 1 or below[1].isdecimal():
        return call.name
    return f"{prefix}{below[0]}"


def judge_optimizer(reference: Reference, candidate: Candidate, variation: Variation, judged: Judged) -> None:
    """Judge one step of the optimizer."""
    plan = reference.plan
    try:
        whole = reference.optimizer()
    except Exception as error:  # of the user's code, so it can be anything
        judged.troubles.append(unable(error, module=OPTIMIZER, kind=_kind(candidate)))
        return
    unfit = find_unfit_step(whole, reference.number)
    if unfit is not None:
        judged.troubles.append(unfit)
        return
    how = Conditions(device=plan.device, precision=plan.precision, variation=variation, seed=plan.seed)
    try:
        with stepped(candidate, reference.capture.gradients, how) as found:
            here = distances(found, whole.truth)
    except Exception as error:
        judged.troubles.append(
            trouble(error, module=OPTIMIZER, kind=_kind(candidate), phase="optimizer", device=str(plan.device))
        )
        return
    floor = plan.precision.unit_roundoff(torch.float32)
    for (module, part), distance in here.items():
        known = whole.accepted[0].get((module, part), SAME).larger(Distance(norm=floor, peak=floor))
        if not math.isfinite(known.absolute):
            judged.unjudged.append(f"{part} in {module} after the optimizer's step")
            continue
        which, observed, accepted = distance.worst(known)
        judged.errors.append(
            TensorError(
                module=OPTIMIZER,
                kind=_kind(candidate),
                tensor=f"{part.kind} {module}.{part.path}" if part.kind == "update" else f"{part} in {module}",
                phase="optimizer",
                level="isolated",
                batch=reference.number,
                depth=len(reference.capture.calls),
                error=observed,
                accepted=accepted,
                limit=plan.limits.isolated,
                measure=which,
            )
        )


def _kind(candidate: Candidate) -> str:
    return type(candidate.optimizer).__name__


def judge_iteration(reference: Reference, candidate: Candidate, variation: Variation, judged: Judged) -> None:
    """Judge one whole iteration."""
    plan = reference.plan
    try:
        whole = reference.iteration()
    except Exception as error:  # of the user's code, so it can be anything
        judged.troubles.append(unable(error, module=ITERATION, kind="whole iteration"))
        return
    how = Conditions(device=plan.device, precision=plan.precision, variation=variation, seed=plan.seed)
    again = Repeats(names=reference.repeats.names)
    try:
        with again.watching(candidate) as watched, iterated(watched, reference.batch, how) as found:
            here = distances(found, whole.truth)
            broken = first_complaint(plan.invariants, candidate.model, reference.subject.model)
    except Exception as error:
        judged.troubles.append(
            trouble(error, module=ITERATION, kind="whole iteration", phase="forward", device=str(plan.device))
        )
        return
    unfit = find_unfit_afterwards(reference)
    if unfit is not None:
        judged.troubles.append(unfit)
    elif broken:
        judged.troubles.append(
            ModuleFinding(
                module=ITERATION,
                kind="invariant",
                outcome=Outcome.FAIL,
                phase="buffers" if "buffer" in broken else "backward",
                introduced=False,
                message=f"after one iteration, {broken}",
            )
        )
    judged.troubles += _repeated(reference, again, judged)
    depths = {call.name: call.depth for call in reference.capture.calls}
    judged.errors += whole_errors(reference, whole, here, depths=depths, level="end to end")
    judged.unjudged += overflowed(whole)


def _repeated(reference: Reference, again: Repeats, judged: Judged) -> list[ModuleFinding]:
    """Blame modules that gave another output when activation checkpointing repeated them, where the reference did not.

    Both calls may be off by the limit, each in its own direction.
    """
    limit, found = 2 * reference.plan.limit_alone, []
    for name, different in again.different.items():
        if name in reference.repeats.different:
            continue
        ratio = max(
            (
                away.over(judged.accepted[name, path])
                for path, away in different.outputs.items()
                if (name, path) in judged.accepted
            ),
            default=0.0,
        )
        if not ratio <= limit:
            found.append(
                ModuleFinding(
                    module=name,
                    kind=different.kind,
                    outcome=Outcome.FAIL,
                    phase="backward",
                    introduced=True,
                    tensor="output when its call was repeated",
                    ratio=ratio,
                    limit=limit,
                    count=len(different.outputs),
                    message=(
                        f"{name} ({different.kind}) gives another output when activation checkpointing repeats its "
                        "call in the backward pass with the same inputs"
                    ),
                )
            )
    return found
