"""The files of a bundle: a stored reference is a run directory with the hash of each of its files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emacheck.errors import BundleError
from emacheck.rank_files import RUN_FILE, rank_file, rank_files
from emacheck.regular_file import sha256_of, text_of

BUNDLE_FILE = "bundle.json"
RECORD_FILES = (RUN_FILE, rank_file(0))
REPEATS = "repeats"
FORMAT_VERSION = 1


def bundle_around(run_directory: Path) -> Path | None:
    """Return the bundle that a run directory is, or of which it is a repeat; None if it is neither."""
    if (run_directory / BUNDLE_FILE).is_file():
        return run_directory
    above = run_directory.resolve().parent
    return above.parent if above.name == REPEATS and (above.parent / BUNDLE_FILE).is_file() else None


def verified_files(path: Path) -> tuple[str, ...]:
    """Return the names of the files that a bundle lists, each with the hash that it had when the bundle was made.

    Raises:
        BundleError: If a file is missing, changed, unreadable or not listed, or the format is unknown.
    """
    file = path / BUNDLE_FILE
    try:
        content = json.loads(text_of(file))
        version, hashes = content["format_version"], dict(content["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(
            f"{file}: cannot be read as a reference bundle ({type(error).__name__}: {error}). "
            "Restore it from version control, or make it anew."
        ) from error
    if version != FORMAT_VERSION:
        raise BundleError(f"{file}: found format_version {version!r}, expected {FORMAT_VERSION}. Update emacheck.")
    for member in sorted({*RECORD_FILES, *hashes}):
        if ".." in Path(member).parts or Path(member).is_absolute():
            raise BundleError(f"{file}: found the file name {member!r}, expected one inside of the bundle.")
        found = sha256_of(path / member)
        if found is None or hashes.get(member) != found:
            raise BundleError(
                f"{path / member}: found SHA-256 {found or 'nothing'}, expected {hashes.get(member)}; the reference "
                "was changed or damaged after it was made. Restore it from version control, or make it anew."
            )
    _refuse_unlisted(path, hashes)
    return tuple(hashes)


def _refuse_unlisted(path: Path, hashes: Mapping[str, Any]) -> None:
    """Refuse records that the description does not list, for they would be read like the others."""
    folders = {path, *path.glob(f"{REPEATS}/*"), *((path / member).parent for member in hashes)}
    records = [file for folder in folders if folder.is_dir() for file in record_of(folder) if file.is_file()]
    unlisted = sorted({file.relative_to(path).as_posix() for file in records} - hashes.keys())
    if unlisted:
        raise BundleError(
            f"{path / unlisted[0]}: found a record that {BUNDLE_FILE} does not list; the reference was changed after "
            "it was made. Remove the file, or restore the reference from version control."
        )


def record_of(run_directory: Path) -> list[Path]:
    """Return the files of a run that are its record, those of every rank among them."""
    return [run_directory / RUN_FILE, *rank_files(run_directory).values()]
