"""The process in which an audit runs, so that the command survives whatever a device does to it.

Started as ``python -m emacheck.cli.audit.worker DIRECTORY``.
"""

import faulthandler
import gc
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    read_job,
)
from emacheck.errors import EmacheckError
from emacheck.module_path import with_working_directory_last
from emacheck.train.launching.last_words import QUESTION
from emacheck.train.launching.parent import end_with_parent

if TYPE_CHECKING:
    import torch

    from emacheck.audit.findings.result import AuditResult
    from emacheck.audit.judging.reference import Plan
    from emacheck.cli.audit.training import AuditedTraining


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
    from emacheck.audit.operators.explain import explain
    from emacheck.audit.step import audit
    from emacheck.judge.verdict import Outcome
    from emacheck.on_cpu import ran_on_the_cpu
    from emacheck.train.device.accelerator import fallback_allowed, step_marker
    from emacheck.train.device.devices import parse_device

    progress, training = partial(say, scratch), _prepared(job, scratch)
    # Again, for what a configuration imports may have set it otherwise.
    _as_asked(str(device), job.precision)
    plan, candidate = _plan(job, device), training.subject.twin()
    candidate.mark_step = step_marker(parse_device(job.device))
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


def _plan(job: AuditJob, device: "torch.device") -> "Plan":
    from emacheck.audit.arithmetic.precision import Precision
    from emacheck.audit.judging.reference import Plan
    from emacheck.cli.audit.training import invariants

    return Plan(
        device=device,
        precision=Precision(name=job.precision),
        seed=job.request.seed,
        modules=job.modules,
        end_to_end=job.end_to_end,
        invariants=invariants(),
        cpu_fallback=job.cpu_fallback,
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
