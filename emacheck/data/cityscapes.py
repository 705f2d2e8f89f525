"""Checks a Cityscapes directory, synthetic or real, and gives it a fingerprint."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

from emacheck.counted import counted
from emacheck.data.manifest import (
    MANIFEST_NAME,
    TRAIN_CITIES,
    VAL_CITIES,
    first_few,
    make_again,
    read_manifest,
    require_same_everywhere,
    verify_files,
)
from emacheck.data.pixels import check_pair
from emacheck.errors import DataError

IMAGE_SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelTrainIds.png"
MOST_DECODED = 200  # pairs of each split, unless all are asked for

_SPLITS = ("train", "val")

Pairs = Mapping[str, tuple[str, ...]]
"""The stems ``city/city_sequence_frame`` of each split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """What a check found.

    Args:
        root: The directory of the data set.
        kind: ``synthetic`` (it has our manifest) or ``real``.
        data_hash: The fingerprint. Synthetic: a sha256 over the contents of all files. Real: a sha256 over the names
            and sizes of the images and labelTrainIds of train and val, not over their contents.
        train_pairs: How many images with a label there are to train on.
        val_pairs: How many images with a label there are to validate on.
        decoded: How many pairs were decoded and looked at, of both splits together.
        notes: What else a reader should know, one sentence each.
    """

    root: Path
    kind: Literal["synthetic", "real"]
    data_hash: str
    train_pairs: int
    val_pairs: int
    decoded: int
    notes: tuple[str, ...]


def check_dataset(root: Path, *, decode_all: bool = False) -> DatasetSummary:
    """Check the layout, the pairing and the pixels of a data set.

    Args:
        root: A directory that holds ``leftImg8bit`` and ``gtFine``.
        decode_all: Decode every pair; otherwise every n-th, at most 200 of each split.

    Returns:
        What was found. A return means that nothing was wrong with what was looked at.

    Raises:
        DataError: Something is missing, extra, changed, unreadable or holds impossible labels.
    """
    summary = fingerprint_dataset(root)
    decoded = 0
    for split, stems in _pairs(root).items():
        stride = 1 if decode_all else -(-len(stems) // MOST_DECODED)
        for stem in stems[::stride]:
            check_pair(root / image_path(split, stem), root / label_path(split, stem))
            decoded += 1
    return replace(summary, decoded=decoded)


def fingerprint_dataset(root: Path) -> DatasetSummary:
    """Check a data set and fingerprint it without decoding an image.

    Synthetic: every file is hashed and compared with the manifest. Real: the layout and the pairing are checked, and
    names and sizes are hashed.

    Args:
        root: A directory that holds ``leftImg8bit`` and ``gtFine``.

    Returns:
        What was found, with ``decoded`` 0.

    Raises:
        DataError: Something is missing, extra or changed.
    """
    _require_directory(root)
    kind: Literal["synthetic", "real"]
    if os.path.lexists(root / MANIFEST_NAME):
        kind, manifest = "synthetic", read_manifest(root)
        verify_files(root, manifest)
        require_same_everywhere(root, manifest)
        pairs, data_hash = _pairs(root), manifest.data_hash
        notes = (f"Seed {manifest.seed}, version {manifest.generator_version} of the generator.",)
    else:
        kind, pairs = "real", _pairs(root)
        _refuse_orphaned_synthetic(root, pairs)
        data_hash = _hash_of_names_and_sizes(root, pairs)
        notes = ("The data_hash covers names and sizes, not contents.",)
    return DatasetSummary(
        root=root,
        kind=kind,
        data_hash=data_hash,
        train_pairs=len(pairs["train"]),
        val_pairs=len(pairs["val"]),
        decoded=0,
        notes=notes,
    )


def image_path(split: str, stem: str) -> str:
    """Return the path of an image relative to the root.

    Example:
        >>> image_path("train", "aachen/aachen_000000_000019")
        'leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png'
    """
    return f"leftImg8bit/{split}/{stem}{IMAGE_SUFFIX}"


def label_path(split: str, stem: str) -> str:
    """Return the path of the labels of an image relative to the root.

    Example:
        >>> label_path("train", "aachen/aachen_000000_000019")
        'gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png'
    """
    return f"gtFine/{split}/{stem}{LABEL_SUFFIX}"


def _require_directory(root: Path) -> None:
    if root.is_dir():
        return
    found = "a file" if root.exists() else "nothing"
    msg = (
        f"{root}: expected a directory that holds leftImg8bit and gtFine, found {found}. Fix: give the root of a "
        f"Cityscapes, or make a synthetic one with: emacheck data make DIR"
    )
    raise DataError(msg)


def _pairs(root: Path) -> Pairs:
    """Return the stems of each split after checking that every image has its labels and vice versa."""
    _require_layout(root)
    pairs: dict[str, tuple[str, ...]] = {}
    for split in _SPLITS:
        images = _stems(root, f"leftImg8bit/{split}", IMAGE_SUFFIX)
        labels = _stems(root, f"gtFine/{split}", LABEL_SUFFIX)
        if not images:
            msg = (
                f"{root / 'leftImg8bit' / split}: no image found, expected files CITY/*{IMAGE_SUFFIX}. "
                f"Fix: unpack leftImg8bit_trainvaltest.zip into {root}"
            )
            raise DataError(msg)
        if images - labels:
            _refuse_unlabelled(root, split, images - labels)
        if labels - images:
            stray = first_few(label_path(split, stem) for stem in labels - images)
            msg = (
                f"{root}: {len(labels - images)} label files of {split} have no image: {stray}. Expected an image "
                f"CITY/*{IMAGE_SUFFIX} for each. Fix: unpack leftImg8bit_trainvaltest.zip again, or remove the labels."
            )
            raise DataError(msg)
        pairs[split] = tuple(sorted(images))
    return pairs


def _require_layout(root: Path) -> None:
    missing = [
        f"{top}/{split}" for top in ("leftImg8bit", "gtFine") for split in _SPLITS if not (root / top / split).is_dir()
    ]
    if missing:
        try:
            names = [path.name for path in root.iterdir()]
        except OSError as error:
            _refuse_folder(root, error)
        found = f"it holds {first_few(names)}" if names else "it is empty"
        msg = (
            f"{root}: no Cityscapes layout: {', '.join(missing)} missing; {found}. Expected leftImg8bit/train, "
            f"leftImg8bit/val, gtFine/train and gtFine/val. Fix: unpack leftImg8bit_trainvaltest.zip and "
            f"gtFine_trainvaltest.zip there, or give the directory that holds leftImg8bit."
        )
        raise DataError(msg)


def _stems(root: Path, folder: str, suffix: str) -> set[str]:
    """Return what precedes the suffix in the relative path of every file that mmsegmentation would find.

    Like its file lister, this descends into every directory, follows links and skips hidden files.
    """
    base, stems = root / folder, set()
    visited: set[tuple[int, int]] = set()

    def fail(error: OSError) -> NoReturn:
        _refuse_folder(Path(error.filename or base), error)

    for here, folders, files in os.walk(base, followlinks=True, onerror=fail):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        for name in files:
            path = Path(here) / name
            if name.endswith(suffix) and not name.startswith(".") and path.is_file():
                stems.add(path.relative_to(base).as_posix()[: -len(suffix)])
    return stems


def _refuse_folder(folder: Path, error: OSError) -> NoReturn:
    msg = f"{folder}: the directory cannot be read ({error.strerror or error}). Fix its permissions."
    raise DataError(msg) from error


def _refuse_unlabelled(root: Path, split: str, stems: set[str]) -> NoReturn:
    """Say which images lack labels, and how to make the labels if what they are made from is there."""
    sources = {
        suffix: _stems(root, f"gtFine/{split}", suffix) for suffix in ("_gtFine_polygons.json", "_gtFine_labelIds.png")
    }
    present = [suffix for suffix, found in sources.items() if found & stems]
    if present:
        fix = (
            f"There are {' and '.join(f'*{suffix}' for suffix in present)} but no labelTrainIds for them, which must "
            f"be created. Fix: pip install cityscapesscripts, then CITYSCAPES_DATASET={root} csCreateTrainIdLabelImgs "
            f"(or mmsegmentation's tools/dataset_converters/cityscapes.py {root})"
        )
    else:
        fix = f"Fix: unpack gtFine_trainvaltest.zip into {root}, then create the labelTrainIds."
    named = first_few(image_path(split, stem) for stem in stems)
    without = f"{counted(len(stems), 'image')} of {split} {'has' if len(stems) == 1 else 'have'} no *{LABEL_SUFFIX}"
    msg = f"{root}: {without}: {named}. {fix}"
    raise DataError(msg)


def _refuse_orphaned_synthetic(root: Path, pairs: Pairs) -> None:
    """Refuse a synthetic data set without its manifest: it would pass for a real one."""
    cities = {stem.split("/")[0] for stems in pairs.values() for stem in stems}
    if cities & {*TRAIN_CITIES, *VAL_CITIES}:
        msg = (
            f"{root}: the cities {first_few(cities)} are those of the synthetic data set, but its {MANIFEST_NAME} is "
            f"missing. Fix: delete the directory and run: {make_again(root, 0)}"
        )
        raise DataError(msg)


def _hash_of_names_and_sizes(root: Path, pairs: Pairs) -> str:
    """Return the sha256 over a title and the sorted lines ``path size``, each ended by a newline."""
    paths = [name(split, stem) for split, stems in pairs.items() for stem in stems for name in (image_path, label_path)]
    digest = hashlib.sha256(b"emacheck real Cityscapes: names and sizes\n")
    for path in sorted(paths):
        try:
            size = (root / path).stat().st_size
        except OSError as error:
            msg = f"{root / path}: the file cannot be read ({error.strerror or error})."
            raise DataError(msg) from error
        digest.update(f"{path} {size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
