"""Start the worker, watch it through the record it writes, and survive whatever happens to it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from emacheck.errors import MissingExtraError, OutputError, TrainingError, UsageError
from emacheck.train.request import REFUSAL_FILE, WORKER_LOG, TrainingRequest

ITERATIONS_FILE = "iterations.jsonl"
REFUSED = 4
POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0
LAST_WORDS = 12
# Threads that spin while they wait make an iteration ten times slower as soon as anything else runs on the machine.
WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "memoryerror")

Progress = Callable[[int, float], None]


@dataclass(slots=True, kw_only=True)
class RecordTail:
    """Follows a growing ``iterations.jsonl`` and reports each complete line once."""

    path: Path
    recorded: int = 0
    _at: int = 0

    def advance(self, progress: Progress) -> bool:
        """Report new iterations; return True if there were any."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        end = new.rfind(b"\n") + 1
        self._at += end
        for line in new[:end].splitlines():
            self.recorded += 1
            loss = json.loads(line)["metrics"].get("loss", "NaN")
            progress(self.recorded, float(loss))
        return end > 0


def require_training_packages() -> None:
    """Raise MissingExtraError if a package that training needs is not installed; nothing is imported."""
    missing = [name for name in ("torch", "mmengine", "mmcv", "mmseg") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"training needs {', '.join(missing)}, which is not installed here. Install the extra: "
            "pip install 'emacheck[train]' (on a vendor image that brings its own torch: "
            "pip install onedl-mmengine onedl-mmcv onedl-mmsegmentation). "
            "Judging logs works without: emacheck compare LOG_A LOG_B"
        )


def make_run_directory(path: Path) -> None:
    """Create a run directory that does not exist yet or is empty.

    Raises:
        OutputError: If it holds something already or cannot be written.
    """
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(
                f"--work-dir {path}: found something there already, expected a new or empty directory; "
                "nothing was overwritten. Choose another one, or remove it first."
            )
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"--work-dir {path}: cannot be written ({error.strerror}). Choose a directory you may write to."
        ) from error


def train_in_worker(request: TrainingRequest, run_directory: Path, *, progress: Progress, timeout: float) -> None:
    """Train a request in a subprocess until its record is complete.

    Args:
        request: What to train.
        run_directory: An existing, empty directory for the record.
        progress: Called with iteration number and loss after each iteration.
        timeout: Seconds without a new iteration after which the worker counts as hung.

    Raises:
        UsageError: If the worker refused the request.
        TrainingError: If the worker crashed, was killed or hung; the partial record stays.
        KeyboardInterrupt: If the user interrupted; the worker has ended and the partial record stays.
    """
    require_training_packages()
    request.write(run_directory)
    tail = RecordTail(path=run_directory / ITERATIONS_FILE)
    with (run_directory / WORKER_LOG).open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "emacheck.train.worker", str(run_directory)],
            # The worker ends when this pipe closes, however this process ends.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**WORKER_ENVIRONMENT, **os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            hung = _watch(worker, tail, progress, timeout)
        finally:
            _end(worker)
    if hung:
        raise TrainingError(
            f"the worker hung: no new iteration for {timeout:g} s after iteration {tail.recorded}; it was ended.\n"
            f"{_last_words(run_directory)}\nA slower device needs a longer --timeout."
        )
    if worker.returncode == REFUSED:
        raise UsageError((run_directory / REFUSAL_FILE).read_text(encoding="utf-8").strip())
    if worker.returncode != 0:
        words = _last_words(run_directory)
        hint = "\nIt ran out of memory." if any(sign in words.lower() for sign in OUT_OF_MEMORY) else ""
        raise TrainingError(
            f"the worker {_how_it_ended(worker.returncode)} after iteration {tail.recorded} of "
            f"{request.iterations}; the partial record is kept in {run_directory}.\n{words}{hint}"
        )


def _watch(worker: "subprocess.Popen[bytes]", tail: RecordTail, progress: Progress, timeout: float) -> bool:
    heartbeat = time.monotonic()
    while worker.poll() is None:
        if tail.advance(progress):
            heartbeat = time.monotonic()
        if time.monotonic() - heartbeat > timeout:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(POLL_SECONDS)
    tail.advance(progress)
    return False


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """End the worker and everything it started; it leads a process group of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(GRACE_SECONDS)
    if worker.stdin is not None:
        worker.stdin.close()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
    hint = " (often the system out of memory)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def _last_words(run_directory: Path) -> str:
    """Return the end of what the worker printed."""
    log = run_directory / WORKER_LOG
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        lines = file.read().decode("utf-8", "replace").splitlines()
    shown = "\n".join(f"  | {line[:500]}" for line in lines[-LAST_WORDS:])
    return f"Its last lines (all of them in {log}):\n{shown}" if lines else "It printed nothing."


def git_commit() -> str | None:
    """Return the commit of the working directory, with ``-dirty`` if it has changes, or None outside of git."""
    command: list[str] = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done: Any = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
