"""Where bundles are stored, and which of them suit an experiment."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emacheck.bundle_files import BUNDLE_FILE
from emacheck.errors import BundleError, UsageError
from emacheck.experiment import differences
from emacheck.rank_files import RUN_FILE
from emacheck.reference.bundle import Bundle, name_of, read_bundle, shipped_root
from emacheck.regular_file import text_of


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
    roots = [*([Path(named)] if named else []), Path("references"), shipped_root()]
    return tuple({root.resolve(): root for root in roots if root.is_dir()}.values())


def stored_bundles() -> Iterator[Path]:
    """Yield the directory of every stored bundle, readable or not, root by root."""
    for root in bundle_roots():
        for file in sorted(root.glob(f"*/*/{BUNDLE_FILE}")):
            # A dot marks what a store that was killed has left half-written or set aside.
            if not any(part.startswith(".") for part in file.relative_to(root).parts):
                yield file.parent


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
