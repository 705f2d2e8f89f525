"""An experiment: the choices that must be equal before two runs may be compared at all."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from emacheck.counted import counted

# These parts of an mmengine configuration decide the numbers; paths, hooks that only write, and evaluation do not.
DECISIVE = (
    "model",
    "train_dataloader",
    "optim_wrapper",
    "param_scheduler",
    "custom_hooks",
    "auto_scale_lr",
    "load_from",
    "sync_bn",
    "compile",
)
BATCH_SIZE = "train_dataloader.batch_size"
# How samples are loaded; it decides nothing where each is drawn from a seed of its own.
LOADING = frozenset(
    f"train_dataloader.{key}"
    for key in (
        *("num_workers", "persistent_workers", "prefetch_factor", "multiprocessing_context", "timeout"),
        *("pin_memory", "pin_memory_device"),
    )
)
UNSYNCHRONISED = ("BN", "BN1d", "BN2d", "BN3d")
PATHS = frozenset({"data_root", "work_dir"})
# What mmengine does around an iteration unless a configuration says otherwise; the other default hooks only write.
USUAL_HOOKS = {
    "runtime_info": "RuntimeInfoHook",
    "sampler_seed": "DistSamplerSeedHook",
    "param_scheduler": "ParamSchedulerHook",
}
WRITING_HOOKS = frozenset({"timer", "logger", "checkpoint", "visualization"})

Flat = dict[str, Any]


def flatten(config: Mapping[str, Any]) -> Flat:
    """Flatten the decisive part of a configuration to dotted keys with JSON scalars.

    Args:
        config: A resolved configuration as nested mappings and sequences.

    Returns:
        One entry per leaf, sorted by key; paths to data are left out because they differ between machines, and default
        hooks where they are mmengine's usual ones.

    Example:
        >>> flatten({"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}}, "work_dir": "x"})
        {'optim_wrapper.optimizer.lr': 0.01, 'optim_wrapper.optimizer.type': 'SGD'}
    """
    flat: Flat = {}
    for key in DECISIVE:
        # To compile or not to compile nothing is the same.
        if config.get(key) is not None and not (key == "compile" and config[key] is False):
            _collect(key, config[key], flat)
    loop = config.get("train_cfg") or {}
    if "type" in loop:
        _collect("train_cfg.type", loop["type"], flat)
    if "max_epochs" in loop and _ends_with_the_loop(config.get("param_scheduler")):
        _collect("train_cfg.max_epochs", loop["max_epochs"], flat)
    for name, hook in (config.get("default_hooks") or {}).items():
        if name not in WRITING_HOOKS and (hook is None or dict(hook) != {"type": USUAL_HOOKS.get(name)}):
            _collect(f"default_hooks.{name}", hook, flat)
    return dict(sorted(flat.items()))


def _ends_with_the_loop(schedulers: Any) -> bool:
    """Tell whether there is a scheduler without an end of its own; mmengine takes the loop's for it."""
    each = [schedulers] if isinstance(schedulers, Mapping) else schedulers
    return isinstance(each, list | tuple) and any(isinstance(one, Mapping) and "end" not in one for one in each)


def _collect(prefix: str, value: Any, flat: Flat) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in PATHS:
                _collect(f"{prefix}.{key}", item, flat)
        if not value:
            flat[prefix] = "{}"
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            _collect(f"{prefix}.{at}", item, flat)
        if not value:
            flat[prefix] = "[]"
    elif value is None or isinstance(value, bool | int | float | str):
        flat[prefix] = value
    else:
        flat[prefix] = getattr(value, "__qualname__", None) or str(value)


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value in its canonical form.

    Example:
        >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
        True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(
    reference: Mapping[str, Any], candidate: Mapping[str, Any], *, names: tuple[str, str] = ("reference", "candidate")
) -> list[str]:
    """Name every field in which two experiments differ.

    Args:
        reference: The reference's experiment: ``config`` (flat) and further fields such as ``seed`` or ``precision``.
        candidate: The candidate's.
        names: What the two are called.

    Returns:
        One line per differing field, ``field: reference X, candidate Y``; empty if the experiments are equal. N
        processes with batches of b and one process with batches of N b are equal, unless something in the configuration
        depends on how the joined batch is parted; then that is named. Of other numbers of processes with joined batches
        of other sizes, these sizes are named. How samples are loaded may differ between runs that draw each of them
        from a seed of its own.

    Example:
        >>> differences({"seed": 0, "config": {"lr": 0.1}}, {"seed": 0, "config": {"lr": 0.2}})
        ['lr: reference 0.1, candidate 0.2']
    """
    lines = list[str]()
    ours, theirs = reference.get("config") or {}, candidate.get("config") or {}
    joined, other = joined_alike(reference, candidate), _other_joined(reference, candidate, names)
    alike = loading_alike(reference, candidate) | ({"processes", BATCH_SIZE} if joined or other else set())
    lines += other
    for key in sorted({*reference, *candidate} - {"config"} - alike):
        lines += _difference(key, reference, candidate, names)
    for key in sorted({*ours, *theirs} - alike):
        lines += _difference(key, ours, theirs, names)
    return [*lines, *(parted_batch_matters(theirs) if joined else [])]


def loading_alike(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys of the configuration in which two experiments may differ, for they load their samples alike.

    Example:
        >>> "train_dataloader.num_workers" in loading_alike({"draws": 2}, {"draws": 2})
        True
        >>> loading_alike({"draws": 1}, {"draws": 1})
        frozenset()
    """
    return LOADING if reference.get("draws") == candidate.get("draws") == 2 else frozenset()


def joined_alike(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> bool:
    """Tell whether two experiments of another number of processes train on joined batches of the same size.

    Example:
        >>> one, two = ({"processes": n, "config": {BATCH_SIZE: 2 // n}} for n in (1, 2))
        >>> joined_alike(one, two), joined_alike(one, one)
        (True, False)
    """
    joined = _joined(reference)
    return joined is not None and joined == _joined(candidate) and reference["processes"] != candidate["processes"]


def _other_joined(reference: Mapping[str, Any], candidate: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    """Name the joined batches of other numbers of processes, where their sizes differ, and what would fit."""
    ours, theirs = _joined(reference), _joined(candidate)
    if ours is None or theirs is None or ours == theirs or reference["processes"] == candidate["processes"]:
        return []
    size, rest = divmod(ours, candidate["processes"])
    hint = f"{BATCH_SIZE}={size} would fit" if size and not rest else "only --reference-device trains a fitting one"
    shown = [f"{_joined(side)} ({_parted(side)})" for side in (reference, candidate)]
    return [f"joined batch: {names[0]} {shown[0]}, {names[1]} {shown[1]}; {hint}"]


def _parted(experiment: Mapping[str, Any]) -> str:
    return f"{counted(experiment['processes'], 'process', 'processes')} x {experiment['config'][BATCH_SIZE]}"


def _joined(experiment: Mapping[str, Any]) -> int | None:
    """Return how many samples all processes together train on in one iteration; None if that is not known."""
    size, processes = (experiment.get("config") or {}).get(BATCH_SIZE), experiment.get("processes")
    return size * processes if isinstance(size, int) and isinstance(processes, int) and processes > 0 else None


def parted_batch_matters(config: Flat) -> list[str]:
    """Name what makes N processes with batches of b another experiment than one process with batches of N b.

    Gradients are averaged over the processes, so the loss must be a mean over the same number of pixels on each, and
    nothing may look at the samples of one process only.

    Args:
        config: A configuration as :func:`flatten` returns it.

    Returns:
        One line per reason; empty if there is none.

    Source: mmseg/models/losses/cross_entropy_loss.py (``avg_non_ignore``: ignored pixels count otherwise) and
    mmseg/models/decode_heads/ema_head.py (``reduce_mean``: a mean over ranks of means over their samples).

    Example:
        >>> parted_batch_matters({"model.backbone.norm_cfg.type": "BN"})
        ['model.backbone.norm_cfg.type: BN takes its statistics from the batch of one process; SyncBN does not']
    """
    lines = []
    for key, value in config.items():
        if key.endswith("norm_cfg.type") and str(value) in UNSYNCHRONISED:
            lines.append(f"{key}: {value} takes its statistics from the batch of one process; SyncBN does not")
        if key.endswith(".avg_non_ignore") and value:
            lines.append(f"{key}: the loss is a mean over labelled pixels, of which each process has another number")
        if ".class_weight" in key and value is not None:
            lines.append(f"{key}: the loss is a weighted mean, and the weights of each process add up to another sum")
        if key.endswith(".sampler.type") and key.startswith("model."):
            lines.append(f"{key}: {value} picks pixels from the batch of one process")
    return lines


def _difference(
    key: str, reference: Mapping[str, Any], candidate: Mapping[str, Any], names: tuple[str, str]
) -> list[str]:
    if key in reference and key in candidate and reference[key] == candidate[key]:
        return []
    shown = [repr(side[key]) if key in side else "nothing" for side in (reference, candidate)]
    return [f"{key}: {names[0]} {shown[0]}, {names[1]} {shown[1]}"]
