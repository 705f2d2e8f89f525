"""Files that somebody else laid down: a pipe in the place of one may never say anything, and a device may never end."""

import hashlib
from pathlib import Path


def text_of(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: If there is none, or it is a directory, a pipe or a device.
        UnicodeDecodeError: If it is not UTF-8.

    Example:
        >>> text_of(Path("/dev/zero"))
        Traceback (most recent call last):
        OSError: found a directory, a pipe or a device, expected a file
    """
    if path.exists() and not path.is_file():
        raise OSError("found a directory, a pipe or a device, expected a file")
    return path.read_text(encoding="utf-8")


def sha256_of(path: Path) -> str | None:
    """Return the SHA-256 of what is in a file, None if it is none or cannot be read.

    Example:
        >>> sha256_of(Path("/no/such/file")) is None, sha256_of(Path("/dev/zero")) is None
        (True, True)
    """
    digest = hashlib.sha256()
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError):  # a ValueError for a name that no file can have
        return None
    return digest.hexdigest()
