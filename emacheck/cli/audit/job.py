"""Jobs: what a command asks a process of its own to do, and the files in which it does so and is answered."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from emacheck.train.request import TrainingRequest

JOB_FILE, RESULT_FILE, REFUSAL_FILE, PROGRESS_FILE = "job.json", "result.json", "refusal.txt", "progress.txt"
STATE_FILE, PREPARE = "state.json", "prepare"
# What the audit has decided, before operators are ranked: it stands whatever the device does then.
DECIDED_FILE = "decided.json"
REFUSED, UNTRAINABLE = 4, 5

Job = TypeVar("Job")


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


def write_job(job: Any, file: Path) -> None:
    """Write a job, a dataclass of plain values and the ``request`` that it is about, into a file."""
    file.write_text(json.dumps(asdict(job)), encoding="utf-8")


def read_job(kind: Callable[..., Job], file: Path) -> Job:
    """Read a job of a kind from the file into which :func:`write_job` wrote it."""
    fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return kind(request=TrainingRequest.from_fields(fields.pop("request")), **fields)
