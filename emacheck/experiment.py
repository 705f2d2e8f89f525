"""An experiment: the choices that must be equal before two runs may be compared at all."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# These parts of an mmengine configuration decide the numbers; paths, hooks that only write, and evaluation do not.
DECISIVE = (
    "model",
    "train_dataloader",
    "optim_wrapper",
    "param_scheduler",
    "custom_hooks",
    "auto_scale_lr",
    "load_from",
)
PATHS = frozenset({"data_root", "work_dir"})

Flat = dict[str, Any]


def flatten(config: Mapping[str, Any]) -> Flat:
    """Flatten the decisive part of a configuration to dotted keys with JSON scalars.

    Args:
        config: A resolved configuration as nested mappings and sequences.

    Returns:
        One entry per leaf, sorted by key; paths to data are left out because they differ between machines.

    Example:
        >>> flatten({"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}}, "work_dir": "x"})
        {'optim_wrapper.optimizer.lr': 0.01, 'optim_wrapper.optimizer.type': 'SGD'}
    """
    flat: Flat = {}
    for key in DECISIVE:
        if config.get(key) is not None:
            _collect(key, config[key], flat)
    loop = config.get("train_cfg") or {}
    if "type" in loop:
        _collect("train_cfg.type", loop["type"], flat)
    return dict(sorted(flat.items()))


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


def differences(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """Name every field in which two experiments differ.

    Args:
        reference: The reference's experiment: ``config`` (flat) and further fields such as ``seed`` or ``precision``.
        candidate: The candidate's.

    Returns:
        One line per differing field, ``field: reference X, candidate Y``; empty if the experiments are equal.

    Example:
        >>> differences({"seed": 0, "config": {"lr": 0.1}}, {"seed": 0, "config": {"lr": 0.2}})
        ['lr: reference 0.1, candidate 0.2']
    """
    lines = []
    for key in sorted({*reference, *candidate} - {"config"}):
        lines += _difference(key, reference, candidate)
    ours, theirs = reference.get("config") or {}, candidate.get("config") or {}
    for key in sorted({*ours, *theirs}):
        lines += _difference(key, ours, theirs)
    return lines


def _difference(key: str, reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    if key in reference and key in candidate and reference[key] == candidate[key]:
        return []
    shown = [repr(side[key]) if key in side else "nothing" for side in (reference, candidate)]
    return [f"{key}: reference {shown[0]}, candidate {shown[1]}"]
