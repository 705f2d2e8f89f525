"""A process and the one that started it: whoever is left alone ends, and nobody is left over."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

MARK = "EMACHECK_RUN"
PROC = Path("/proc")
PATIENCE_SECONDS = 5.0
# Of Linux, in <sys/prctl.h>.
PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """End this process when the command that started it is gone, however it went: its pipe to us closes.

    A process that is stopped reads no pipe. On Linux it is killed as soon as whoever started it dies.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    end_with_starter()


def end_with_starter() -> None:
    """Let the system kill this process when the thread that started it ends; on Linux alone.

    That thread outlives us unless it is killed: the command's waits until we have ended, and torch's launcher starts
    its processes from its main thread.
    """
    if sys.platform != "linux":
        return
    starter = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    # It may have died just before; one that died before we looked has closed the pipe.
    if os.getppid() != starter:
        os._exit(1)


def marked_processes(mark: str) -> list[int]:
    """Return the processes that carry a run's mark in their environment, wherever they have moved to.

    torch's launcher gives every process a session of its own, and a child of a dead process belongs to nobody: neither
    groups nor parents lead to all of them, but what a process inherits stays with it.

    Args:
        mark: The value of ``EMACHECK_RUN``.

    Returns:
        Their ids; none where the system has no ``/proc``.
    """
    entry, found = f"{MARK}={mark}".encode(), []
    for place in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def kill_marked(mark: str) -> None:
    """Kill every process of a run; stopped ones too, for which only SIGKILL will do."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (left := marked_processes(mark)) and time.monotonic() < until:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def rank_processes(mark: str) -> dict[int, int]:
    """Return the process of each rank of a run; the processes that load its data are not meant."""
    found = {}
    for process in marked_processes(mark):
        with contextlib.suppress(OSError, ValueError):
            variables = (PROC / str(process) / "environ").read_bytes().split(b"\0")
            rank = next((int(each[5:]) for each in variables if each.startswith(b"RANK=")), None)
            if rank is not None and os.getsid(process) == process:
                found[rank] = process
    return found


def hears(process: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal; true where the system does not say."""
    try:
        status = (PROC / str(process) / "status").read_text(encoding="utf-8")
    except OSError:
        return not PROC.is_dir()
    caught = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:")), 0)
    return bool(caught >> (number - 1) & 1)


def is_stopped(process: int) -> bool:
    """Tell whether a process is stopped, as by SIGSTOP or a debugger."""
    try:
        state = (PROC / str(process) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state in ("T", "t")
