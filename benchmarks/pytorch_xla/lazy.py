"""Says how many graphs a lazy PyTorch/XLA compiles where emacheck calls its mark_step, and where nobody does.

PJRT_DEVICE=CPU EMACHECK_XLA_LAZY=1 python benchmarks/pytorch_xla/lazy.py
"""

import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import emacheck_xla
import torch
import torch_xla
import torch_xla.debug.metrics

import emacheck
from emacheck.audit.iteration.subject import Candidate
from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
from emacheck.train.device.accelerator import open_device
from emacheck.train.device.devices import parse_device
from emacheck.train.doctor.iteration import Start, judge, judge_again
from emacheck.train.request import TrainingRequest
from emacheck.train.worker import train

ITERATIONS = 5
after_each: list[int] = []


def sync() -> None:
    """Let the device compute, and note how many graphs were compiled by then."""
    torch_xla.sync()
    after_each.append(graphs())


def graphs() -> int:
    """Return how many graphs have been compiled."""
    compiled = torch_xla.debug.metrics.metric_data("CompileTime")
    return 0 if compiled is None else int(compiled[0])


def small_network() -> tuple[torch.nn.Module, torch.optim.Optimizer, tuple[torch.Tensor, torch.Tensor]]:
    """Return a network of a few layers, its optimizer and a batch."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for inputs in (3, 8, 8):
        layers += [torch.nn.Conv2d(inputs, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8 * 6 * 6, 5))
    return (
        model,
        torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        (torch.randn(4, 3, 12, 12), torch.arange(4)),
    )


def audited(how: Any, name: str) -> None:
    """Audit the small network."""

    def prepare(candidate: Candidate) -> None:
        candidate.mark_step = how

    def loss(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    before = graphs()
    result = emacheck.audit_step(*small_network(), loss, "xla", prepare=prepare)
    worst = ", ".join(f"{each.module}" for each in result.findings if each.outcome is emacheck.Outcome.FAIL)
    print(f"audit of a small network, {name}: {graphs() - before} graphs, {result.seconds:.1f} s, at fault: {worst}")


def main() -> None:
    """Print what is found."""
    if torch_xla.experimental.is_eager_mode():
        sys.exit("expected a lazy device: set EMACHECK_XLA_LAZY=1")
    emacheck_xla.KIND = replace(emacheck_xla.KIND, mark_step="__main__.sync")
    cpu, device = parse_device("cpu"), parse_device("xla")
    open_device(device)
    audited(torch_xla.sync, "with mark_step")
    audited(None, "without")
    start = Start.draw()
    reference, before = start.train(cpu), graphs()
    candidate, between = start.train(device), graphs()
    again = start.train(device)
    print(f"the doctor's iteration: {between - before} graphs, then {graphs() - between} for a second one")
    print(judge(reference, candidate).found)
    print(judge_again(candidate, again).found)
    trained()


def trained() -> None:
    """Train the smoke preset."""
    after_each.clear()
    first, data = graphs(), ensure_dataset(cache_root() / DEFAULT_NAME)
    with tempfile.TemporaryDirectory() as place:
        request = TrainingRequest(
            preset="smoke", config=None, data_root=str(data.root), device="xla", iterations=ITERATIONS
        )
        train(request, Path(place))
        lines = [json.loads(line) for line in (Path(place) / "iterations.jsonl").read_text("utf-8").splitlines()]
    seconds = [line["metrics"]["seconds"] for line in lines]
    made = [now - then for then, now in zip([first, *after_each[1:-2:2]], after_each[1::2], strict=True)]
    print(f"a training: graphs compiled in each iteration {made}")
    print(f"seconds of each {[round(each, 1) for each in seconds]}, median {statistics.median(seconds):.1f}")


if __name__ == "__main__":
    main()
