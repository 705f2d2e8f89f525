"""After an audit: rank the operators of what fails, and prove which of them is the cause."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from emacheck.audit.findings.operator_wording import CHOSE, MISCOPIED, message_of
from emacheck.audit.findings.operators import (
    PARTLY,
    PROVEN,
    RIGHT,
    UNPROVEN,
    UNRANKED,
    UNREPEATED,
    UNTRIED,
    Explanation,
    OperatorFindings,
    Trial,
)
from emacheck.audit.findings.result import ITERATION, AuditResult, badness
from emacheck.audit.iteration.calls import OPTIMIZER, Asked, intercepted, module_names
from emacheck.audit.iteration.subject import Candidate, Context, Subject
from emacheck.audit.judging.candidate import Judged, judge_alone, judge_iteration, judge_optimizer
from emacheck.audit.judging.reference import Plan, Reference
from emacheck.audit.limits import OPERATOR
from emacheck.audit.lockstep.end_to_end import Conditions, iterated
from emacheck.audit.lockstep.variations import PLAIN, Variation
from emacheck.audit.operators.called import Called, differing, unseen
from emacheck.audit.operators.copies import miscopied
from emacheck.audit.operators.observer import Observer, first_line
from emacheck.audit.operators.replaced_on_cpu import OnCpu
from emacheck.audit.operators.scopes import Scope, scopes_of
from emacheck.judge.verdict import Outcome

# How many operators are tried together, and after how many seconds no further module is looked at.
MOST_TRIED, MOST_SECONDS = 3, 300.0
# A share of the ratio below which an error counts as smaller.
SMALLER = 0.5

Check = Callable[[Candidate], Judged]


def explain(
    result: AuditResult,
    subject: Subject,
    candidate: Candidate,
    batches: Sequence[Any],
    plan: Plan,
    *,
    always: bool = False,
    progress: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> AuditResult:
    """Add to an audit's result which operators are wrong, and whether they are the cause.

    Nothing that the audit has decided changes. The failing modules that are most to blame run alone once more, every
    operator of theirs on the same inputs on the CPU as well, and then once more for each operator that is tried.

    Args:
        result: The audit's result.
        subject: What was audited.
        candidate: The candidate, as it was audited.
        batches: The batches.
        plan: How it was audited.
        always: Rank the operators of one whole iteration as well, whatever the outcome.
        progress: Called with a line of text before each part.

    Returns:
        The same result with :attr:`AuditResult.operators`; as it is, where there is nothing to explain.
    """
    started = time.monotonic()
    scopes, notes = scopes_of(result)
    if not scopes and not notes and not always:
        return result
    explanations: list[Explanation] = []
    with plan.precision.lists(), torch.inference_mode(False), torch.enable_grad():
        references = _References(subject=subject, batches=batches, plan=plan)
        for scope in scopes:
            if time.monotonic() - started > MOST_SECONDS:
                notes.append(f"{scope.name} was not looked at: the others took {MOST_SECONDS:g} s")
                continue
            progress(f"operators of {scope.name}")
            explanations.append(_guarded(scope, partial(_explained, scope, references, candidate, progress)))
        if always and not any(scope.level == "end to end" for scope in scopes):
            references.known.clear()  # what it holds is large
            scope = Scope(name=ITERATION, level="end to end", batch=1)
            progress("operators of one whole iteration")
            explanations.append(_guarded(scope, partial(_surveyed, scope, candidate, batches[0], plan)))
    findings = OperatorFindings(
        explanations=tuple(explanations), notes=tuple(notes), seconds=round(time.monotonic() - started, 3)
    )
    return replace(result, operators=findings, notes=(*result.notes, *_limits_of(result, findings)))


def _limits_of(result: AuditResult, findings: OperatorFindings) -> Iterator[str]:
    """Yield what a verdict other than FAIL must say: operators that are wrong although no tensor is."""
    if result.outcome is Outcome.FAIL:
        return
    for each in findings.explanations:
        if each.wrong:
            names = ", ".join(row.operator for row in each.wrong[:MOST_TRIED])
            yield (
                f"{names} {'is' if len(each.wrong) == 1 else 'are'} over the limit of an operator, though no tensor "
                "of a module is over its own; the outcome rests on modules"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _References:
    """The reference of each batch, made when it is asked for; only the last one is kept."""

    subject: Subject
    batches: Sequence[Any]
    plan: Plan
    known: dict[int, Reference] = field(default_factory=dict)

    def of(self, number: int) -> Reference:
        if number not in self.known:
            self.known.clear()
            self.known[number] = Reference(
                subject=self.subject, batch=self.batches[number - 1], plan=self.plan, number=number, keep=True
            )
        return self.known[number]


def _guarded(scope: Scope, make: Callable[[], Explanation]) -> Explanation:
    """Say why, if something cannot be explained: the verdict stands whatever a device does here."""
    try:
        return make()
    except Exception as error:  # of the user's code or the device, so it can be anything
        return _unranked(scope, first_line(error))


def _unranked(scope: Scope, why: str, **fields: Any) -> Explanation:
    return Explanation(
        scope=scope.name,
        level=scope.level,
        batch=scope.batch,
        conclusion=UNRANKED,
        message=f"operators of {scope.name} could not be ranked: {why}",
        **fields,
    )


def _explained(
    scope: Scope, references: _References, candidate: Candidate, progress: Callable[[str], None]
) -> Explanation:
    """Rank the operators of one scope, and try which of them is the cause."""
    reference = references.of(scope.batch)
    reference, check = _check(scope, reference)
    plan = reference.plan
    probed = scope.level == "isolated" and scope.batch == 1
    observer = _observer(plan, probed=probed)
    watched = _around(candidate, lambda: observer)
    if scope.name == ITERATION:
        watched = _around(candidate, lambda: _modules_named(observer, candidate), lambda: observer)
    else:
        observer.where.module = scope.name
    with _stepping(observer, candidate):
        before = _outcome(scope, check(watched))
    found = replace(_seen(scope, observer), ratio=before.ratio, limit=before.limit)
    if before.said:
        at = f", in {observer.raised}" if observer.raised else ""
        return _unranked(scope, f"with every operator watched it fails{at} ({before.said})", operators=found.operators)
    if before.passes:
        return _concluded(found, UNREPEATED)
    if not found.suspects:
        if observer.ranking.chose:
            return _concluded(found, RIGHT, also=CHOSE.format(" and ".join(observer.ranking.chose)))
        if miscopied(plan.device):
            return _concluded(found, RIGHT, also=MISCOPIED.format(plan.device))
        return _concluded(found, RIGHT, **_other_calls(scope, reference, candidate))
    return _proven(found, partial(_tried, scope, plan, candidate, check), progress)


def _observer(plan: Plan, *, probed: bool = False) -> Observer:
    limit = plan.limit_of_operators
    return Observer(plan.device, plan.precision, limit=limit, limit_in_float32=OPERATOR, probed=probed)


def _seen(scope: Scope, observer: Observer) -> Explanation:
    """Return what an observer saw, before anything is concluded from it."""
    return Explanation(
        scope=scope.name,
        level=scope.level,
        batch=scope.batch,
        conclusion=UNTRIED,
        message="",
        operators=observer.ranking.ranked(),
        calls=observer.ranking.calls,
        unjudged=observer.ranking.unjudged(),
    )


def _proven(
    found: Explanation, tried: Callable[[tuple[str, ...]], Trial], progress: Callable[[str], None]
) -> Explanation:
    """Repeat the check with the first suspect on the CPU, then with the first two, and so on, until it passes.

    Once more as it is, it must fail: what comes and goes by itself is proof of nothing.
    """
    names = tuple(row.operator for row in found.suspects[:MOST_TRIED])
    trials: list[Trial] = []
    for count in range(1, len(names) + 1):
        progress(f"{found.scope} with {', '.join(names[:count])} on the CPU")
        trials.append(tried(names[:count]))
        if trials[-1].passes:
            break
    if not trials[-1].passes:
        best = min((trial.ratio for trial in trials if not math.isnan(trial.ratio)), default=math.inf)
        found = replace(found, trials=tuple(trials))
        return _concluded(found, PARTLY if best < SMALLER * found.ratio else UNPROVEN)
    progress(f"{found.scope} as it is, once more")
    control = tried(())
    if control.passes:  # then the operators on the CPU did not make it pass
        return _concluded(replace(found, trials=(*trials, control)), UNREPEATED)
    cause = trials[-1].operators
    for name in cause[:-1]:  # without the last one it did not pass
        others = tuple(each for each in cause if each != name)
        progress(f"{found.scope} with {', '.join(others)} on the CPU")
        trials.append(tried(others))
        cause = others if trials[-1].passes else cause
    return _concluded(replace(found, trials=tuple(trials), cause=cause), PROVEN)


def _concluded(found: Explanation, conclusion: str, **hints: str) -> Explanation:
    found = replace(found, conclusion=conclusion)
    return replace(found, message=message_of(found, **hints))


def _around(candidate: Candidate, *contexts: Context) -> Candidate:
    return replace(candidate, around=[*candidate.around, *contexts])


def _tried(scope: Scope, plan: Plan, candidate: Candidate, check: Check, names: tuple[str, ...]) -> Trial:
    on_cpu = OnCpu(names, plan.device, plan.precision)
    after = _outcome(scope, check(_around(candidate, lambda: on_cpu)))
    return Trial(operators=names, ratio=after.ratio, limit=after.limit, passes=after.passes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What a check says of a scope; ``said`` is what was raised, empty if nothing was."""

    ratio: float
    limit: float
    passes: bool
    said: str = ""


def _outcome(scope: Scope, judged: Judged) -> _Outcome:
    """Return the worst of what a check compared that belongs to the scope."""
    whole = scope.level == "end to end"
    mine = [error for error in judged.errors if whole or error.module == scope.name]
    worst = max(mine, key=badness, default=None)
    raised = next((each.message for each in judged.troubles if not each.tensor and each.kind != "invariant"), "")
    if worst is None:
        return _Outcome(ratio=math.nan, limit=math.nan, passes=False, said=raised or "nothing was compared")
    passes = all(error.passes for error in mine) and not judged.troubles
    return _Outcome(ratio=worst.ratio, limit=worst.limit, passes=passes, said=raised)


def _check(scope: Scope, reference: Reference) -> tuple[Reference, Check]:
    """Return the reference of what is looked at, and a function that repeats the check that fails."""
    if scope.name == OPTIMIZER:
        return reference, partial(_checked, judge_optimizer, reference)
    if scope.name == ITERATION:
        return reference, partial(_checked, judge_iteration, reference)
    evaluation = scope.level == "evaluation"
    calls = reference.calls(evaluation=evaluation)
    narrowed = reference.narrowed(call.name for call in calls if (call.depth, call.kind) == (scope.depth, scope.kind))
    return narrowed, partial(_checked, partial(judge_alone, evaluation=evaluation), narrowed)


def _checked(judge: Callable[[Reference, Candidate, Variation, Judged], None], by: Reference, it: Candidate) -> Judged:
    judged = Judged()
    judge(by, it, PLAIN, judged)
    return judged


def _surveyed(scope: Scope, candidate: Candidate, batch: Any, plan: Plan) -> Explanation:
    """Rank the operators of one whole iteration."""
    observer = _observer(plan)
    watched = _around(candidate, lambda: _modules_named(observer, candidate), lambda: observer)
    how = Conditions(device=plan.device, precision=plan.precision, seed=plan.seed, draws=plan.draws)
    try:
        with _stepping(observer, candidate), iterated(watched, batch, how):
            pass
    except Exception as error:  # of the user's code or the device, so it can be anything
        at = f" in {observer.raised}" if observer.raised else ""
        return _unranked(scope, f"the iteration fails{at} ({first_line(error)})", operators=observer.ranking.ranked())
    found = _seen(scope, observer)
    return _concluded(found, UNTRIED if found.wrong else RIGHT)


@contextmanager
def _modules_named(observer: Observer, candidate: Candidate) -> Iterator[None]:
    """Tell the observer which module runs."""

    def handler(asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before, observer.where.module = observer.where.module, asked.name
        try:
            return asked.run(*args, **kwargs)
        finally:
            observer.where.module = before

    model = candidate.model
    with intercepted(list(model.modules()), module_names(model), handler):
        yield


@contextmanager
def _stepping(observer: Observer, candidate: Candidate) -> Iterator[None]:
    """Tell the observer when the optimizer steps."""

    def now(*_: Any, stepping: bool) -> None:
        observer.where.stepping = stepping

    if candidate.optimizer is None:
        yield
        return
    hooks = (
        candidate.optimizer.register_step_pre_hook(partial(now, stepping=True)),
        candidate.optimizer.register_step_post_hook(partial(now, stepping=False)),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _entered(mode: Called) -> Called:
    return mode


def _other_calls(scope: Scope, reference: Reference, candidate: Candidate) -> dict[str, str]:
    """Return hints: what the candidate calls otherwise than the reference does; none if that cannot be told."""
    if reference.plan.names is None:
        return {}
    # Without the probe of the first batch, whose calls are none of the iteration.
    here = replace(reference.narrowed(reference.plan.names), number=0)
    there = replace(here, plan=replace(here.plan, device=torch.device("cpu")))
    called = Called(here.plan.device), Called(there.plan.device)
    try:
        for by, side, notes in zip((here, there), (candidate, reference.subject.twin()), called, strict=True):
            judge_alone(
                by, _around(side, partial(_entered, notes)), PLAIN, Judged(), evaluation=scope.level == "evaluation"
            )
    except Exception:  # of the user's code or the device, so it can be anything
        return {}
    return {"also": differing(*called), "unseen": unseen(*called)}
