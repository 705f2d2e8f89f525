"""Makes a synthetic Cityscapes: drawn street scenes with the folders and file names of the real one.

The bytes depend on the seed alone, so two machines that train on the same seed train on the same data.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from emacheck.data.cityscapes import DatasetSummary, fingerprint_dataset, image_path, label_path
from emacheck.data.manifest import (
    GENERATOR_VERSION,
    MANIFEST_NAME,
    TRAIN_CITIES,
    VAL_CITIES,
    Manifest,
    make_again,
    read_manifest,
    require_same_everywhere,
)
from emacheck.data.png import encode_png
from emacheck.data.scene import HEIGHT, WIDTH, draw_scene
from emacheck.errors import DataError, OutputError, UsageError
from emacheck.workplace import workplace_for

DEFAULT_NAME = "synthetic-cityscapes-v1"

_PER_TRAIN_CITY = 16
_PER_VAL_CITY = 8
_SPLITS = (("train", TRAIN_CITIES, _PER_TRAIN_CITY), ("val", VAL_CITIES, _PER_VAL_CITY))


def make_dataset(root: Path, *, seed: int = 0) -> DatasetSummary:
    """Write the synthetic data set, or find that it is there already.

    It is built in a temporary directory beside ``root`` and renamed, so that ``root`` never holds half of it.

    Args:
        root: A directory that does not exist yet, is empty, or holds this very data set.
        seed: What to draw the scenes from, 0 to 2**64 - 1.

    Returns:
        What was made or found.

    Raises:
        OutputError: ``root`` cannot be written or holds something else.
        UsageError: The seed is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     summary = make_dataset(Path(folder) / "cityscapes")
        >>> summary.kind, summary.train_pairs, summary.val_pairs
        ('synthetic', 64, 8)
    """
    made = _make_if_vacant(root, seed, elsewhere="name another directory.")
    if made is not None:
        return made
    try:
        found = _verified(root, seed)
    except DataError as error:
        if os.path.lexists(root / MANIFEST_NAME):
            msg = f"nothing was written, for there is a data set already that is not the one asked for.\n{error}"
        else:
            there = "a directory that is not empty" if root.is_dir() else "a file"
            msg = f"{root}: found {there}, so nothing was written. Fix: name another directory."
        raise OutputError(msg) from error
    return replace(found, notes=(*found.notes, "It was already there; every file was verified."))


def ensure_dataset(root: Path, *, seed: int = 0) -> DatasetSummary:
    """Make the synthetic data set if it is absent, and verify every file of it if it is present.

    Safe when several processes do it at once: each builds its own, one rename wins, the others verify the winner's.

    Args:
        root: Where it is or shall be.
        seed: What to draw the scenes from, 0 to 2**64 - 1.

    Returns:
        What was made or found.

    Raises:
        DataError: What is there is not the data set of this seed, or was changed.
        OutputError: ``root`` cannot be written.
        UsageError: The seed is out of range.
    """
    elsewhere = f"set EMACHECK_CACHE to such a directory (the cache is {root.parent})."
    return _make_if_vacant(root, seed, elsewhere=elsewhere) or _verified(root, seed)


def cache_root() -> Path:
    """Return where emacheck keeps what it can make again.

    That is ``$EMACHECK_CACHE``, else ``$XDG_CACHE_HOME/emacheck``, else ``~/.cache/emacheck``.

    Raises:
        UsageError: No home directory is known and none of the variables is set.

    Source: XDG Base Directory Specification 0.8, which also says to ignore a relative path.
    """
    try:
        if own := os.environ.get("EMACHECK_CACHE"):
            return Path(own).expanduser()
        shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (shared if shared.is_absolute() else Path.home() / ".cache") / "emacheck"
    except RuntimeError as error:
        # What trains asks for the home directory as well.
        fix = "Fix: set EMACHECK_CACHE to a directory, and HOME, which mmengine needs to train."
        raise UsageError(f"EMACHECK_CACHE: no place for the cache ({error}). {fix}") from error


def _verified(root: Path, seed: int) -> DatasetSummary:
    """Return the summary of what is at root, if it is the data set of this seed and generator."""
    summary = fingerprint_dataset(root)
    wanted = f"the synthetic data set of seed {seed}, version {GENERATOR_VERSION} of the generator"
    fix = f"Fix: name another directory, or delete this one and run: {make_again(root, seed)}"
    if summary.kind != "synthetic":
        msg = f"{root}: found a real Cityscapes, expected {wanted}. Fix: name another directory."
        raise DataError(msg)
    manifest = read_manifest(root)
    if (manifest.seed, manifest.generator_version) != (seed, GENERATOR_VERSION):
        msg = (
            f"{root}: found seed {manifest.seed}, version {manifest.generator_version} of the generator, "
            f"expected {wanted}. {fix}"
        )
        raise DataError(msg)
    return summary


def _make_if_vacant(root: Path, seed: int, *, elsewhere: str) -> DatasetSummary | None:
    """Build the data set where there is nothing yet; None means that somebody has put something there."""
    if not 0 <= seed < 2**64:
        msg = f"seed: found {seed}, expected a whole number from 0 to 2**64 - 1."
        raise UsageError(msg)
    target = Path(os.path.realpath(root))  # so that a link to an empty directory keeps being one
    try:
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            return None
        with _workplace(target) as workplace:
            manifest = _write(workplace, seed)
            require_same_everywhere(root, manifest)
            if not _published(workplace, target):
                return None
    except OSError as error:
        msg = (
            f"{root}: the data set cannot be written ({error.strerror or error}). Expected a place with 40 MB free "
            f"and permission to write. Fix: {elsewhere}"
        )
        raise OutputError(msg) from error
    return DatasetSummary(
        root=root,
        kind="synthetic",
        data_hash=manifest.data_hash,
        train_pairs=len(TRAIN_CITIES) * _PER_TRAIN_CITY,
        val_pairs=len(VAL_CITIES) * _PER_VAL_CITY,
        decoded=0,
        notes=(f"Seed {seed}, version {GENERATOR_VERSION} of the generator.", "Made just now."),
    )


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """Lend a new directory beside the target; nothing of it is left behind, nor an empty parent made for it."""
    absent = [parent for parent in target.parents if not parent.exists()]
    try:
        with workplace_for(target) as workplace:
            yield workplace
    finally:
        for parent in absent:
            with suppress(OSError):  # not empty: it holds the data set
                parent.rmdir()


def _published(workplace: Path, target: Path) -> bool:
    """Rename the finished data set into place; False means that somebody else was faster."""
    try:
        workplace.rename(target)  # replaces an empty directory and fails on a full one
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True


def _write(workplace: Path, seed: int) -> Manifest:
    files: dict[str, str] = {}
    for split_number, (split, cities, count) in enumerate(_SPLITS):
        for index in range(count * len(cities)):
            city = cities[index // count]
            stem = f"{city}/{city}_{index % count:06d}_000019"  # the real ones are frame 19 of each sequence
            image, labels = draw_scene(seed, split_number, index)
            for path, pixels in ((image_path(split, stem), image), (label_path(split, stem), labels)):
                content = encode_png(pixels)
                place = workplace / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
                files[path] = hashlib.sha256(content).hexdigest()
    manifest = Manifest(seed=seed, generator_version=GENERATOR_VERSION, width=WIDTH, height=HEIGHT, files=files)
    (workplace / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
    return manifest
