"""The processes of one training, seen from one of them: which it is, and whether all hold the same state."""

import contextlib
import datetime
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.model import is_model_wrapper
from torch.nn.modules.batchnorm import _BatchNorm

from emacheck.counted import counted, the_first
from emacheck.errors import TrainingError, UsageError
from emacheck.experiment import differences, digest
from emacheck.rank_files import rank_file
from emacheck.train.device.accelerator import join_processes, open_device, select_for_rank
from emacheck.train.device.devices import Device
from emacheck.train.device.sync_bn import SYNCHRONISED
from emacheck.train.launching.meeting import name_of_node
from emacheck.train.launching.processes import ASKED_FOR
from emacheck.train.paired.fingerprint import tensor_hash

SHOWN = 3
SHOWN_OPTIONS = 20
# The command ends a training that hangs, after a --timeout of any length; torch's own limit must not come before it.
COLLECTIVE_TIMEOUT = datetime.timedelta(days=30)


def is_launched() -> bool:
    """Tell whether torch's launcher has started this process, so that there is a group to join."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return the number of this process among all; 0 if there is only one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes train."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def open_device_of_rank(device: Device, backend: str | None) -> Device:
    """Open this process's device, and join the other processes if there are any.

    Args:
        device: The device as the user named it.
        backend: Another communication backend than the device's usual one, or None.

    Returns:
        The device of this process.

    Raises:
        UsageError: If the device or the backend is not there: on every rank if it is missing on one of them.
        TrainingError: If the processes did not find each other.
    """
    if not is_launched():
        open_device(device)
        return device
    if backend is not None:
        device = replace(device, kind=replace(device.kind, backend=backend))
    mine, refusal = device, None
    try:
        mine = select_for_rank(device)
    except UsageError as error:
        refusal = str(error)
    _refuse_together(_tell_each_other("opened", {"node": _node(), "refusal": refusal}))
    join_processes(mine, timeout=COLLECTIVE_TIMEOUT)
    return mine


def agree(task: Mapping[str, Any], refusal: str | None = None) -> None:
    """Go on only if every rank is asked for the same and none refuses it: one alone would leave the others waiting.

    To be called before the device is opened: ranks with other devices cannot even join each other. They talk through
    the store of torch's launcher.

    Args:
        task: What this rank is asked to do: its experiment, and whatever else must be the same on every rank.
        refusal: Why this rank refuses it, or None.

    Raises:
        UsageError: On every rank; the message names the node, the rank and the fields that differ.
    """
    asked_for = {"nodes x processes of each": os.environ.get(ASKED_FOR), **task}
    refusal = _other_number_than_asked_for() or refusal
    mine: dict[str, Any] = {"node": _node(), "task": asked_for, "refusal": refusal}
    all_of_us = _tell_each_other("asked for", mine) if is_launched() else [mine]
    message = describe_other_tasks([(each["node"], each["task"]) for each in all_of_us])
    if message is not None:
        raise UsageError(message)
    _refuse_together(all_of_us)


def _other_number_than_asked_for() -> str | None:
    """Return that not as many processes were started as were asked for, all nodes together; None if they were."""
    nodes, _, nproc = os.environ.get(ASKED_FOR, "").partition(" x ")
    if not is_launched() or not nproc or int(nodes) * int(nproc) == world_size():
        return None
    return (
        f"found {counted(world_size(), 'rank')} on all nodes together, expected {nodes} x {nproc} (--nnodes x "
        "--nproc-per-node), so torch's launcher has not started what was asked for. At a rendezvous the clocks of the "
        "nodes must agree within 15 s: set them, or give --node-rank and --master-addr instead of --rdzv-endpoint."
    )


def _node() -> str:
    return name_of_node(int(os.environ.get("GROUP_RANK", "0")))


def _refuse_together(all_of_us: Sequence[Mapping[str, Any]]) -> None:
    """Raise on every rank what the first of them refuses; one that is alone would wait for those that went."""
    for each in all_of_us:
        if each["refusal"] is not None:
            where = f"on {each['node']}: " if each["node"] != _node() else ""
            raise UsageError(f"{where}{each['refusal']}")


def _tell_each_other(topic: str, mine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what every rank tells the others about a topic, which is named once only."""
    store = dist.PrefixStore(f"emacheck {topic}", _store())  # type: ignore[attr-defined]
    store.set(f"told by {rank()}", json.dumps(mine))
    told = [json.loads(store.get(f"told by {each}")) for each in range(world_size())]
    # The store goes with the first that leaves, so nobody leaves before all have heard; who waits here has heard.
    with contextlib.suppress(RuntimeError):
        store.set(f"heard by {rank()}", "")
        store.wait([f"heard by {each}" for each in range(world_size())])
    return told


@cache
def _store() -> Any:
    """Return the store of torch's launcher; kept, for where rank 0 itself holds it, it would end with the object."""
    return next(iter(dist.rendezvous("env://", timeout=COLLECTIVE_TIMEOUT)))[0]  # type: ignore[attr-defined]


def describe_other_tasks(tasks: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    """Say which ranks are asked for something else than rank 0, and in what it differs; None if all are the same.

    Args:
        tasks: The node and the task of each rank.
    """
    lines, nodes = [], set()
    for each, (node, task) in enumerate(tasks):
        found = differences(tasks[0][1], task, names=("rank 0", f"rank {each}"))
        # All ranks of a node are told the same.
        if found and node not in nodes:
            nodes.add(node)
            lines += [f"  {node}: {line}" for line in found]
    if not lines:
        return None
    more = [f"  ... and {len(lines) - SHOWN_OPTIONS} more"] if len(lines) > SHOWN_OPTIONS else []
    return "\n".join(
        [
            "the ranks are asked to do different things, so what they compute together would prove nothing:",
            *lines[:SHOWN_OPTIONS],
            *more,
            "Give the same options, the same configuration, the same data and the same software on every node; only "
            "--node-rank, --work-dir and the place of the data may differ.",
        ]
    )


def leave() -> None:
    """Part from the other processes after a training that ended well: none goes before all are done."""
    if dist.is_initialized():
        dist.barrier()


def shared_state(model: torch.nn.Module) -> dict[str, str]:
    """Return the hash of every parameter and buffer that must be the same on every rank.

    The running statistics of a BatchNorm that is not synchronised are left out: each rank has seen other samples.

    Args:
        model: The network, not wrapped.

    Example:
        >>> list(shared_state(torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1, affine=False))))
        ['0.weight', '0.bias']
    """
    own = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, SYNCHRONISED)
        for name, _ in module.named_buffers(recurse=False)
    }
    return {name: tensor_hash(tensor) for name, tensor in model.state_dict().items() if name not in own}


def require_equal_ranks(model: torch.nn.Module, when: str) -> None:
    """Compare the weights and the EMA bases of all ranks; does nothing in a single process.

    Args:
        model: The network, wrapped or not.
        when: The moment, for the message, such as ``before training``.

    Raises:
        TrainingError: On every rank, if they are not equal; the message names the ranks that differ from the others.
    """
    if world_size() == 1 or not dist.is_initialized():
        return
    states: list[dict[str, str]] = [{} for _ in range(world_size())]
    dist.all_gather_object(states, shared_state(unwrapped(model)))
    message = describe_differences(dict(enumerate(states)))
    if message is not None:
        raise TrainingError(
            f"the ranks are not equal {when}: {message}\nEvery rank must hold the same weights and the same EMA bases. "
            "Look for what is drawn, loaded or communicated differently there."
        )


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the network itself, without what distributes it."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def describe_differences(states: Mapping[int, Mapping[str, str]]) -> str | None:
    """Say which ranks differ from what most of them hold, and in what; None if all are equal.

    Args:
        states: The hashes of each rank's tensors. Where no state is the most frequent, that of rank 0 counts.

    Example:
        >>> describe_differences({0: {"w": "a", "bases": "x"}, 1: {"w": "a", "bases": "y"}})
        'rank 1 differs from rank 0 in 1 of 2 tensors: bases'
    """
    whole = {each: digest(dict(state)) for each, state in states.items()}
    most = Counter(whole.values()).most_common(1)[0][0]
    normal = next(each for each, value in whole.items() if value == most)
    found = []
    for each, state in states.items():
        if whole[each] == most:
            continue
        names = [name for name in {**states[normal], **state} if state.get(name) != states[normal].get(name)]
        tensors = f"{len(names)} of {len(states[normal])} tensors: {the_first(names, SHOWN)}"
        found.append(f"rank {each} differs from rank {normal} in {tensors}")
    return "; ".join(found) or None


def devices_of_others(mine: Mapping[str, str]) -> dict[str, str]:
    """Return in what the devices of other ranks differ from that of rank 0, whose facts alone are in the record.

    Args:
        mine: What this rank's device is called and what drives it.
    """
    if world_size() == 1 or not dist.is_initialized():
        return {}
    devices: list[Mapping[str, str]] = [{} for _ in range(world_size())]
    dist.all_gather_object(devices, dict(mine))
    return describe_other_devices(devices)


def describe_other_devices(devices: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the facts in which a rank's device is another one than that of rank 0, by rank.

    Example:
        >>> describe_other_devices([{"name": "new card"}, {"name": "new card"}, {"name": "old card"}])
        {'rank 2': 'name: old card'}
    """
    first = devices[0]
    other = {
        f"rank {each}": ", ".join(
            f"{key}: {facts.get(key, 'nothing')}"
            for key in {**first, **facts}
            if key != "count" and facts.get(key) != first.get(key)
        )
        for each, facts in enumerate(devices)
    }
    return {name: said for name, said in other.items() if said}


def gather_records(run_directory: Path, tcap_log: Path | None = None) -> None:
    """Bring the records of other nodes' ranks to the directory of rank 0; on one node they are there already.

    Args:
        run_directory: The run directory of this node.
        tcap_log: The log that all ranks of this node share, or None; the lines of the other nodes are added to it.
    """
    if not dist.is_initialized() or os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        return
    for other, text in _from_other_nodes(run_directory / rank_file(rank())).items():
        (run_directory / rank_file(other)).write_text(text, encoding="utf-8")
    if tcap_log is None:
        return
    # Every rank has handed over its record, so that every line is written; one rank of each node sends them.
    speaks = os.environ.get("LOCAL_RANK") == "0"
    for text in _from_other_nodes(tcap_log if speaks and tcap_log.is_file() else None).values():
        with tcap_log.open("a", encoding="utf-8") as log:
            log.write(text)


def _from_other_nodes(file: Path | None) -> dict[int, str]:
    """Return, in rank 0, the texts of the files that the ranks of other nodes hold; elsewhere nothing."""
    texts: list[str | None] = [None] * world_size()
    sent = None if file is None or os.environ.get("GROUP_RANK") == "0" else file.read_text(encoding="utf-8")
    dist.all_gather_object(texts, sent)
    return {other: text for other, text in enumerate(texts) if text is not None} if rank() == 0 else {}
