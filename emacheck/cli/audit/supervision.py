"""Start the process that audits, watch it, and read what it leaves, whatever the device does to it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emacheck.cli.audit.job import (
    DECIDED_FILE,
    JOB_FILE,
    PREPARE,
    PROGRESS_FILE,
    REFUSAL_FILE,
    REFUSED,
    RESULT_FILE,
    STATE_FILE,
    UNTRAINABLE,
    AuditJob,
    write_job,
)
from emacheck.errors import TrainingError, UsageError
from emacheck.exit_code import how_it_ended
from emacheck.module_path import own_process
from emacheck.train.launching.hints import disk_is_full, hint_of
from emacheck.train.launching.last_words import ANSWER_SECONDS, ask, last_words_in
from emacheck.train.launching.parent import MARK
from emacheck.train.launching.supervision import POLL_SECONDS, WORKER_ENVIRONMENT, end_worker

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult

# Seconds without progress after which nothing more is waited for where the outcome is known.
RANKING_PATIENCE = 600.0
SMALLER = (
    "Find the module with emacheck audit --modules GLOB, or shrink the crop with --cfg-options if it ran out of memory."
)
# An audit copies many large tensors; glibc would take the pages of each from the system and give them back every time.
# It runs each convolution in several ways; oneDNN keeps 1024 kernels and would compile most of them again and again.
AUDIT_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
}


def audit_in_worker(job: AuditJob, *, timeout: float, log: Path | None = None, instead: str = "") -> "AuditResult":
    """Run an audit in a process of its own, which ends with this one whatever happens.

    Args:
        job: What to audit.
        timeout: Seconds without progress after which the worker counts as hung.
        log: Where what the worker and the device's libraries print goes; standard error if None.
        instead: How to go on without the audit; the end of a message about a crash, a hang or a refusal.

    Raises:
        UsageError: If the worker refused the job.
        TrainingError: If the worker crashed, was killed or hung.
        KeyboardInterrupt: If the user interrupted; the worker has ended.
    """
    from emacheck.audit.findings.result import read_result

    return read_result(_in_worker(job, (), RESULT_FILE, timeout=timeout, log=log, instead=instead))


def prepare_in_worker(job: AuditJob, *, timeout: float, log: Path | None, instead: str) -> tuple[str, str]:
    """Prepare the state to audit in a process of its own, so that several processes find it in the cache.

    Args:
        job: What will be audited; what would be refused later is refused now.
        timeout: Seconds without progress after which the worker counts as hung.
        log: Where what the worker and the device's libraries print goes; standard error if None.
        instead: How to go on without the audit; the end of a message about a crash, a hang or a refusal.

    Returns:
        Where the state is kept, and its SHA-256.

    Raises:
        UsageError: If the worker refused the job.
        TrainingError: If the worker crashed, was killed or hung.
    """
    state = _in_worker(job, (PREPARE,), STATE_FILE, timeout=timeout, log=log, instead=instead)
    return state["place"], state["state_hash"]


def _in_worker(
    job: AuditJob,
    arguments: tuple[str, ...],
    answer: str,
    *,
    timeout: float,
    log: Path | None,
    instead: str,
) -> Any:
    """Start the worker, watch it, and return what it wrote into the file of its answer."""
    with (
        tempfile.TemporaryDirectory(prefix="emacheck-audit-") as place,
        Path(os.devnull if log is None else log).open("ab") as output,
    ):
        directory, mark = Path(place), uuid.uuid4().hex
        write_job(job, directory / JOB_FILE)
        worker = subprocess.Popen(
            [sys.executable, "-m", "emacheck.cli.audit.worker", place, *arguments],
            # The worker ends when this pipe closes, however this process ends.
            stdin=subprocess.PIPE,
            # What the device's libraries print is no part of the result.
            stdout=sys.stderr if log is None else output,
            stderr=None if log is None else subprocess.STDOUT,
            start_new_session=True,
            env={
                **WORKER_ENVIRONMENT,
                **AUDIT_ENVIRONMENT,
                **own_process(),
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                MARK: mark,
            },
        )
        try:
            hung = _watch(worker, directory, timeout)
        finally:
            end_worker(worker, mark)
        said = "Its last words are above." if log is None else last_words_in(log)
        logs = () if log is None else (log,)
        hint = hint_of(said, *logs)
        problem = _problem(job, directory, said + hint, code=None if hung else worker.returncode, timeout=timeout)
        if problem is not None and (directory / DECIDED_FILE).is_file() and not (directory / answer).is_file():
            return _unranked(directory, problem)
        if problem is not None:
            # What the training refuses as well is refused with and without an audit.
            raise type(problem)(f"{problem} {instead if worker.returncode != UNTRAINABLE else ''}".rstrip())
        return json.loads((directory / answer).read_text(encoding="utf-8"))


def _unranked(directory: Path, problem: Exception) -> Any:
    """Return what the audit has decided, with a note that says why operators could not be ranked."""
    from emacheck.audit.findings.operators import OperatorFindings

    fields = json.loads((directory / DECIDED_FILE).read_text(encoding="utf-8"))
    first = str(problem).splitlines()[0].rstrip(".")
    note = f"operators could not be ranked: {first}; the outcome was decided before"
    return {**fields, "operators": OperatorFindings(notes=(note,)).to_json()}


def _problem(
    job: AuditJob, directory: Path, said: str, *, code: int | None, timeout: float
) -> TrainingError | UsageError | None:
    """Return why there is no result, or None if there is one; the code is None if the worker hung."""
    after = f"after {_progress(directory)!r}"
    if code is None:
        return TrainingError(
            f"the audit on {job.device} hung: no progress for {timeout:g} s {after}, and it was ended.\n{said}\n"
            "A slower device needs a longer --timeout."
        )
    if code in (REFUSED, UNTRAINABLE):
        return UsageError((directory / REFUSAL_FILE).read_text(encoding="utf-8").strip())
    if code != 0:
        full = disk_is_full(directory)
        advice = f"{full} TMPDIR says where that is." if full else f"\n{SMALLER}"
        return TrainingError(f"the audit on {job.device} {how_it_ended(code)} {after}.\n{said}{advice}")
    return None


def _watch(worker: "subprocess.Popen[bytes]", directory: Path, timeout: float) -> bool:
    """Wait for the worker and say what it does; return True if it makes no progress, having asked it where it is."""
    seen, since = _progress(directory), time.monotonic()
    while worker.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(POLL_SECONDS)
        if (now := _progress(directory)) != seen:
            seen, since = now, time.monotonic()
            click.echo(f"{now} ...", err=True)
        patience = min(timeout, RANKING_PATIENCE) if (directory / DECIDED_FILE).exists() else timeout
        if worker.returncode is None and time.monotonic() - since > patience:
            ask(worker.pid)
            time.sleep(ANSWER_SECONDS)
            return True
    return False


def _progress(directory: Path) -> str:
    """Return what the worker said last that it would do."""
    try:
        return (directory / PROGRESS_FILE).read_text(encoding="utf-8").rstrip("\n").rpartition("\n")[2]
    except FileNotFoundError:
        return "its start"
