"""The process in which an audit runs, so that the command survives whatever a device does to it.

Started as ``python -m emacheck.cli.audit_worker DIRECTORY``.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emacheck.errors import EmacheckError, TrainingError, UsageError
from emacheck.train.launch import WORKER_ENVIRONMENT
from emacheck.train.request import TrainingRequest

if TYPE_CHECKING:
    import torch

    from emacheck.audit.result import AuditResult

JOB_FILE, RESULT_FILE, REFUSAL_FILE, STATE_FILE = "job.json", "result.json", "refusal.txt", "state.json"
PREPARE = "prepare"
REFUSED = 4


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
        processes: How many processes have run beside it, None for none.
        ranks: Where they have left their reports, None without processes.
    """

    request: TrainingRequest
    device: str
    precision: str = "fp32"
    batches: int = 3
    modules: str | None = None
    end_to_end: bool = True
    processes: int | None = None
    ranks: str | None = None


def audit_in_worker(job: AuditJob, *, timeout: float) -> "AuditResult":
    """Run an audit in a process of its own.

    Args:
        job: What to audit.
        timeout: Seconds after which the worker counts as hung.

    Raises:
        UsageError: If the worker refused the job.
        TrainingError: If the worker crashed, was killed or hung.
    """
    from emacheck.audit.result import read_result

    return read_result(_in_worker(job, (), RESULT_FILE, timeout=timeout))


def prepare_in_worker(job: AuditJob, *, timeout: float) -> tuple[str, str]:
    """Prepare the state to audit in a process of its own, so that several processes find it in the cache.

    Args:
        job: What will be audited.
        timeout: Seconds after which the worker counts as hung.

    Returns:
        Where the state is kept, and its SHA-256.

    Raises:
        UsageError: If the worker refused the job.
        TrainingError: If the worker crashed, was killed or hung.
    """
    state = _in_worker(job, (PREPARE,), STATE_FILE, timeout=timeout)
    return state["place"], state["state_hash"]


def _in_worker(job: AuditJob, arguments: tuple[str, ...], answer: str, *, timeout: float) -> Any:
    """Start the worker and return what it wrote into the file of its answer."""
    import os

    with tempfile.TemporaryDirectory(prefix="emacheck-audit-") as place:
        directory = Path(place)
        (directory / JOB_FILE).write_text(json.dumps(asdict(job)), encoding="utf-8")
        command = [sys.executable, "-m", "emacheck.cli.audit_worker", place, *arguments]
        environment = {**WORKER_ENVIRONMENT, **os.environ, "PYTHONUNBUFFERED": "1"}
        try:
            # What the device's libraries print is no part of the result.
            done = subprocess.run(command, env=environment, stdout=sys.stderr, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise TrainingError(
                f"the audit on {job.device} hung: no result after {timeout:g} s, and it was ended. A slower device "
                "needs a longer --timeout, fewer --batches, or --modules."
            ) from error
        if done.returncode == REFUSED:
            raise UsageError((directory / REFUSAL_FILE).read_text(encoding="utf-8").strip())
        if done.returncode != 0:
            raise TrainingError(
                f"the audit on {job.device} {_ended(done.returncode)}; its last words are above. Find the module with "
                "--modules, or shrink the crop with --cfg-options if it ran out of memory."
            )
        return json.loads((directory / answer).read_text(encoding="utf-8"))


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def main(arguments: list[str]) -> int:
    """Run the audit of a directory's job, or only prepare its state, and write what came out there.

    Returns:
        0 with a result, 4 if the job was refused (the reason is in ``refusal.txt``).
    """
    directory = Path(arguments[0])
    fields: dict[str, Any] = json.loads((directory / JOB_FILE).read_text(encoding="utf-8"))
    request = fields.pop("request")
    job = AuditJob(request=TrainingRequest(**{**request, "cfg_options": tuple(request["cfg_options"])}), **fields)
    try:
        if PREPARE in arguments[1:]:
            answer, content = STATE_FILE, prepare_job(job, directory)
        else:
            answer, content = RESULT_FILE, run_job(job, directory).to_json()
    except EmacheckError as error:
        (directory / REFUSAL_FILE).write_text(f"{error}\n", encoding="utf-8")
        return REFUSED
    (directory / answer).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    return 0


def prepare_job(job: AuditJob, scratch: Path) -> dict[str, Any]:
    """Prepare the state to audit; return where it is kept and its hash."""
    from emacheck.cli.audit_training import prepare_training

    click.echo("Preparing the state to audit ...", err=True)
    training = prepare_training(job.request, batches=0, scratch=scratch)
    return {"place": str(training.place), "state_hash": training.state_hash}


def run_job(job: AuditJob, scratch: Path) -> "AuditResult":
    """Run an audit in this process.

    Args:
        job: What to audit.
        scratch: Where mmengine may write its logs.
    """
    from emacheck.audit.precision import Precision
    from emacheck.audit.reference import Plan
    from emacheck.audit.step import audit
    from emacheck.cli.audit_training import invariants, prepare_training

    device = candidate_device(job.device, job.precision)
    click.echo("Preparing the state to audit ...", err=True)
    training = prepare_training(job.request, batches=job.batches, scratch=scratch, processes=job.processes)
    plan = Plan(
        device=device,
        precision=Precision(name=job.precision),
        seed=job.request.seed,
        modules=job.modules,
        end_to_end=job.end_to_end,
        invariants=invariants(),
    )
    result = audit(
        training.subject,
        training.batches,
        plan,
        state_hash=training.state_hash,
        batch_hashes=training.batch_hashes,
        progress=lambda line: click.echo(f"Auditing {line} on {device} ...", err=True),
    )
    if job.ranks is None or job.processes is None:
        return result
    from emacheck.cli.audit_joined import join, with_processes

    click.echo("Holding the processes against one with the joined batch ...", err=True)
    return with_processes(result, join(training, job.processes, plan), Path(job.ranks))


def candidate_device(name: str, precision: str) -> "torch.device":
    """Open the device to audit, in the arithmetic that is asked for.

    Raises:
        UsageError: If there is no such device, or it cannot be asked for the precision.
    """
    import torch

    from emacheck.train.accelerator import open_device
    from emacheck.train.devices import parse_device
    from emacheck.train.precision import check_precision, set_float32

    device = parse_device(name)
    open_device(device)
    check_precision(device, precision)
    set_float32(device, precision)
    return torch.device(str(device))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
