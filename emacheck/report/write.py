"""The only place of this package that writes: whole files or nothing."""

import os
import secrets
from pathlib import Path

from emacheck.errors import OutputError


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that whoever looks sees the old content or the new one, never a part.

    Args:
        path: Where to; an existing file is replaced, also one that a symbolic link leads to.
        data: The content; text is written as UTF-8.

    Raises:
        OutputError: If the directory is missing or cannot be written, or ``path`` is something other than a file, such
            as a link to nothing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder, "report.json"), "{}")
        ...     Path(folder, "report.json").read_text()
        '{}'
    """
    content = data.encode("utf-8", errors="backslashreplace") if isinstance(data, str) else data
    refuse_what_cannot_be_written(path)
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".emacheck-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        try:
            temporary.write_bytes(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
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
