"""Where the processes of several nodes meet: what each notes of it, and what is said where they do not."""

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from emacheck.train.launching.network import addresses_of
from emacheck.train.launching.processes import LAST_PORT, RANK_LOGS, Processes

MEETING_FILE = f"{RANK_LOGS}/meeting.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where the processes meet, as torch's launcher has told them.

    Attributes:
        host: Host name or address.
        port: Port.
        node: The number of this node.
        nodes: How many there are.
        nproc_per_node: Processes of each.
    """

    host: str
    port: int
    node: int
    nodes: int
    nproc_per_node: int


def note_meeting(run_directory: Path) -> None:
    """Write down where the processes of several nodes meet, for the launcher, which is not told.

    Where no launcher holds the store (``TORCH_DISABLE_SHARE_RDZV_TCP_STORE``), rank 0 does, and the nodes do not talk.
    """
    given = os.environ
    held = given.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    if given.get("LOCAL_RANK") != "0" or given.get("LOCAL_WORLD_SIZE") == given.get("WORLD_SIZE") or not held:
        return
    nproc = int(given["LOCAL_WORLD_SIZE"])
    meeting = Meeting(
        host=given["MASTER_ADDR"],
        port=int(given["MASTER_PORT"]),
        node=int(given["GROUP_RANK"]),
        nodes=int(given["WORLD_SIZE"]) // nproc,
        nproc_per_node=nproc,
    )
    unfinished = run_directory / f"{MEETING_FILE}.unfinished"
    with contextlib.suppress(OSError):
        unfinished.write_text(json.dumps(asdict(meeting)), encoding="utf-8")
        unfinished.replace(run_directory / MEETING_FILE)


def read_meeting(run_directory: Path) -> Meeting | None:
    """Return where the processes of several nodes meet; None if none of them has started yet, or there is one node."""
    try:
        return Meeting(**json.loads((run_directory / MEETING_FILE).read_text(encoding="utf-8")))
    except OSError:
        return None


def name_of_node(number: int) -> str:
    """Return how the others name this node: where a rendezvous numbers them, its number alone tells nobody who it is.

    Example:
        >>> name_of_node(1).startswith("node 1 (")
        True
    """
    return f"node {number} ({socket.gethostname()})"


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
    named = " With an --rdzv-id they meet whatever differs but --nnodes, and say what does." if unnamed else ""
    host = processes.meeting_place.rpartition(":")[0]
    here = "" if addresses_of(host.strip("[]")) else f" {host} has no address here: give the address, or the name one."
    return (
        f"the nodes did not meet at {processes.meeting_place}{within}, so no process was started.{here} Is the command "
        f"running on the other {f'{others} nodes' if others > 1 else 'node'}, is the address right, does a firewall "
        "let that port through, and does nothing else listen there? The options must be the same on every node, but "
        f"for --work-dir, --data-root{same}.{named}"
    )
