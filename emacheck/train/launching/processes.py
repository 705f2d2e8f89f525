"""Processes: how many train, on which nodes, and the arguments with which torch's own launcher starts them."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from emacheck.experiment import digest
from emacheck.train.launching.network import rendezvous_arguments

DEFAULT_PORT = 29500
LAST_PORT = 65535
RANK_LOGS = "ranks"
# How many processes the command on a node asks for, as each of its processes finds it in the environment.
ASKED_FOR = "EMACHECK_PROCESSES"


class Given(NamedTuple):
    """What the options say of the processes; None where they say nothing."""

    nproc: int
    nnodes: int | None
    node_rank: int | None
    addr: str | None
    port: int | None
    endpoint: str | None
    job: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The processes of one training.

    Attributes:
        launched: Whether torch's elastic launcher starts them; otherwise there is one, started directly.
        nproc_per_node: Processes of each node.
        nnodes: Nodes.
        node_rank: Which of the nodes this is, or None if the rendezvous decides.
        master_addr: Host name or address of node 0, or None for this machine alone.
        master_port: The port on which node 0 waits for the others.
        rdzv_endpoint: ``HOST:PORT`` of a c10d rendezvous, instead of the address of node 0.
        rdzv_id: What tells this job from an equal one at the same rendezvous, and under Slurm at the same address.
    """

    launched: bool = False
    nproc_per_node: int = 1
    nnodes: int = 1
    node_rank: int | None = 0
    master_addr: str | None = None
    master_port: int | None = None
    rdzv_endpoint: str | None = None
    rdzv_id: str | None = None

    @property
    def world_size(self) -> int:
        """How many processes train, all nodes together."""
        return self.nnodes * self.nproc_per_node

    @property
    def need_loopback(self) -> bool:
        """Whether processes of this node speak to each other; the launcher of node 0 does to itself.

        Example:
            >>> Processes(launched=True, nnodes=2, node_rank=1, master_addr="n0").need_loopback
            False
        """
        return self.launched and (self.node_rank == 0 or self.nproc_per_node > 1)

    @property
    def asked_for(self) -> str:
        """How many nodes and processes of each there are; torch's launcher does not see to it.

        Example:
            >>> Processes(launched=True, nnodes=2, nproc_per_node=4).asked_for
            '2 x 4'
        """
        return f"{self.nnodes} x {self.nproc_per_node}"

    @property
    def meeting_place(self) -> str | None:
        """``HOST:PORT`` at which the processes meet; None where they do on any free port of this machine.

        Example:
            >>> Processes(launched=True, nnodes=2, master_addr="n0").meeting_place
            'n0:29500'
        """
        if self.rdzv_endpoint is not None:
            return self.rdzv_endpoint
        if self.nnodes == 1 and self.master_addr is None and self.master_port is None:
            return None
        return f"{self.master_addr or 'localhost'}:{self.master_port or DEFAULT_PORT}"

    def launcher_arguments(self, run_directory: Path, job: Mapping[str, Any] | None = None) -> list[str]:
        """Return the arguments of ``torch.distributed.run`` up to the program that it starts.

        Args:
            run_directory: Where the launcher keeps what the processes print.
            job: What the processes are asked to do. At one rendezvous only those meet that are asked for the same, or
                that were given the same ``rdzv_id``.

        Example:
            >>> Processes(launched=True, nproc_per_node=2).launcher_arguments(Path("run"))[:2]
            ['--nproc-per-node=2', '--nnodes=1']
        """
        return [
            f"--nproc-per-node={self.nproc_per_node}",
            f"--nnodes={self.nnodes}",
            *self._meeting_point(job or {}),
            "--max-restarts=0",
            "--monitor-interval=0.1",
            "--redirects=3",
            f"--log-dir={run_directory / RANK_LOGS}",
        ]

    def _meeting_point(self, job: Mapping[str, Any]) -> list[str]:
        if self.rdzv_endpoint is not None:
            # Another job at the same endpoint must not be taken for a node of this one. Nodes that were given a name
            # meet in any case, for that is where they say which of their options differ.
            size = {"nnodes": self.nnodes, "nproc_per_node": self.nproc_per_node}
            own = digest({"job": dict(job), **size} if self.rdzv_id is None else {"id": self.rdzv_id})
            where = rendezvous_arguments(self.rdzv_endpoint)
            return ["--rdzv-backend=c10d", *where, f"--rdzv-id=emacheck-{own[:16]}"]
        if self.meeting_place is None:
            # Any free port; without the address torch asks for the machine's name, which need not resolve.
            return ["--standalone", "--local-addr=localhost"]
        return [
            f"--node-rank={self.node_rank or 0}",
            f"--master-addr={self.master_addr or 'localhost'}",
            f"--master-port={self.master_port or DEFAULT_PORT}",
            # Only under Slurm; elsewhere other options are to be named, and for that the nodes have to meet.
            *([] if self.rdzv_id is None else [f"--rdzv-id=emacheck-{self.rdzv_id}"]),
        ]


def work_dir_of_node(work_dir: Path, processes: Processes) -> Path:
    """Return where this node writes: nodes may share a file system, and each needs a directory of its own.

    Where a rendezvous numbers the nodes, their host names tell them apart, and the ids of processes those on one host.

    Example:
        >>> two = Processes(launched=True, nnodes=2, node_rank=1, master_addr="a")
        >>> str(work_dir_of_node(Path("out"), two))
        'out-node1'
    """
    if processes.nnodes == 1 or processes.node_rank == 0:
        return work_dir
    node = f"node{processes.node_rank}"
    if processes.node_rank is None:
        node = f"{re.sub(r'[^A-Za-z0-9.-]', '_', socket.gethostname())}-{os.getpid()}"
    # "." and ".." are no names to which something could be added.
    named = work_dir if work_dir.name not in ("", "..") else work_dir.resolve()
    return named.with_name(f"{named.name}-{node}")
