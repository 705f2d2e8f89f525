"""The audit of any torch model: reference, arbiter and candidate on the same batches from the same state."""

import resource
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeVar, cast

import torch

from emacheck.audit.arguments import require_on_the_cpu, require_options, require_steps_of, require_types
from emacheck.audit.arithmetic.float32 import notes_on_float32
from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.findings.result import AuditResult, ModuleFinding, find
from emacheck.audit.iteration.calls import OPTIMIZER
from emacheck.audit.iteration.capture import LossFunction
from emacheck.audit.iteration.compiled import require_uncompiled
from emacheck.audit.iteration.fallback import CpuFallback
from emacheck.audit.iteration.originals import not_updated, outside, untouched
from emacheck.audit.iteration.shared_code import SharedCode
from emacheck.audit.iteration.state import state_digest
from emacheck.audit.iteration.subject import Candidate, Subject
from emacheck.audit.judging.candidate import Judged, judge
from emacheck.audit.judging.premises import find_unfit
from emacheck.audit.judging.reference import Plan, Reference
from emacheck.audit.limits import Limits
from emacheck.audit.operators.explain import explain
from emacheck.counted import counted, the_first
from emacheck.dispatch.executed import Executed
from emacheck.errors import UsageError
from emacheck.judge.verdict import Outcome
from emacheck.on_cpu import ran_on_the_cpu

Prepare = Callable[[Candidate], Any]
Network = TypeVar("Network", bound=torch.nn.Module)
# Generators, the number of threads and what is replaced in torch belong to the whole process.
_ONE_AT_A_TIME = threading.RLock()


def audit_step(
    model: Network,
    optimizer: torch.optim.Optimizer | None,
    batch: Any,
    loss: Callable[[Network, Any], Any],
    device: torch.device | str,
    *,
    precision: str = "fp32",
    prepare: Prepare | None = None,
    modules: str | None = None,
    seed: int = 0,
    evaluation: bool = True,
    end_to_end: bool = True,
    cpu_fallback: bool = False,
    operators: bool = False,
    limits: Limits | None = None,
) -> AuditResult:
    r"""Audit one training iteration of any model on a device, tensor by tensor, against float64 on the CPU.

    Every call of every module that the reference makes is repeated alone on the device, with the reference's inputs
    and output gradients, and so are the loss and the optimizer's step; then one whole iteration. A tensor c of the
    candidate and a of the arbiter are judged by

        (||c - a|| / ||a||) / max(accepted, u)  <=  limit

    and likewise with the maximum norm, where *accepted* is the same distance for the accepted precision on the CPU and
    u its unit roundoff. The model and the optimizer are not modified. Audits of several threads wait for each other;
    nothing else of torch should run in the process meanwhile.

    Args:
        model: The network on the CPU, in the mode in which it trains. Its state should be live and well-conditioned,
            such as that after a few training iterations.
        optimizer: The optimizer over the model's parameters, or None to audit no step.
        batch: What the loss function takes, on the CPU.
        loss: Called with model and batch, returns a scalar or a mapping of scalars whose sum is differentiated. It
            finds both on one device, and moves nothing.
        device: Where the candidate runs, such as ``"cuda"``.
        precision: The accepted precision: ``fp32``, ``tf32``, ``bf16`` or ``fp16`` (autocast, which the audit enters
            itself; one that surrounds the call is left while it runs). The switches of torch
            that let the device compute float32 with fewer bits are used as they stand. On CUDA convolutions use TF32 by
            default, so for ``fp32`` switch it off first: ``torch.backends.cuda.matmul.allow_tf32 = False`` and
            ``torch.backends.cudnn.allow_tf32 = False``.
        prepare: Called with the candidate before it runs; it may replace modules by ported ones, or break something,
            and functions that all sides share through ``candidate.patch``.
        modules: Glob over module names; only those are run alone.
        seed: Seed of all random draws, such as dropout masks.
        evaluation: Audit the forward pass in evaluation mode as well.
        end_to_end: Run a whole iteration as well.
        cpu_fallback: Run operators that the device lacks on the CPU; a note names them, for they were not audited.
        operators: Find out as well which ATen operators of the device are wrong, in the modules that fail and in one
            whole iteration, and prove which of them is the cause. It explains an outcome and never changes it.
        limits: The limits, None for the calibrated ones; others are an ``emacheck.audit.limits.Limits``.

    Returns:
        The result; its ``outcome`` is PASS, FAIL or INCONCLUSIVE, and the result itself neither true nor false.

    Raises:
        UsageError: If an argument is of another kind, the precision is unknown, model, optimizer, batch or torch's
            default device are not on the CPU, the model is wrapped to be parallel, the optimizer has none of its
            parameters or computes losses by itself, as LBFGS does, the loss does not depend on the model, runs the
            backward pass itself or reaches the original model or other parameters of the optimizer, what hangs on them
            cannot be copied, an iteration registers buffers, anything is compiled by torch.compile, the device is not
            there, modules matches nothing, or prepare replaces functions of torch or methods of the model's classes for
            all sides.

    Example:
        A network that is not for images, with an optimizer that is not SGD; first as it is, then with a fault.

        >>> import torch, emacheck
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Dropout(0.1),
        ...                             torch.nn.LayerNorm(16), torch.nn.Linear(16, 1))
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> batch = (torch.randn(32, 8), torch.randn(32, 1))
        >>> def loss(model, batch):
        ...     return torch.nn.functional.mse_loss(model(batch[0]), batch[1])
        >>> print(emacheck.audit_step(model, optimizer, batch, loss, "cpu").outcome)
        PASS
        >>> def wrong_epsilon(candidate):
        ...     candidate.model[3].eps = 1e-3
        >>> result = emacheck.audit_step(model, optimizer, batch, loss, "cpu", prepare=wrong_epsilon)
        >>> print(result.outcome, result.module, result.phase)
        FAIL 3 forward
    """
    require_types(model, optimizer, loss)
    require_options(modules, seed, limits)
    require_on_the_cpu(model, optimizer, batch)
    require_steps_of(optimizer, model)
    plan = Plan(
        device=_opened(device),
        precision=Precision(name=precision),
        limits=limits or Limits(),
        seed=seed,
        modules=modules,
        evaluation=evaluation,
        end_to_end=end_to_end,
        cpu_fallback=cpu_fallback,
    )
    subject = Subject(model=model, optimizer=optimizer, loss=cast("LossFunction", loss))
    # Whatever the caller's mode is, an iteration needs gradients.
    with _ONE_AT_A_TIME, torch.inference_mode(False), torch.enable_grad(), _without_autocast(plan.device):
        candidate = _prepared(subject, prepare)
        result = audit(subject, [batch], plan, candidate=candidate)
        return explain(result, subject, candidate, [batch], plan, always=True) if operators else result


def audit(
    subject: Subject,
    batches: Sequence[Any],
    plan: Plan,
    *,
    candidate: Candidate | None = None,
    state_hash: str | None = None,
    batch_hashes: Sequence[str] = (),
    progress: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> AuditResult:
    """Audit a subject on several batches, each from the same state.

    Args:
        subject: What is audited.
        batches: The batches.
        plan: How.
        candidate: A twin of the subject, perhaps with a fault; None for one without.
        state_hash: Hash of the shared state, computed if it is not given.
        batch_hashes: Hashes of the batches, for the record.
        progress: Called with a line of text before each batch.
    """
    started = time.monotonic()
    candidate = subject.twin() if candidate is None else candidate
    require_uncompiled(subject, candidate)
    fallback, executed = CpuFallback(), Executed()
    # Entered first, it is asked last: after whatever else changes what runs.
    if plan.device.type != "cpu":
        candidate.around.insert(0, lambda: executed)
    if plan.cpu_fallback:
        # It answers what nothing else did.
        candidate.around.insert(0, lambda: fallback)
    judged: list[Judged] = []
    foreign: frozenset[str] = frozenset()
    notes = _notes_on_optimizer(subject, candidate)
    refused: dict[str, str] = {}
    with plan.precision.lists():
        for number, batch in enumerate(batches, 1):
            progress(f"batch {number} of {len(batches)}")
            reference = Reference(subject=subject, batch=batch, plan=plan, number=number)
            if number == 1:
                unsteady = _checked(reference)
                if unsteady is not None:
                    judged.append(Judged(troubles=[unsteady]))
                    break
            unfit = find_unfit(reference)
            if unfit is not None:
                judged.append(Judged(troubles=[unfit]))
                continue
            judged.append(judge(reference, candidate))
            foreign |= reference.capture.foreign_draws
            notes += reference.notes
            refused = reference.refused | refused
    errors = tuple(error for each in judged for error in each.errors)
    troubles = [trouble for each in judged for trouble in each.troubles]
    return AuditResult(
        device=str(plan.device),
        precision=plan.precision.name,
        errors=errors,
        findings=find(errors, troubles),
        notes=(
            # What one batch says of the subject the others say as well.
            *(*dict.fromkeys(notes), *_notes_on(subject)),
            *ran_on_the_cpu(str(plan.device), fallback=executed.without_kernel, on_host=executed.on_host),
            *_notes(judged, foreign, plan, fallback.used, refused),
        ),
        state_hash=state_hash or state_digest(dict(subject.model.state_dict())),
        batch_hashes=tuple(batch_hashes),
        seconds=time.monotonic() - started,
        peak_memory=peak_memory(),
    )


def _opened(name: torch.device | str) -> torch.device:
    """Return a device to which a number can be brought, and back."""
    try:
        device = torch.device(name)
        torch.ones(1).to(device).to("cpu")
    except Exception as error:  # of the device's library, so it can be anything
        first = next(iter(str(error).strip().splitlines()), "")
        raise UsageError(
            f"found device {name}, to which not even one number can be brought ({type(error).__name__}: {first}), "
            "expected one that is there and known to torch; import the package of a device outside of torch first."
        ) from error
    return device


@contextmanager
def _without_autocast(device: torch.device) -> Iterator[None]:
    """Leave an autocast of the caller: in it the accepted error would be that of 16 bits, whatever is accepted."""
    with ExitStack() as stack:
        for kind in {"cpu", device.type}:
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _prepared(subject: Subject, prepare: Prepare | None) -> Candidate:
    """Let the user prepare a twin, and complain if that changed what the reference runs as well."""
    candidate = subject.twin()
    if prepare is None:
        return candidate
    code = SharedCode(candidate.model)
    try:
        prepare(candidate)
    finally:
        replaced = code.put_back()
    if replaced:
        raise UsageError(
            f"found {', '.join(replaced)} replaced by prepare, for the reference as well, so that no difference could "
            "show; it was put back. Expected a change of the candidate alone: candidate.patch(owner, name, value)."
        )
    return candidate


def _checked(reference: Reference) -> ModuleFinding | None:
    """Refuse an iteration in which there is nothing to audit; return a finding if it does not repeat."""
    with untouched(reference.subject):
        unsteady = find_unsteady(reference)
        if unsteady is None:
            _require_gradients(reference)
            _require_buffers(reference)
            _require_modules(reference)
    return unsteady


def _require_gradients(reference: Reference) -> None:
    if not reference.capture.gradients:
        raise UsageError(
            "found no gradient at any parameter of the model after the backward pass, expected some; the loss function "
            "must call the model that it is given, and its parameters must require gradients."
        )


def _require_buffers(reference: Reference) -> None:
    registered = reference.capture.registered
    if registered:
        raise UsageError(
            f"found buffer {the_first(registered, 1)} registered by the iteration itself, expected every buffer to be "
            "there before it, because all sides start from the same state. Run the model once before the audit, as in "
            "a few training iterations, or register the buffer where the module is built."
        )


def _require_modules(reference: Reference) -> None:
    optimizer = [] if reference.subject.optimizer is None else [OPTIMIZER]
    require_match(reference.plan.modules, [*dict.fromkeys(call.name for call in reference.capture.calls), *optimizer])


def require_match(modules: str | None, names: Sequence[str]) -> None:
    """Raise UsageError if a glob over names of modules matches none; None matches all."""
    if modules is not None and not any(fnmatchcase(name, modules) for name in names):
        raise UsageError(
            f"found modules {modules}, which matches nothing that the iteration calls, expected a glob over names such "
            f"as {', '.join(names[:3])}."
        )


def find_unsteady(reference: Reference) -> ModuleFinding | None:
    """Run the reference's iteration twice; return a finding if it does not repeat bit for bit."""
    first, second = reference.capture.digests, reference.captured().digests
    different = next((one[0] for one, two in zip(first, second, strict=False) if one != two), None)
    if different is None and len(first) == len(second):
        return None
    name = different or "the number of calls"
    drawn = ", ".join(sorted(reference.capture.foreign_draws))
    advice = (
        f"It draws with {drawn}, whose numbers cannot be given to every side."
        if drawn
        else "Draw random numbers with torch, and keep no state outside of the model."
    )
    return ModuleFinding(
        module=name.split(" ", 1)[0],
        kind="reference",
        outcome=Outcome.INCONCLUSIVE,
        phase="forward",
        introduced=True,
        tensor=name,
        message=(
            f"the reference itself does not repeat: {name} is the first that differs between two iterations from the "
            f"same state on the CPU. {advice}"
        ),
    )


def _notes_on_optimizer(subject: Subject, candidate: Candidate) -> list[str]:
    missing = not_updated(subject, candidate)
    if not missing:
        return []
    return [
        f"the candidate's optimizer does not hold {the_first(missing, 1)} of its model, so it never updates "
        f"{'them' if len(missing) > 1 else 'it'}; a port takes over the parameters of the module that it replaces"
    ]


def _notes_on(subject: Subject) -> tuple[str, ...]:
    more = len(outside(subject))
    notes = [f"{more} parameters of the optimizer are not the model's, and were not audited"] if more else []
    if not any(module.training for module in subject.model.modules()):
        notes.append("the whole model is in evaluation mode, and was audited so; call model.train() if it is to train")
    return tuple(notes)


def _notes(
    judged: Sequence[Judged],
    foreign: frozenset[str],
    plan: Plan,
    on_the_cpu: Collection[str],
    refused: Mapping[str, str],
) -> tuple[str, ...]:
    notes = list(notes_on_float32(plan.device, plan.precision.name))
    if on_the_cpu:
        notes.append(
            f"{plan.device} lacks {', '.join(sorted(on_the_cpu))}; they ran on the CPU, so they say nothing about it"
        )
    if foreign:
        notes.append(f"drawn on the device and so not comparable: {', '.join(sorted(foreign))}")
    if refused:
        names, why = the_first(list(refused), 1), next(iter(refused.values()))
        notes.append(f"{names} cannot run in a benign variation, which does not count there; the first in {why}")
    unjudged = sorted({name for each in judged for name in each.unjudged})
    if unjudged:
        notes.append(
            f"{counted(len(unjudged), 'tensor was', 'tensors were')} not judged, because {plan.precision.name} itself "
            f"overflows there, or the last bits of its numbers decide an integer; the first is {unjudged[0]}"
        )
    if not plan.end_to_end:
        notes.append("no whole iteration was run")
    if plan.modules is not None:
        notes.append(f"only modules that match {plan.modules} ran in isolation")
    return tuple(notes)


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    kilo = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilo if sys.platform == "darwin" else kilo * 1024
