"""The only place of this package that writes: whole files or nothing."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from emacheck.errors import OutputError
from emacheck.uninterrupted import uninterrupted


def write_together(contents: Mapping[Path, bytes | str], *, new: Path | None = None) -> None:
    """Write several files, or none of them where there is no room for all: some alone would speak for the others.

    Whoever looks sees the old content of a file or the new one, never a part. An interrupt comes before the first of
    them is in place, or after the last.

    Args:
        contents: What goes where; text is written as UTF-8. An existing file is replaced, also one that a symbolic link
            leads to.
        new: A directory right in which some of them go, made when all are written: a kill before leaves none of it.

    Raises:
        OutputError: If a directory is missing or cannot be written, the new one is there already, or a path is
            something other than a file, such as a link to nothing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_together({Path(folder, "report.json"): "{}", Path(folder, "report.md"): "# PASS"})
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['report.json', 'report.md']
    """
    made = None if new is None else Path(os.path.realpath(new))
    for path in contents:
        if Path(os.path.realpath(path)).parent != made:
            refuse_what_cannot_be_written(path)
    temporary: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            with _explained(path):
                temporary[path] = _beside(Path(os.path.realpath(path)))
                temporary[path].write_bytes(
                    data.encode("utf-8", errors="backslashreplace") if isinstance(data, str) else data
                )
        with uninterrupted(), _made(new):
            for path, written in temporary.items():
                with _explained(path):
                    written.replace(os.path.realpath(path))
    finally:
        for path, written in temporary.items():
            with _explained(path):
                written.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
    """Append text to a file, or nothing where there is no room for all of it.

    Args:
        path: Need not exist. A pipe or terminal keeps what it was given.
        text: Written as UTF-8.

    Raises:
        OSError: If it could not be written.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     append(Path(file.name), "# PASS")
        ...     Path(file.name).read_text()
        '# PASS'
    """
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END) if file.seekable() else None
        rest = memoryview(text.encode("utf-8", errors="backslashreplace"))
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            if size is not None:
                file.truncate(size)
            raise


def _beside(target: Path) -> Path:
    there = next(parent for parent in target.parents if parent.exists())
    return there / f".emacheck-{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def _made(directory: Path | None) -> Iterator[None]:
    if directory is None:
        yield
        return
    with _explained(directory):
        directory.mkdir(parents=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            directory.rmdir()  # only if nothing is in it
        raise


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _trouble(path, error.strerror or str(error)) from error


def refuse_what_cannot_be_written(path: Path) -> None:
    """Raise OutputError if a file cannot be written, as far as that shows beforehand; nothing is written."""
    target = Path(os.path.realpath(path))
    # Whoever left it there would choose where we write, and nobody would look there.
    if path.is_symlink() and not path.exists():
        raise OutputError(
            f"{path}: cannot be written.\n"
            f"  found:    a symbolic link to {target}, where there is nothing\n"
            "  expected: a file, or a name that does not exist yet\n"
            "Remove the link, or name a file."
        )
    if not target.parent.is_dir():
        found = "a file" if target.parent.exists() else "nothing"
        raise OutputError(
            f"{path}: cannot be written.\n"
            f"  found:    {found} at {target.parent}\n"
            "  expected: a directory\n"
            f"Create it (mkdir -p {target.parent}) or choose another place."
        )
    # Renaming over a device or a pipe would remove it from the system.
    if target.exists() and not target.is_file():
        found = "a directory" if target.is_dir() else "a device, pipe or socket"
        raise OutputError(
            f"{path}: cannot be written.\n"
            f"  found:    {found}\n"
            "  expected: a file, or a name that does not exist yet\n"
            "Name a file."
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise _trouble(path, "permission denied, or a file system for reading only")


def _trouble(path: Path, found: str) -> OutputError:
    return OutputError(
        f"{path}: cannot be written.\n"
        f"  found:    {found} ({Path(os.path.realpath(path)).parent})\n"
        "  expected: a directory with room in which files may be created and replaced\n"
        "Choose another place, or change the permissions of the directory."
    )
