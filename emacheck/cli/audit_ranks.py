"""The processes of ``emacheck audit --nproc-per-node N``: start them, watch them, and keep what they leave."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emacheck.cli.audit_rank import REPORTS_FILE, RankJob
from emacheck.errors import EmacheckError
from emacheck.train.launch import Program, run_program

if TYPE_CHECKING:
    from emacheck.train.processes import Processes

RANKS = Program(
    module="emacheck.cli.audit_rank", title="the audit of the processes", kept="what the processes printed is kept"
)


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
    job.write(directory)

    click.echo(f"Auditing {job.batches} joined batches in {processes.world_size} processes ...", err=True)
    run_program(
        RANKS,
        directory,
        progress=lambda number, loss: None,  # noqa: ARG005
        timeout=timeout,
        processes=processes,
        threads=job.request.threads,
        iterations=job.batches,
    )
    return (directory / REPORTS_FILE).is_file()
