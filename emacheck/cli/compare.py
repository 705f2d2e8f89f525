"""``emacheck compare``: judge two logs."""

from pathlib import Path

import click

from emacheck.cli.judging import Judging, check_outputs, deliver, judging_options, reach_verdict
from emacheck.errors import UsageError


@click.command()
@click.argument("log_a", metavar="LOG_A")
@click.argument("log_b", metavar="LOG_B")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write report.json, report.md and report.png into a new directory.",
)
@judging_options
def compare(log_a: str, log_b: str, output_dir: Path | None, judging: Judging) -> int:
    """Judge two logs: LOG_A is the reference, LOG_B the candidate.

    Reads mmengine's scalars.json and .log, mmcv's .log.json, TCAPPDLL logs, CSV, and the run directories of
    emacheck run. The format is detected from the content; iterations are paired by number.
    """
    check_outputs(judging)
    if output_dir is not None and output_dir.exists():
        raise UsageError(f"--output-dir {output_dir}: exists already and was not touched. Choose a new directory.")
    from emacheck.judge.comparison import compare as measure
    from emacheck.logs import read_log

    comparison = measure(read_log(Path(log_a)), read_log(Path(log_b)), metrics=judging.metric or ("loss",))
    verdict = reach_verdict(comparison, judging)
    if output_dir is not None:
        try:
            output_dir.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"--output-dir {output_dir}: cannot be made ({error.strerror}).") from error
    return deliver(verdict, judging, directory=output_dir)
