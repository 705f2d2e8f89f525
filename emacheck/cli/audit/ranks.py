"""The audit of several processes: prepare what they share, start and watch them, and judge what they leave."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emacheck.cli.audit.job import AuditJob, write_job
from emacheck.cli.audit.rank import JOB_FILE, REPORTS_FILE, RankJob
from emacheck.cli.audit.supervision import audit_in_worker, prepare_in_worker
from emacheck.cli.refusals import heard_by_other_nodes
from emacheck.counted import counted
from emacheck.errors import EmacheckError
from emacheck.train.launching.supervision import Program, run_program

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult
    from emacheck.train.launching.processes import Processes

RANKS = Program(
    module="emacheck.cli.audit.rank", title="the audit of the processes", kept="what the processes printed is kept"
)


def audit_processes(
    job: AuditJob,
    processes: "Processes",
    backend: str | None,
    *,
    timeout: float,
    log: Path | None = None,
    instead: str = "",
) -> "AuditResult | None":
    """Audit the device of one process, and what several processes do together.

    The processes run first, so that one that dies is reported before the long part.

    Args:
        job: What to audit.
        processes: How many processes there are, and on which nodes.
        backend: Another communication backend than the device's own, or None.
        timeout: Seconds without progress after which the audit counts as hung.
        log: Where what the audit's own process prints goes; standard error if None.
        instead: How to go on without the audit; the end of a message about a crash, a hang or a refusal.

    Returns:
        What was found; None where rank 0 ran on another node.

    Raises:
        UsageError: If the audit was refused.
        TrainingError: If a process crashed, was killed or hung.
        KeyboardInterrupt: If the user interrupted; all processes have ended.
    """
    job = replace(job, processes=processes.world_size)
    # Another node needs the state alone: what is held against one process is held where rank 0 runs.
    preparing = job if processes.node_rank == 0 else replace(job, batches=0)
    request = replace(job.request, device=job.device, precision=job.precision)
    with heard_by_other_nodes(RANKS, processes, lambda: request, timeout=timeout):
        place, state_hash = prepare_in_worker(preparing, timeout=timeout, log=log, instead=instead)
    ranks = RankJob(
        request=job.request,
        device=job.device,
        backend=backend,
        precision=job.precision,
        batches=job.batches,
        place=place,
        state_hash=state_hash,
    )
    with scratch_directory() as directory:
        try:
            if not run_ranks(ranks, directory, processes=processes, timeout=timeout):
                return None
        except EmacheckError as error:
            raise type(error)(f"{error}\n{instead}".rstrip()) from error
        return audit_in_worker(replace(job, ranks=str(directory)), timeout=timeout, log=log, instead=instead)


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """Make a directory for what the processes leave; if they fail, what they printed stays in it, and nothing else.

    Yields:
        The directory.
    """
    directory = Path(tempfile.mkdtemp(prefix="emacheck-ranks-"))
    try:
        yield directory
    except EmacheckError as error:
        for file in directory.glob("*.pt"):
            file.unlink()
        if str(directory) not in str(error):
            shutil.rmtree(directory, ignore_errors=True)
        raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


def run_ranks(job: RankJob, directory: Path, *, processes: "Processes", timeout: float) -> bool:
    """Run the processes of an audit until all have reported.

    Args:
        job: What each is asked to do.
        directory: Where they leave their reports and their tensors.
        processes: How many there are, and on which nodes.
        timeout: Seconds without a finished batch of any process after which they count as hung.

    Returns:
        Whether rank 0 ran here, so that there is something to judge.

    Raises:
        UsageError: If a process refused.
        TrainingError: If a process crashed, was killed or hung.
    """
    write_job(job, directory / JOB_FILE)

    batches = counted(job.batches, "joined batch", "joined batches")
    click.echo(f"Auditing {batches} in {counted(processes.world_size, 'process', 'processes')} ...", err=True)
    run_program(
        RANKS,
        directory,
        progress=lambda number, loss: None,  # noqa: ARG005
        timeout=timeout,
        processes=processes,
        request=replace(job.request, device=job.device, precision=job.precision),
        iterations=job.batches,
    )
    return (directory / REPORTS_FILE).is_file()
