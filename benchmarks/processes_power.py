"""What the audit of two processes finds in each precision; writes the table of docs/processes.md.

    python benchmarks/processes_power.py [--render]

Smoke preset, one joined batch of two images, two processes with gloo on the CPU; each fault is in one process or in both,
as its function says. ``results/processes_power.json`` holds the outcomes and the worst ratio of each question.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from audit_power import machine
from marked import between_marks

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "processes_power.json", HERE.parent / "docs" / "processes.md"
BEGIN, END = "<!-- measured: begin, written by benchmarks/processes_power.py -->", "<!-- measured: end -->"
PRECISIONS = ("fp32", "bf16", "fp16")
# The tests try all of them in fp32; these differ by what 16 bits may hide.
FAULTS = (
    "all_reduce_adds",
    "all_reduce_in_bfloat16",
    "gradients_not_reduced",
    "bases_not_reduced",
    "one_rank_scales_its_gradients",
    "one_rank_scales_one_gradient",
)
# The share of a process is one image, so that two processes have the batch of the smoke preset.
OPTIONS = {
    "preset": None,
    "config": None,
    "seed": 0,
    "threads": 1,
    "data_root": None,
    "more_options": (),
    "cfg_options": ("train_dataloader.batch_size=1",),
}


def measure() -> dict[str, Any]:
    """Run two healthy processes, and two with each of some faults, in each precision."""
    from emacheck.audit.arithmetic.precision import Precision
    from emacheck.audit.judging.reference import Plan
    from emacheck.cli.audit.command import audited_request
    from emacheck.cli.audit.joined import join
    from emacheck.cli.audit.training import prepare_training

    request = audited_request(OPTIONS)
    with tempfile.TemporaryDirectory() as scratch:
        training = prepare_training(request, batches=1, scratch=Path(scratch), processes=2)
        rows: dict[str, dict[str, Any]] = {}
        for precision in PRECISIONS:
            joined = join(training, 2, Plan(precision=Precision(name=precision)), keep=True)
            for fault in (None, *FAULTS):
                said = judged(request, training, joined, precision, fault)
                rows.setdefault(fault or "none", {})[precision] = said
                print(precision, fault, said, flush=True)
    about = {name: value for name, value in machine(training).items() if name != "batch_hashes"}
    return {"rows": rows, "about": abouts(), "machine": about}


def abouts() -> dict[str, str]:
    """Return what each fault is."""
    from emacheck.audit.faults.loading import process_faults

    return {name: process_faults()[name].about for name in FAULTS}


def judged(request: Any, training: Any, joined: Any, precision: str, fault: str | None) -> dict[str, Any]:
    """Run two processes and return what is said of them."""
    from emacheck.audit.findings.result import AuditResult
    from emacheck.cli.audit.joined import with_processes
    from emacheck.cli.audit.rank import RankJob
    from emacheck.cli.audit.ranks import run_ranks, scratch_directory
    from emacheck.strict_json import encode_value
    from emacheck.train.launching.processes import Processes

    job = RankJob(
        request=request,
        device="cpu",
        batches=1,
        place=str(training.place),
        state_hash=training.state_hash,
        precision=precision,
        fault=fault,
    )
    with scratch_directory() as directory:
        assert run_ranks(job, directory, processes=Processes(launched=True, nproc_per_node=2), timeout=600)
        empty = AuditResult(device="cpu", precision=precision, errors=(), findings=())
        result = with_processes(empty, joined, directory)

    def worst(*words: str) -> Any:
        return encode_value(max((e.ratio / e.limit for e in result.errors if e.tensor.startswith(words)), default=0.0))

    return {
        "outcome": str(result.outcome),
        "ranks are equal": not any(" differs from rank 0" in finding.message for finding in result.findings),
        "all-reduce": worst("all-reduce"),
        "against one process": worst("output", "gradient", "update", "buffer", "median"),
        "first": result.findings[0].message.split(";")[0] if result.findings else "",
    }


def table(result: dict[str, Any]) -> list[str]:
    """Return the table."""
    about = result["machine"]
    lines = [
        f"{about['cpu']}, torch {about['torch']}, smoke preset, one joined batch of two images, two processes with gloo on the CPU. Ratios are those of the worst tensor over its limit in fp32, bf16 "
        "and fp16; more than 1 is a finding.",
        "",
        "| fault | ranks are equal | all-reduce | against one process | outcome |",
        "|---|---|---:|---:|---|",
    ]
    for name, row in result["rows"].items():
        said = [row[precision] for precision in PRECISIONS]
        equal = {each["ranks are equal"] for each in said}
        outcomes = [each["outcome"] for each in said]
        lines.append(
            f"| {result['about'].get(name, 'none').rstrip('.')} | {'yes' if equal == {True} else 'no' if equal == {False} else 'differs'} | "
            f"{numbers(said, 'all-reduce')} | {numbers(said, 'against one process')} | "
            f"{outcomes[0] if len(set(outcomes)) == 1 else ', '.join(outcomes)} |"
        )
    return lines


def numbers(said: list[dict[str, Any]], key: str) -> str:
    """Return the ratios of all precisions."""
    return ", ".join(f"{float(each[key]):.2g}" for each in said)


def render(result: dict[str, Any]) -> str:
    """Return the page with the table between its marks written anew."""
    return between_marks(PAGE.read_text(encoding="utf-8"), (BEGIN, END), table(result))


def main() -> None:
    """Measure, unless told only to render, and write result and table."""
    if "--render" not in sys.argv:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
