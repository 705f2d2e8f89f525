"""From a path to a record: which reader it takes is decided by the content."""

import io
import os
import stat
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from emacheck.errors import LogError
from emacheck.logs import csv_table, mmcv_json, mmengine_json, mmengine_text, run_directory, tcap_text
from emacheck.logs.json_lines import leading_objects
from emacheck.logs.lines import open_lines
from emacheck.record import Record

READERS: tuple[ModuleType, ...] = (tcap_text, mmengine_text, mmcv_json, mmengine_json, csv_table)
"""The readers of files, the most specific first; each has a NAME, ``recognises(head)`` and ``read(lines, name)``."""

HEAD = 4 << 20
COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}


def read_log(path: Path | str, *, name: str | None = None) -> Record:
    r"""Read the log of a training, whoever wrote it.

    The format is recognised by the content, never by the name of the file.

    Args:
        path: A log file, or a run directory of emacheck.
        name: What the record is called; the path if None.

    Returns:
        The record of the training iterations; its ``oddities`` say what was left out and what cannot be known.

    Raises:
        LogError: If there is nothing to read, it cannot be read, or it is in no format that is known.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     _ = file.write("iteration,loss\n1,4.5\n2,4.25\n")
        ...     file.flush()
        ...     record = read_log(file.name, name="reference")
        >>> record.format, record.curves["loss"].values.tolist()
        ('CSV', [4.5, 4.25])
    """
    place = Path(path)
    if "\0" in str(place):
        raise LogError(f"{str(place)!r}: this is no path, for it holds a NUL character. Give a log or a run directory.")
    try:
        mode = place.stat().st_mode
        if stat.S_ISDIR(mode):
            record = run_directory.read_directory(place)
        elif stat.S_ISREG(mode):
            record = _read_file(place)
        else:
            raise LogError(f"{place}: this is a pipe or a device, expected a file. Write the log to a file first.")
    except OSError as error:
        raise LogError(_trouble(place, error)) from error
    return replace(record, name=str(path) if name is None else name)


def _read_file(path: Path) -> Record:
    with path.open("rb") as file:
        start = file.read(HEAD)
    _refuse_binary(path, start)
    reader = _reader(path, start)
    with open_lines(path) as lines:
        try:
            record: Record = reader.read(lines, str(path))
        except LogError as error:
            raise LogError("\n  ".join((str(error), *lines.remarks))) from error
        return replace(record, oddities=record.oddities + lines.remarks)


def _refuse_binary(path: Path, start: bytes) -> None:
    if not start:
        raise LogError(f"{path}: the file is empty, expected a log. Check that the run wrote to this file.")
    for magic, kind in COMPRESSED.items():
        if start.startswith(magic):
            raise LogError(f"{path}: compressed with {kind}, which is not read by this version. Decompress it first.")
    if b"\0" in start:
        raise LogError(
            f"{path}: found NUL bytes, so this is a binary file (or UTF-16), expected a log in UTF-8 text. "
            "Give the log that the training wrote, or convert it to UTF-8."
        )


def _reader(path: Path, start: bytes) -> ModuleType:
    head = start.decode("utf-8-sig", "replace").replace("\r", "\n")
    for reader in READERS:
        if reader.recognises(head):
            return reader
    if not head.strip():
        raise LogError(f"{path}: the file holds nothing but blanks, expected a log. Check that the run wrote to it.")
    known = ", ".join(reader.NAME for reader in READERS)
    if any("iteration" in value and "metrics" in value for value in leading_objects(head)):
        hint = f"This looks like the {run_directory.ITERATIONS} of a run directory: give the directory that it is in."
    else:
        hint = "Convert it to CSV with a column 'iteration' and one column per metric."
    first = next(line.strip() for line in io.StringIO(head) if line.strip())
    raise LogError(
        f"{path}: the format of this file is not known. It starts with {first[:80]!r}. Read are: {known}, and the run "
        f"directories of emacheck. {hint}"
    )


def _trouble(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: there is no such file or directory, expected a log or a run directory. Check the path."
    if isinstance(error, PermissionError):
        return f"{path}: permission denied, expected a log that may be read. Ask its owner for the right to read it."
    return (
        f"{path}: it cannot be read: {os.strerror(error.errno) if error.errno else error}. Check the path and the disk."
    )
