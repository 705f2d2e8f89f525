"""Decodes an image and its labels and checks that they can be trained on."""

import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image

from emacheck.errors import DataError

CLASSES = 19
IGNORE = 255

_HIGHEST_LABEL_ID = 33
_PNG_ERRORS = (
    OSError,
    SyntaxError,  # how Pillow reports a broken chunk
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def check_pair(image_path: Path, label_path: Path) -> None:
    """Check one image and its labels.

    Args:
        image_path: An 8-bit RGB PNG.
        label_path: An 8-bit PNG of the same size with values 0 to 18, or 255 for ignore.

    Raises:
        DataError: A file cannot be decoded, or the labels do not fit the image or the classes.
    """
    image, labels = _decoded(image_path, ("RGB",)), _decoded(label_path, ("L", "P"))
    if image.size != labels.size:
        msg = (
            f"{label_path}: labels of {_size(labels)} pixels for an image of {_size(image)} ({image_path}). "
            f"Expected equal sizes. Fix: unpack both archives again."
        )
        raise DataError(msg)
    values = [value for value, count in enumerate(labels.histogram()) if count]
    wrong = [value for value in values if value >= CLASSES and value != IGNORE]
    if wrong:
        guess = (
            " These look like labelIds (0 to 33), not trainIds: create labelTrainIds from them with "
            "csCreateTrainIdLabelImgs of the package cityscapesscripts."
            if wrong[-1] <= _HIGHEST_LABEL_ID
            else " Fix: create the labelTrainIds again."
        )
        msg = (
            f"{label_path}: label values {', '.join(map(str, wrong[:10]))}{' ...' if wrong[10:] else ''}; "
            f"expected only 0 to {CLASSES - 1} and {IGNORE}.{guess}"
        )
        raise DataError(msg)


def _decoded(path: Path, modes: tuple[str, ...]) -> Image.Image:
    """Return the decoded PNG; Pillow's limit on its number of pixels holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as image:
                if image.mode not in modes:
                    msg = (
                        f"{path}: the pixels are of mode {image.mode}, expected {' or '.join(modes)} (8 bits). "
                        f"Fix: unpack or create the file again."
                    )
                    raise DataError(msg)
                image.load()
                return image
    except _PNG_ERRORS as error:
        msg = (
            f"{path}: it cannot be decoded ({error or type(error).__name__}). Expected a complete PNG. "
            f"Fix: unpack or create the file again."
        )
        raise DataError(msg) from error


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
