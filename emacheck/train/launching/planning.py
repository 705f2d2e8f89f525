"""From the options and the environment to the processes of a training."""

import os
import re
from collections.abc import Mapping

from emacheck.errors import UsageError
from emacheck.train.launching.processes import LAST_PORT, Given, Processes
from emacheck.train.launching.slurm import from_slurm

LAUNCHERS = ("none", "pytorch", "slurm")
# Of torch's c10d rendezvous.
RENDEZVOUS_PORT = 29400


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
    given = Given(nproc_per_node or 1, nnodes, node_rank, master_addr, master_port, endpoint, rdzv_id)
    if launcher == "slurm":
        return _of_nodes(from_slurm(given, environment))
    return _of_nodes(given) if launcher == "pytorch" or several else Processes()


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


def _of_nodes(given: Given) -> Processes:
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
