"""The manifest of a synthetic data set: which files it has and what is in them."""

import contextlib
import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from emacheck.counted import the_first
from emacheck.errors import DataError

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
GENERATOR_NAME = "emacheck synthetic Cityscapes"
GENERATOR_VERSION = 1
SHOWN = 5
TRAIN_CITIES = ("noiseheim", "pixelburg", "rasterfeld", "synthetia")
VAL_CITIES = ("mockstadt",)
KNOWN_HASHES = {(0, 1): "9b335918d618e2bd0763ca0417ae24e97931d1ee4631b4070a81b8478172d65b"}
"""The data_hash by (seed, generator_version): every machine must find these."""

_LONGEST_MANIFEST = 2**22  # bytes; ours has 22 kB
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a synthetic data set consists of.

    Args:
        seed: The seed that it was drawn from.
        generator_version: The version of the generator that drew it.
        width: Of every image, in pixels.
        height: Of every image, in pixels.
        files: The sha256 of each file by its path relative to the root, written with ``/``.
    """

    seed: int
    generator_version: int
    width: int
    height: int
    files: Mapping[str, str]

    @property
    def data_hash(self) -> str:
        """The sha256 over the sorted lines ``path sha256``, each ended by a newline."""
        lines = "".join(f"{path} {digest}\n" for path, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()

    def to_json(self) -> str:
        """Return the text of ``manifest.json``; equal manifests give equal text."""
        content = {
            "format_version": FORMAT_VERSION,
            "generator": {"name": GENERATOR_NAME, "version": self.generator_version},
            "seed": self.seed,
            "image_size": {"width": self.width, "height": self.height},
            "data_hash": self.data_hash,
            "files": dict(sorted(self.files.items())),
        }
        return json.dumps(content, indent=1) + "\n"


def read_manifest(root: Path) -> Manifest:
    """Read and validate ``root/manifest.json``, which may come from anybody.

    Args:
        root: The directory of the data set.

    Returns:
        The manifest. Its paths are relative and stay below the root.

    Raises:
        DataError: It cannot be read, is no manifest of a synthetic data set, or contradicts itself.
    """
    path = root / MANIFEST_NAME
    content = _loaded(path)
    generator, size = content.get("generator"), content.get("image_size")
    if not isinstance(generator, dict) or generator.get("name") != GENERATOR_NAME:
        _reject(path, f"'generator' does not name {GENERATOR_NAME!r}")
    if content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version")
        _reject(path, f"'format_version' is {found!r:.40}, this emacheck reads {FORMAT_VERSION}")
    if not isinstance(size, dict):
        _reject(path, "'image_size' is not an object")
    manifest = Manifest(
        seed=_integer(path, content, "seed"),
        generator_version=_integer(path, generator, "version"),
        width=_integer(path, size, "width"),
        height=_integer(path, size, "height"),
        files=_files(path, content.get("files")),
    )
    if content.get("data_hash") != manifest.data_hash:
        found = content.get("data_hash")
        _reject(path, f"'data_hash' is {found!r:.80}, its list of files gives {manifest.data_hash!r}")
    return manifest


def is_synthetic(root: Path) -> bool:
    """Tell whether a directory is, or was once, a synthetic data set: its manifest names us, or it has our cities."""
    manifest = root / MANIFEST_NAME
    with contextlib.suppress(OSError):
        if manifest.is_file():  # a pipe may never say anything
            with manifest.open("rb") as file:
                if GENERATOR_NAME.encode() in file.read(_LONGEST_MANIFEST):
                    return True
    cities = {"train": TRAIN_CITIES, "val": VAL_CITIES}
    return any((root / "leftImg8bit" / split / city).is_dir() for split, names in cities.items() for city in names)


def verify_files(root: Path, manifest: Manifest) -> None:
    """Check that exactly the files of the manifest are there, each with the content it had when it was made.

    Only files found by walking the root are opened, never a path that the manifest names; links are not followed.

    Args:
        root: The directory of the data set.
        manifest: What it should hold.

    Raises:
        DataError: Files are missing, extra or changed; the first few are named.
    """
    found = _regular_files(root)
    listed = set(manifest.files)
    trouble = {
        "missing": listed - found.keys(),
        "changed": {p for p in listed & found.keys() if _sha256(root, p, found[p]) != manifest.files[p]},
        "extra": found.keys() - listed - {MANIFEST_NAME},
    }
    if any(trouble.values()):
        told = "; ".join(f"{len(names)} {kind}: {first_few(names)}" for kind, names in trouble.items() if names)
        spoilt = trouble["missing"] or trouble["changed"]
        fix = (
            f"delete the directory and run: {make_again(root, manifest.seed)}" if spoilt else "remove the extra files."
        )
        msg = (
            f"{root}: this is not the synthetic data set that its {MANIFEST_NAME} describes: {told}. "
            f"Expected {len(listed)} files as they were made, and no others. Fix: {fix}"
        )
        raise DataError(msg)


def require_same_everywhere(root: Path, manifest: Manifest) -> None:
    """Compare the data_hash with the one that every machine finds for this seed, where that is on record.

    Args:
        root: The directory of the data set, for the message.
        manifest: Its manifest.

    Raises:
        DataError: The hashes differ.
    """
    expected = KNOWN_HASHES.get((manifest.seed, manifest.generator_version), manifest.data_hash)
    if manifest.data_hash != expected:
        msg = (
            f"{root}: the data_hash of seed {manifest.seed} is {manifest.data_hash}, expected {expected} as on every "
            f"machine. Either the files and their {MANIFEST_NAME} were changed together, or numpy computes wrong "
            f"integers here. Fix: delete the directory and make it again; if that does not help, install numpy again."
        )
        raise DataError(msg)


def make_again(root: Path, seed: int) -> str:
    """Return the command that makes a synthetic data set, as a shell reads it.

    Example:
        >>> make_again(Path("my data"), 3)
        "emacheck data make 'my data' --seed 3"
    """
    return f"emacheck data make {shlex.quote(str(root))} --seed {seed}"


def first_few(names: Iterable[str]) -> str:
    """Quote the first names in sorted order and say how many more there are.

    Example:
        >>> first_few("fedcba")
        "'a', 'b', 'c', 'd', 'e' and 1 more"
    """
    return the_first([repr(name) for name in sorted(names)], SHOWN)


def _loaded(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            _reject(path, "it is not a regular file")
        with path.open("rb") as file:
            raw = file.read(_LONGEST_MANIFEST + 1)
    except OSError as error:
        _reject(path, f"it cannot be read ({error.strerror or error})")
    if len(raw) > _LONGEST_MANIFEST:
        _reject(path, f"it is longer than {_LONGEST_MANIFEST} bytes")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else f"it is not JSON ({error})"
        _reject(path, reason)
    if not isinstance(content, dict):
        _reject(path, "it does not hold a JSON object")
    return content


def _integer(path: Path, holder: dict[str, Any], key: str) -> int:
    value = holder.get(key)
    if type(value) is not int or not 0 <= value < 2**64:
        _reject(path, f"{key!r} is {value!r:.40}, expected a whole number from 0 to 2**64 - 1")
    return value


def _files(path: Path, files: object) -> dict[str, str]:
    if not isinstance(files, dict) or not files:
        _reject(path, "'files' is not an object of path: sha256")
    for name, digest in files.items():
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name or parts.as_posix() != name or name == ".":
            _reject(path, f"'files' names {name!r:.200}, expected plain relative paths without '..'")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            _reject(path, f"'files' gives {name!r:.200} the digest {digest!r:.80}, expected 64 hexadecimal digits")
    return files


def _reject(path: Path, reason: str) -> NoReturn:
    msg = (
        f"{path}: {reason}. Expected the {MANIFEST_NAME} that `emacheck data make` writes. Fix: for a synthetic data "
        f"set, delete the directory and make it again; for a real Cityscapes, move this file elsewhere."
    )
    raise DataError(msg)


def _regular_files(root: Path) -> dict[str, bool]:
    """Return every path below the root that is no directory, and whether it is a regular file."""
    found: dict[str, bool] = {}

    def fail(error: OSError) -> NoReturn:
        msg = f"{error.filename or root}: the directory cannot be read ({error.strerror}). Fix its permissions."
        raise DataError(msg)

    for folder, folders, files in os.walk(root, onerror=fail):
        for name in files + [name for name in folders if (Path(folder) / name).is_symlink()]:
            path = Path(folder) / name
            found[path.relative_to(root).as_posix()] = path.is_file() and not path.is_symlink()
    return found


def _sha256(root: Path, relative: str, regular: bool) -> str:
    """Return the digest of a file; a link or device has none, so that it counts as changed."""
    if not regular:
        return ""
    digest = hashlib.sha256()
    try:
        with (root / relative).open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        msg = f"{root / relative}: the file cannot be read ({error.strerror or error}). Fix its permissions."
        raise DataError(msg) from error
    return digest.hexdigest()
