"""What Slurm says of the nodes of a training, in the environment of each step."""

import re
from collections.abc import Mapping

from emacheck.errors import UsageError
from emacheck.train.launching.processes import DEFAULT_PORT, LAST_PORT, Given

# Of a step under Slurm, from the default port on: below those that systems hand out by themselves (32768 and up).
SLURM_PORTS = 3000
STEPS_OF_A_JOB = 10
# SLURM_INTERACTIVE_STEP in slurm.h: the shell that salloc opens on the first node, which is on no other.
INTERACTIVE_STEP = "4294967290"


def from_slurm(given: Given, environment: Mapping[str, str]) -> Given:
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
