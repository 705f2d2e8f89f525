"""A place in which a directory is made, so that it is there whole or not at all, and nobody's half is left for ever."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def workplace_for(target: Path) -> Iterator[Path]:
    """Lend a new directory beside a target, to be renamed to it when it is whole; otherwise nothing is left of it.

    What a process that was killed has left of the same target is removed: a live one holds a lock on its own.

    Args:
        target: The directory to be made.

    Raises:
        OSError: If no directory can be made there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, workplace_for(Path(folder, "cache")) as place:
        ...     place.is_dir(), place.parent == Path(folder)
        (True, True)
    """
    _remove_abandoned(target)
    place, lock = _new_place(target)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _new_place(target: Path) -> tuple[Path, int | None]:
    while True:
        place = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
        place.mkdir(parents=True)
        try:
            return place, _lock(place)
        except (BlockingIOError, FileNotFoundError):
            pass  # another process took it for abandoned before it was locked
        except OSError:
            return place, None  # a file system without locks, where none is taken for abandoned


def _remove_abandoned(target: Path) -> None:
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.partial")
    with contextlib.suppress(OSError):
        for place in [each for each in target.parent.iterdir() if ours.fullmatch(each.name)]:
            with contextlib.suppress(OSError):
                lock = _lock(place)
                if lock is not None:
                    shutil.rmtree(place, ignore_errors=True)
                    os.close(lock)


def _lock(place: Path) -> int | None:
    """Return a descriptor that locks a directory until it is closed, or the process ends; None without locks.

    Raises:
        BlockingIOError: If another process holds it.
        OSError: If it is gone, or the file system has no locks.
    """
    if fcntl is None:
        return None
    lock = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        place.stat()  # whoever removed it may have let go of it just now
    except BaseException:
        os.close(lock)
        raise
    return lock
