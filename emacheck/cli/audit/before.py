"""The audit that ``emacheck run`` makes of the device: before the training, or after it where nodes wait."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from emacheck.cli.audit.command import JSON_FILE, PAGE_FILE, PICTURE_FILE, TEXT_FILE, write_audit
from emacheck.cli.audit.job import AuditJob
from emacheck.cli.audit.ranks import audit_processes
from emacheck.cli.audit.supervision import audit_in_worker
from emacheck.cli.command_line import given_command
from emacheck.cli.training import interruptible
from emacheck.errors import UsageError
from emacheck.judge.verdict import Outcome
from emacheck.printable import MESSAGE_LENGTH, printable
from emacheck.train.launching.processes import Processes
from emacheck.train.request import TrainingRequest

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult

BATCHES = 3
LOG_FILE = "audit.log"
# A batch takes as long as dozens of iterations: --timeout is about one of these.
PATIENCE = 3
INSTEAD = "To train and judge without the audit: --no-audit."


def audit_device(
    request: TrainingRequest,
    processes: Processes,
    directory: Path,
    *,
    batches: int | None,
    timeout: float,
    operators: bool | None = None,
) -> "AuditResult | None":
    """Audit the device on which a training runs, and what its processes exchange; write it beside the record.

    A FAIL does not end the command: the training that follows shows what the fault does to the curves.

    Args:
        request: The training; its device, precision, configuration, seed and threads are audited.
        processes: Those that train. Of several, those of this node are audited, and the device of the first alone.
        directory: The run's directory.
        batches: How many batches, or None for no audit.
        timeout: Seconds without a new iteration after which a training counts as hung; the audit gets three times that.
        operators: Whether to find out which operators are wrong: None after a FAIL, True always.

    Returns:
        What was found; None without an audit.

    Raises:
        UsageError: If the audit was refused, or the training would be.
        TrainingError: If the audit crashed, was killed or hung.
    """
    if batches is None:
        return None
    here = Processes(launched=processes.launched, nproc_per_node=processes.nproc_per_node)
    several = f" and {here.world_size} processes" if here.world_size > 1 else ""
    click.echo(f"Auditing {request.device} in {request.precision}{several}; --no-audit skips this ...", err=True)
    job = AuditJob(
        # The reference and the state are made on the CPU in fp32, whatever the candidate is.
        request=replace(request, iterations=1, device="cpu", precision="fp32", backend=None, log_format=None),
        device=request.device,
        precision=request.precision,
        batches=batches,
        trained_by=processes.world_size,
        operators=operators,
    )
    with interruptible(lambda: "there is no result of the audit"), _log(directory) as log:
        result = _audit(job, here, request.backend, timeout=PATIENCE * timeout, log=log)
    if processes.nnodes > 1:
        result = replace(result, notes=(*result.notes, _of_nodes(processes)))
    write_audit(result, directory, command=given_command())
    click.echo(_told(result, directory), err=True)
    return result


@contextlib.contextmanager
def _log(directory: Path) -> Iterator[Path]:
    """Yield where the audit's log goes; an audit that was refused leaves none, nor does another that says nothing."""
    log = directory / LOG_FILE
    try:
        yield log
    except BaseException as error:
        if log.is_file() and (isinstance(error, UsageError) or not log.stat().st_size):
            log.unlink()
        raise


def _audit(job: AuditJob, processes: Processes, backend: str | None, *, timeout: float, log: Path) -> "AuditResult":
    if processes.world_size == 1:
        return audit_in_worker(job, timeout=timeout, log=log, instead=INSTEAD)
    result = audit_processes(job, processes, backend, timeout=timeout, log=log, instead=INSTEAD)
    return cast("AuditResult", result)  # None is for other nodes, and these processes are of one


def _of_nodes(processes: Processes) -> str:
    count = processes.nproc_per_node
    mine = "one process" if count == 1 else f"{count} processes"
    return (
        f"of {processes.nnodes} nodes, only that of rank 0 was audited, with {mine}; the devices of the others, and "
        "what the nodes exchange, were not (emacheck audit with the same --nnodes, --node-rank and --master-addr does "
        "the latter)"
    )


def _told(result: "AuditResult", directory: Path) -> str:
    """Return what the audit found, to be read before the training is over."""
    from emacheck.audit.findings.verdict import audit_finding

    finding = audit_finding(result)
    files = f"{directory / PAGE_FILE}; {TEXT_FILE}, {JSON_FILE}, {PICTURE_FILE} beside it"
    said = f"Audit: {finding.outcome}. {printable(finding.message, length=MESSAGE_LENGTH)} ({files})"
    if finding.outcome is Outcome.PASS:
        return said
    verdict = "will be FAIL" if finding.outcome is Outcome.FAIL else "cannot be PASS"
    return f"{said}\nThe verdict {verdict}. The training goes on, so that the report holds what the curves say as well."
