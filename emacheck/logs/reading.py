"""From a path to a record: which reader it takes is decided by the content.

A further format is a module in ``formats/`` with a ``NAME``, ``recognises(head)`` over the first text of the file and
``read(lines, name, rank)``, which gathers records and remarks with ``Gathering``. In ``READERS`` it stands in front of
every format that is less specific; docs/logs.md describes it.
"""

import io
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import cast

from emacheck.errors import LogError, UsageError
from emacheck.logs.formats import (
    arrays,
    csv_table,
    free_text,
    json_document,
    json_rows,
    mmcv_json,
    mmcv_text,
    mmengine_json,
    mmengine_text,
    pattern_text,
    run_directory,
    tcap_json,
    tcap_text,
    tensorboard_events,
    trainer_state,
    whitespace_table,
    yolo_text,
)
from emacheck.logs.formats.json_lines import leading_objects
from emacheck.logs.lines import Bytes, Lines, without_escapes
from emacheck.logs.prefixes import Stripped, prefixes
from emacheck.logs.several_ranks import read_ranks
from emacheck.logs.transport import STANDARD_INPUT, Arriving, Progress, arriving
from emacheck.oddity import OddityKind, oddity
from emacheck.record import Record
from emacheck.regular_file import sha256_of

READERS: tuple[ModuleType, ...] = (
    *(tcap_text, tcap_json, mmengine_text, mmcv_text),
    *(trainer_state, json_document, mmcv_json, json_rows, mmengine_json),
    *(yolo_text, csv_table, whitespace_table, arrays, free_text),
)
"""The readers of text, the most specific first: each has NAME, ``recognises(head)`` and ``read(lines, name, rank)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """How a file is to be read, and what of it."""

    reader: ModuleType | None
    pattern: str | None
    rank: int | None
    section: str | None


def slug(reader: ModuleType) -> str:
    """Return what a reader is called where it is picked by name, such as ``mmengine-text``."""
    return str(reader.NAME).lower().replace(" ", "-")


def reader_names() -> list[str]:
    """Return the names by which a reader can be picked."""
    return [slug(reader) for reader in (*READERS, tensorboard_events)]


def read_log(
    path: Path | str,
    *,
    name: str | None = None,
    reader: str | None = None,
    pattern: str | None = None,
    rank: int | None = None,
    from_one: bool = False,
    progress: Progress | None = None,
) -> Record:
    r"""Read the log of a training, whoever wrote it.

    The format is recognised by the content, never by the name of the file. Compressed logs (gzip, xz, bzip2, zstd) are
    read as they are.

    Args:
        path: A log file or a pipe, ``-`` for standard input, or a run directory of emacheck. ``FILE#NAME`` is the
            array of that name in a file of several.
        name: What the record is called; the path if None.
        reader: The reader to take, such as ``mmengine-text``, instead of the one that recognises the content.
        pattern: A regular expression for formats that no reader knows. It is searched in every line, with the named
            groups ``iteration``, perhaps ``epoch`` and ``rank``, and one of its own name for each metric.
        rank: The rank to take of a log of several; their mean if None.
        from_one: Number the iterations from 1 where the log counts them from 0.
        progress: Called with the number of bytes of a file that were read so far, and with its size, None of a pipe.

    Returns:
        The record of the training iterations; its ``oddities`` say what was left out and what cannot be known.

    Raises:
        LogError: If there is nothing to read, it cannot be read, or it is in no format that is known.
        BundleError: If it is a stored reference that was changed or damaged.
        MissingExtraError: If it takes an optional package to read it.
        UsageError: If there is no such reader, or it is named together with a pattern.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     _ = file.write("iteration,loss\n1,4.5\n2,4.25\n")
        ...     file.flush()
        ...     record = read_log(file.name, name="reference")
        >>> record.format, record.curves["loss"].values.tolist()
        ('CSV', [4.5, 4.25])
    """
    place, section = _parted(str(path))
    asked = _Asked(reader=_picked(reader, pattern), pattern=pattern, rank=rank, section=section)
    try:
        if place == STANDARD_INPUT:
            record = _read_file(place, asked, progress)
        elif stat.S_ISDIR(mode := Path(place).stat().st_mode):
            record = run_directory.read_directory(Path(place), rank)
        elif stat.S_ISREG(mode) or stat.S_ISFIFO(mode):  # a pipe is what a shell makes of <(zcat log.gz)
            record = _read_file(place, asked, progress)
        else:
            raise LogError(
                f"{place}: this is a device or a socket, expected a file, a pipe or a run directory. Write the log "
                "to a file first."
            )
    except OSError as error:
        raise LogError(_trouble(place, error)) from error
    if section is not None and record.format != csv_table.NAME:
        record = arrays.section_of(record, section)
    if from_one and (renumbered := record.from_one()) is not record:
        said = "the log counts its iterations from 0: each is numbered one higher, as was asked for"
        record = replace(renumbered, oddities=(*record.oddities, oddity(OddityKind.RENUMBERED, said)))
    return replace(record, name=str(path) if name is None else name)


def stream_of(path: Path | str) -> tuple[int, int] | None:
    """Return device and inode of what a path names if that can be read only once, else None.

    Args:
        path: What :func:`read_log` would be given.

    Returns:
        The same pair for every name of one pipe, and for standard input.

    Example:
        >>> stream_of("/dev/null") is None, stream_of("/no/such/file") is None
        (True, True)
    """
    try:
        place, _ = _parted(str(path))
        found = os.fstat(0) if place == STANDARD_INPUT else Path(place).stat()
    except (OSError, LogError):  # reading it says what is wrong
        return None
    return (found.st_dev, found.st_ino) if place == STANDARD_INPUT or stat.S_ISFIFO(found.st_mode) else None


def hash_of_file(path: str) -> str | None:
    """Return the SHA-256 of the file that a path names, None for anything but a file that can be read again.

    Args:
        path: What :func:`read_log` would be given.

    Example:
        >>> hash_of_file("-") is None, hash_of_file("/no/such/file") is None
        (True, True)
    """
    try:
        place, _ = _parted(path)
    except LogError:  # it was read a moment ago: a card without the hash is true as well
        return None
    return None if place == STANDARD_INPUT else sha256_of(Path(place))


def _picked(reader: str | None, pattern: str | None) -> ModuleType | None:
    if reader is None:
        return None
    if pattern is not None:
        raise UsageError("a pattern is a reader of its own: give either a reader or a pattern, not both.")
    for module in (*READERS, tensorboard_events):
        if slug(module) == reader:
            return module
    raise UsageError(f"there is no reader {reader!r}. There are: {', '.join(reader_names())}.")


def _parted(path: str) -> tuple[str, str | None]:
    """Return the path, and the array that is named behind ``#`` unless that belongs to the path."""
    if not path:
        raise LogError("the name of the log is empty, expected a log or a run directory. Is a variable not set?")
    if "\0" in path:
        raise LogError(f"{path!r}: this is no path, for it holds a NUL character. Give a log or a run directory.")
    if os.path.lexists(path):
        return path, None
    marks = [at for at, character in enumerate(path) if at and character == "#"]
    at = next((at for at in marks if os.path.lexists(path[:at])), marks[-1] if marks else len(path))
    return path[:at], path[at + 1 :] if marks else None


def _read_file(path: str, asked: _Asked, progress: Progress | None) -> Record:
    module, pattern, rank = asked.reader, asked.pattern, asked.rank
    with arriving(path, progress) as source:
        if not source.head:
            raise LogError(f"{path}: the file is empty, expected a log. Check that the run wrote to this file.")
        sniff = module is None and pattern is None
        if module is tensorboard_events or (sniff and tensorboard_events.recognises(source.head)):
            return tensorboard_events.read(source, path, rank)
        if b"\0" in source.head.rstrip(b"\0"):  # a file system that lost power may leave NUL bytes at the end
            raise LogError(
                f"{path}: found NUL bytes, so this is a binary file, expected a log in text. "
                "Give the log that the training wrote, or convert it to UTF-8."
            )
        return _read_text(path, source, asked)


def _read_text(path: str, source: Arriving, asked: _Asked) -> Record:
    pattern, rank = asked.pattern, asked.rank
    found = prefixes(without_escapes(source.head))
    stream: Bytes = Stripped(source, found) if found else source
    head = Stripped(io.BytesIO(without_escapes(source.head)), found).read(len(source.head)) if found else source.head
    reader = asked.reader or (None if pattern is not None else _reader(path, head))
    several = any(len(each.ranks) > (1 if rank is None else 0) for each in found)
    marked = several and reader not in (tcap_text, tcap_json)
    lines = Lines(stream)

    def read(lines: Lines, rank: int | None = None) -> Record:
        if reader is None:
            return pattern_text.read(lines, path, rank, pattern or "")
        if reader is csv_table:
            return csv_table.read(lines, path, rank, column=asked.section)
        return cast("Record", reader.read(lines, path, rank))

    try:
        record = read_ranks(source, found, path, rank, read) if marked else read(lines, rank)
    except LogError as error:
        raise LogError("\n  ".join(map(str, (error, *lines.remarks, *source.remarks)))) from error
    remarks = lines.remarks + source.remarks
    if found:
        what = ", ".join(each.kind for each in found)
        remarks = (oddity(OddityKind.OTHER, f"a prefix before each line was taken off: {what}"), *remarks)
    return replace(record, oddities=record.oddities + remarks)


def _reader(path: str, start: bytes) -> ModuleType:
    head = without_escapes(start).decode("utf-8", "replace").replace("\r", "\n")
    for reader in READERS:
        if reader.recognises(head):
            if reader in (json_document, free_text) and _is_ours(head):
                break
            return reader
    if not head.strip():
        raise LogError(f"{path}: the file holds nothing but blanks, expected a log. Check that the run wrote to it.")
    known = ", ".join(reader.NAME for reader in (*READERS, tensorboard_events))
    if _is_ours(head):
        hint = f"This looks like the {run_directory.ITERATIONS} of a run directory: give the directory that it is in."
    else:
        hint = "Say how to read a line with a pattern (--pattern), or convert it to CSV with a column 'iteration'."
    first = next(line.strip() for line in io.StringIO(head) if line.strip())
    raise LogError(
        f"{path}: the format of this file is not known. It starts with {first[:80]!r}. Read are: {known}, and the run "
        f"directories of emacheck. {hint}"
    )


def _is_ours(head: str) -> bool:
    return any("iteration" in each and isinstance(each.get("metrics"), dict) for each in leading_objects(head))


def _trouble(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: there is no such file or directory, expected a log or a run directory. Check the path."
    if isinstance(error, PermissionError):
        return f"{path}: permission denied, expected a log that may be read. Ask its owner for the right to read it."
    return (
        f"{path}: it cannot be read: {os.strerror(error.errno) if error.errno else error}. Check the path and the disk."
    )
