"""emacheck's own run directory: ``run.json`` about the run, ``iterations.jsonl`` with one iteration per line.

A run of several processes has one such file for each: ``iterations.rank1.jsonl`` and so on beside that of rank 0.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emacheck.bundle_files import bundle_around, verified_files
from emacheck.counted import and_so_on, counted
from emacheck.errors import LogError
from emacheck.logs.formats.json_lines import json_object
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import Lines, numbered
from emacheck.logs.values import parse_iteration
from emacheck.oddity import OddityKind
from emacheck.on_cpu import ran_on_the_cpu
from emacheck.rank_files import FORMAT_VERSION, RUN_FILE, rank_file, rank_files
from emacheck.record import Record, hash_of_samples
from emacheck.strict_json import decode_value

NAME = "emacheck run"
ITERATIONS = rank_file(0)
LARGEST_HEADER = 16 << 20
DEPTH = 3
# Of mmengine, the Trainer, Lightning, TensorBoard and anybody: the most precise first.
LOG_NAMES = ("scalars.json", "trainer_state.json", "metrics.csv", "events.out.tfevents.*", "*.log.json", "*.log")
LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What ``run.json`` says."""

    complete: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    initial_state: str | None = None
    iterations: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The fingerprints of one batch."""

    hash: str | None = None
    samples: tuple[str, ...] = ()


_Ranks = Mapping[int, dict[int, _Batch]]


def read_directory(folder: Path, rank: int | None = None) -> Record:
    """Read a run directory.

    Args:
        folder: The directory.
        rank: The rank to take of several; their mean if None.

    Returns:
        The record; not complete if ``run.json`` is missing, says so, or counts other iterations than there are, or if
        the iterations of a rank are missing. Of several nodes, any node's directory is read.

    Raises:
        LogError: If the directory is no run directory, or of another format version.
        BundleError: If it is a stored reference that was changed or damaged.
    """
    has_header, files = (folder / RUN_FILE).is_file(), rank_files(folder)
    if not files:
        raise LogError(_no_run(folder, has_header=has_header))
    bundle = bundle_around(folder)
    if bundle is not None:
        verified_files(bundle)
    for path in files.values():
        if not path.is_file():  # a pipe may never say anything, and a device may never end
            raise LogError(
                f"{path}: this is a directory, a pipe, a device or a link to nothing, expected a file of iterations. "
                "Repeat the run, or copy its directory again."
            )
    header = _read_header(folder / RUN_FILE) if has_header else _Header()
    gathering = Gathering(format=NAME, name=str(folder), rank=rank, plain=True, exact=True)
    ranks: dict[int, dict[int, _Batch]] = {}
    for number, path in files.items():
        with path.open("rb") as file:
            lines = Lines(file)
            ranks[number] = _read_iterations(lines, gathering, number)
        gathering.oddities += lines.remarks
    complete = _complete(header, ranks, gathering, has_header=has_header)
    missing = _missing(header, ranks)
    if missing is not None:
        # One rank of several is all that was asked for.
        complete = complete and rank is not None
        gathering.remark(OddityKind.RANKS_MISSING if rank is None else OddityKind.RANKS_LACKING, missing)
    for note in _notes(header):
        gathering.remark(OddityKind.CONFIGURATION, f"configuration: {note}")
    for said in _on_cpu(header.provenance):
        gathering.remark(OddityKind.ON_CPU, said)
    curves = gathering.curves()
    record = gathering.record(curves)
    return replace(
        record,
        provenance=header.provenance,
        initial_state=header.initial_state,
        batches=_in_order(ranks[rank] if rank is not None else {} if missing else _joined(ranks)),
        complete=complete,
    )


def _read_header(path: Path) -> _Header:
    with path.open("rb") as file:
        content = file.read(LARGEST_HEADER + 1)
    value = json_object(content.decode("utf-8", "replace")) if len(content) <= LARGEST_HEADER else None
    if value is None:
        raise LogError(
            f"{path}: this is no JSON object of at most {LARGEST_HEADER >> 20} MiB, expected the description of a run. "
            f"The file is damaged: repeat the run, or remove it to read {ITERATIONS} as an unfinished run."
        )
    version = value.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise LogError(
            f"{path}: found format_version {version!r}, expected {FORMAT_VERSION}. "
            "Use the version of emacheck that wrote it, or repeat the run with this one."
        )
    kinds: dict[str, tuple[type, ...]] = {
        "complete": (bool,),
        "provenance": (dict,),
        "initial_state": (str, type(None)),
        "iterations": (int,),
    }
    for key, kind in kinds.items():
        if key not in value or not isinstance(value[key], kind):
            expected = " or ".join("null" if k is type(None) else k.__name__ for k in kind)
            found = repr(value[key])[:80] if key in value else "nothing"
            raise LogError(f"{path}: {key}: found {found}, expected {expected}. The file is damaged: repeat the run.")
    _check_provenance(path, value["provenance"])
    return _Header(**{key: value[key] for key in kinds})


def _check_provenance(path: Path, provenance: Mapping[str, Any]) -> None:
    """Refuse a provenance of another shape than what compares two of them relies on; what it lacks it may lack."""
    experiment = provenance.get("experiment", {})
    config = experiment.get("config", {}) if isinstance(experiment, dict) else {}
    groups = {"provenance.experiment": experiment, "provenance.experiment.config": config}
    for name, group in groups.items():
        if not isinstance(group, dict):
            raise LogError(
                f"{path}: {name}: found {repr(group)[:80]}, expected an object. The file is damaged: repeat the run."
            )


def _read_iterations(lines: Lines, gathering: Gathering, rank: int) -> dict[int, _Batch]:
    """Read the file of one rank, and return the batch of each of its iterations."""
    broken, batches = None, dict[int, _Batch]()
    for number, line in numbered(lines):
        gathering.lines = number
        if not line.strip():
            continue
        if broken is not None:
            gathering.skip("lines that are not the JSON object of an iteration", broken)
        broken = None if _read_iteration(line, gathering, rank, batches) else number
    if broken is not None:
        whose = f" of rank {rank}" if rank else ""
        gathering.remark(OddityKind.TORN, f"the last line{whose}, {broken}, is torn and was dropped", line=broken)
    return batches


def _read_iteration(line: str, gathering: Gathering, rank: int, batches: dict[int, _Batch]) -> bool:
    """Take one line; False if it is not the object of an iteration."""
    row = json_object(line, strict=True)
    if row is None or not isinstance(row.get("metrics"), dict):
        return False
    iteration = parse_iteration(row.get("iteration"))
    if iteration is None:
        return False
    metrics = {}
    for name, value in row["metrics"].items():
        try:
            metrics[name] = decode_value(value)
        except ValueError:
            gathering.skip(f"values of {name} that are not a number", gathering.lines)
    batch, samples = row.get("batch"), row.get("samples")
    batches[iteration] = _Batch(
        hash=batch if isinstance(batch, str) and batch else None,
        samples=tuple(map(str, samples)) if isinstance(samples, list) else (),
    )
    gathering.add(iteration, metrics, gathering.lines, rank=rank)
    return True


def _complete(header: _Header, ranks: _Ranks, gathering: Gathering, *, has_header: bool) -> bool:
    if not has_header:
        message = f"{RUN_FILE} is missing: the run ended before its time or is still going on"
        gathering.remark(OddityKind.ENDED_EARLY, message)
        return False
    if not header.complete:
        gathering.remark(OddityKind.ENDED_EARLY, "the run ended before its time")
        return False
    for rank, batches in ranks.items():
        if header.iterations != len(batches):
            message = f"{RUN_FILE} counts {header.iterations} iterations, {rank_file(rank)} holds {len(batches)}"
            gathering.remark(OddityKind.ENDED_EARLY, message)
            return False
    return True


def _notes(header: _Header) -> list[str]:
    """Return what a run has left out of its configuration, or changed in it."""
    said = header.provenance.get("notes")
    notes = [each for each in said if isinstance(each, str)] if isinstance(said, list) else []
    more = [f"{counted(len(notes) - LISTED, 'further note')} in {RUN_FILE}"] if len(notes) > LISTED else []
    return notes[:LISTED] + more


def _on_cpu(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which operators ran on the CPU instead of the run's device; nothing where nobody has looked."""
    observed, device = provenance.get("observed"), provenance.get("device")
    if not isinstance(observed, dict) or not isinstance(device, dict):
        return ()
    names = {key: observed[key] for key in ("fallback", "on_host", "allowed") if isinstance(observed.get(key), list)}
    return ran_on_the_cpu(str(device.get("type")), **{key: [str(each) for each in names[key]] for key in names})


def _missing(header: _Header, ranks: _Ranks) -> str | None:
    """Say which ranks there are, if those are not all of them and no others."""
    least = max(ranks) + 1
    stated = (header.provenance.get("experiment") or {}).get("processes")
    processes = stated if isinstance(stated, int) else least
    if len(ranks) == least == processes:
        return None
    return (
        f"found the iterations of rank {and_so_on(list(ranks), LISTED)}, expected those of "
        f"{counted(processes, 'process', 'processes')}; of several nodes, that of rank 0 holds all when the training "
        "is over"
    )


def _joined(ranks: _Ranks) -> dict[int, _Batch]:
    """Return the batches of all ranks together: sample k of rank r of N is number k N + r of the joined order."""
    if len(ranks) == 1:
        return next(iter(ranks.values()))
    joined = {}
    for iteration in set.intersection(*(set(batches) for batches in ranks.values())):
        parts = [batches[iteration].samples for batches in ranks.values()]
        whole = len({len(part) for part in parts}) == 1 and bool(parts[0])
        samples = [sample for samples in zip(*parts, strict=True) for sample in samples] if whole else []
        joined[iteration] = _Batch(hash=hash_of_samples(samples) if samples else None)
    return joined


def _in_order(batches: Mapping[int, _Batch]) -> tuple[str | None, ...]:
    """Return the hashes of iterations 1, 2, 3, ..., or 0, 1, 2, ...: they count by position. None if none is known."""
    first = 0 if 0 in batches else 1
    hashes = tuple(batches.get(first + at, _Batch()).hash for at in range(len(batches)))
    return hashes if any(hashes) else ()


def _no_run(folder: Path, *, has_header: bool) -> str:
    """Say what is in a directory that holds no run, and what was perhaps meant."""
    if has_header:
        return (
            f"{folder}: found {RUN_FILE} but no {ITERATIONS}, expected both: the run ended before its first iteration, "
            "or the file was removed. Repeat the run."
        )
    names = sorted(entry.name + "/" * entry.is_dir() for entry in itertools.islice(folder.iterdir(), 1000))
    message = (
        f"{folder}: this is no run directory: expected {RUN_FILE} and {ITERATIONS}, found "
        f"{and_so_on(names, LISTED) or 'nothing'}. Give a log file or the directory of a run."
    )
    if (folder / "candidate" / ITERATIONS).is_file():
        return f"{message}\n  Perhaps you mean {folder / 'candidate'}"
    log = _first_log(folder)
    return f"{message}\n  Perhaps you mean {log}" if log else message


def _first_log(folder: Path) -> Path | None:
    """Return the first log, of the kind that says most, not more than three directories down."""
    for name, depth in itertools.product(LOG_NAMES, range(DEPTH + 1)):
        found = sorted(folder.glob("*/" * depth + name))
        if found:
            return found[0]
    return None
