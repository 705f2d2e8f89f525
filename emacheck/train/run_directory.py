"""The directory of a run: new or empty, and for one process only."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from emacheck.errors import OutputError

CLAIM_FILE = ".claimed"
# A full disk takes an empty file. Less than this does not even hold the request and some last words.
CLAIMED_BYTES = 1 << 20


@contextlib.contextmanager
def new_run_directory(path: Path) -> Iterator[None]:
    """Create a run directory, and remove it again if what is done within ends badly before anything was written.

    Raises:
        OutputError: If it holds something already, cannot be written, has no room, or another emacheck is about to use
            it.
    """
    new = [each for each in (path, *path.parents) if not each.exists()]
    claim = _claim_run_directory(path)
    try:
        _require_room(claim)
        yield
    except BaseException:
        claim.unlink(missing_ok=True)
        for each in new:
            with contextlib.suppress(OSError):
                each.rmdir()  # only if nothing is in it
        raise
    claim.unlink(missing_ok=True)


def _claim_run_directory(path: Path) -> Path:
    """Create a run directory that does not exist yet or is empty, and a file in it that only one process can create.

    Raises:
        OutputError: If it holds something already or cannot be written.
    """
    claim = path / CLAIM_FILE
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise _occupied(path)
        path.mkdir(parents=True, exist_ok=True)
        claim.open("x").close()
    except FileExistsError:
        raise _occupied(path) from None
    except OSError as error:
        raise OutputError(
            f"--work-dir {path}: cannot be written ({error.strerror}). Choose a directory you may write to."
        ) from error
    return claim


def _require_room(claim: Path) -> None:
    """See that the claimed directory takes more than names.

    Raises:
        OutputError: If it does not.
    """
    try:
        claim.write_bytes(bytes(CLAIMED_BYTES))
        claim.write_bytes(b"")
    except OSError as error:
        raise OutputError(
            f"--work-dir {claim.parent}: cannot be written ({error.strerror}). Free some space, or choose another "
            "place with --work-dir."
        ) from error


def _occupied(path: Path) -> OutputError:
    return OutputError(
        f"--work-dir {path}: found something there already, expected a new or empty directory; "
        "nothing was overwritten. Choose another one, or remove it first."
    )
