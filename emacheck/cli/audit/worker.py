"""The process in which an audit runs, so that the command survives whatever a device does to it.

Started as ``python -m emacheck.cli.audit.worker DIRECTORY``.
"""

import contextlib
import faulthandler
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emacheck.cli.audit.job import read_job, write_job
from emacheck.errors import EmacheckError, TrainingError, UsageError
from emacheck.exit_code import how_it_ended
from emacheck.module_path import safe_path, with_working_directory_last
from emacheck.train.launching.last_words import ANSWER_SECONDS, QUESTION, ask, hint_of, last_words_in
from emacheck.train.launching.launch import POLL_SECONDS, WORKER_ENVIRONMENT, end_worker
from emacheck.train.launching.parent import MARK, end_with_parent
from emacheck.train.request import TrainingRequest

if TYPE_CHECKING:
    import torch

    from emacheck.audit.findings.result import AuditResult
    from emacheck.cli.audit.training import AuditedTraining

JOB_FILE, RESULT_FILE, REFUSAL_FILE, PROGRESS_FILE = "job.json", "result.json", "refusal.txt", "progress.txt"
STATE_FILE, PREPARE = "state.json", "prepare"
# What the audit has decided, before operators are ranked: it stands whatever the device does then.
DECIDED_FILE = "decided.json"
REFUSED, UNTRAINABLE = 4, 5
# Seconds without progress after which nothing more is waited for where the outcome is known.
RANKING_PATIENCE = 600.0
# An audit copies many large tensors; glibc would take the pages of each from the system and give them back every time.
# It runs each convolution in several ways; oneDNN keeps 1024 kernels and would compile most of them again and again.
AUDIT_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditJob:
    """One audit, completely described.

    Attributes:
        request: The training that is audited.
        device: The candidate device.
        precision: The accepted precision.
        batches: Number of batches.
        modules: Glob over the modules that run alone, None for all.
        end_to_end: Whether whole iterations run as well.
        cpu_fallback: Whether the CPU may run what the device lacks.
        operators: Whether to find out which operators are wrong: None after a FAIL, True always.
        trained_by: How many processes will train afterwards, None for no training; what they would refuse is refused
            before the audit.
        processes: How many processes are audited as well, None for none.
        ranks: Where they have left their reports, None as long as they have not run.
    """

    request: TrainingRequest
    device: str
    precision: str = "fp32"
    batches: int = 3
    modules: str | None = None
    end_to_end: bool = True
    cpu_fallback: bool = False
    operators: bool | None = None
    trained_by: int | None = None
    processes: int | None = None
    ranks: str | None = None


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


def prepare_in_worker(job: AuditJob, *, timeout: float, log: Path | None = None, instead: str = "") -> tuple[str, str]:
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
    log: Path | None = None,
    instead: str = "",
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
                **safe_path(),
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
        problem = _problem(job, directory, said, code=None if hung else worker.returncode, timeout=timeout)
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
        return TrainingError(
            f"the audit on {job.device} {how_it_ended(code)} {after}.\n{said}{hint_of(said)}\n"
            "Find the module with emacheck audit --modules GLOB, or shrink the crop with --cfg-options if it ran out "
            "of memory."
        )
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


def main(arguments: list[str]) -> int:
    """Run the audit of a directory's job, or only prepare its state, and write what came out there.

    Returns:
        0 with a result, 4 if the job was refused, 5 if its training would be as well (``refusal.txt`` says why).
    """
    directory = Path(arguments[0])
    with_working_directory_last()
    end_with_parent()
    # Asked where it hangs, a process answers with a traceback on standard error.
    faulthandler.register(QUESTION, all_threads=False)
    job = read_job(AuditJob, directory / JOB_FILE)
    code = UNTRAINABLE
    try:
        device = candidate_device(job.device, job.precision)
        if job.trained_by is not None:
            _refuse_as_the_training(job, directory)
        code = REFUSED
        if PREPARE in arguments[1:]:
            answer, content = STATE_FILE, prepare_job(job, directory)
        else:
            answer, content = RESULT_FILE, run_job(job, device, directory).to_json()
    except EmacheckError as error:
        (directory / REFUSAL_FILE).write_text(f"{error}\n", encoding="utf-8")
        return code if code == UNTRAINABLE else _why(error)
    _write(directory / answer, content)
    return 0


def _why(error: EmacheckError) -> int:
    from emacheck.train.building import UnbuildableError

    return UNTRAINABLE if isinstance(error, UnbuildableError) else REFUSED


def _refuse_as_the_training(job: AuditJob, scratch: Path) -> None:
    """Refuse before the audit what the training would refuse after it: the configuration, or another experiment."""
    from emacheck.train.device.vanilla_mmengine import ask_for_precision
    from emacheck.train.presets import resolve
    from emacheck.train.worker import describe_experiment, refuse_other_experiment

    request = replace(job.request, precision=job.precision)
    config, _ = resolve(request, scratch)
    ask_for_precision(config, request.precision)
    refuse_other_experiment(request, describe_experiment(request, config, processes=job.trained_by or 1))


def say(directory: Path, line: str) -> None:
    """Tell the command that watches this process what comes next."""
    with (directory / PROGRESS_FILE).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def prepare_job(job: AuditJob, scratch: Path) -> dict[str, Any]:
    """Prepare the state to audit; return where it is kept and its hash."""
    from emacheck.cli.audit.joined import require_losses_by_share

    training = _prepared(job, scratch)
    if job.processes is not None:
        require_losses_by_share(training.subject.model)
    return {"place": str(training.place), "state_hash": training.state_hash}


def _prepared(job: AuditJob, scratch: Path) -> "AuditedTraining":
    from emacheck.cli.audit.training import prepare_training

    progress = partial(say, scratch)
    progress("Preparing the state to audit")
    # What is imported and built here stays, and looking for garbage in it again and again takes a second.
    gc.disable()
    try:
        return prepare_training(
            job.request,
            batches=job.batches,
            scratch=scratch,
            processes=job.processes,
            check=partial(_require_possible, job),
            progress=progress,
        )
    finally:
        gc.freeze()
        gc.enable()


def _require_possible(job: AuditJob, model: "torch.nn.Module", batches: list[Any]) -> None:
    """Refuse what the audit would refuse after a minute: modules that are not there, or more than the memory holds."""
    from emacheck.audit.iteration.calls import LOSS, MODEL, OPTIMIZER
    from emacheck.audit.step import require_match
    from emacheck.cli.audit.memory import refuse_too_large

    names = [name for name, _ in model.named_modules() if name]
    require_match(job.modules, [*names, MODEL, LOSS, OPTIMIZER])
    if job.modules is None and batches:
        refuse_too_large(batches, processes=job.processes)


def run_job(job: AuditJob, device: "torch.device", scratch: Path) -> "AuditResult":
    """Run an audit in this process.

    Args:
        job: What to audit.
        device: The candidate device, open.
        scratch: Where mmengine may write its logs.
    """
    from emacheck.audit.arithmetic.precision import Precision
    from emacheck.audit.judging.reference import Plan
    from emacheck.audit.operators.explain import explain
    from emacheck.audit.step import audit
    from emacheck.cli.audit.training import invariants
    from emacheck.judge.verdict import Outcome
    from emacheck.on_cpu import ran_on_the_cpu
    from emacheck.train.device.accelerator import fallback_allowed
    from emacheck.train.device.devices import parse_device

    progress, training = partial(say, scratch), _prepared(job, scratch)
    # Again, for what a configuration imports may have set it otherwise.
    _as_asked(str(device), job.precision)
    plan = Plan(
        device=device,
        precision=Precision(name=job.precision),
        seed=job.request.seed,
        modules=job.modules,
        end_to_end=job.end_to_end,
        invariants=invariants(),
        cpu_fallback=job.cpu_fallback,
    )
    candidate = training.subject.twin()
    result = audit(
        training.subject,
        training.batches,
        plan,
        candidate=candidate,
        state_hash=training.state_hash,
        batch_hashes=training.batch_hashes,
        progress=lambda line: progress(f"Auditing {line} on {device}"),
    )
    allowed = ran_on_the_cpu(str(device), allowed=fallback_allowed(parse_device(job.device)))
    result = replace(result, notes=(*training.notes, *allowed, *result.notes))
    if job.ranks is not None and job.processes is not None:
        from emacheck.cli.audit.joined import join, with_processes

        result = with_processes(
            result,
            join(training, job.processes, plan),
            Path(job.ranks),
            progress=lambda line: progress(f"Holding {job.processes} processes against one with the joined {line}"),
        )
    if job.operators is False or not (job.operators or result.outcome is Outcome.FAIL):
        return result
    _write(scratch / DECIDED_FILE, result.to_json())
    return explain(
        result,
        training.subject,
        candidate,
        training.batches,
        plan,
        always=job.operators is True,
        progress=lambda line: progress(f"Ranking {line}"),
    )


def _write(file: Path, content: Any) -> None:
    """Write a file that is there as a whole or not at all."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    unfinished.replace(file)


def candidate_device(name: str, precision: str) -> "torch.device":
    """Open the device to audit, in the arithmetic that is asked for.

    Raises:
        UsageError: If there is no such device, or it cannot be asked for the precision.
    """
    import torch

    from emacheck.train.device.accelerator import open_device
    from emacheck.train.device.devices import parse_device
    from emacheck.train.device.precision import check_autocast, check_precision

    device = parse_device(name)
    open_device(device)
    check_precision(device, precision)
    check_autocast(device, precision)
    _as_asked(name, precision)
    return torch.device(str(device))


def _as_asked(name: str, precision: str) -> None:
    from emacheck.train.device.devices import parse_device
    from emacheck.train.device.precision import set_float32

    set_float32(parse_device(name), precision)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
