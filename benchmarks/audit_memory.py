"""The memory that an audit of one batch takes, by crop and by the number of processes; writes the table of docs/audit.md.

    python benchmarks/audit_memory.py [--continue] [--render]

The smoke preset in fp32 on a CPU. A crop is one `emacheck audit --batches 1`. Of several processes it is what their audit
does in its one process, with shares of one 64x128 image: the audit of the device, then one iteration with the joined batch
on all sides; the processes themselves are not started. What this host has no memory for is left out, and printed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from marked import between_marks

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "audit_memory.json", HERE.parent / "docs" / "audit.md"
BEGIN, END = "<!-- measured: begin, written by benchmarks/audit_memory.py -->", "<!-- measured: end -->"
CROPS = ((64, 128), (128, 256), (160, 320), (192, 384))
BATCH = 2
SHARES = (2, 8, 16, 32)
SHARE_CROP = (64, 128)


def cfg_options(crop: tuple[int, int], batch_size: int) -> tuple[str, ...]:
    """Return the options that give the smoke preset another crop and batch."""
    size = f"({crop[0]},{crop[1]})"
    # A large crop needs images that are larger.
    scale = "(1024,512)" if crop[0] > 128 else "(512,256)"
    return (
        f"train_dataloader.dataset.pipeline.2.scale={scale}",
        f"train_dataloader.dataset.pipeline.3.crop_size={size}",
        f"model.data_preprocessor.size={size}",
        f"train_dataloader.batch_size={batch_size}",
    )


def of_crop(crop: tuple[int, int]) -> int | None:
    """Return the most bytes that the audit of one batch held, None if it was refused."""
    command = [sys.executable, "-m", "emacheck", "audit", "--batches", "1", "--json", "--cfg-options"]
    done = subprocess.run([*command, *cfg_options(crop, BATCH)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stderr, flush=True)
        return None
    return int(json.loads(done.stdout)["peak_memory_bytes"])


def of_processes(size: int) -> int:
    """Return the most bytes that the one process of an audit of several held, in a process of its own."""
    from emacheck.cli.audit.supervision import AUDIT_ENVIRONMENT

    command = [sys.executable, __file__, "joined", str(size)]
    environment = {**os.environ, **AUDIT_ENVIRONMENT}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return int(done.stdout.splitlines()[-1])


def joined(size: int) -> int:
    """Audit the device, then run an iteration with the joined batch, in this process."""
    from emacheck.audit.judging.reference import Plan
    from emacheck.audit.step import audit, peak_memory
    from emacheck.cli.audit.command import audited_request
    from emacheck.cli.audit.joined import join
    from emacheck.cli.audit.training import prepare_training

    options = {"preset": None, "config": None, "seed": 0, "threads": 2, "data_root": None, "more_options": ()}
    request = audited_request({**options, "cfg_options": cfg_options(SHARE_CROP, 1)})
    with tempfile.TemporaryDirectory() as scratch:
        training = prepare_training(request, batches=1, scratch=Path(scratch), processes=size)
        plan = Plan()
        audit(training.subject, training.batches, plan, candidate=training.subject.twin())
        for reference in join(training, size, plan).references:
            reference.iteration()
    return peak_memory()


def measure(rows: list[dict[str, Any]]) -> None:
    """Measure what is not among the rows, add it, and write down what there is."""
    from host import cpu_facts

    about = cpu_facts(2)
    cases = [*((SHARE_CROP, 1, size) for size in SHARES), *((crop, BATCH, None) for crop in CROPS)]
    for crop, batch_size, size in cases:
        fields = {"crop": list(crop), "batch": batch_size, "processes": size}
        if any(fields.items() <= row.items() for row in rows):
            continue
        held = of_crop(crop) if size is None else of_processes(size)
        print(fields, held and f"{held / 2**30:.2f} GiB", flush=True)
        if held is not None:
            rows.append({**fields, "peak_memory_bytes": held})
            RESULTS.write_text(json.dumps({"rows": rows, "machine": about}, indent=1) + "\n", encoding="utf-8")


def predicted(row: dict[str, Any]) -> float:
    """Return how many bytes the audit of a measured case is expected to take."""
    import torch

    from emacheck.cli.audit.memory import memory_needed

    batch = {"inputs": [torch.zeros(3, *row["crop"], dtype=torch.uint8)] * row["batch"]}
    return memory_needed([batch], row["processes"])


def table(result: dict[str, Any]) -> list[str]:
    """Return the table."""
    about = result["machine"]
    lines = [
        f"Smoke preset in fp32, `--batches 1`; {about['cpu']}, torch {about['torch']}, {about['threads']} threads.",
        "",
        "| crop | images in a batch | processes | GiB resident at most | expected |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['crop'][0]}x{row['crop'][1]} | {row['batch']} | {row['processes'] or ''} | "
        f"{row['peak_memory_bytes'] / 2**30:.1f} | {predicted(row) / 2**30:.1f} |"
        for row in sorted(result["rows"], key=lambda row: (row["processes"] or 0, row["crop"]))
    ]
    return lines


def render(result: dict[str, Any]) -> str:
    """Return the page with the table between its marks written anew."""
    return between_marks(PAGE.read_text(encoding="utf-8"), (BEGIN, END), table(result))


def main() -> None:
    """Measure, unless told only to render, and write result and table."""
    if sys.argv[1:2] == ["joined"]:
        print(joined(int(sys.argv[2])))
        return
    if "--render" not in sys.argv:
        going_on = "--continue" in sys.argv and RESULTS.exists()
        measure(json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if going_on else [])
    PAGE.write_text(render(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
