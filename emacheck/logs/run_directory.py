"""emacheck's own run directory: ``run.json`` about the run, ``iterations.jsonl`` with one iteration per line."""

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emacheck.errors import LogError
from emacheck.logs.gathering import Gathering
from emacheck.logs.json_lines import json_object
from emacheck.logs.lines import Lines, numbered
from emacheck.logs.values import parse_iteration
from emacheck.oddity import OddityKind
from emacheck.record import Record
from emacheck.strict_json import decode_value

NAME = "emacheck run"
FORMAT_VERSION = 1
HEADER = "run.json"
ITERATIONS = "iterations.jsonl"
LARGEST_HEADER = 16 << 20
DEPTH = 3
LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What ``run.json`` says."""

    complete: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    initial_state: str | None = None
    iterations: int | None = None


def read_directory(folder: Path, rank: int | None = None) -> Record:
    """Read a run directory.

    Args:
        folder: The directory.
        rank: The rank to take; there is none but 0.

    Returns:
        The record; not complete if ``run.json`` is missing, says so, or counts other iterations than there are.

    Raises:
        LogError: If the directory is no run directory, or of another format version.
    """
    path = folder / ITERATIONS
    has_header = (folder / HEADER).is_file()
    if not path.is_file():
        raise LogError(_no_run(folder, has_header=has_header))
    header = _read_header(folder / HEADER) if has_header else _Header()
    gathering = Gathering(format=NAME, name=str(folder), rank=rank, plain=True)
    batches: dict[int, str | None] = {}
    with path.open("rb") as file:
        lines = Lines(file)
        _read_iterations(lines, gathering, batches)
    gathering.oddities += lines.remarks
    curves = gathering.curves()
    complete = _complete(header, len(batches), gathering, has_header=has_header)
    record = gathering.record(curves)
    return replace(
        record,
        provenance=header.provenance,
        initial_state=header.initial_state,
        batches=_in_order(batches),
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
    return _Header(**{key: value[key] for key in kinds})


def _read_iterations(lines: Lines, gathering: Gathering, batches: dict[int, str | None]) -> None:
    broken = None
    for number, line in numbered(lines):
        gathering.lines = number
        if not line.strip():
            continue
        if broken is not None:
            gathering.skip("lines that are not the JSON object of an iteration", broken)
        broken = None if _read_iteration(line, gathering, batches) else number
    if broken is not None:
        gathering.remark(OddityKind.TORN, f"the last line, {broken}, is torn and was dropped", line=broken)


def _read_iteration(line: str, gathering: Gathering, batches: dict[int, str | None]) -> bool:
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
    batch = row.get("batch")
    batches[iteration] = batch if isinstance(batch, str) else None
    gathering.add(iteration, metrics, gathering.lines)
    return True


def _complete(header: _Header, found: int, gathering: Gathering, *, has_header: bool) -> bool:
    if not has_header:
        message = f"{HEADER} is missing: the run ended before its time or is still going on"
        gathering.remark(OddityKind.ENDED_EARLY, message)
        return False
    if not header.complete:
        gathering.remark(OddityKind.ENDED_EARLY, "the run ended before its time")
        return False
    if header.iterations != found:
        message = f"{HEADER} counts {header.iterations} iterations, {ITERATIONS} holds {found}"
        gathering.remark(OddityKind.ENDED_EARLY, message)
        return False
    return True


def _in_order(batches: dict[int, str | None]) -> tuple[str, ...]:
    """Return the hashes of iterations 1, 2, 3, ...; none at all if one is missing, for they count by position."""
    hashes = [batches.get(iteration) for iteration in range(1, len(batches) + 1)]
    known = [value for value in hashes if value is not None]
    return tuple(known) if len(known) == len(hashes) else ()


def _no_run(folder: Path, *, has_header: bool) -> str:
    """Say what is in a directory that holds no run, and what was perhaps meant."""
    if has_header:
        return (
            f"{folder}: found {HEADER} but no {ITERATIONS}, expected both: the run ended before its first iteration, "
            "or the file was removed. Repeat the run."
        )
    names = sorted(entry.name + "/" * entry.is_dir() for entry in itertools.islice(folder.iterdir(), 1000))
    more = ", ..." if len(names) > LISTED else ""
    message = (
        f"{folder}: this is no run directory: expected {HEADER} and {ITERATIONS}, found "
        f"{', '.join(names[:LISTED]) + more if names else 'nothing'}. Give a log file or the directory of a run."
    )
    if (folder / "candidate" / ITERATIONS).is_file():
        return f"{message}\n  Perhaps you mean {folder / 'candidate'}"
    scalars = _first_scalars(folder)
    return f"{message}\n  Perhaps you mean {scalars}" if scalars else message


def _first_scalars(folder: Path) -> Path | None:
    """Return the first mmengine ``scalars.json`` not more than three directories down."""
    for depth in range(DEPTH + 1):
        found = sorted(folder.glob("*/" * depth + "scalars.json"))
        if found:
            return found[0]
    return None
