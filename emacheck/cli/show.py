"""``emacheck show``: what is understood of a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from emacheck.cli.output_format import format_option
from emacheck.cli.reading import read_shown
from emacheck.counted import counted
from emacheck.oddity import shown
from emacheck.printable import MESSAGE_LENGTH, printable
from emacheck.strict_json import encode_value, to_json

if TYPE_CHECKING:
    from emacheck.curve import Curve
    from emacheck.record import Record

MOST_ENTRIES = 12
COLUMNS = ("metric", "values", "first", "last", "first value", "last value", "window", "quantum")


@click.command()
@click.argument("log", metavar="LOG")
@click.option(
    "--reader", metavar="NAME", help="Take this reader, such as csv, instead of the one that recognises the content."
)
@click.option("--pattern", metavar="REGEX", help="Search every line: groups iteration, epoch, rank, and metrics.")
@click.option("--rank", type=click.IntRange(0), metavar="N", help="Take this rank.  [default: the mean of all]")
@format_option("text", "json")
def show(log: str, reader: str | None, pattern: str | None, rank: int | None, output_format: str) -> None:
    """Show what is understood of LOG: its format, metrics, ranks, header and oddities.

    LOG is a file (compressed or not), - for standard input, a run directory, or FILE#NAME for one of several arrays.
    """
    record = read_shown(log, reader=reader, pattern=pattern, rank=rank)
    click.echo(_as_json(record).rstrip() if output_format == "json" else "\n".join(_as_text(record)))


def _as_text(record: Record) -> Iterator[str]:
    yield f"log      {printable(record.name)}"
    yield f"format   {printable(record.format)}"
    if record.ranks > 1:
        yield f"ranks    {record.ranks}"
    if not record.complete:
        yield "ended    before its time"
    yield from _table("training", record.curves)
    yield from _table("validation", record.validation)
    if record.header:
        yield f"\nheader ({counted(len(record.header), 'entry', 'entries')})"
        for name in sorted(record.header, key=_interest)[:MOST_ENTRIES]:
            yield f"  {printable(name)}: {printable(record.header[name])}"
        if len(record.header) > MOST_ENTRIES:
            yield "  ... (all of them with --format json)"
    if record.oddities:
        yield "\noddities"
        for oddity in record.oddities:
            yield f"  ! {shown(oddity, printable(oddity.message, length=MESSAGE_LENGTH))} [{oddity.kind}]"
        yield "\nWhat the name in brackets means, and what to do: emacheck explain NAME"


def _interest(name: str) -> tuple[int, int]:
    """Sort the header so that what tells two runs apart comes first."""
    starts = ("seed", "resumed", "versions.", "environment.", "config.")
    return next((at for at, start in enumerate(starts) if name.startswith(start)), len(starts)), name.count(".")


def _table(title: str, curves: Mapping[str, Curve]) -> Iterator[str]:
    if not curves:
        return
    rows = [COLUMNS, *(_row(curve) for curve in curves.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield f"\n{title}"
    for name, *numbers in rows:
        cells = (cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))
        yield f"  {name.ljust(widths[0])}  {'  '.join(cells)}"


def _row(curve: Curve) -> tuple[str, ...]:
    window = str(curve.window) if curve.window else "unknown"
    quantum = f"{curve.quantum:g}" if curve.quantum else "full"
    ends = [f"{curve.iterations[at]}" for at in (0, -1)] + [f"{curve.values[at]:.9g}" for at in (0, -1)]
    return (printable(curve.name, length=60), str(len(curve)), *ends, window, quantum)


def _as_json(record: Record) -> str:
    return to_json(
        {
            "format_version": 1,
            "name": record.name,
            "format": record.format,
            "ranks": record.ranks,
            "complete": record.complete,
            "metrics": [_described(curve) for curve in record.curves.values()],
            "validation": [_described(curve) for curve in record.validation.values()],
            "header": dict(record.header),
            "oddities": [oddity.message for oddity in record.oddities],
            "oddity_effects": [str(oddity.effect) for oddity in record.oddities],
            "oddity_kinds": [str(oddity.kind) for oddity in record.oddities],
        }
    )


def _described(curve: Curve) -> dict[str, Any]:
    return {
        "name": curve.name,
        "count": len(curve),
        "first_iteration": int(curve.iterations[0]),
        "last_iteration": int(curve.iterations[-1]),
        "first_value": encode_value(float(curve.values[0])),
        "last_value": encode_value(float(curve.values[-1])),
        "window": curve.window or None,
        "quantum": curve.quantum,
    }
