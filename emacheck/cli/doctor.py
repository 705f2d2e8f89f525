"""``emacheck doctor``: what this machine and a device can do, before anybody trains."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emacheck.cli.command_line import quoted
from emacheck.cli.output_format import format_option
from emacheck.cli.seconds import Seconds
from emacheck.counted import counted
from emacheck.printable import MESSAGE_LENGTH, printable
from emacheck.strict_json import to_json

if TYPE_CHECKING:
    from emacheck.train.doctor.line import Line

TROUBLE = 2
FORMAT_VERSION = 1
INDENT = 24
WIDEST, NARROWEST = 120, 60


@click.command()
@click.option("--device", default="auto", show_default=True, metavar="NAME[:INDEX]", help="The device to look at.")
@click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="A Cityscapes to look at.")
@click.option(
    "--timeout",
    default=120.0,
    show_default=True,
    type=Seconds(),
    help="Seconds that one stage on the device may take; inf: no limit.",
)
@format_option("text", "json")
def doctor(device: str, data_root: Path | None, timeout: float, output_format: str) -> int:
    """Look at this machine and a device: versions, memory, precisions, data, and one iteration of EMANet.

    Every line is ok, a warning or an error, and says what to do. Exit code 2 when there is an error, otherwise 0.
    """
    from emacheck.train.doctor.examination import examine  # here, so that `emacheck --help` stays fast
    from emacheck.train.doctor.line import Status

    as_json, lines = output_format == "json", []
    for line in examine(device, data_root=data_root, timeout=timeout):
        lines.append(line)
        if not as_json:
            click.echo("\n".join(_shown(line, width=_width())))
    counts = {status: sum(line.status is status for line in lines) for status in Status}
    errors, warnings = counts[Status.ERROR], counts[Status.WARNING]
    if as_json:
        click.echo(_document(device, errors, warnings, lines), nl=False)
    else:
        click.echo(f"\n{counted(errors, 'error')}, {counted(warnings, 'warning')} | {_command(device, data_root)}")
    return TROUBLE if errors else 0


def _width() -> int:
    """Return how many columns a line may fill: those of the terminal, where the output goes to one."""
    columns = shutil.get_terminal_size((WIDEST, 0)).columns if sys.stdout.isatty() else WIDEST
    return max(NARROWEST, min(WIDEST, columns))


def _shown(line: Line, *, width: int = WIDEST) -> Iterator[str]:
    """Yield a line for the terminal; names, paths and last words come from elsewhere."""
    found = printable(line.found, length=MESSAGE_LENGTH)
    head = f"{line.status.value:<9}{printable(line.name):<{INDENT - 9}}"
    yield from textwrap.wrap(head + found, width, subsequent_indent=" " * INDENT, break_on_hyphens=False)
    if line.advice:
        yield from textwrap.wrap(
            printable(line.advice, length=MESSAGE_LENGTH),
            width,
            initial_indent=" " * INDENT + "-> ",
            subsequent_indent=" " * (INDENT + 3),
            break_on_hyphens=False,
        )


def _document(device: str, errors: int, warnings: int, lines: list[Line]) -> str:
    return to_json(
        {
            "format_version": FORMAT_VERSION,
            "device": device,
            "errors": errors,
            "warnings": warnings,
            "lines": [line.to_dict() for line in lines],
        }
    )


def _command(device: str, data_root: Path | None) -> str:
    words = ["emacheck", "doctor", "--device", device, *(["--data-root", str(data_root)] if data_root else [])]
    return quoted(words)
