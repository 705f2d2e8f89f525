"""``emacheck audit``: one iteration on a device, tensor by tensor, against float64 on the CPU."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emacheck.cli.audit.job import AuditJob
from emacheck.cli.audit.ranks import RANKS, audit_processes
from emacheck.cli.audit.supervision import audit_in_worker
from emacheck.cli.command_line import given_command
from emacheck.cli.judging import exit_code
from emacheck.cli.output_format import format_option
from emacheck.cli.outputs import Directory
from emacheck.cli.refusals import heard_by_other_nodes
from emacheck.cli.seconds import Seconds
from emacheck.cli.training import (
    PROCESS_OPTIONS,
    ask_for_float32,
    describe_training,
    interruptible,
    processes_asked_for,
    refuse_unfit_device,
    require_devices,
    training_asked_for,
    training_options,
)
from emacheck.errors import OutputError
from emacheck.strict_json import to_json
from emacheck.train.device.devices import PRECISIONS, parse_device
from emacheck.train.launching.planning import plan_processes
from emacheck.train.packages import require_training_packages
from emacheck.writable import obstacle

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult

JSON_FILE, TEXT_FILE, PICTURE_FILE, PAGE_FILE = REPORTS = ("audit.json", "audit.txt", "audit.png", "audit.html")
# What describes the training that is audited; how long, where and by how many it would be trained does not matter.
DESCRIBING = {"preset", "config", "seed", "threads", "data_root", "cfg_options", "more_options"}


# What an audit asks of the training that it prepares.
FIXED: dict[str, Any] = {"iters": 1, "precision": None, "amp": False, "backend": None, "log_format": None}


def audited_training_options(command: Any) -> Any:
    """Add those options that describe the training that is audited."""
    ours = list(getattr(command, "__click_params__", []))
    wrapped = training_options(command)
    wrapped.__click_params__ = [p for p in wrapped.__click_params__ if p.name in DESCRIBING or p in ours]
    return wrapped


def process_options(command: Any) -> Any:
    """Add the options that say how many processes are audited beside the one, and who starts them."""
    for option in reversed(PROCESS_OPTIONS):
        command = option(command)
    return command


operators_option = click.option(
    "--operators/--no-operators",
    default=None,
    help="Find out which operators are wrong, of the modules that fail and of a whole iteration; or leave it out.  "
    "[default: of the modules that fail]",
)


@click.command()
@click.option("--device", default="cpu", show_default=True, metavar="NAME[:INDEX]", help="The candidate device.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="The accepted precision.",
)
@click.option("--batches", default=3, show_default=True, type=click.IntRange(min=1), help="Batches to audit.")
@click.option("--modules", metavar="GLOB", help="Run only these modules alone, such as 'backbone.layer3.*'.")
@click.option("--end-to-end/--no-end-to-end", default=True, show_default=True, help="Run whole iterations as well.")
@click.option("--cpu-fallback", is_flag=True, help="Run operators that the device lacks on the CPU, and name them.")
@operators_option
@click.option(
    "--output-dir", type=Directory(), metavar="DIR", help="Write audit.html, audit.txt, audit.json and audit.png."
)
@click.option(
    "--timeout", default=1800.0, show_default=True, type=Seconds(), help="Seconds without progress; inf: no limit."
)
@format_option("text", "json")
@audited_training_options
@process_options
def audit(
    *,
    device: str,
    precision: str,
    batches: int,
    modules: str | None,
    output_dir: Path | None,
    output_format: str,
    timeout: float,
    end_to_end: bool,
    cpu_fallback: bool,
    operators: bool | None,
    backend: str | None,
    **options: Any,
) -> int:
    """Audit one training iteration on a device, tensor by tensor, against float64 on the CPU.

    Every module, the loss and the optimizer run alone with the reference's own inputs and gradients, then a whole
    iteration runs; the module that introduces an error is named. With --nproc-per-node N, N processes run an iteration
    together as well, and are held against each other and against one process with the joined batch.
    """
    processes = processes_asked_for(options)
    asked_for = partial(training_asked_for, {**options, **FIXED, "device": device, "precision": precision})
    with heard_by_other_nodes(RANKS, processes, asked_for, timeout=timeout):
        require_training_packages()
        if output_dir is not None:
            _refuse_existing(output_dir)
        place = parse_device(device)
        refuse_unfit_device(place, backend, processes)
        require_devices(str(place), processes)
        ask_for_float32(str(place), precision)
        job = AuditJob(
            request=audited_request(options),
            device=str(place),
            precision=precision,
            batches=batches,
            modules=modules,
            end_to_end=end_to_end,
            cpu_fallback=cpu_fallback,
            operators=operators,
        )
    with interruptible(lambda: "there is no result of the audit"):
        if processes.launched:
            result = audit_processes(job, processes, backend, timeout=timeout)
        else:
            result = audit_in_worker(job, timeout=timeout)
    if result is None:
        click.echo("Rank 0 ran on another node; the verdict is there.")
        return 0
    _deliver(result, output_dir, as_json=output_format == "json")
    return exit_code(result.outcome)


def audited_request(options: dict[str, Any]) -> Any:
    """Return the request of the training; it is prepared on the CPU in fp32, whatever the candidate is."""
    return describe_training(plan_processes(), **options, **FIXED, device="cpu")


def _refuse_existing(directory: Path) -> None:
    """Refuse before anything long what could not be written into afterwards."""
    if (found := obstacle(directory)) is not None:
        raise OutputError(f"--output-dir {directory}: found {found}, expected a directory. Choose another one.")
    held = [name for name in REPORTS if (directory / name).exists()]
    if held:
        raise OutputError(
            f"--output-dir {directory}: found {', '.join(held)} there already, and nothing was overwritten. "
            "Choose another directory, or remove them."
        )


def write_audit(result: "AuditResult", directory: Path, *, command: str) -> None:
    """Write all of an audit's result, what a person reads of it, the picture, and a page that has it all."""
    from emacheck.audit.findings.picture import draw
    from emacheck.audit.findings.text import text
    from emacheck.report.html.page import audit_html
    from emacheck.report.write import write_together

    contents: tuple[str | bytes, ...] = (
        _document(result, command),
        text(result, command=command) + "\n",
        draw(result),
        audit_html(result, command=command),
    )
    write_together({directory / name: content for name, content in zip(REPORTS, contents, strict=True)})


def _document(result: "AuditResult", command: str) -> str:
    return to_json({**result.to_json(), "command": command})


def _deliver(result: "AuditResult", directory: Path | None, *, as_json: bool) -> None:
    from emacheck.audit.findings.text import text

    command = given_command()
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        write_audit(result, directory, command=command)
    if as_json:
        click.echo(_document(result, command), nl=False)
        return
    if directory is not None:
        click.echo(f"Report: {directory / PAGE_FILE}  ({TEXT_FILE}, {JSON_FILE}, {PICTURE_FILE} beside it)")
    click.echo(text(result, command=command, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
