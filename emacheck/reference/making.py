"""Make a bundle of a complete run: hold its name while it is trained, and put it in place whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from emacheck.bundle_files import BUNDLE_FILE, FORMAT_VERSION, REPEATS, record_of
from emacheck.errors import BundleError, OutputError
from emacheck.logs import read_log
from emacheck.reference.bundle import Bundle, read_bundle, require_fit
from emacheck.regular_file import sha256_of
from emacheck.uninterrupted import uninterrupted
from emacheck.workplace import workplace_for

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def claim_name(root: Path, name: str, *, rewrite: bool = False) -> Iterator[None]:
    """Hold the name of a bundle that is still to be trained; the system lets go of it when the process ends.

    Args:
        root: The folder of bundles; made if it does not exist, and removed again if nothing was stored.
        name: ``<experiment>/<device>-<precision>``.
        rewrite: Whether a bundle of that name may exist.

    Raises:
        BundleError: If the bundle exists and ``rewrite`` is False, or another process holds the name.
        OutputError: If the place cannot be written.
    """
    target = root / name
    made = [folder for folder in (target.parent, root) if not folder.exists()]
    claim = target.with_name(f".{target.name}.claim")
    try:
        with _locked(claim, target):
            try:
                _put_back(target)
                if not rewrite:
                    _refuse_existing(target)
                yield
            finally:
                with contextlib.suppress(OSError):  # the place may have gone meanwhile, which matters only if stored
                    claim.unlink()
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


def _locked(claim: Path, target: Path) -> TextIO:
    """Return the file that claims a name, opened and locked."""
    while True:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = claim.open("a", encoding="utf-8")
        except OSError as error:
            raise _not_written(target, error) from error
        try:
            _lock(file, target)
            if _is_at(file, claim):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # whoever held the name removed this file meanwhile, and others lock the next one


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: TextIO, target: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BundleError(
            f"{target}: another emacheck is making this reference just now. Wait for it, or give another --name."
        ) from error
    except OSError:
        pass  # a file system without locks; a bundle that exists is not replaced even so


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise BundleError(
            f"{target}: this reference exists already and was not touched. "
            "Give another --name, or --rewrite to replace it (which exits with 2, so that no pipeline blesses itself)."
        )


def write_bundle(
    run_directory: Path, root: Path, *, name: str, repeats: Sequence[Path] = (), rewrite: bool = False
) -> Bundle:
    """Store the record of a complete run as a reference bundle.

    Args:
        run_directory: A complete run.
        root: The folder of bundles, such as ``references``.
        name: ``<experiment>/<device>-<precision>``.
        repeats: Complete runs that differ from it in benign ways only.
        rewrite: Replace a bundle of that name.

    Returns:
        The stored bundle.

    Raises:
        BundleError: If the run is incomplete or not finite, or the bundle exists and ``rewrite`` is False.
        OutputError: If the place cannot be written.
    """
    members = {file.name: file for file in record_of(run_directory)}
    for at, repeat in enumerate(repeats, 1):
        members |= {f"{REPEATS}/{at:02}/{file.name}": file for file in record_of(repeat)}
    for run in (run_directory, *repeats):
        require_fit(read_log(run), run)
    target = root / name
    if not rewrite:
        _refuse_existing(target)
    try:
        with workplace_for(target) as staged:
            for member, source in members.items():
                (staged / member).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, staged / member)
            content = {
                "format_version": FORMAT_VERSION,
                "name": name,
                "files": {member: sha256_of(staged / member) for member in members},
            }
            (staged / BUNDLE_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            with uninterrupted():
                _put_in_place(staged, target, rewrite=rewrite)
    except OSError as error:
        raise _not_written(target, error) from error
    return read_bundle(target)


def _put_back(target: Path) -> None:
    """Put back what a rewrite that was killed between its two renames has set aside."""
    with contextlib.suppress(OSError):  # as a rule there is nothing
        if not target.exists():
            _set_aside(target).rename(target)


def _set_aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _put_in_place(staged: Path, target: Path, *, rewrite: bool) -> None:
    """Move a directory into place; what was there before is removed only after the new one stands."""
    aside = _set_aside(target)
    if rewrite and target.exists() and aside.exists():  # left by a process that was killed
        shutil.rmtree(aside)
    try:
        if rewrite and target.exists():
            target.rename(aside)
        staged.rename(target)
    except OSError:
        if rewrite and aside.exists() and not target.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _not_written(target: Path, error: OSError) -> OutputError:
    return OutputError(f"{target}: cannot be written ({error.strerror}). Choose another place with --into.")
