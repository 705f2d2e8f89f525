"""How far one process with the joined batch is from the mean over two shares; writes the table of docs/processes.md.

    python benchmarks/joined_batch.py [--render]

The smoke preset in float64 on the CPU, one joined batch of two images, from the state that the audit starts from: the loss
and every gradient of mmsegmentation as it is, beside those of the audit's arbiter, which takes each share by itself.
"""

import copy
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marked import between_marks

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "joined_batch.json", HERE.parent / "docs" / "processes.md"
BEGIN, END = "<!-- measured: begin, written by benchmarks/joined_batch.py -->", "<!-- measured: end -->"
IGNORED = 255
# Of the rows of each image's label, so that about these shares of the pixels are labelled.
LABELLED = (0.13, 0.76)
WEIGHTS = [1.0] * 10 + [5.0] * 9


def as_it_is(model: Any, batch: Any) -> None:
    """Change nothing."""


def labelled_unlike(model: Any, batch: Any) -> None:
    """Divide by the number of labelled pixels, of which one image has far more than the other."""
    for head in heads(model):
        head.loss_decode.avg_non_ignore = True
    for sample, labelled in zip(batch["data_samples"], LABELLED, strict=True):
        label = sample.gt_sem_seg.data
        label[:, round(labelled * label.shape[1]) :] = IGNORED


def weighted(model: Any, batch: Any) -> None:  # noqa: ARG001 - as the others
    """Divide by the sum of the weights of the classes that are there."""
    for head in heads(model):
        head.loss_decode.class_weight = WEIGHTS


CASES: dict[str, tuple[tuple[str, ...], Callable[[Any, Any], None]]] = {
    "as it is": ((), as_it_is),
    "`avg_non_ignore=True`, 13 % and 76 % of the rows labelled": ((), labelled_unlike),
    "`class_weight` of 1 for ten classes and 5 for nine": ((), weighted),
    "`BN` in the backbone": (("model.backbone.norm_cfg.type=BN",), as_it_is),
}


def heads(model: Any) -> tuple[Any, Any]:
    """Return the heads that have a loss."""
    return model.decode_head, model.auxiliary_head


def measure(options: tuple[str, ...], change: Callable[[Any, Any], None], *, scratch: Path) -> dict[str, float]:
    """Return the relative distance of the loss, and of the farthest gradient, of plain mmsegmentation."""
    from emacheck.audit.judging.reference import Plan
    from emacheck.cli.audit.command import audited_request
    from emacheck.cli.audit.joined import join
    from emacheck.cli.audit.training import prepare_training, training_loss

    fixed = {"preset": None, "config": None, "seed": 0, "threads": 2, "data_root": None, "more_options": ()}
    request = audited_request({**fixed, "cfg_options": ("train_dataloader.batch_size=1", *options)})
    training = prepare_training(request, batches=1, scratch=scratch, processes=2)
    batch = training.joined[0]
    parted = join(training, 2, Plan()).references[0].subject
    for model in (training.subject.model, parted.model):
        change(model, batch)
    true, shares = (
        gradients(model, loss, batch)
        for model, loss in ((parted.model, parted.loss), (training.subject.model, training_loss))
    )
    far = {name: float((shares[name] - of).norm() / of.norm()) for name, of in true.items() if of.norm()}
    return {"loss": far.pop(""), "gradient": max(far.values())}


def gradients(model: Any, loss: Callable[[Any, Any], Any], batch: Any) -> dict[str, Any]:
    """Return the gradients of an iteration in float64, and the loss under an empty name."""
    import torch

    from emacheck.audit.iteration.subject import to_accuracy

    model = to_accuracy(copy.deepcopy(model), torch.float64).train()
    total = sum(loss(model, copy.deepcopy(batch)).values())
    assert isinstance(total, torch.Tensor)
    total.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {**found, "": total.detach()}


def table(result: dict[str, Any]) -> list[str]:
    """Return the table."""
    lines = ["| configuration | loss | gradient |", "|---|---:|---:|"]
    return lines + [f"| {name} | {row['loss']:.2g} | {row['gradient']:.2g} |" for name, row in result["rows"].items()]


def render(result: dict[str, Any]) -> str:
    """Return the page with the table between its marks written anew."""
    return between_marks(PAGE.read_text(encoding="utf-8"), (BEGIN, END), table(result))


def main() -> None:
    """Measure, unless told only to render, and write result and table."""
    if "--render" not in sys.argv:
        from host import cpu_facts

        # mmengine goes on writing where it wrote first.
        with tempfile.TemporaryDirectory() as scratch:
            rows = {name: measure(*case, scratch=Path(scratch)) for name, case in CASES.items()}
        RESULTS.write_text(json.dumps({"rows": rows, "machine": cpu_facts(2)}, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
