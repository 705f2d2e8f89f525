"""The commands ``emacheck data make`` and ``emacheck data check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emacheck.cli.outputs import Directory

if TYPE_CHECKING:
    from emacheck.data.cityscapes import DatasetSummary


@click.group()
def data() -> None:
    """Make and check the data to train on."""


@data.command()
@click.argument("root", metavar="DIR", type=Directory())
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="What to draw the scenes from; equal seeds give equal bytes on every machine.",
)
def make(root: Path, seed: int) -> None:
    """Write a synthetic Cityscapes (64 + 8 street scenes, 38 MB) into DIR.

    DIR must be absent or empty, or hold this very data set already.
    """
    from emacheck.data.synthetic import make_dataset  # here, so that `emacheck --help` stays fast

    click.echo(_told(make_dataset(root, seed=seed)))


@data.command()
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--all",
    "decode_all",
    is_flag=True,
    help="Decode every image; otherwise every n-th, at most 200 of each split.",
)
def check(root: Path, decode_all: bool) -> None:
    """Check the Cityscapes in DIR, synthetic or real: layout, pairing, labels.

    Of a synthetic one, every file is compared with its manifest.json.
    """
    from emacheck.data.cityscapes import check_dataset  # here, so that `emacheck --help` stays fast

    summary = check_dataset(root, decode_all=decode_all)
    pairs = summary.train_pairs + summary.val_pairs
    click.echo(f"{_told(summary)}\nDecoded {summary.decoded} of {pairs} pairs; nothing wrong found.")


def _told(summary: DatasetSummary) -> str:
    return (
        f"{summary.root}: {summary.kind} Cityscapes, {summary.train_pairs} train + {summary.val_pairs} val pairs. "
        f"{' '.join(summary.notes)}\ndata_hash {summary.data_hash}"
    )
