"""Places for output, looked at before anything expensive happens and before anything is written."""

import os
from collections.abc import Collection, Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any

import click

from emacheck.errors import OutputError
from emacheck.report.write import refuse_what_cannot_be_written

PLOT = "--plot"


class Directory(click.Path):
    """A directory that a command makes, without a ``..`` behind a name.

    ``new/..`` is the working directory, but as long as there is no ``new``, nothing is found there that could be
    overwritten; and to make it is to make ``new``.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path as it was given, or where it leads if there is a ``..`` behind a name."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        inner = dropwhile(lambda part: part == "..", path.parts)
        return Path(os.path.realpath(path)) if ".." in inner else path


def check_outputs(
    files: Mapping[str, Path | None], *, directory: Path | None = None, holds: Collection[str] = ()
) -> None:
    """Refuse an output file that exists, that two options name, or that cannot be written.

    Args:
        files: For each option the file that it names, None where it was not given.
        directory: A directory that the command makes before it writes the files.
        holds: Names of the files that the command writes there itself.

    Raises:
        OutputError: If one of the files has to be refused, or a picture is to be something other than a PNG.
    """
    made = Path(os.path.realpath(directory)) if directory is not None else None
    seen: dict[Path, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        target, where = Path(os.path.realpath(path)), f"{option} {path}"
        if option == PLOT and path.suffix.lower() not in ("", ".png"):
            raise OutputError(f"{where}: found {path.suffix!r}, but the picture is a PNG. Name a file FILE.png.")
        if target.exists():
            raise OutputError(f"{where}: exists already and was not touched. Remove it or choose another name.")
        if target in seen:
            raise OutputError(f"{where}: {seen[target]} names the same file. Choose another name for one of them.")
        seen[target] = option
        if made is None or made not in (target, *target.parents):
            if made is not None and target in made.parents:
                raise OutputError(f"{where}: {directory} is to be in there, so it is no file. Choose another name.")
            refuse_what_cannot_be_written(path)
        elif target.parent != made:
            raise OutputError(f"{where}: expected a file right in {directory}, or outside of it. Choose another name.")
        elif target.name in holds:
            raise OutputError(
                f"{where}: {target.name} is a report that is written into {directory} anyway. Choose another name."
            )
