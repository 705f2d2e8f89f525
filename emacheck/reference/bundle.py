"""A bundle: a stored reference, which is read only as it was made."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emacheck.bundle_files import verified_files
from emacheck.errors import BundleError, EmacheckError
from emacheck.logs import read_log
from emacheck.oddity import OddityKind, oddity
from emacheck.record import Record


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
        BundleError: If a file is missing, changed, unreadable or not listed, the format is unknown, or a record is none
            that can be a reference.
    """
    name, files = name_of(path), verified_files(path)
    repeats = sorted({Path(member).parent for member in files} - {Path()})
    try:
        record = read_log(path, name=name)
        others = tuple(read_log(path / repeat, name=f"{name}/{repeat}") for repeat in repeats)
    except EmacheckError as error:
        raise BundleError(f"{path}: {error}") from error
    for place, each in zip((Path(), *repeats), (record, *others), strict=True):
        require_fit(each, path / place)
    return Bundle(name=name, path=path, record=_told_apart(record, path), repeats=others)


def require_fit(record: Record, run_directory: Path) -> None:
    """Refuse a record that can be no reference.

    Raises:
        BundleError: If the run is incomplete, or holds NaN or infinity.
    """
    if not record.complete or record.initial_state is None or "loss" not in record.curves:
        raise BundleError(f"{run_directory}: this run is incomplete; only a complete run can be a reference.")
    unfit = [name for name, curve in record.curves.items() if not np.all(np.isfinite(curve.values))]
    if unfit:
        raise BundleError(f"{run_directory}: NaN or infinity in {', '.join(unfit)}; such a run cannot be a reference.")


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
