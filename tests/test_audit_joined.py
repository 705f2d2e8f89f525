"""What several processes leave is held against one process, and what an audit takes for the loss of a training."""

import json
import math
import random
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from emacheck.audit.arithmetic.measure import FAR, Truth  # noqa: E402
from emacheck.audit.arithmetic.precision import Precision  # noqa: E402
from emacheck.audit.findings.processes import OF_RANK, RankBatch, RankReport, key  # noqa: E402
from emacheck.audit.findings.result import PROCESSES, AuditResult, TensorError, find  # noqa: E402
from emacheck.audit.iteration.calls import LOSS  # noqa: E402
from emacheck.audit.iteration.draws import DrawsOfSamples  # noqa: E402
from emacheck.audit.iteration.subject import Subject, named_tensors  # noqa: E402
from emacheck.audit.judging.reference import Plan, Reference  # noqa: E402
from emacheck.audit.lockstep.end_to_end import distances  # noqa: E402
from emacheck.audit.lockstep.parts import Part  # noqa: E402
from emacheck.cli.audit.joined import Joined, read_reports, together, with_processes  # noqa: E402
from emacheck.cli.audit.rank import REPORTS_FILE, _own_gradients, _reduced, _smallest, tensors_file  # noqa: E402
from emacheck.cli.audit.training import (  # noqa: E402
    WARM_UP,
    AuditedTraining,
    _draw_batches,
    _warm_up,
    bases_are_means_of_unit_vectors,
    left_out,
    training_loss,
)
from emacheck.judge import Outcome  # noqa: E402


def test_a_tensor_that_only_the_processes_or_only_the_one_process_has_is_far_off():
    both, due, made = (
        ("conv", Part("gradient", "weight")),
        ("head", Part("gradient", "bias")),
        ("head", Part("update", "x")),
    )
    one = torch.ones(2, dtype=torch.float64)
    here = {both: lambda: one * 1.5, made: lambda: one}
    found = distances(here, {both: Truth(tensor=one), due: Truth(tensor=one)})
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
    assert {place: value().tolist() for place, value in first.items()} == {
        of_rank[0]: 0.5,
        of_rank[1]: 1.0,
        gradient: [1],
    }
    assert (second[of_rank[0]]().item(), second[gradient]().tolist()) == (1.5, [2])
    assert second[of_rank[1]]().isnan()


EMPTY = AuditResult(device="sdaa", precision="fp32", errors=(), findings=())


def losses_of_two(model, batch):
    """The loss of each of two processes, as its part of the mean."""
    return {f"loss{OF_RANK}{rank}": model(batch["inputs"][rank::2]).square().mean() / 2 for rank in (0, 1)}


class TwoProcesses:
    """Two processes of which no one is real, with what they leave of a batch of two samples each."""

    def __init__(self, place, *batches, precision="fp32", rate=0.1):
        from emacheck.train.paired.fingerprint import sample_hashes, tensor_hash

        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
        subject = Subject(model=model, optimizer=torch.optim.SGD(model.parameters(), rate), loss=losses_of_two)
        self.place, self.plan = place, Plan(draws=DrawsOfSamples, precision=Precision(name=precision))
        self.references = [
            Reference(subject=subject, batch=batch, plan=self.plan, number=number, keep=True)
            for number, batch in enumerate(batches, 1)
        ]
        self.training = AuditedTraining(
            subject=subject, batches=[], state_hash="", batch_hashes=[], place=place, joined=list(batches)
        )
        start = {name: tensor_hash(tensor) for name, tensor in named_tensors(model)}
        self.reports = [RankReport(rank=rank, device="sdaa", start=dict(start)) for rank in (0, 1)]
        self.tensors = []
        for reference in self.references:
            truth = reference.iteration().truth
            tensors = {
                key(part.kind, name, part.path): true.tensor.float()
                for (name, part), true in truth.items()
                if name != LOSS
            }
            self.tensors.append(tensors)
            for report in self.reports:
                loss = truth[LOSS, Part("output", f"loss{OF_RANK}{report.rank}")].tensor.item() * 2
                report.batches.append(
                    RankBatch(
                        samples=sample_hashes(reference.batch)[report.rank :: 2],
                        losses={"loss": loss},
                        hashes={name: tensor_hash(tensor) for name, tensor in tensors.items()},
                        reduced={name: 0.0 for name, _ in model.named_parameters()},
                    )
                )

    def audited(self, before=EMPTY, *, own=frozenset()):
        """Return what the audit says of what they have left, after what it has said before."""
        for number, tensors in enumerate(self.tensors, 1):
            torch.save(tensors, self.place / tensors_file(number))
        written = [report.to_json() for report in self.reports]
        (self.place / REPORTS_FILE).write_text(json.dumps(written, allow_nan=False), encoding="utf-8")
        joined = Joined(training=self.training, references=self.references, own=own, plan=self.plan)
        return with_processes(before, joined, self.place)


def a_joined_batch(seed=1):
    return {"inputs": torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))}


def change_loss(two):
    two.reports[1].batches[0].losses["loss"] *= 1.001


def change_gradient(two):
    two.tensors[0]["gradient 0 weight"] *= 1.001


def change_start(two):
    two.reports[1].start["1.running_mean"] = "another"


def change_samples(two):
    two.reports[1].batches[0].samples[0] = two.reports[0].batches[0].samples[0]


def change_all_reduce(two):
    two.reports[1].batches[0].reduced["2.bias"] = 1e-3


def change_statistics(two):
    two.reports[1].batches[0].hashes["buffer 1 running_var"] = "another"


@pytest.mark.parametrize(
    ("change", "phase", "module", "rank"),
    [
        (change_loss, "loss", PROCESSES, 1),
        (change_gradient, "backward", "0", None),
        (change_start, "forward", "1", 1),
        (change_samples, "forward", PROCESSES, 1),
        (change_all_reduce, "backward", PROCESSES, None),
        (change_statistics, "buffers", "1", 1),
    ],
)
def test_what_two_processes_have_left_is_held_against_one_process(tmp_path, change, phase, module, rank):
    pytest.importorskip("mmengine")
    two = TwoProcesses(tmp_path, a_joined_batch())
    healthy = two.audited()
    assert (healthy.outcome, healthy.findings, healthy.ranks) == (Outcome.PASS, (), ("sdaa", "sdaa"))
    change(two)
    result = two.audited()
    first = result.findings[0]
    assert result.outcome is Outcome.FAIL
    assert (first.phase, first.module, first.rank) == (phase, module, rank)


def test_what_the_audit_of_one_process_has_found_stays_and_what_follows_may_be_inherited_from_it(tmp_path):
    pytest.importorskip("mmengine")
    wrong = TensorError(
        module="0", kind="Linear", tensor="output", phase="forward", level="isolated", batch=1, depth=3,
        error=1.0, accepted=1e-7, limit=30.0,
    )  # fmt: skip
    before = replace(EMPTY, errors=(wrong,), findings=find([wrong], []), notes=("a note",), seconds=5.0)
    two = TwoProcesses(tmp_path, a_joined_batch())
    healthy = two.audited(before)
    assert (healthy.outcome, healthy.findings) == (Outcome.FAIL, before.findings)
    assert (healthy.errors[0], healthy.notes, healthy.errors[-1].depth) == (wrong, ("a note",), 0)
    assert {error.depth for error in healthy.errors if error.module == "0"} == {3}
    assert 5.0 <= healthy.seconds < 60.0
    change_gradient(two)
    for explained, result in ((True, two.audited(before)), (False, two.audited())):
        last = result.findings[-1]
        assert (last.introduced, "may be inherited" in last.message) == (not explained, explained)


def test_statistics_that_each_process_has_of_its_own_may_differ_and_are_noted(tmp_path):
    pytest.importorskip("mmengine")
    two = TwoProcesses(tmp_path, a_joined_batch())
    change_statistics(two)
    result = two.audited(own=frozenset({"1.running_var"}))
    assert result.outcome is Outcome.PASS
    assert result.notes[0].startswith("1 statistics of batch norms that are not synchronised are each process's own")


@pytest.mark.parametrize("others", [0, 1])
def test_processes_whose_joined_batch_has_a_loss_that_is_nan_in_the_reference_itself_are_inconclusive(tmp_path, others):
    pytest.importorskip("mmengine")
    spoilt = a_joined_batch()
    spoilt["inputs"][1] = math.nan
    two = TwoProcesses(tmp_path, *[a_joined_batch()] * others, spoilt)
    for report in two.reports:
        report.batches[-1].reduced.update(dict.fromkeys(report.batches[-1].reduced, math.nan))
    result = two.audited()
    assert result.outcome is Outcome.INCONCLUSIVE
    (finding,) = result.findings
    assert f"joined batch {others + 1}: loss loss of rank 1 is not finite in the reference itself" in finding.message
    assert {error.batch for error in result.errors} == set(range(1, others + 1))


def test_processes_whose_step_makes_no_numbers_in_the_reference_itself_are_inconclusive(tmp_path):
    pytest.importorskip("mmengine")
    result = TwoProcesses(tmp_path, a_joined_batch(), rate=math.nan).audited()
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "joined batch 1: update of 0.weight is not finite in the reference" in result.findings[0].message


def test_what_overflows_in_the_accepted_precision_is_noted_of_several_processes_as_well(tmp_path):
    pytest.importorskip("mmengine")
    large = {"inputs": 1e6 * a_joined_batch()["inputs"]}
    result = TwoProcesses(tmp_path, large, precision="fp16").audited()
    (note,) = result.notes
    assert note.startswith("of several processes ")
    assert "not judged, because fp16 itself overflows there; the first is (loss) output loss of rank 0 of a" in note


@pytest.fixture
def one_process():
    """A group of one process, in which the mean of all gradients is that of this one."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("change", "away"),
    [
        (lambda gradient: gradient, 0.0),
        (lambda gradient: 1.5 * gradient, 0.5),
        # By the Frobenius norm a tenth of that.
        (lambda gradient: gradient.index_add(1, torch.tensor([7]), torch.ones(1, 1)), 0.5),
        (lambda gradient: gradient.index_fill(1, torch.tensor(7), math.nan), math.nan),
        (lambda _: None, None),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_a_reduced_gradient_is_held_against_the_mean_of_the_processes_own_also_in_one_place(
    one_process, scale, change, away
):
    model = torch.nn.Linear(100, 1)
    model.bias.requires_grad = False
    own, handles = _own_gradients(model)
    (model(torch.linspace(1.0, 2.0, 100)[None]) * scale).sum().backward()
    for handle in handles:
        handle.remove()
    model.weight.grad = change(model.weight.grad / scale)
    assert _reduced(model, own, scale) == ({} if away is None else {"weight": pytest.approx(away, nan_ok=True)})


def test_a_gradient_that_is_zero_on_every_process_is_as_it_should_be(one_process):
    model = torch.nn.Linear(3, 1, bias=False)
    own, _ = _own_gradients(model)
    model(torch.zeros(2, 3)).sum().backward()
    assert _reduced(model, own, 1.0) == {"weight": 0.0}


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


def configured(model, **settings):
    """Return what is asked of a runner of mmengine, with a loader of one batch."""
    optim = pytest.importorskip("mmengine.optim")
    wrapper = optim.OptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=1.0), **settings)
    batch = {"inputs": torch.ones(2, 4)}
    return SimpleNamespace(
        model=model, cfg=SimpleNamespace(train_dataloader={}, get={}.get), optim_wrapper=wrapper,
        build_dataloader=lambda *_, **__: [batch],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ""),
        (
            {"clip_grad": {"max_norm": 35, "norm_type": 2}},
            r"the clipping of gradients \(max_norm 35, norm_type 2\) was not",
        ),
        ({"accumulative_counts": 4}, "adds up the gradients of 4 iterations"),
        ({"accumulative_counts": 49}, "adds up the gradients of 49 iterations"),
    ],
)
def test_what_a_training_does_to_gradients_before_its_step_is_noted_for_the_audit_leaves_it_out(settings, words):
    notes = left_out(configured(torch.nn.Linear(4, 1), **settings))
    assert len(notes) == bool(words)
    assert all(re.search(words, note) for note in notes)


def test_the_state_to_audit_is_trained_with_gradients_clipped_as_configured():
    engine = pytest.importorskip("mmengine.model")

    class Network(engine.BaseModel):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 1)

        def forward(self, inputs, mode="tensor"):
            assert mode == "loss"
            return {"loss": self.linear(inputs).square().mean()}

    model = Network()
    before = model.linear.weight.detach().clone()
    _warm_up(configured(model, clip_grad={"max_norm": 0.001}), lambda _: None)
    away = (model.linear.weight.detach() - before).norm()
    assert 0 < away <= WARM_UP * 0.001


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
