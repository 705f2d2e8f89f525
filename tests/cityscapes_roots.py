"""Small roots with the names of Cityscapes, for tests: how to write one and what lies in it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emacheck.data.cityscapes import image_path, label_path
from emacheck.data.png import encode_png

SEED_0_HASH = "9b335918d618e2bd0763ca0417ae24e97931d1ee4631b4070a81b8478172d65b"
FIRST_IMAGE = "leftImg8bit/train/noiseheim/noiseheim_000000_000019_leftImg8bit.png"
FIRST_LABEL = "gtFine/train/noiseheim/noiseheim_000000_000019_gtFine_labelTrainIds.png"


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))


def write_pair(root: Path, split: str, stem: str, label: int = 0) -> None:
    write_png(root / image_path(split, stem), np.full((8, 16, 3), 90, dtype=np.uint8))
    write_png(root / label_path(split, stem), np.full((8, 16), label, dtype=np.uint8))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files_below(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
