"""``emacheck compare``: judge two logs."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emacheck.cli.judging import REPORTS, Judging, deliver, judging_options, reach_verdict
from emacheck.cli.outputs import Directory, check_outputs
from emacheck.cli.reading import read_shown
from emacheck.errors import UsageError

if TYPE_CHECKING:
    from emacheck.judge.comparison import Comparison


@click.command()
@click.argument("logs", metavar="LOG_A LOG_B", nargs=-1)
@click.option("--repeat", "repeats", multiple=True, metavar="LOG", help="Benign repeat of the reference (repeatable).")
@click.option(
    "--reader", metavar="NAME", help="Take this reader, such as csv, instead of the one that recognises the content."
)
@click.option("--pattern", metavar="REGEX", help="Search every line: groups iteration, epoch, rank, and metrics.")
@click.option("--rank", type=click.IntRange(0), metavar="N", help="Take this rank.  [default: the mean of all]")
@click.option("--from-one", is_flag=True, help="Number iterations from 1 in logs that count them from 0.")
@click.option(
    "--paired/--unpaired",
    "stated",
    default=None,
    help="Same weights and same batches, or not.  [default: what the logs tell]",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    help="What both computed in, where the logs do not say it.  [default: fp32]",
)
@click.option("--scoreboard", is_flag=True, help="Show what the rules that others use say of the same pair.")
@click.option(
    "--output-dir",
    type=Directory(),
    metavar="DIR",
    help="Write report.html, report.md, report.json, report.png and card.md into a new directory.",
)
@judging_options
def compare(
    logs: tuple[str, ...],
    *,
    output_dir: Path | None,
    judging: Judging,
    repeats: tuple[str, ...],
    scoreboard: bool,
    stated: bool | None,
    precision: str | None,
    **reading: Any,
) -> int:
    """Judge two logs: LOG_A is the reference, LOG_B the candidate.

    Reads the logs of mmengine, mmcv, TCAPPDLL, Hugging Face and TensorBoard, tables, JSON lines, free text, and the run
    directories of emacheck run. The format is detected from the content; iterations are paired by number. - is standard
    input, FILE#NAME one of several arrays or columns. Exit codes: 0 PASS, 1 FAIL, 2 trouble, 3 INCONCLUSIVE.
    """
    log_a, log_b = _two(logs)
    if scoreboard and judging.output_format == "json":
        raise UsageError("--scoreboard and --format json: the report has no scoreboard; use text or markdown.")
    _refuse_a_stream_twice(log_a, log_b, *repeats)
    if output_dir is not None and output_dir.exists():
        raise UsageError(f"--output-dir {output_dir}: exists already and was not touched. Choose a new directory.")
    check_outputs(judging.files, directory=output_dir, holds=REPORTS)
    comparison = _measure(log_a, log_b, repeats, judging.metric or ("loss",), reading)
    comparison = _as_stated(comparison, stated, precision or "")
    if scoreboard or "modelzoo" in judging.rule:
        comparison = _with_rank_0(comparison, log_a, log_b, reading)
    verdict = reach_verdict(comparison, judging)
    return deliver(verdict, judging, new_directory=output_dir, scoreboard=scoreboard, logs=(log_a, log_b))


def _two(logs: tuple[str, ...]) -> tuple[str, str]:
    """Return reference and candidate, or say what to do with fewer or more logs than these."""
    match logs:
        case (reference, candidate):
            return reference, candidate
        case ():
            advice = "The first is the reference, the second the candidate: emacheck compare cuda.log sdaa.log."
        case (only,):
            advice = (
                "The first is the reference, the second the candidate. To see what is in one log: "
                f"emacheck show {shlex.quote(only)}."
            )
        case (_, _, more, *_):
            advice = (
                f"Further runs of the reference are given as --repeat {shlex.quote(more)}; judge several candidates "
                "one by one."
            )
    raise UsageError(f"expected two logs, LOG_A and LOG_B, found {len(logs)}. {advice}")


def _refuse_a_stream_twice(*logs: str) -> None:
    """Refuse standard input or a pipe under several names: the second reading would find it empty, or wait for ever."""
    from emacheck.logs.reading import stream_of

    seen: dict[tuple[int, int], str] = {}
    for log in logs:
        stream = stream_of(log)
        if stream in seen:
            raise UsageError(
                f"{seen[stream]} and {log}: both are the same pipe or standard input, which can be read only once. "
                "Write the log to a file first."
            )
        if stream is not None:
            seen[stream] = log


def _measure(
    log_a: str, log_b: str, repeats: tuple[str, ...], metrics: tuple[str, ...], reading: dict[str, Any]
) -> "Comparison":
    from emacheck.judge.comparison import compare as measure

    return measure(
        read_shown(log_a, **reading),
        read_shown(log_b, **reading),
        metrics=metrics,
        repeats=tuple(read_shown(log, **reading) for log in repeats),
    )


def _as_stated(comparison: "Comparison", stated: bool | None, precision: str) -> "Comparison":
    """Add what the user says of pairing and precision, unless fingerprints or the records say otherwise."""
    from emacheck.judge.comparison import precision_of
    from emacheck.judge.forensics.pairing import drawn_on_device

    for side, record in comparison.sides:
        if precision and precision_of(record) not in ("", precision):
            raise UsageError(
                f"--precision {precision}: the {side}, {record.name}, says that it computed in {precision_of(record)}. "
                "Drop the option."
            )
    proven = comparison.paired is not None and not drawn_on_device(comparison)
    if proven and stated not in (None, comparison.paired):
        said, are = ("--paired", "not paired") if stated else ("--unpaired", "paired")
        raise UsageError(f"{said}: the fingerprints in both records prove that they are {are}. Drop the option.")
    return replace(comparison, stated=stated, stated_precision=precision)


def _with_rank_0(comparison: "Comparison", log_a: str, log_b: str, reading: dict[str, Any]) -> "Comparison":
    """Add the comparison of rank 0 alone, which the model zoo's script looks at."""
    several = max(comparison.reference.ranks, comparison.candidate.ranks) > 1
    if not several or reading["rank"] is not None:
        return comparison
    from emacheck.logs.reading import stream_of

    if stream_of(log_a) or stream_of(log_b):
        raise UsageError(
            "the model zoo's rule looks at rank 0, and standard input or a pipe cannot be read twice: add --rank 0, or "
            "write the logs to files first."
        )
    rank_0 = _measure(log_a, log_b, (), comparison.metrics, {**reading, "rank": 0})
    return replace(comparison, rank_0=rank_0)
