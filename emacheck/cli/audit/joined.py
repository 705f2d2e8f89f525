"""Hold several processes against one process with the joined batch, which computes the same mathematical quantity.

The loss is the mean of the losses of the shares, each normalised as its own process does it; a batch norm that is not
synchronised treats each share by itself; everything else is a mean over samples anyway (docs/processes.md).
"""

import copy
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emacheck.audit.findings.processes import (
    LEVEL,
    OF_RANK,
    RankReport,
    find_between,
    find_whole,
    parse_key,
    read_report,
    reduced_errors,
)
from emacheck.audit.findings.result import AuditResult
from emacheck.cli.audit.rank import REPORTS_FILE, tensors_file
from emacheck.cli.audit.training import ALONE, AuditedTraining, training_loss
from emacheck.counted import counted
from emacheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from emacheck.audit.iteration.subject import Subject
    from emacheck.audit.judging.reference import Plan, Reference
    from emacheck.audit.lockstep.end_to_end import Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """One process that does what several do.

    Attributes:
        training: What is audited, with the joined batches.
        references: The reference and the arbiter on each of them.
        own: Names of those buffers that are each process's own.
        plan: How to audit.
    """

    training: AuditedTraining
    references: list["Reference"]
    own: frozenset[str]
    plan: "Plan"


def join(training: AuditedTraining, size: int, plan: "Plan", *, keep: bool = False) -> Joined:
    """Make one process with the joined batches compute what several processes compute together.

    Args:
        training: The training in one process, in the state that is audited; it is not changed.
        size: How many processes there are.
        plan: How to audit.
        keep: Keep what the reference and the arbiter say, for further candidates.

    Raises:
        UsageError: If the loss of the network cannot be taken share by share.
    """
    from mmengine.model.utils import _BatchNormXd

    from emacheck.audit.iteration.draws import DrawsOfSamples
    from emacheck.audit.iteration.parted import part_batch_norms
    from emacheck.audit.iteration.subject import Subject
    from emacheck.audit.judging.reference import Reference

    model, optimizer = copy.deepcopy((training.subject.model, training.subject.optimizer))
    require_losses_by_share(model)
    # In one process mmengine makes a synchronised batch norm a layer of this class.
    parted = part_batch_norms(model, size, synchronised=_BatchNormXd)
    own = {f"{name}.{buffer}" for name in parted for buffer, _ in model.get_submodule(name).named_buffers()}
    subject, plan = (
        Subject(model=model, optimizer=optimizer, loss=_parted_loss(size)),
        replace(plan, draws=DrawsOfSamples),
    )
    references = [
        Reference(subject=subject, batch=batch, plan=plan, number=number, keep=keep)
        for number, batch in enumerate(training.joined, 1)
    ]
    return Joined(training=training, references=references, own=frozenset(own), plan=plan)


def require_losses_by_share(model: "torch.nn.Module") -> None:
    """Refuse a network whose loss cannot be taken share by share.

    Raises:
        UsageError: If so.
    """
    if not any(hasattr(module, "loss_by_feat") for module in model.modules()):
        raise UsageError(
            f"model: found no head with loss_by_feat in {type(model).__name__}, expected heads of mmsegmentation, "
            f"whose loss can be taken of each share of a batch. {ALONE}"
        )


def _parted_loss(size: int) -> Callable[["torch.nn.Module", Any], dict[str, Any]]:
    from emacheck.train.paired.dropout import start_masks

    def loss(model: "torch.nn.Module", batch: Any) -> dict[str, Any]:
        start_masks(model)
        with ExitStack() as stack:
            for module in model.modules():
                if hasattr(module, "loss_by_feat"):
                    stack.enter_context(_by_share(module, size))
            return training_loss(model, batch)

    return loss


@contextmanager
def _by_share(head: Any, size: int) -> "Iterator[None]":
    """Make a head compute the loss of each share by itself, as its own part of the mean."""
    from emacheck.audit.iteration.parted import share

    whole = head.loss_by_feat

    def loss_by_feat(features: Any, samples: Any, *others: Any, **named: Any) -> dict[str, Any]:
        found = {}
        for rank in range(size):
            losses = whole(share(features, rank, size), share(samples, rank, size), *others, **named)
            found.update({_of_rank(name, rank): value / size for name, value in losses.items()})
        return found

    head.__dict__["loss_by_feat"] = loss_by_feat
    try:
        yield
    finally:
        del head.__dict__["loss_by_feat"]


def _of_rank(name: str, rank: int) -> str:
    return f"{name}{OF_RANK}{rank}"


def with_processes(
    result: AuditResult,
    joined: Joined,
    directory: Path,
    *,
    progress: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> AuditResult:
    """Add to the audit of one process what several processes did.

    Args:
        result: The audit of one process.
        joined: What one process with the joined batches does.
        directory: Where the processes have left their reports.
        progress: Called with a line of text before each batch.
    """
    from emacheck.audit.iteration.subject import named_tensors
    from emacheck.audit.judging.pooling import overflowed, whole_errors
    from emacheck.audit.judging.premises import find_unfit_together
    from emacheck.audit.lockstep.end_to_end import distances
    from emacheck.audit.step import peak_memory
    from emacheck.train.paired.fingerprint import sample_hashes, tensor_hash

    started = time.monotonic()
    reports, plan, training = read_reports(directory), joined.plan, joined.training
    depths = {error.module: error.depth for error in result.errors}
    between = find_between(
        reports,
        start={name: tensor_hash(each) for name, each in named_tensors(training.subject.model, remove_duplicate=False)},
        samples=[sample_hashes(batch) for batch in training.joined],
        own=joined.own,
    )
    roundoff = plan.precision.unit_roundoff(_dtype(training.subject))
    errors = reduced_errors(reports, unit_roundoff=roundoff, limit=plan.limits.isolated, depths=depths)
    unfit, unjudged = [], []
    for reference in joined.references:
        progress(f"batch {reference.number} of {len(joined.references)}")
        whole = reference.iteration()
        trouble = find_unfit_together(whole, reference.number)
        if trouble is not None:
            unfit.append(trouble)
            errors = [error for error in errors if error.batch != reference.number]
            continue
        here = distances(together(reports, reference.number, directory), whole.truth)
        errors += whole_errors(reference, whole, here, depths=depths, level=LEVEL)
        unjudged += overflowed(whole)
    explained = bool(result.findings or between)
    found = [*between, *unfit, *find_whole(errors, size=len(reports), explained=explained)]
    return replace(
        result,
        errors=(*result.errors, *errors),
        findings=(*result.findings, *found),
        notes=(*result.notes, *_notes(joined, unjudged)),
        ranks=tuple(report.device for report in reports),
        seconds=result.seconds + time.monotonic() - started,
        peak_memory=peak_memory(),
    )


def read_reports(directory: Path) -> list[RankReport]:
    """Read the reports of all processes, by rank."""
    return [read_report(fields) for fields in json.loads((directory / REPORTS_FILE).read_text(encoding="utf-8"))]


def _dtype(subject: "Subject") -> "torch.dtype":
    return next(subject.model.parameters()).dtype


def together(reports: list[RankReport], number: int, directory: Path) -> "Found":
    """Return what the processes did on a batch: the loss of each as its part of the mean, and rank 0's tensors."""
    import torch

    from emacheck.audit.arithmetic.measure import on_host
    from emacheck.audit.iteration.calls import LOSS
    from emacheck.audit.lockstep.parts import Part

    found: Found = {}
    for report in reports:
        for name, value in report.batches[number - 1].losses.items():
            part = Part("output", _of_rank(name, report.rank))
            found[LOSS, part] = partial(torch.tensor, value / len(reports), dtype=torch.float64)
    for name, tensor in torch.load(directory / tensors_file(number), weights_only=True).items():
        kind, module, path = parse_key(name)
        found[module, Part(kind, path)] = partial(on_host, tensor)
    return found


def _notes(joined: Joined, unjudged: list[str]) -> list[str]:
    notes = []
    if joined.own:
        notes.append(
            f"{len(joined.own)} statistics of batch norms that are not synchronised are each process's own; those of "
            "rank 0 were compared"
        )
    if unjudged:
        notes.append(
            f"of several processes {counted(len(set(unjudged)), 'tensor was', 'tensors were')} not judged, because "
            f"{joined.plan.precision.name} itself overflows there; the first is {unjudged[0]}"
        )
    return notes
