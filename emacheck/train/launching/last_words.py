"""What a training that ended badly has to say: which process it was, how it ended, and its last lines."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emacheck.train.launching.deaths import FAILURE_FILE
from emacheck.train.launching.heartbeat import Heartbeat
from emacheck.train.launching.network import addresses_of
from emacheck.train.launching.parent import hears, is_stopped
from emacheck.train.launching.processes import RANK_LOGS, Processes
from emacheck.train.request import WORKER_LOG

SHOWN = 12
LAST_PORT = 65535
TAIL_BYTES = 16384
ANSWER_SECONDS = 1.0
QUESTION = signal.SIGUSR1
# torch prints dozens of these below an error of its own, and what went wrong above them.
FRAME_OF_CPP = re.compile(r"frame #\d+: ")


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
    lines = [line for log in logs for line in end_of(log)]
    shown = "\n".join(f"  | {line[:500]}" for line in _telling(lines))
    places = " and ".join(str(log) for log in logs)
    return f"Its last lines (all of them in {places}):\n{shown}" if lines else "It printed nothing."


def _telling(lines: list[str]) -> list[str]:
    """Return the last lines, or the beginning of the answer of a process that hangs: the innermost call comes first."""
    lines = [line for line in lines if not FRAME_OF_CPP.match(line)] or lines
    answers = [at for at, line in enumerate(lines) if line.endswith("(most recent call first):")]
    return lines[answers[-1] :][:SHOWN] if answers else lines[-SHOWN:]


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
    same = " and --node-rank, which is another on each" if processes.rdzv_endpoint is None else ""
    unnamed = processes.rdzv_endpoint is not None and processes.rdzv_id is None
    named = " With --rdzv-id NAME nodes meet whatever their options, and say which differ." if unnamed else ""
    host = processes.meeting_place.rpartition(":")[0]
    here = "" if addresses_of(host.strip("[]")) else f" {host} has no address here: give the address, or the name one."
    return (
        f"the nodes did not meet at {processes.meeting_place}{within}, so no process was started.{here} Is the command "
        f"running on the other {f'{others} nodes' if others > 1 else 'node'}, is the address right, does a firewall "
        "let that port through, and does nothing else listen there? The options must be the same on every node, but "
        f"for --work-dir, --data-root{same}.{named}"
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


def end_of(log: Path) -> list[str]:
    """Return the last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode("utf-8", "replace").splitlines()
