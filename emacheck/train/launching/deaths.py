"""Which of several processes died first: each notes when and of what, and torch's launcher who is to blame."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FAILURE_FILE = "failure.json"
# What a process says whose partner has gone: gloo, NCCL and its relatives, torch's store.
SIGNS_OF_ANOTHERS_DEATH = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "socket closed",
    "remote process exit",
    "failed to recv",
    "recvvalue failed",
    "sendbytes failed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What torch's launcher knows about the failure of a training, as it says in ``failure.json``.

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

    def write(self, run_directory: Path) -> None:
        """Write it down; a full disk must not hide how it ended."""
        with contextlib.suppress(OSError):
            (run_directory / FAILURE_FILE).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def read_failure(run_directory: Path) -> Failure:
    """Return what torch's launcher wrote down about a failure."""
    try:
        return Failure(**json.loads((run_directory / FAILURE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Failure()


def note_death(run_directory: Path, error: BaseException) -> None:
    """Note that this process dies of an error; does nothing in a process that torch's launcher has not started."""
    rank = os.environ.get("RANK")
    if rank is None:
        return
    said = f"{type(error).__name__}: {error}".lower()
    # All processes of a host share this clock, and nobody sets it.
    death = {"time": time.monotonic(), "of_another": any(sign in said for sign in SIGNS_OF_ANOTHERS_DEATH)}
    with contextlib.suppress(OSError):
        _file(run_directory, int(rank)).write_text(json.dumps(death) + "\n", encoding="utf-8")


def first_to_blame(failures: Mapping[int, Any], run_directory: Path) -> int:
    """Return the rank that failed first.

    Of several, one that was killed, for the others fail because it is silent; none that the launcher has ended, which
    ends nobody before it has noticed a failure; and one that lost its connection only if nobody had an error of its
    own. Of these the one that died first.

    Args:
        failures: How each rank that failed ended, in the order in which torch's launcher noticed; its times are whole
            seconds.
        run_directory: Where the ranks have noted their deaths.
    """
    noticed = next(iter(failures))

    def order(rank: int) -> tuple[bool, bool, bool, float]:
        code, death = failures[rank].exitcode, _death(run_directory, rank)
        ended = code == -signal.SIGTERM and rank != noticed
        return ended, code >= 0, death.get("of_another", False), death.get("time", float("inf"))

    return min(failures, key=order)


def lost_another(run_directory: Path, rank: int) -> bool:
    """Tell whether a process has noted that it only lost its connection to another."""
    return bool(_death(run_directory, rank).get("of_another", False))


def _death(run_directory: Path, rank: int) -> dict[str, Any]:
    try:
        return dict(json.loads(_file(run_directory, rank).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _file(run_directory: Path, rank: int) -> Path:
    return run_directory / f"death.rank{rank}.json"
