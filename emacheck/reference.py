"""Reference bundles: stored records of reference runs, with their provenance and the hashes of their files."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from emacheck.errors import BundleError, EmacheckError, OutputError, UsageError
from emacheck.experiment import differences
from emacheck.logs import read_log
from emacheck.oddity import OddityKind, oddity
from emacheck.rank_files import RUN_FILE, rank_files
from emacheck.record import Record
from emacheck.regular_file import sha256_of, text_of

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

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
        # Bundles that do not say how they were drawn were drawn in the first way.
        return {"draws": 1, **(self.record.provenance.get("experiment") or {})}

    @property
    def iterations(self) -> int:
        """How many iterations it holds."""
        return len(self.record.curves.get("loss", ()))


def bundle_roots() -> tuple[Path, ...]:
    """Return where bundles are looked for: ``$EMACHECK_REFERENCES``, ``./references``, those shipped with emacheck.

    Raises:
        UsageError: If ``EMACHECK_REFERENCES`` names no directory, or one that may not be read.
    """
    named = os.environ.get("EMACHECK_REFERENCES")
    if named and not Path(named).is_dir():
        raise UsageError(
            f"EMACHECK_REFERENCES={named}: no such directory, expected a folder of references. Correct it, or unset it."
        )
    if named and not os.access(named, os.R_OK | os.X_OK):
        raise UsageError(
            f"EMACHECK_REFERENCES={named}: may not be read, expected a folder of references. Fix its permissions, or "
            "unset it."
        )
    roots = [*([Path(named)] if named else []), Path("references"), _shipped()]
    return tuple({root.resolve(): root for root in roots if root.is_dir()}.values())


def _shipped() -> Path:
    package = Path(__file__).resolve().parent
    return package / "references" if (package / "references").is_dir() else package.parent / "references"


def stored_bundles() -> Iterator[Path]:
    """Yield the directory of every stored bundle, readable or not, root by root."""
    for root in bundle_roots():
        for file in sorted(root.glob(f"*/*/{BUNDLE_FILE}")):
            # A dot marks what a store that was killed has left half-written or set aside.
            if not any(part.startswith(".") for part in file.relative_to(root).parts):
                yield file.parent


def name_of(place: Path) -> str:
    """Return the name of the bundle in a directory: where it is, whatever it was stored as.

    Example:
        >>> name_of(Path("references/emanet_r50-d8_smoke/cpu-fp32"))
        'emanet_r50-d8_smoke/cpu-fp32'
    """
    return "/".join(place.absolute().parts[-2:])


def find_bundle(name: str) -> Bundle:
    """Return the bundle of a name or a directory.

    Args:
        name: ``<experiment>/<device>-<precision>``, or the path of a bundle's directory.

    Returns:
        The bundle, its hashes verified.

    Raises:
        BundleError: If there is none, or it is damaged.
    """
    if (Path(name) / BUNDLE_FILE).is_file():
        return read_bundle(Path(name))
    for root in bundle_roots():
        if (root / name / BUNDLE_FILE).is_file() and ".." not in Path(name).parts:
            return read_bundle(root / name)
    known = ", ".join(dict.fromkeys(map(name_of, stored_bundles()))) or "none"
    raise BundleError(
        f"no reference {name}: found neither a bundle of that name nor a directory with {BUNDLE_FILE}. "
        f"Stored references: {known}. Make one with: emacheck reference make"
    )


def match_bundles(
    *, experiment_name: str, precision: str, data_hash: str | None, seed: int, iterations: int
) -> tuple[Bundle, ...]:
    """Return the stored references of an experiment, the preferred one first.

    Only the process that trains knows the whole configuration, so these may still differ in it: see
    :func:`bundle_of`. Those in the folder of the experiment come first, of these those made on a CPU, of these those of
    the root that is looked into first.

    Args:
        experiment_name: The experiment's name, such as ``emanet_r50-d8_smoke``.
        precision: The precision of the run, such as ``fp32``.
        data_hash: The hash of the data set.
        seed: The seed; those of another one are returned only where none has it, to say what differs.
        iterations: How many must be held; if no bundle holds them, the one that holds most is returned.

    Returns:
        The bundles, their hashes verified; none if no stored reference fits.

    Raises:
        BundleError: If the preferred one is damaged; others that are damaged are left out.
    """
    wanted = {"name": experiment_name, "precision": precision, "data_hash": data_hash}
    fitting, unreadable = dict[Path, Any](), list[Path]()
    for place in stored_bundles():
        declared = _declared_experiment(place)
        if declared is None:
            unreadable += [place] * (place.parent.name == experiment_name)
        elif all(declared.get(key) == value for key, value in wanted.items()):
            fitting[place] = declared.get("seed")
    if not fitting and unreadable:
        read_bundle(unreadable[0])  # raises, and says what is wrong with it
    of_seed = [place for place in fitting if fitting[place] == seed] or list(fitting)
    bundles = list[Bundle]()
    for place in sorted(of_seed, key=lambda at: (at.parent.name != experiment_name, not at.name.startswith("cpu"))):
        try:
            bundles.append(read_bundle(place))
        except BundleError:
            if not bundles:
                raise
    longest = sorted(bundles, key=lambda bundle: -bundle.iterations)[:1]
    return tuple([bundle for bundle in bundles if bundle.iterations >= iterations] or longest)


def bundle_of(experiment: Mapping[str, Any], bundles: Sequence[Bundle]) -> Bundle:
    """Return the first of the bundles that is of an experiment, or the first of all if none is."""
    return next((bundle for bundle in bundles if not differences(bundle.experiment, experiment)), bundles[0])


def _declared_experiment(place: Path) -> Mapping[str, Any] | None:
    """Return the experiment that a bundle says it is of, unverified; None if it cannot be read."""
    try:
        run = json.loads(text_of(place / RUN_FILE))
    except (OSError, ValueError, RecursionError):
        return None
    provenance = run.get("provenance") if isinstance(run, dict) else None
    experiment = provenance.get("experiment") if isinstance(provenance, dict) else None
    return experiment if isinstance(experiment, dict) else {}


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


def _told_apart(record: Record, path: Path) -> Record:
    """Say of the record of a bundle that it is not the shipped one, although it has its name."""
    shipped = _shipped() / name_of(path)
    message = f"this is not the reference of this name that is shipped with emacheck, but that of {path}"
    other = shipped.is_dir() and shipped.resolve() != path.resolve()
    return replace(record, oddities=(*record.oddities, oddity(OddityKind.OTHER, message))) if other else record


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
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
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
    members = {file.name: file for file in _record_of(run_directory)}
    for at, repeat in enumerate(repeats, 1):
        members |= {f"{REPEATS}/{at:02}/{file.name}": file for file in _record_of(repeat)}
    for run in (run_directory, *repeats):
        _fit_for_reference(read_log(run), run)
    target = root / name
    if not rewrite:
        _refuse_existing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".bundle-", dir=target.parent))
    except OSError as error:
        raise _not_written(target, error) from error
    try:
        for member, source in members.items():
            (staged / member).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, staged / member)
        content = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "files": {member: sha256_of(staged / member) for member in members},
        }
        (staged / BUNDLE_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        staged.chmod(0o755)
        _put_in_place(staged, target, rewrite=rewrite)
    except OSError as error:
        raise _not_written(target, error) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return read_bundle(target)


def _refuse_unlisted(path: Path, hashes: Mapping[str, Any]) -> None:
    """Refuse records that the description does not list, for they would be read like the others."""
    folders = {path, *path.glob(f"{REPEATS}/*"), *((path / member).parent for member in hashes)}
    records = [file for folder in folders if folder.is_dir() for file in _record_of(folder) if file.is_file()]
    unlisted = sorted({file.relative_to(path).as_posix() for file in records} - hashes.keys())
    if unlisted:
        raise BundleError(
            f"{path / unlisted[0]}: found a record that {BUNDLE_FILE} does not list; the reference was changed after "
            "it was made. Remove the file, or restore the reference from version control."
        )


def _record_of(run_directory: Path) -> list[Path]:
    """Return the files of a run that are its record, those of every rank among them."""
    return [run_directory / RUN_FILE, *rank_files(run_directory).values()]


def _put_in_place(staged: Path, target: Path, *, rewrite: bool) -> None:
    """Move a directory into place; what was there before is removed only after the new one stands."""
    aside = target.with_name(f".{target.name}.replaced")
    if rewrite and target.exists() and aside.exists():  # left by a process that was killed
        shutil.rmtree(aside)
    try:
        if rewrite and target.exists():
            target.rename(aside)
        staged.rename(target)
    except BaseException:  # an interrupt as well
        if rewrite and aside.exists() and not target.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _not_written(target: Path, error: OSError) -> OutputError:
    return OutputError(f"{target}: cannot be written ({error.strerror}). Choose another place with --into.")


def _fit_for_reference(record: Record, run_directory: Path) -> None:
    if not record.complete or record.initial_state is None or "loss" not in record.curves:
        raise BundleError(f"{run_directory}: this run is incomplete; only a complete run can be a reference.")
    if unfit := [name for name, curve in record.curves.items() if not all(abs(v) < float("inf") for v in curve.values)]:
        raise BundleError(f"{run_directory}: NaN or infinity in {', '.join(unfit)}; such a run cannot be a reference.")
