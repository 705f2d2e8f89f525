"""Start the training's processes, watch them through the records they write, and survive whatever happens to them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from emacheck.errors import OutputError, TrainingError, UsageError
from emacheck.exit_code import how_it_ended
from emacheck.module_path import own_process
from emacheck.rank_files import rank_files
from emacheck.train.launching.deaths import Failure, lost_another, read_failure
from emacheck.train.launching.heartbeat import Heartbeat, Progress
from emacheck.train.launching.hints import disk_is_full, hint_of
from emacheck.train.launching.last_words import any_started, last_words, logs_of, who_hangs
from emacheck.train.launching.meeting import did_not_meet, port_in_use
from emacheck.train.launching.network import CONNECTING, not_connected
from emacheck.train.launching.nodes import heard
from emacheck.train.launching.parent import MARK, kill_marked, rank_processes
from emacheck.train.launching.processes import ASKED_FOR, Processes
from emacheck.train.packages import require_training_packages
from emacheck.train.request import REFUSAL_FILE, WORKER_LOG, TrainingRequest
from emacheck.uninterrupted import uninterrupted

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0
MOST_SUSPECTS = 4
OTHERS_SAY = (
    "What became of the processes of other nodes, the command on each of them says. Where it says nothing, that node "
    "is off, or somebody has killed the command, or the network between the nodes is interrupted."
)
# Threads that spin while they wait make an iteration ten times slower as soon as anything else runs on the machine.
WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
# What another launcher has left in the environment would be taken for ours.
LAUNCHERS_VARIABLES = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK"})
LAUNCHERS_PREFIXES = ("TORCHELASTIC_", "PET_", "MASTER_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What runs in processes of its own, and how messages speak of it.

    Attributes:
        module: The module that is started, with the run directory as its argument.
        title: What it is; at a rendezvous only nodes meet that run the same.
        kept: What stays in the run directory when it fails after a process has recorded something.
    """

    module: str
    title: str
    kept: str


TRAINING = Program(module="emacheck.train.worker", title="the training", kept="the partial record is kept")


def left_in(run_directory: Path, program: Program = TRAINING) -> str:
    """Return what a program that ended early has left in its run directory."""
    if _has_recorded(run_directory):
        return f"{program.kept} in {run_directory}"
    printed = f", and what the processes printed is kept in {run_directory}"
    return f"nothing was recorded{printed if (run_directory / WORKER_LOG).is_file() else ''}"


def _has_recorded(run_directory: Path) -> bool:
    with contextlib.suppress(OSError):  # somebody may have removed it meanwhile
        return any(path.stat().st_size for path in rank_files(run_directory).values())
    return False


def train_in_worker(
    request: TrainingRequest,
    run_directory: Path,
    *,
    progress: Progress,
    timeout: float,
    processes: Processes | None = None,
) -> None:
    """Train a request in processes of its own until its record is complete.

    Args:
        request: What to train.
        run_directory: An existing, empty directory for the record.
        progress: Called with iteration number and loss after each iteration.
        timeout: Seconds without a new iteration of any process after which the training counts as hung.
        processes: How many processes train; a single one if None.

    Raises:
        UsageError: If the worker refused the request; what it wrote is gone.
        OutputError: If not even the request can be written.
        TrainingError: If a process crashed, was killed or hung, or found after some iterations that they prove nothing;
            the partial record stays.
        KeyboardInterrupt: If the user interrupted; all processes have ended and what they recorded stays.
    """
    require_training_packages()
    before = set(run_directory.iterdir())
    try:
        request.write(run_directory)
    except OSError as error:
        _remove(set(run_directory.iterdir()) - before)
        raise OutputError(
            f"{run_directory}: cannot be written ({error.strerror}), and nothing was trained. "
            "Free some space, or choose another place with --work-dir."
        ) from error
    try:
        run_program(
            TRAINING,
            run_directory,
            progress=progress,
            timeout=timeout,
            processes=processes or Processes(),
            request=request,
            iterations=request.iterations,
        )
    except UsageError as error:
        if _has_recorded(run_directory):
            raise TrainingError(f"{error}\nIt had trained before that; {left_in(run_directory)}.") from error
        _remove(set(run_directory.iterdir()) - before)
        raise


def _remove(paths: set[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def run_program(
    program: Program,
    run_directory: Path,
    *,
    progress: Progress,
    timeout: float,
    processes: Processes,
    request: TrainingRequest,
    iterations: int,
) -> None:
    """Run a program in processes of its own until all of them have ended, and watch the records they write.

    Args:
        program: What to run.
        run_directory: An existing directory; each process writes its iterations into its :func:`rank_file` there.
        progress: Called with iteration number and loss after each iteration.
        timeout: Seconds without a new iteration of any process after which the program counts as hung.
        processes: How many processes there are.
        request: The training that it is about.
        iterations: How many iterations each will do.

    Raises:
        UsageError: If a process refused; its words are in ``refusal.txt``.
        TrainingError: If a process crashed, was killed or hung.
        KeyboardInterrupt: If the user interrupted; all processes have ended.
    """
    heartbeat, mark = Heartbeat(run_directory=run_directory), uuid.uuid4().hex
    with (run_directory / WORKER_LOG).open("wb") as log:
        worker = subprocess.Popen(
            _command(program, run_directory, processes, request),
            # Every process ends when this pipe closes, however this process ends.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(request.threads, processes, mark),
        )
        try:
            hung = _watch(worker, heartbeat, progress, timeout)
            seen = _look(worker, heartbeat, mark, processes, run_directory) if hung else _Seen()
        finally:
            end_worker(worker, mark)
    ended = _Ended(program=program, run_directory=run_directory, heartbeat=heartbeat, processes=processes)
    if hung:
        raise TrainingError(ended.hanging(seen, timeout))
    if worker.returncode != 0:
        # The launcher of several processes does not pass on how one of them ended.
        if refusal := _refusal(run_directory):
            raise UsageError(refusal)
        raise TrainingError(ended.failing(worker.returncode, iterations))


def _refusal(run_directory: Path) -> str:
    """Return why a process refused; nothing if none did, or if there was no room to write it."""
    with contextlib.suppress(FileNotFoundError):
        return (run_directory / REFUSAL_FILE).read_text(encoding="utf-8").strip()
    return ""


def _command(program: Program, run_directory: Path, processes: Processes, request: TrainingRequest) -> list[str]:
    worker = ["-m", program.module, str(run_directory)]
    if not processes.launched:
        return [sys.executable, *worker]
    launcher = [sys.executable, "-m", "emacheck.train.launching.elastic", str(run_directory)]
    job = {"program": program.title, **request.in_common()}
    return [*launcher, *processes.launcher_arguments(run_directory, job), *worker]


def _environment(threads: int, processes: Processes, mark: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHERS_VARIABLES and not name.startswith(LAUNCHERS_PREFIXES)
    }
    # Unless told, torch's launcher gives each process one thread before the worker sets its own number.
    told = {"OMP_NUM_THREADS": str(threads)} if processes.launched else {}
    ours = {"PYTHONUNBUFFERED": "1", MARK: mark, ASKED_FOR: processes.asked_for}
    return {**WORKER_ENVIRONMENT, **told, **own_process(), **inherited, **ours}


def _watch(worker: "subprocess.Popen[bytes]", heartbeat: Heartbeat, progress: Progress, timeout: float) -> bool:
    while worker.poll() is None:
        heartbeat.advance(progress)
        if time.monotonic() - heartbeat.last > timeout:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(POLL_SECONDS)
    heartbeat.advance(progress)
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What is seen of processes that hang, before they are ended.

    Attributes:
        suspects: What is suspicious about each rank that is under suspicion.
        ranks: The ranks that run here, the suspects first.
        launcher: The last words of their launcher; when it is ended, it prints more.
    """

    suspects: dict[int, str] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    launcher: str = ""


def _look(
    worker: "subprocess.Popen[bytes]", heartbeat: Heartbeat, mark: str, processes: Processes, run_directory: Path
) -> _Seen:
    running = rank_processes(mark) if processes.launched else {0: worker.pid}
    suspects = who_hangs(heartbeat, running)
    ranks = tuple(dict.fromkeys([*suspects, *sorted(running)]))
    return _Seen(suspects=suspects, ranks=ranks, launcher=last_words(run_directory))


def end_worker(worker: "subprocess.Popen[bytes]", mark: str) -> None:
    """End the worker, or the launcher of several, and everything they started, however often the user interrupts."""
    with uninterrupted():
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(GRACE_SECONDS)
        kill_marked(mark)
        if worker.stdin is not None:
            worker.stdin.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """What is known about processes that ended badly."""

    program: Program
    run_directory: Path
    heartbeat: Heartbeat
    processes: Processes

    def hanging(self, seen: _Seen, timeout: float) -> str:
        launcher = f"The launcher of the processes: {seen.launcher}"
        started = not self.processes.launched or any_started(self.run_directory)
        if not started and self.processes.meeting_place is not None:
            return f"{did_not_meet(self.processes, timeout)}\n{launcher}"
        lines = [
            f"{self.program.title} hung: no new iteration for {timeout:g} s after iteration "
            f"{self.heartbeat.recorded()}; it was ended; {self._left()}."
        ]
        if not self.processes.launched:
            lines.append(last_words(self.run_directory))
        elif not started:
            lines.append(f"No process was started. {launcher}")
        else:
            recording = self.heartbeat.ranks()
            otherwise = "does not say that it is the culprit" if recording else "has finished no iteration"
            for rank in ((recording and tuple(seen.suspects)) or recording or seen.ranks)[:MOST_SUSPECTS]:
                lines.append(f"rank {rank} {seen.suspects.get(rank, otherwise)}.")
                lines.append(last_words(self.run_directory, rank % self.processes.nproc_per_node))
            if self.processes.nnodes > 1:
                lines.append(OTHERS_SAY)
                if any(CONNECTING in line for line in lines):
                    return "\n".join([*lines, not_connected()])
        return "\n".join([*lines, "A slower device needs a longer --timeout."])

    def _left(self) -> str:
        return left_in(self.run_directory, self.program)

    def failing(self, code: int, iterations: int) -> str:
        failure = read_failure(self.run_directory) if self.processes.launched else Failure()
        if failure.port_in_use:
            return port_in_use(self.processes)
        if failure.unmet and not any_started(self.run_directory):
            return f"{did_not_meet(self.processes)}\nThe launcher of the processes: {last_words(self.run_directory)}"
        if (elsewhere := heard(self.run_directory)) is not None:
            return (
                f"{self.program.title} ended on another node first, and so here, after iteration "
                f"{self.heartbeat.recorded()} of {iterations}; {self._left()}.\n{elsewhere.rstrip()}"
            )
        if failure.rank is not None:
            who, code = f"rank {failure.rank} of {self.processes.world_size}", failure.code
            local_rank = failure.rank % self.processes.nproc_per_node
        else:
            who, local_rank = "the launcher of the processes" if self.processes.launched else "the worker", None
        words = last_words(self.run_directory, local_rank)
        hint = hint_of(words, *logs_of(self.run_directory, local_rank))
        if self.processes.nnodes > 1 and failure.rank is not None and lost_another(self.run_directory, failure.rank):
            hint += f"\nIt only lost its connection to a process of another node. {OTHERS_SAY}"
        return (
            f"{who} {how_it_ended(code)} after iteration {self.heartbeat.recorded(failure.rank)} of {iterations}; "
            f"{self._left()}.\n{words}{hint}{disk_is_full(self.run_directory)}"
        )
