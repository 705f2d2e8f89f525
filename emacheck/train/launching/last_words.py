"""What a training that ended badly has to say: which process it was, how it ended, and its last lines."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from emacheck.train.launching.heartbeat import Heartbeat
from emacheck.train.launching.parent import hears, is_stopped
from emacheck.train.launching.processes import RANK_LOGS
from emacheck.train.request import WORKER_LOG

SHOWN = 12
TAIL_BYTES = 16384
ANSWER_SECONDS = 1.0
QUESTION = signal.SIGUSR1
# torch prints dozens of these below an error of its own, and what went wrong above them.
FRAME_OF_CPP = re.compile(r"frame #\d+: ")


def last_words(run_directory: Path, local_rank: int | None = None) -> str:
    """Return the end of what a process printed: of one that torch's launcher started, or of the only one."""
    return last_words_in(*logs_of(run_directory, local_rank))


def last_words_in(*logs: Path) -> str:
    """Return the end of logs."""
    lines = [line for log in logs for line in end_of(log)]
    shown = "\n".join(f"  | {line[:500]}" for line in _telling(lines))
    places = " and ".join(str(log) for log in logs)
    return f"Its last lines (all of them in {places}):\n{shown}" if lines else "It printed nothing."


def _telling(lines: list[str]) -> list[str]:
    """Return the last lines, or the beginning of the answer of a process that hangs: the innermost call comes first."""
    lines = [line for line in lines if not FRAME_OF_CPP.match(line)] or lines
    answers = [at for at, line in enumerate(lines) if line.endswith("(most recent call first):")]
    return lines[answers[-1] :][:SHOWN] if answers else lines[-SHOWN:]


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


def end_of(log: Path) -> list[str]:
    """Return the last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode("utf-8", "replace").splitlines()
