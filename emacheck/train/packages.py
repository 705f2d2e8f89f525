"""The packages that training needs, and what to install where one is missing."""

from collections.abc import Sequence
from importlib.util import find_spec

from emacheck.errors import MissingExtraError

TRAINING_PACKAGES = ("torch", "mmengine", "mmcv", "mmseg")


def require_training_packages(packages: Sequence[str] = TRAINING_PACKAGES, *, purpose: str = "training") -> None:
    """Raise MissingExtraError if a package that training needs is not installed; nothing is imported.

    Args:
        packages: Those of them that the purpose needs.
        purpose: What needs them, as the beginning of a sentence.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{purpose} needs {', '.join(missing)}: not installed here. Install the extra: "
            "pip install 'emacheck[train]' (on a vendor image that brings its own torch: "
            "pip install --no-deps onedl-mmengine onedl-mmcv onedl-mmsegmentation, see docs/vendor-images.md). "
            "Judging logs works without: emacheck compare LOG_A LOG_B"
        )
