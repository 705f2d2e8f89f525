"""What several processes leave is held against one process, and what an audit takes for the loss of a training."""

import json
import math
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from emacheck.audit.arithmetic.measure import FAR, Truth  # noqa: E402
from emacheck.audit.findings.processes import RankBatch, RankReport, key  # noqa: E402
from emacheck.audit.iteration.calls import LOSS  # noqa: E402
from emacheck.audit.lockstep.parts import Part  # noqa: E402
from emacheck.cli.audit.joined import distances_of, read_reports, together  # noqa: E402
from emacheck.cli.audit.rank import REPORTS_FILE, _smallest, tensors_file  # noqa: E402
from emacheck.cli.audit.training import (  # noqa: E402
    _draw_batches,
    bases_are_means_of_unit_vectors,
    training_loss,
)


def test_a_tensor_that_only_the_processes_or_only_the_one_process_has_is_far_off():
    both, due, made = (
        ("conv", Part("gradient", "weight")),
        ("head", Part("gradient", "bias")),
        ("head", Part("update", "x")),
    )
    one = torch.ones(2, dtype=torch.float64)
    found = distances_of({both: one * 1.5, made: one}, {both: Truth(tensor=one), due: Truth(tensor=one)})
    assert (found[both].norm, found[due], found[made], len(found)) == (0.5, FAR, FAR, 3)


def test_the_losses_of_all_ranks_are_their_parts_of_the_mean_and_the_tensors_are_those_of_rank_0(tmp_path):
    def report(rank, *losses):
        batches = [RankBatch(samples=[], losses={"loss": loss}, hashes={}, reduced={}) for loss in losses]
        return RankReport(rank=rank, device="cpu", start={}, batches=batches)

    reports = [report(0, 1.0, 3.0), report(1, 2.0, math.nan)]
    written = [each.to_json() for each in reports]
    (tmp_path / REPORTS_FILE).write_text(json.dumps(written, allow_nan=False), encoding="utf-8")
    for number in (1, 2):
        torch.save({key("gradient", "conv", "weight"): torch.tensor([number])}, tmp_path / tensors_file(number))
    read = read_reports(tmp_path)
    of_rank = [(LOSS, Part("output", f"loss of rank {rank}")) for rank in (0, 1)]
    gradient = "conv", Part("gradient", "weight")
    first, second = (together(read, number, tmp_path) for number in (1, 2))
    assert {place: value.tolist() for place, value in first.items()} == {
        of_rank[0]: 0.5,
        of_rank[1]: 1.0,
        gradient: [1],
    }
    assert (second[of_rank[0]].item(), second[gradient].tolist()) == (1.5, [2])
    assert second[of_rank[1]].isnan()


def test_a_tensor_is_kept_in_float32_only_if_nothing_is_lost():
    short, long = torch.tensor([0.5], dtype=torch.float64), torch.tensor([1 / 3], dtype=torch.float64)
    assert (_smallest(short).dtype, _smallest(long).dtype) == (torch.float32, torch.float64)
    assert torch.equal(_smallest(long), long)


@pytest.mark.parametrize(
    ("length", "complaint"),
    [(1.0, None), (0.5, None), (1.0009, None), (1.01, "of length 1.01"), (math.nan, "of length nan")],
)
def test_no_basis_of_an_attention_may_be_longer_than_one(length, complaint):
    model = torch.nn.Module()
    model.add_module("head", torch.nn.Module())
    bases = torch.zeros(1, 4, 3)
    bases[0, 1] = torch.tensor([0.1, length, 0.1])
    model.head.register_buffer("bases", bases)
    model.head.register_buffer("large", bases + 9)
    said = bases_are_means_of_unit_vectors(model, model)
    assert said is None if complaint is None else f"buffer head.bases holds a basis {complaint}" in said


def test_the_loss_that_is_audited_is_the_one_that_mmengine_trains():
    engine = pytest.importorskip("mmengine.model")

    class Network(engine.BaseModel):
        def forward(self, inputs, mode="tensor"):
            assert mode == "loss"
            return {"loss_ce": inputs, "aux_loss": [inputs.square(), inputs.mean()], "acc": inputs.sum()}

    batch = {"inputs": torch.tensor([[1.0, 2.0], [4.0, 8.0]])}
    model = Network()
    found = training_loss(model, batch)
    due, _ = model.parse_losses(model(**batch, mode="loss"))
    assert list(found) == ["loss_ce", "aux_loss"]
    assert sum(found.values()) == due == 3.75 + 21.25 + 3.75


class Loader:
    """Draws as augmentations do, from the generators of torch, numpy and Python."""

    def __init__(self, size):
        self.size = size

    def __iter__(self):
        for _ in range(self.size):
            yield float(torch.rand(())), float(np.random.random()), random.random()  # noqa: NPY002, S311


def test_batches_follow_from_the_seed_alone_however_short_a_pass_over_the_data_is():
    first = _draw_batches(Loader(2), 5, seed=3)
    assert len({number for batch in first for number in batch}) == 15
    torch.rand(7)
    random.random()  # noqa: S311
    assert _draw_batches(Loader(4), 5, seed=3) == first
    assert not set(_draw_batches(Loader(4), 5, seed=4)) & set(first)
    assert _draw_batches(Loader(4), 0, seed=3) == []
    assert _draw_batches(Loader(0), 2, seed=3) == []
