"""What two records say of their experiments: where that differs in what decides the data, they are not paired."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from emacheck.experiment import BATCH_SIZE, differences, joined_alike, loading_alike
from emacheck.record import Record

# A path differs between any two machines and decides nothing.
PATHS = ("data_root", "work_dir", "save_dir", "filename")
ABSENT = "-"
# What differs where one process trains on the joined batch of several.
PARTED = ("processes", f"config.{BATCH_SIZE}")
_DEEPEST = 3

_SEEDS = {"seed", "numpy_random_seed", "random_seed", "manual_seed", "diff_rank_seed", "deterministic"}
_PROCESSES = {"gpu number", "world_size", "num_gpus", "n_gpus", "ngpus", "nproc_per_node", "num_processes", "nnodes"}
_BATCHES = {
    *("batch_size", "train_batch_size", "per_device_train_batch_size", "samples_per_gpu", "batch_size_per_gpu"),
    *("gradient_accumulation_steps", "accumulative_counts", "num_workers", "workers_per_gpu"),
}
_SIZES = {"crop_size", "img_size", "image_size", "input_size", "dataset_type", "dataset", "train_split"}
_DECISIVE = _SEEDS | _PROCESSES | _BATCHES | _SIZES
# One process may see the joined batch of several, and how a seed is used is not the seed.
_DIVIDING = _PROCESSES | _BATCHES | {"processes", "deterministic", "diff_rank_seed"}
# Everything under these decides what a training sees, whatever it is called.
_TRAINING_DATA = re.compile(r"config\.(?:train_dataloader|train_pipeline|data\.train|train_dataset)\.")
_EVALUATION = re.compile(r"(?:^|[._])(?:val|valid|validation|test|eval)(?:[._]|$)")
_WITHOUT_EFFECT = ("persistent_workers", "pin_memory", "prefetch_factor")


def header_differences(reference: Record, candidate: Record) -> tuple[tuple[str, str, str], ...]:
    """Return name, reference's and candidate's entry of everything in which the headers differ, as they stand.

    Only where both logs have a header; an entry that one of them lacks is shown as ``-``.
    """
    if not reference.header or not candidate.header:
        return ()
    return tuple(_differing(reference.header, candidate.header))


def different_processes(reference: Record, candidate: Record) -> tuple[str, ...]:
    """Return how many processes wrote the two records, if that differs and their joined batches are not the same."""
    if reference.ranks == candidate.ranks or joined_alike(*_experiments(reference, candidate)):
        return ()
    return (f"processes {reference.ranks} against {candidate.ranks}",)


def different_experiment(reference: Record, candidate: Record) -> tuple[str, ...]:
    """Return what two records say differently of what decides the data, such as the seed or the size of a batch.

    Any of it proves that the runs are not paired: they did not see the same batches. What only one of the records
    states proves nothing and is left out, and so is what decides no data, such as paths, versions and devices.

    Args:
        reference: What the candidate is measured against.
        candidate: The record under test.

    Returns:
        One entry for each difference, ``name X against Y``.

    Example:
        >>> def record(**header):
        ...     return Record(name="", format="", curves={}, header=header)
        >>> different_experiment(record(seed="1", resumed="no"), record(seed="2", resumed="yes"))
        ('seed 1 against 2',)
    """
    return tuple(_different(reference, candidate))


def different_data(reference: Record, candidate: Record) -> tuple[str, ...]:
    """Return what of :func:`different_experiment` holds even if the first iterations agree: other seeds, other data.

    Left out is how the data is divided among processes and batches, for one process may see the joined batch of
    several, and what both give as a path, for one data set may lie in two places.

    Example:
        >>> def record(**header):
        ...     return Record(name="", format="", curves={}, header=header)
        >>> different_data(record(seed="1", world_size="1"), record(seed="2", world_size="4"))
        ('seed 1 against 2',)
    """
    return tuple(entry for entry, settled in _different(reference, candidate).items() if settled)


def asked_otherwise(reference: Record, candidate: Record, *, paired: bool) -> tuple[str, ...]:
    """Return what two runs were asked for differently, as far as both say it and it may not differ.

    Args:
        reference: What the candidate is measured against.
        candidate: The record under test.
        paired: Whether both are known to see the same batches, which is proof enough of equal data; runs of other seeds
            are compared as such.

    Example:
        >>> def record(**experiment):
        ...     return Record(name="", format="", curves={}, provenance={"experiment": experiment})
        >>> asked_otherwise(record(precision="fp32", name="a"), record(precision="bf16", name="b"), paired=False)
        ("precision: reference 'fp32', candidate 'bf16'",)
    """
    ours, theirs = _experiments(reference, candidate)
    stated = (ours.keys() & theirs.keys()) - {"name", "data_hash" if paired else "seed"}
    return tuple(differences({key: ours[key] for key in stated}, {key: theirs[key] for key in stated}))


def _different(reference: Record, candidate: Record) -> dict[str, bool]:
    """Return each difference in what decides the data, and whether it holds even if the first iterations agree."""
    found = dict.fromkeys(different_processes(reference, candidate), False)
    experiments = _experiments(reference, candidate)
    alike = {f"config.{key}" for key in loading_alike(*experiments)}
    if joined_alike(*experiments):
        alike.update(PARTED)
    for ours, theirs in ((reference.header, candidate.header), _stated(reference, candidate)):
        for key, one, other in _differing(ours, theirs):
            # A header may say one seed under several names.
            name = "seed" if key.rpartition(".")[2] in _SEEDS - {"deterministic"} else key
            entry = f"{name} {one} against {other}"
            if name in alike:
                continue
            if ABSENT not in (one, other) and _same(one) != _same(other) and decides_data(name) and entry not in found:
                paths = all("/" in each or "\\" in each for each in (one, other))
                found[entry] = not paths and key.rpartition(".")[2].lower() not in _DIVIDING
    return found


def _experiments(reference: Record, candidate: Record) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what both records say of their experiments."""
    return reference.provenance.get("experiment") or {}, candidate.provenance.get("experiment") or {}


def decides_data(name: str) -> bool:
    """Tell whether a header's entry of this name decides what a training sees.

    Example:
        >>> [decides_data(name) for name in ("seed", "config.train_dataloader.batch_size", "config.val_batch_size")]
        [True, True, False]
    """
    lowered = name.lower()
    if lowered.endswith((*PATHS, *_WITHOUT_EFFECT)) or _EVALUATION.search(lowered):
        return False
    return lowered.rpartition(".")[2] in _DECISIVE or bool(_TRAINING_DATA.match(lowered))


def _differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in sorted({*ours, *theirs}):
        one, other = ours.get(name, ABSENT), theirs.get(name, ABSENT)
        if one != other:
            yield name, one, other


def _stated(reference: Record, candidate: Record) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return what the provenances of both state, under dotted names as in a header."""
    first, second = (dict(_leaves("", record.provenance, _DEEPEST)) for record in (reference, candidate))
    return first, second


def _leaves(prefix: str, values: Mapping[str, object], depth: int) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        inside = "" if name == "experiment" else f"{prefix}{name}."
        if isinstance(value, Mapping) and depth:
            yield from _leaves(inside, value, depth - 1)
        elif isinstance(value, str | int | float):
            yield f"{prefix}{name}", str(value)


def _same(text: str) -> str:
    """Return an entry so that two spellings of one value are equal, such as ``True`` and ``true``."""
    return re.sub(r"\s+", "", text).strip("'\"").lower()
