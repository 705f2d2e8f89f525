"""A bundle: a stored reference, which is read only as it was made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emacheck.errors import BundleError, EmacheckError
from emacheck.logs import read_log
from emacheck.oddity import OddityKind, oddity
from emacheck.rank_files import RUN_FILE, rank_files
from emacheck.record import Record
from emacheck.regular_file import sha256_of, text_of

BUNDLE_FILE = "bundle.json"
RECORD_FILES = (RUN_FILE, "iterations.jsonl")
REPEATS = "repeats"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A stored reference.

    Attributes:
        name: Its directory and the one above, such as ``emanet_r50-d8_smoke/cpu-fp32``.
        path: Its directory.
        record: What the reference run wrote down.
        repeats: Further runs of it that differ in benign ways only.
    """

    name: str
    path: Path
    record: Record
    repeats: tuple[Record, ...] = ()

    @property
    def experiment(self) -> dict[str, Any]:
        """The choices that a candidate must share."""
        return dict(self.record.provenance.get("experiment") or {})

    @property
    def iterations(self) -> int:
        """How many iterations it holds."""
        loss = self.record.curves.get("loss")
        return len(loss) if loss is not None else 0


def name_of(place: Path) -> str:
    """Return the name of the bundle in a directory: where it is, whatever it was stored as.

    Example:
        >>> name_of(Path("references/emanet_r50-d8_smoke/cpu-fp32"))
        'emanet_r50-d8_smoke/cpu-fp32'
    """
    return "/".join(place.absolute().parts[-2:])


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and verify the hash of each of its files.

    Raises:
        BundleError: If a file is missing, changed, unreadable or not listed, or the format is unknown.
    """
    name, file = name_of(path), path / BUNDLE_FILE
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
    repeats = sorted({Path(member).parent for member in hashes} - {Path()})
    try:
        record = read_log(path, name=name)
        others = tuple(read_log(path / repeat, name=f"{name}/{repeat}") for repeat in repeats)
    except EmacheckError as error:
        raise BundleError(f"{path}: {error}") from error
    return Bundle(name=name, path=path, record=_told_apart(record, path), repeats=others)


def shipped_root() -> Path:
    """Return the folder of the bundles that are shipped with emacheck."""
    package = Path(__file__).resolve().parent.parent
    return package / "references" if (package / "references").is_dir() else package.parent / "references"


def _told_apart(record: Record, path: Path) -> Record:
    """Say of the record of a bundle that it is not the shipped one, although it has its name."""
    shipped = shipped_root() / name_of(path)
    message = f"this is not the reference of this name that is shipped with emacheck, but that of {path}"
    other = shipped.is_dir() and shipped.resolve() != path.resolve()
    return replace(record, oddities=(*record.oddities, oddity(OddityKind.OTHER, message))) if other else record


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
