"""What a training that ended badly has to say: which process it was, how it ended, and its last lines."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emacheck.train.launching.deaths import FAILURE_FILE
from emacheck.train.launching.heartbeat import Heartbeat
from emacheck.train.launching.parent import hears, is_stopped
from emacheck.train.launching.processes import RANK_LOGS, Processes
from emacheck.train.request import WORKER_LOG

SHOWN = 12
LAST_PORT = 65535
# Less does not even hold a header and some last words.
FULL_BYTES = 1 << 20
TAIL_BYTES = 16384
ANSWER_SECONDS = 1.0
QUESTION = signal.SIGUSR1
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "memoryerror")
# How torch says that a batch found no room, and that a process which loads data was killed for that.
# The last is Python's, where shared memory is missing or may not be written to.
NO_SHARED_MEMORY = ("unable to allocate shared memory", "out of shared memory", "_multiprocessing.semlock(")
# How Python, OpenBLAS, OpenMP and C++ say that the system starts no further thread or process. OpenBLAS then interrupts
# its own process as Ctrl-C would (driver/others/blas_server.c), so that its words stand before the last lines.
NO_THREADS = (
    "can't start new thread",
    "pthread_create failed",
    "thread creation failed",
    "what():  resource temporarily unavailable",
    "blockingioerror: [errno 11]",
)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the place itself
# How platformdirs says so, which mmengine's yapf asks.
NO_HOME = "could not determine the home directory"
# How Python and the dynamic linker say that a package is there and cannot be imported.
BROKEN_IMPORT = ("modulenotfounderror:", "importerror:", "cannot open shared object file", "undefined symbol")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What torch's launcher knows about the failure of a training.

    Attributes:
        rank: The rank that failed first, or None if no process failed.
        code: Its exit code; negative for a signal.
        port_in_use: Whether the launcher could not have its port.
        unmet: Whether the launcher could not reach the others.
    """

    rank: int | None = None
    code: int = 0
    port_in_use: bool = False
    unmet: bool = False


def read_failure(run_directory: Path) -> Failure:
    """Return what torch's launcher wrote down about a failure."""
    try:
        return Failure(**json.loads((run_directory / FAILURE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Failure()


def last_words(run_directory: Path, local_rank: int | None = None) -> str:
    """Return the end of what a process printed: of one that torch's launcher started, or of the only one."""
    return last_words_in(*logs_of(run_directory, local_rank))


def last_words_in(*logs: Path) -> str:
    """Return the end of logs."""
    lines = [line for log in logs for line in _end_of(log)]
    shown = "\n".join(f"  | {line[:500]}" for line in _telling(lines))
    places = " and ".join(str(log) for log in logs)
    return f"Its last lines (all of them in {places}):\n{shown}" if lines else "It printed nothing."


def _telling(lines: list[str]) -> list[str]:
    """Return the last lines, or the beginning of the answer of a process that hangs: the innermost call comes first."""
    answers = [at for at, line in enumerate(lines) if line.endswith("(most recent call first):")]
    return lines[answers[-1] :][:SHOWN] if answers else lines[-SHOWN:]


def hint_of(words: str, *logs: Path) -> str:
    """Return what the last lines suggest, or what stands before them in the logs, as a line of its own, or nothing."""
    if lacking := shared_memory_is_full(*logs):
        return lacking
    if _is_printed(NO_THREADS, logs):
        return (
            "\nThe system let it start no further thread or process. Allow more (ulimit -u, docker run --pids-limit, "
            "the limit of the pod), or start fewer: OPENBLAS_NUM_THREADS=1 in the environment."
        )
    if any(sign in words.lower() for sign in OUT_OF_MEMORY):
        return "\nIt ran out of memory."
    if NO_HOME in words.lower():
        return (
            "\nNeither HOME nor the system's list of users says where the home directory is. Set HOME to a directory."
        )
    if is_broken_import(words):
        return "\nSomething that is needed cannot be imported here: emacheck doctor says what is missing or broken."
    return ""


def shared_memory_is_full(*logs: Path) -> str:
    """Return that processes which load data found no shared memory, as a line of its own, or nothing.

    What they print stands before the last lines, which are those of the training that has lost them.
    """
    if not _is_printed(NO_SHARED_MEMORY, logs):
        return ""
    found = ""
    with contextlib.suppress(OSError):
        found = f" ({SHARED_MEMORY} has {shutil.disk_usage(SHARED_MEMORY).total >> 20} MiB)"
    return (
        f"\nThe processes that load data found no room in shared memory{found}. Give the container more, such as "
        "docker run --shm-size 8g, or load without them: --cfg-options train_dataloader.num_workers=0 "
        "train_dataloader.persistent_workers=False, likewise val_dataloader."
    )


def _is_printed(signs: tuple[str, ...], logs: Iterable[Path]) -> bool:
    printed = "\n".join(line for log in logs for line in _end_of(log)).lower()
    return any(sign in printed for sign in signs)


def is_broken_import(words: str) -> bool:
    """Tell whether words speak of a package, or a library of it, that cannot be imported.

    Example:
        >>> is_broken_import("OSError: libcudart.so.12: cannot open shared object file: No such file or directory")
        True
    """
    return any(sign in words.lower() for sign in BROKEN_IMPORT)


def disk_is_full(run_directory: Path) -> str:
    """Return that the disk of a directory is full, as a line of its own, or nothing."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(run_directory).free
        if free < FULL_BYTES:
            return (
                f"\nThe disk of {run_directory} is full: found {free} bytes free there, so what was to be written "
                "may be missing, last words among it. Free some space, or choose another place."
            )
    return ""


def port_in_use(processes: Processes) -> str:
    """Say which port is in use and how to choose another."""
    port = int(str(processes.meeting_place).rpartition(":")[2])
    other = port + 1 if port < LAST_PORT else port - 1
    option = "--rdzv-endpoint HOST:PORT" if processes.rdzv_endpoint is not None else f"--master-port {other}"
    free = "" if processes.nnodes > 1 else ", or drop the port: on a single node a free one is found"
    return (
        f"port {port} is in use on this machine, perhaps by another training, expected a free one on node 0. "
        f"Choose another port ({option}, the same on every node){free}."
    )


def did_not_meet(processes: Processes, timeout: float | None = None) -> str:
    """Say that no process could be started because the nodes did not meet.

    Args:
        processes: Those that should have met.
        timeout: How many seconds they had; None if the launcher gave up by itself.
    """
    within = "" if timeout is None else f" within {timeout:g} s"
    others = processes.nnodes - 1
    if processes.meeting_place is None:
        return (
            f"the processes did not meet on this machine{within}, so none was started: expected localhost to be its "
            "loopback interface, and that to be up (ip link set lo up, /etc/hosts). One process needs no network: "
            "drop --nproc-per-node."
        )
    if not others:
        return (
            f"the processes did not meet at {processes.meeting_place}{within}, so none was started: is that an address "
            "of this machine, and does nothing else listen there? On a single node no address is needed: drop it."
        )
    same = " and --node-rank" if processes.rdzv_endpoint is None else ""
    return (
        f"the nodes did not meet at {processes.meeting_place}{within}, so no process was started: is the command "
        f"running on the other {f'{others} nodes' if others > 1 else 'node'}, is the address right, and does nothing "
        f"else listen there? The options must be the same on every node, but for --work-dir, --data-root{same}."
    )


def ask(process: int) -> bool:
    """Ask a process where it is; return whether it can answer, for the question would end one that cannot."""
    if not hears(process, QUESTION):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, QUESTION)
    return True


def who_hangs(heartbeat: Heartbeat, processes: Mapping[int, int]) -> dict[int, str]:
    """Ask every process where it is and say which of them are the likely culprits.

    The answer of a process, a traceback, is written to its own log. One that is stopped, hangs in a device's driver
    or has not got as far as our own code does not answer.

    Args:
        heartbeat: The records so far.
        processes: The process of each rank.

    Returns:
        What is suspicious about each rank that is under suspicion.
    """
    stopped = {rank for rank, process in processes.items() if is_stopped(process)}
    unready = [rank for rank in sorted(processes.keys() - stopped) if not ask(processes[rank])]
    time.sleep(ANSWER_SECONDS)
    furthest = max(map(heartbeat.recorded, processes), default=0)
    behind = {
        rank: f"is behind, at iteration {heartbeat.recorded(rank)} where others are at {furthest}"
        for rank in sorted(processes)
        if heartbeat.recorded(rank) < furthest
    }
    behind |= dict.fromkeys(unready, "has not started yet")
    return behind | {rank: f"is stopped, after iteration {heartbeat.recorded(rank)}" for rank in sorted(stopped)}


def any_started(run_directory: Path) -> bool:
    """Tell whether torch's launcher has started any process: it makes a place for what each prints."""
    return any((run_directory / RANK_LOGS).glob("*/attempt_0/*"))


def logs_of(run_directory: Path, local_rank: int | None) -> list[Path]:
    """Return the logs of a process, what it printed as errors last."""
    if local_rank is not None:
        found = (run_directory / RANK_LOGS).glob(f"*/attempt_0/{local_rank}/std*.log")
        if logs := sorted(found, key=lambda log: log.name, reverse=True):
            return [log for log in logs if log.stat().st_size] or logs
    return [run_directory / WORKER_LOG]


def _end_of(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode("utf-8", "replace").splitlines()
