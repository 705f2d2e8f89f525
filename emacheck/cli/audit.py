"""``emacheck audit``: one iteration on a device, tensor by tensor, against float64 on the CPU."""

import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emacheck.cli.judging import exit_code
from emacheck.cli.training import describe_training, training_options
from emacheck.errors import OutputError, UsageError
from emacheck.train.launch import require_training_packages

if TYPE_CHECKING:
    import torch

    from emacheck.audit.result import AuditResult

REPORTS = ("audit.json", "audit.txt", "audit.png")
# Options of a training that an audit has no use for.
NOT_OURS = {"iters", "timeout", "amp", "nproc_per_node", "launcher"}


def audited_training_options(command: Any) -> Any:
    """Add those options that describe the training that is audited."""
    wrapped = training_options(command)
    wrapped.__click_params__ = [p for p in wrapped.__click_params__ if p.name not in NOT_OURS | {"device"}]
    return wrapped


@click.command()
@click.option("--device", default="cpu", show_default=True, metavar="NAME[:INDEX]", help="The candidate device.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="The accepted precision.",
)
@click.option("--batches", default=3, show_default=True, type=click.IntRange(min=1), help="Batches to audit.")
@click.option("--modules", metavar="GLOB", help="Run only these modules alone, such as 'backbone.layer3.*'.")
@click.option("--end-to-end/--no-end-to-end", default=True, show_default=True, help="Run whole iterations as well.")
@click.option(
    "--output-dir", type=click.Path(path_type=Path), metavar="DIR", help="Write audit.json, audit.txt and audit.png."
)
@click.option("--format", "output_format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@audited_training_options
def audit(
    *,
    device: str,
    precision: str,
    batches: int,
    modules: str | None,
    output_dir: Path | None,
    output_format: str,
    end_to_end: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Audit one training iteration on a device, tensor by tensor, against float64 on the CPU.

    Every module, the loss and the optimizer run alone with the reference's own inputs and gradients, then a whole
    iteration runs; the module that introduces an error is named.
    """
    require_training_packages()
    if output_dir is not None:
        _refuse_existing(output_dir)
    request = audited_request(options)
    import torch

    from emacheck.audit.precision import Precision
    from emacheck.audit.reference import Plan
    from emacheck.audit.step import audit as run_audit
    from emacheck.cli.audit_training import invariants, prepare_training

    target = candidate_device(device)
    with tempfile.TemporaryDirectory(prefix="emacheck-audit-") as scratch:
        click.echo("Preparing the state to audit ...", err=True)
        training = prepare_training(request, batches=batches, scratch=Path(scratch))
        plan = Plan(
            device=target,
            precision=Precision(name=precision),
            seed=options["seed"],
            modules=modules,
            end_to_end=end_to_end,
            invariants=invariants(),
        )
        result = run_audit(
            training.subject,
            training.batches,
            plan,
            state_hash=training.state_hash,
            batch_hashes=training.batch_hashes,
            progress=lambda line: click.echo(f"Auditing {line} on {torch.device(target)} ...", err=True),
        )
    _deliver(result, output_dir, as_json=as_json or output_format == "json")
    return exit_code(result.outcome)


def audited_request(options: dict[str, Any]) -> Any:
    """Return the request of the training; it is prepared on the CPU, whatever the candidate device is."""
    fixed: dict[str, Any] = {"iters": 1, "amp": False, "nproc_per_node": 1, "launcher": "none", "device": "cpu"}
    return describe_training(**options, **fixed)


def candidate_device(name: str) -> "torch.device":
    """Return the device to audit, ready for honest float32.

    Raises:
        UsageError: If torch does not know the device or does not see it.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"--device {name}: torch {torch.__version__} cannot use it: {first}. Expected a device that this torch "
            "sees, such as cpu or cuda:0; import its package first if it comes from one."
        ) from error
    # Convolutions use TF32 by default on CUDA; fp32 has to mean fp32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return device


def _refuse_existing(directory: Path) -> None:
    found = [name for name in REPORTS if (directory / name).exists()]
    if found:
        raise OutputError(
            f"--output-dir {directory}: found {', '.join(found)} there already, and nothing was overwritten. "
            "Choose another directory, or remove them."
        )


def _deliver(result: "AuditResult", directory: Path | None, *, as_json: bool) -> None:
    from emacheck.audit.text import text
    from emacheck.report.write import write_atomically

    command = shlex.join(["emacheck", *sys.argv[1:]])
    document = json.dumps({**result.to_json(), "command": command}, indent=1, allow_nan=False) + "\n"
    if directory is not None:
        from emacheck.audit.picture import draw

        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(directory / "audit.json", document)
        write_atomically(directory / "audit.txt", text(result, command=command) + "\n")
        write_atomically(directory / "audit.png", draw(result))
    if as_json:
        click.echo(document, nl=False)
        return
    if directory is not None:
        click.echo(f"Report: {directory / 'audit.txt'}  (audit.json, audit.png beside it)")
    click.echo(text(result, command=command, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
