"""What can be said of the machine without importing torch: packages, data, references, disk."""

import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

import emacheck
from emacheck.data.cityscapes import fingerprint_dataset
from emacheck.data.synthetic import DEFAULT_NAME, cache_root
from emacheck.errors import BundleError, EmacheckError, UsageError
from emacheck.reference.bundle import read_bundle
from emacheck.reference.stored import stored_bundles
from emacheck.train.doctor.line import Line, error, ok, warning
from emacheck.train.launching.hints import SHARED_MEMORY
from emacheck.writable import obstacle

OLDEST_TORCH = (2, 4)
# Import name, the maintained continuation, the upstream distributions.
OPENMMLAB = (
    ("mmengine", "onedl-mmengine", ("mmengine", "mmengine-lite")),
    ("mmcv", "onedl-mmcv", ("mmcv", "mmcv-full", "mmcv-lite")),
    ("mmseg", "onedl-mmsegmentation", ("mmsegmentation",)),
)
# Distributions that are not called like the module they bring, as far as OpenMMLab's packages ask for them.
MODULES = {
    "opencv-python": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    **{continuation: module for module, continuation, _ in OPENMMLAB},
}
WRITABLE_CACHE = "Set EMACHECK_CACHE to a directory that may be written to; the data and the state to audit go there."
JUDGING = "Judging logs works without: emacheck compare LOG_A LOG_B"
# The synthetic data take 38 MB and a run of a hundred iterations some more.
LITTLE_DISK, TOO_LITTLE_DISK = 1 << 30, 100 << 20
# A container of Docker has 64 MiB unless it is told otherwise.
LITTLE_SHARED_MEMORY = 256 << 20


def package_lines() -> Iterator[Line]:
    """Yield the versions of all that takes part in a training; nothing of it is imported."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield ok("emacheck", emacheck.__version__)
    yield ok("numpy", version("numpy"))
    yield torch_line()
    suppliers = packages_distributions()
    for module, continuation, upstream in OPENMMLAB:
        yield _supplier(module, continuation, upstream, suppliers)
    if find_spec("mmengine") is not None and find_spec("distutils") is None:
        yield error(
            "distutils",
            f"not there: Python {platform.python_version()} brings none of its own, and mmengine trains with it only",
            "It comes with setuptools: pip install setuptools",
        )


def torch_line() -> Line:
    """Return whether torch is here and new enough."""
    if find_spec("torch") is None:
        return error(
            "torch",
            "not installed",
            "To train here: pip install 'emacheck[train]'; on a vendor's image, use the Python that has the vendor's "
            f"torch. {JUDGING}",
        )
    try:
        found = version("torch")
    except PackageNotFoundError:
        return warning("torch", "importable, but no distribution says its version", "Install torch with pip.")
    if _numbers(found) < OLDEST_TORCH:
        return error("torch", found, f"emacheck trains with torch {'.'.join(map(str, OLDEST_TORCH))} or newer.")
    return ok("torch", found)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.partition("+")[0].split(".")[:2] if part.isdecimal())


def _supplier(module: str, continuation: str, upstream: Sequence[str], suppliers: Mapping[str, Sequence[str]]) -> Line:
    """Say which distribution an import name comes from; two may supply the same one."""
    names = sorted({name.lower().replace("_", "-") for name in suppliers.get(module, ())})
    # Python 3.10 looks into top_level.txt only, which onedl-mmengine has none of.
    names = names or [name for name in (continuation, *upstream) if _is_installed(name)]
    if len(names) > 1:
        return warning(
            module,
            f"supplied by {' and '.join(f'{name} {version(name)}' for name in names)} at once",
            f"Their files lie over each other. Uninstall all of them, then install one: pip install {continuation}",
        )
    spec = find_spec(module)
    if spec is None:
        return error(
            module,
            "not installed",
            f"To train here: pip install {continuation}, on a vendor's image with --no-deps (docs/vendor-images.md)",
        )
    if not names:
        place = spec.origin or next(iter(spec.submodule_search_locations or ()), "somewhere unknown")
        return warning(
            module,
            f"found in {place}, supplied by no distribution",
            "Install it with pip, so that records can name it.",
        )
    (name,) = names
    missing = _missing_requirements(name)
    if missing:
        return error(
            module,
            f"{name} {version(name)} is there without {', '.join(missing)}, which it imports",
            f"Install what is missing: pip install {' '.join(missing)}",
        )
    if module == "mmseg" and name in upstream and not _has_operators():
        return error(
            module,
            f"{name} {version(name)} is there, and mmcv without the compiled operators that it imports",
            "Install the continuation, which needs none: pip install onedl-mmcv onedl-mmsegmentation; or mmcv with its "
            "operators instead of mmcv-lite.",
        )
    kind = "the continuation" if name == continuation else "upstream" if name in upstream else "a fork"
    return ok(module, f"{name} {version(name)} ({kind})")


def _has_operators() -> bool:
    """Tell whether mmcv was compiled; to import it would take seconds."""
    spec = find_spec("mmcv")
    places = spec.submodule_search_locations or () if spec is not None else ()
    return any(any(Path(place).glob("_ext*")) for place in places)


def _missing_requirements(distribution: str) -> list[str]:
    """Return what a distribution asks for and nothing supplies, as after an installation with ``--no-deps``."""
    asked = [Requirement(text) for text in requires(distribution) or ()]
    needed = [one.name.lower() for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    # Another distribution may supply the same module, such as opencv-python-headless.
    missing = [name for name in needed if not _is_installed(name) and find_spec(MODULES.get(name, name)) is None]
    return ["opencv-python-headless" if name == "opencv-python" else name for name in missing]


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def data_line(root: Path | None) -> Line:
    """Say whether the data to train on is there.

    Args:
        root: A Cityscapes, or None for the synthetic one in the cache.
    """
    try:
        place = root or cache_root() / DEFAULT_NAME
        if root is None and not place.exists():
            if (found := obstacle(place)) is not None:
                return error("data", f"{place} is not there and cannot be made: found {found}", WRITABLE_CACHE)
            return ok("data", f"{place} is not there yet; the first training makes it (38 MB)")
        summary = fingerprint_dataset(place)
    except UsageError as problem:  # there is no place for a cache
        return error("data", str(problem), WRITABLE_CACHE)
    except EmacheckError as problem:
        again = "The next training makes it again once it is deleted." if root is None else "Repair it."
        return error("data", str(problem), f"{again} Or give another one: --data-root DIR.")
    return ok(
        "data",
        f"{summary.root}: {summary.kind} Cityscapes, {summary.train_pairs} train + {summary.val_pairs} val pairs",
    )


def reference_line() -> Line:
    """Say which references are stored and whether all can be read."""
    names, broken = [], []
    try:
        places = tuple(stored_bundles())
    except UsageError as problem:
        return error("references", str(problem), "See docs/references.md.")
    for place in places:
        try:
            names.append(read_bundle(place).name)
        except BundleError as problem:
            broken.append(str(problem))
    if broken:
        return error("references", broken[0], "See emacheck reference verify. Make it anew: emacheck reference make")
    if not names:
        return warning("references", "none is stored", "Train the reference along: emacheck run --reference-device cpu")
    return ok("references", ", ".join(sorted(set(names))))


def disk_line() -> Line:
    """Say how much disk is free where runs and data are written."""
    try:
        here, cache = Path.cwd(), cache_root()
        free = {str(place): shutil.disk_usage(place).free for place in (here, _existing(cache))}
    except UsageError as problem:
        return error("disk", str(problem), WRITABLE_CACHE)
    except OSError as problem:
        return error(
            "disk",
            f"the working directory or the cache cannot be looked at: {problem}",
            "Change to a directory that exists and may be read; EMACHECK_CACHE says where the data are.",
        )
    place = min(free, key=lambda name: free[name])
    found = f"{readable(free[place])} free in {place}"
    advice = "Free some, or work elsewhere: --work-dir DIR for runs, EMACHECK_CACHE for the data."
    if free[place] < TOO_LITTLE_DISK:
        return error("disk", found, advice)
    if (closed := obstacle(here)) is not None:
        return warning("disk", f"the working directory is {closed}", "Give runs another place: --work-dir DIR.")
    if (closed := obstacle(cache)) is not None:
        return warning("disk", f"the cache is to be in {closed}", WRITABLE_CACHE)
    return warning("disk", found, advice) if free[place] < LITTLE_DISK else ok("disk", found)


def shared_memory_lines() -> Iterator[Line]:
    """Say how much shared memory there is, if that can be seen: processes that load data hand over batches there."""
    with suppress(OSError):
        size = shutil.disk_usage(SHARED_MEMORY).total
        advice = (
            "Data loaders with processes of their own (num_workers) may fail. Give the container more, such as docker "
            "run --shm-size 8g."
        )
        found = f"{readable(size)} in {SHARED_MEMORY}"
        yield warning("shm", found, advice) if size < LITTLE_SHARED_MEMORY else ok("shm", found)


def _existing(place: Path) -> Path:
    return next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())


def readable(size: float) -> str:
    """Return a number of bytes for people.

    Example:
        >>> readable(3_500_000_000)
        '3.3 GiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
