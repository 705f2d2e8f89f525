"""Jobs: what a command asks a process of its own to do, handed over in a file."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from emacheck.train.request import TrainingRequest

Job = TypeVar("Job")


def write_job(job: Any, file: Path) -> None:
    """Write a job, a dataclass of plain values and the ``request`` that it is about, into a file."""
    file.write_text(json.dumps(asdict(job)), encoding="utf-8")


def read_job(kind: Callable[..., Job], file: Path) -> Job:
    """Read a job of a kind from the file into which :func:`write_job` wrote it."""
    fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return kind(request=TrainingRequest.from_fields(fields.pop("request")), **fields)
