"""Processes: how many train, on which nodes, and the arguments with which torch's own launcher starts them."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from emacheck.errors import UsageError
from emacheck.experiment import digest
from emacheck.train.launching.network import rendezvous_arguments

DEFAULT_PORT = 29500
# Of torch's c10d rendezvous.
RENDEZVOUS_PORT = 29400
# Of a step under Slurm, from the default port on: below those that systems hand out by themselves (32768 and up).
SLURM_PORTS = 3000
STEPS_OF_A_JOB = 10
# SLURM_INTERACTIVE_STEP in slurm.h: the shell that salloc opens on the first node, which is on no other.
INTERACTIVE_STEP = "4294967290"
LAST_PORT = 65535
RANK_LOGS = "ranks"
# How many processes the command on a node asks for, as each of its processes finds it in the environment.
ASKED_FOR = "EMACHECK_PROCESSES"
LAUNCHERS = ("none", "pytorch", "slurm")


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
            job: What the processes are asked to do. At one rendezvous only those meet that are asked for the same.

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
            # Another job at the same endpoint must not be taken for a node of this one.
            size = {"nnodes": self.nnodes, "nproc_per_node": self.nproc_per_node}
            own = digest({"job": dict(job), "id": self.rdzv_id, **size})
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


def plan_processes(
    *,
    nproc_per_node: int | None = None,
    nnodes: int | None = None,
    node_rank: int | None = None,
    master_addr: str | None = None,
    master_port: int | None = None,
    rdzv_endpoint: str | None = None,
    rdzv_id: str | None = None,
    launcher: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Processes:
    """Decide from the options and the environment how many processes train and who starts them.

    Args:
        nproc_per_node: Processes of each node; 1 if None.
        nnodes: Nodes; 1 (under Slurm: those of the job) if None.
        node_rank: Which of the nodes this is.
        master_addr: Host name or address of node 0.
        master_port: The port on which node 0 waits.
        rdzv_endpoint: ``HOST:PORT`` of a c10d rendezvous; without a port, torch's own, 29400.
        rdzv_id: Any name of this job, the same on all of its nodes; under Slurm, the numbers of the job and its step
            unless given.
        launcher: ``none``, ``pytorch``, ``slurm``, or None to choose: ``pytorch`` as soon as an option asks for it.
        environment: The environment's variables; those of this process if None.

    Returns:
        The processes.

    Raises:
        UsageError: If options contradict each other or the environment, or this process is itself one of several.

    Example:
        >>> plan_processes(nproc_per_node=2, environment={}).launched
        True
        >>> plan_processes(environment={}).launched
        False
    """
    environment = os.environ if environment is None else environment
    _refuse_one_of_several(environment, launcher)
    several = [
        f"{option} {value}"
        for option, value, usual in (
            ("--nproc-per-node", nproc_per_node, 1),
            ("--nnodes", nnodes, 1),
            ("--node-rank", node_rank, None),
            ("--master-addr", master_addr, None),
            ("--master-port", master_port, None),
            ("--rdzv-endpoint", rdzv_endpoint, None),
        )
        if value is not None and value != usual
    ]
    if launcher == "none" and several:
        raise UsageError(
            f"--launcher none and {', '.join(several)}: found options of several processes, expected one process. "
            "Drop --launcher, or say --launcher pytorch."
        )
    if rdzv_endpoint is not None and (master_addr is not None or master_port is not None or node_rank is not None):
        raise UsageError(
            f"--rdzv-endpoint {rdzv_endpoint}: found --node-rank, --master-addr or --master-port beside it; the "
            "rendezvous decides these. Give either the endpoint or the address of node 0."
        )
    if rdzv_id is not None and rdzv_endpoint is None:
        raise UsageError(
            f"--rdzv-id {rdzv_id}: found no --rdzv-endpoint, at which it would tell this job from an equal one. Add "
            "--rdzv-endpoint HOST:PORT, or drop it."
        )
    endpoint = None if rdzv_endpoint is None else _endpoint(rdzv_endpoint)
    given = _Given(nproc_per_node or 1, nnodes, node_rank, master_addr, master_port, endpoint, rdzv_id)
    if launcher == "slurm":
        return _of_nodes(_from_slurm(given, environment))
    return _of_nodes(given) if launcher == "pytorch" or several else Processes()


class _Given(NamedTuple):
    """What the options say; None where they say nothing."""

    nproc: int
    nnodes: int | None
    node_rank: int | None
    addr: str | None
    port: int | None
    endpoint: str | None
    job: str | None


def _endpoint(text: str) -> str:
    """Return a rendezvous's address, with its port; an IPv6 address stands in brackets, as torch reads it."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::([0-9]{1,5}))?", text.strip(), re.ASCII)
    port = int(found[2] or RENDEZVOUS_PORT) if found else 0
    if found is None or not 1 <= port <= LAST_PORT:
        raise UsageError(
            f"--rdzv-endpoint {text!r}: expected HOST:PORT with a port from 1 to {LAST_PORT} (without one, "
            f"{RENDEZVOUS_PORT}), such as node0:{RENDEZVOUS_PORT} or [fd00::1]:{RENDEZVOUS_PORT}."
        )
    return f"{found[1]}:{port}"


def _of_nodes(given: _Given) -> Processes:
    nnodes = given.nnodes or 1
    if given.endpoint is None and nnodes > 1 and (given.node_rank is None or given.addr is None):
        raise UsageError(
            f"--nnodes {nnodes}: found {'no' if given.node_rank is None else 'a'} --node-rank and "
            f"{'no' if given.addr is None else 'a'} --master-addr, expected both (or --rdzv-endpoint HOST:PORT). "
            f"Start on each node: emacheck run --nnodes {nnodes} --node-rank 0 (1, 2, ...) --master-addr HOST_OF_NODE_0"
        )
    if given.node_rank is not None and given.node_rank >= nnodes:
        raise UsageError(f"--node-rank {given.node_rank}: expected 0 to {nnodes - 1}, for --nnodes is {nnodes}.")
    return Processes(
        launched=True,
        nproc_per_node=given.nproc,
        nnodes=nnodes,
        node_rank=None if given.endpoint is not None else given.node_rank or 0,
        master_addr=given.addr,
        master_port=given.port,
        rdzv_endpoint=given.endpoint,
        rdzv_id=given.job,
    )


def _refuse_one_of_several(environment: Mapping[str, str], launcher: str | None) -> None:
    """Refuse to be one of several: each would start, train and judge the same thing."""
    world = environment.get("WORLD_SIZE", "1")
    if "RANK" in environment and world != "1":
        raise UsageError(
            f"found RANK={environment['RANK']} and WORLD_SIZE={world} in the environment: something like torchrun has "
            "started emacheck several times, and each of them would train and judge. emacheck calls torchrun itself. "
            "Start it once for each node, with --nproc-per-node N (and --nnodes, --node-rank, --master-addr); "
            "if the variables are left over from something else, unset RANK and WORLD_SIZE."
        )
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if launcher != "slurm" and "SLURM_PROCID" in environment and tasks != "1":
        raise UsageError(
            f"found SLURM_PROCID={environment['SLURM_PROCID']} of SLURM_STEP_NUM_TASKS={tasks} tasks: srun has started "
            "emacheck several times, and each of them would train and judge. Start it once (srun --ntasks=1 ... "
            "--nproc-per-node N), or once for each node with --launcher slurm."
        )


def _from_slurm(given: _Given, environment: Mapping[str, str]) -> _Given:
    """Take from Slurm what the options do not say: nodes, this node's rank and the address of node 0."""
    if "SLURM_JOB_ID" not in environment:
        raise UsageError(
            "--launcher slurm: found no SLURM_JOB_ID in the environment, expected to be inside of a Slurm job. "
            "Start it with srun, or say --launcher pytorch."
        )
    if environment.get("SLURM_STEP_ID") == INTERACTIVE_STEP:
        environment = {name: value for name, value in environment.items() if not name.startswith("SLURM_STEP_")}
    nnodes = given.nnodes or _slurm_nodes(environment)
    if "SLURM_STEP_NUM_NODES" in environment:
        tasks = _number(environment, "SLURM_STEP_NUM_TASKS", nnodes)
        if tasks != nnodes:
            raise UsageError(
                f"--launcher slurm: found {tasks} tasks on {nnodes} nodes, expected one on each, for emacheck starts "
                f"the processes of its node itself: srun --nodes={nnodes} --ntasks-per-node=1 emacheck run --launcher "
                f"slurm --nproc-per-node {max(-(-tasks // nnodes), given.nproc)} ..."
            )
    if nnodes == 1:
        return given._replace(nnodes=nnodes)
    job, step = (_number(environment, f"SLURM_{name}_ID", 0, least=0, most=2**32) for name in ("JOB", "STEP"))
    given = given._replace(nnodes=nnodes, job=given.job or f"{job}.{step}")
    if given.endpoint is not None:
        return given
    if given.node_rank is None and not {"SLURM_NODEID", "SLURM_STEP_NUM_NODES"} <= environment.keys():
        raise UsageError(
            f"--launcher slurm: found {nnodes} nodes and no SLURM_NODEID of a step, expected the number of this node. "
            f"{_srun(nnodes)}"
        )
    own_port = DEFAULT_PORT + (job * STEPS_OF_A_JOB + step) % SLURM_PORTS
    return given._replace(
        # Tasks may be numbered in another order than the nodes (srun --distribution=arbitrary).
        node_rank=_number(environment, "SLURM_NODEID", 0, least=0) if given.node_rank is None else given.node_rank,
        addr=given.addr or environment.get("MASTER_ADDR") or _first_host(environment),
        port=given.port or _number(environment, "MASTER_PORT", own_port, most=LAST_PORT),
    )


def _slurm_nodes(environment: Mapping[str, str]) -> int:
    """Return how many nodes Slurm has started this command on; a job of several that has no step is refused."""
    if "SLURM_STEP_NUM_NODES" in environment:
        return _number(environment, "SLURM_STEP_NUM_NODES", 1)
    nodes = _number(environment, "SLURM_JOB_NUM_NODES", 1)
    if nodes > 1:
        raise UsageError(
            f"--launcher slurm: found a job of {nodes} nodes (SLURM_JOB_NUM_NODES) without a step, so that emacheck "
            f"runs on one of them, expected it on each. {_srun(nodes)} To use this node alone: --nnodes 1."
        )
    return nodes


def _srun(nnodes: int) -> str:
    return f"Start it with srun: srun --nodes={nnodes} --ntasks-per-node=1 emacheck run --launcher slurm ..."


def _number(environment: Mapping[str, str], name: str, otherwise: int, *, least: int = 1, most: int = 10**6) -> int:
    text = environment.get(name, str(otherwise))
    # The length comes first: Python refuses to convert thousands of digits.
    if len(text) <= len(str(most)) and text.isdecimal() and least <= int(text) <= most:
        return int(text)
    raise UsageError(
        f"--launcher slurm: found {name}={text}, expected a number from {least} to {most}. Correct the variable or "
        "unset it."
    )


def _first_host(environment: Mapping[str, str]) -> str:
    """Return the host name of the step's first node: of ``rack[0-1]n[03-16],login`` it is ``rack0n03``."""
    names = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    first = re.fullmatch(r"((?:[\w.-]|\[[\w,-]+\])+)(?:,.*)?", names, re.ASCII)
    if first is not None:
        # Not asked of scontrol, which a container seldom has.
        return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", first[1])
    raise UsageError(
        f"--launcher slurm: found SLURM_JOB_NODELIST={names or 'nothing'}, expected the nodes of the job, such as "
        "node[01-16]. Name the first of them with --master-addr HOST."
    )


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
