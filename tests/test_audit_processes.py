"""What is said of several processes of one iteration: made-up reports, and the pieces of the arbiter."""

from dataclasses import replace

import pytest

from emacheck.audit.findings.processes import (
    ALL_REDUCE,
    LEVEL,
    RankBatch,
    RankReport,
    find_between,
    find_whole,
    read_report,
    reduced_errors,
)
from emacheck.audit.findings.result import ITERATION, PROCESSES, AuditResult, TensorError, find, read_result
from emacheck.audit.findings.text import text
from emacheck.audit.findings.verdict import audit_finding
from emacheck.judge import Outcome

START = {"conv.weight": "w", "bn.running_mean": "m"}
HASHES = {
    "gradient conv weight": "g",
    "update conv weight": "u",
    "gradient seg bias": "h",
    "update seg bias": "v",
    "buffer bn running_mean": "b",
}
SAMPLES = [["s0", "s1", "s2", "s3"]]


def reports(size=2, **second):
    """Reports of equal ranks, of which rank 1 differs in what is given."""
    made = []
    for rank in range(size):
        batch = RankBatch(samples=SAMPLES[0][rank::2], losses={"loss": 1.0}, hashes=HASHES, reduced={"conv.weight": 0})
        made.append(RankReport(rank=rank, device="cpu", start=START, batches=[batch]))
    start = second.pop("start", START)
    made[1] = replace(made[1], start=start, batches=[replace(made[1].batches[0], **second)])
    return made


def between(*args, own=(), **second):
    return find_between(reports(*args, **second), start=START, samples=SAMPLES, own=own)


def test_equal_ranks_are_no_finding():
    assert between() == []


@pytest.mark.parametrize(
    ("changed", "phase", "module", "tensor"),
    [
        ({"gradient conv weight": "x"}, "backward", "conv", "gradient weight"),
        ({"update seg bias": "x"}, "optimizer", "seg", "update bias"),
        ({"buffer bn running_mean": "x"}, "buffers", "bn", "buffer running_mean"),
        ({"gradient seg bias": "x", "update seg bias": "x"}, "backward", "seg", "gradient bias"),
    ],
)
def test_the_first_tensor_that_differs_between_ranks_is_named(changed, phase, module, tensor):
    (finding,) = between(hashes={**HASHES, **changed})
    assert (finding.phase, finding.module, finding.tensor, finding.rank) == (phase, module, tensor, 1)
    assert (finding.outcome, finding.introduced) == (Outcome.FAIL, True)
    assert f"rank 1 differs from rank 0 in {tensor.split()[0]} {module}" in finding.message


def test_a_tensor_that_only_one_rank_has_differs():
    (finding,) = between(hashes={name: value for name, value in HASHES.items() if name != "gradient seg bias"})
    assert (finding.module, finding.phase) == ("seg", "backward")


def test_statistics_of_a_rank_of_its_own_may_differ():
    changed = {**HASHES, "buffer bn running_mean": "x"}
    assert between(hashes=changed, own={"bn.running_mean"}) == []


def test_another_start_is_named_before_what_follows_from_it():
    found = between(start={**START, "conv.weight": "x"}, hashes={**HASHES, "update conv weight": "x"})
    assert next((f.phase, f.module, f.tensor, f.rank) for f in found) == ("forward", "conv", "weight", 1)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("seen", "whose"), [(["s0", "s2"], "belongs to rank 0"), (["s1", "x"], "none of the joined batch"), (["s1"], "")]
)
def test_samples_that_are_not_the_ranks_share_are_a_finding(seen, whose):
    (finding,) = between(samples=seen)
    assert (finding.module, finding.phase, finding.rank) == (PROCESSES, "forward", 1)
    assert whose in finding.message


def test_what_differs_in_the_second_batch_alone_is_said_of_that_batch():
    made = reports(size=3)
    made[0] = replace(made[0], batches=made[0].batches * 2)
    made[2] = replace(made[2], batches=made[2].batches * 2)
    other = {**HASHES, "gradient conv weight": "x", "gradient seg bias": "y", "update conv weight": "z"}
    second = replace(made[1].batches[0], hashes=other, samples=["s0"], reduced={"conv.weight": 0.5})
    made[1] = replace(made[1], batches=[made[1].batches[0], second])
    samples = [SAMPLES[0][:3], SAMPLES[0][:3]]
    made = [
        replace(
            each, batches=[replace(b, samples=b.samples if b is second else [f"s{each.rank}"]) for b in each.batches]
        )
        for each in made
    ]
    found = find_between(made, start=START, samples=samples, own=())
    assert [each.message.partition(": ")[0] for each in found] == [
        "rank 1 was fed other samples than its share of the joined batch 2",
        "rank 1 differs from rank 0 in gradient conv.weight, batch 2",
    ]
    assert found[1].count == 2
    assert found[1].message.endswith("2 of 2 gradients are not equal bit for bit on all 3 ranks (rank 1)")
    rows = reduced_errors(made, unit_roundoff=2.0**-24, limit=30.0, depths={"conv": 7})
    assert [(row.batch, row.passes, row.depth) for row in rows] == [(1, True, 7), (2, False, 7)]
    assert rows[1].accepted == 3 * 2.0**-24


def error(module="conv", tensor="gradient weight", phase="backward", ratio=100.0, batch=1):
    return TensorError(
        module=module,
        kind="",
        tensor=tensor,
        phase=phase,
        level=LEVEL,
        batch=batch,
        depth=0,
        error=ratio,
        accepted=1.0,
        limit=10.0,
    )


def test_one_module_that_differs_from_one_process_is_named():
    errors = [error(), error(tensor="update weight", phase="optimizer"), error(module="seg", ratio=1.0)]
    (finding,) = find_whole(errors, size=2, explained=False)
    assert (finding.module, finding.phase, finding.introduced, finding.count) == ("conv", "backward", True, 2)
    assert finding.tensor == "gradient weight"


def test_several_modules_that_differ_are_the_processes():
    (finding,) = find_whole([error(), error(module="seg")], size=2, explained=True)
    assert (finding.module, finding.introduced) == (PROCESSES, False)


def test_a_median_that_alone_is_over_its_limit_is_the_processes():
    (finding,) = find_whole([error(ITERATION, "median of all gradients")], size=2, explained=False)
    assert (finding.module, finding.tensor) == (PROCESSES, f"{ITERATION} median of all gradients")


def test_what_is_over_its_limit_in_one_batch_of_two_is_no_finding():
    assert find_whole([error(batch=1), error(batch=2, ratio=1.0)], size=2, explained=False) == []


def test_a_loss_that_only_one_rank_has_wrong_names_the_rank():
    loss = [error("(loss)", f"output loss of rank {rank}", "loss", 100.0 if rank == 1 else 1.0) for rank in (0, 1)]
    (finding,) = find_whole(loss, size=2, explained=False)
    assert (finding.module, finding.phase, finding.rank) == (PROCESSES, "loss", 1)
    both = [error("(loss)", f"output loss of rank {rank}", "loss") for rank in (0, 1)]
    assert find_whole(both, size=2, explained=False)[0].rank is None
    assert find_whole(both[:1], size=1, explained=False)[0].rank is None
    assert "; only the loss of rank 1 differs, so audit its device alone as well" in finding.message
    farther = find_whole([both[0], replace(both[1], error=500.0)], size=2, explained=False)[0]
    assert farther.message.endswith("; the loss of rank 1 is farthest off")


def test_the_worst_tensor_of_the_first_phase_is_named_and_no_median_and_what_may_have_caused_it():
    errors = [
        error(ratio=100.0),
        error("seg", "gradient bias", ratio=500.0),
        error(ITERATION, "median of all gradients", ratio=9000.0),
        error(tensor="update weight", phase="optimizer", ratio=1e6),
    ]
    (finding,) = find_whole(errors, size=2, explained=False)
    assert (finding.module, finding.tensor, finding.phase) == (PROCESSES, "seg gradient bias", "backward")
    assert (finding.ratio, finding.limit, finding.count, finding.rank) == (500.0, 10.0, 4, None)
    said = "2 processes differ from one with the joined batch, first in phase backward: 4 tensors, the worst is "
    assert finding.message == f"{said}gradient bias of seg"
    (inherited,) = find_whole(errors, size=2, explained=True)
    assert inherited.message == f"{said}gradient bias of seg; it may be inherited from what is above"
    all_reduce = [
        error(tensor=f"{ALL_REDUCE} gradient weight"),
        error("seg", f"{ALL_REDUCE} gradient bias", ratio=700.0),
    ]
    cause, effect = find_whole([*errors, *all_reduce], size=2, explained=False)
    assert (cause.introduced, cause.count, cause.ratio, effect.introduced) == (True, 2, 700.0, False)
    assert cause.message.endswith("of the 2 processes: 2 of them, the worst is gradient seg.bias")


def reduced(*values):
    made = reports(reduced={"conv.weight": values[1]})
    made[0] = replace(made[0], batches=[replace(made[0].batches[0], reduced={"conv.weight": values[0]})])
    return reduced_errors(made, unit_roundoff=2.0**-24, limit=30.0, depths={})


@pytest.mark.parametrize(
    ("values", "passes"),
    [((1e-8, 1e-7), True), ((1e-8, 2e-3), False), ((float("nan"), 0), False), ((0, float("nan")), False)],
)
def test_an_all_reduce_is_held_against_the_mean_of_all_processes(values, passes):
    (row,) = reduced(*values)
    assert (row.module, row.passes) == ("conv", passes)
    assert row.tensor.startswith(ALL_REDUCE)
    found = find_whole([row], size=2, explained=False)
    assert [f.module for f in found] == ([] if passes else [PROCESSES])


def test_a_report_survives_its_file_with_nan_in_it():
    (first, _) = reports()
    losses = {"loss": float("inf"), "aux": float("nan")}
    read = read_report(replace(first, batches=[replace(first.batches[0], losses=losses)]).to_json())
    assert read.batches[0].losses["loss"] == float("inf")
    assert read.batches[0].losses["aux"] != read.batches[0].losses["aux"]
    assert read_report(first.to_json()) == first


def test_a_result_with_processes_is_written_read_and_shown():
    (finding,) = between(hashes={**HASHES, "gradient conv weight": "x"})
    rows = (error(ratio=2.0), error(ITERATION, "median of all gradients", ratio=1.0))
    result = AuditResult(device="cpu", precision="fp32", errors=rows, findings=(finding,))
    assert read_result(result.to_json()) == result
    assert result.to_json()["findings"][0]["rank"] == 1
    shown = text(result, command="emacheck audit")
    assert "processes    backward" in shown
    assert shown.splitlines()[-1].startswith("FAIL audit conv gradient weight, first in phase backward")
    assert (result.phase, result.module) == ("backward", "conv")


def test_the_verdict_is_told_that_it_lies_between_the_processes():
    (unequal,) = between(hashes={**HASHES, "gradient conv weight": "x"})
    whole = find_whole([error(), error(module="seg")], size=2, explained=True)
    result = AuditResult(device="cpu", precision="fp32", errors=(error(),), findings=(unequal, *whole))
    finding = audit_finding(result)
    assert (finding.outcome, finding.module) == (Outcome.FAIL, "conv")
    assert finding.message.startswith("between the processes: rank 1 differs from rank 0 in gradient conv.weight")
    assert finding.message.endswith("; 1 finding about the processes as well")


def test_a_wrong_module_is_blamed_before_the_processes_that_inherit_it():
    alone = replace(error(ratio=500.0), level="isolated")
    findings = (*find([alone]), *find_whole([error()], size=2, explained=True))
    finding = audit_finding(AuditResult(device="cpu", precision="fp32", errors=(alone, error()), findings=findings))
    assert finding.message.startswith("conv () is wrong on the reference's own inputs")
    assert finding.message.endswith("; 1 finding about the processes as well")
    assert "more module" not in finding.message


def test_a_pass_says_how_many_processes_were_audited():
    ranks = tuple(f"sdaa:{rank}" for rank in range(2))
    result = AuditResult(device="sdaa", precision="fp32", errors=(error(ratio=1.0),), findings=(), ranks=ranks)
    assert read_result(result.to_json()) == result
    said = "on sdaa and of 2 processes on sdaa:0, sdaa:1"
    assert said in audit_finding(result).message
    assert text(result, command="").startswith(f"Audit {said} against float64")
    many = replace(result, ranks=tuple(f"sdaa:{rank}" for rank in range(16)))
    assert "16 processes on sdaa:0," in many.where
    assert many.where.endswith("sdaa:7 ...")


def test_errors_of_processes_do_not_blame_a_module_alone():
    assert find([error()]) == ()


def test_a_batch_norm_that_is_not_synchronised_is_that_of_each_share():
    torch = pytest.importorskip("torch")
    from emacheck.audit.iteration.parted import part_batch_norms, share

    torch.manual_seed(0)
    batch = torch.randn(6, 3, 4, 4).double().requires_grad_()
    parted = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).double()
    assert part_batch_norms(parted, 2, synchronised=torch.nn.BatchNorm1d) == ["0"]
    (parted(batch) ** 3).sum().backward()
    alone = [torch.nn.BatchNorm2d(3).double() for _ in range(2)]
    parts = [share(batch.detach(), rank, 2).requires_grad_() for rank in range(2)]
    for layer, part in zip(alone, parts, strict=True):
        (layer(part) ** 3).sum().backward()
    for rank in range(2):
        torch.testing.assert_close(batch.grad[rank::2], parts[rank].grad)
    assert torch.equal(parted[0].running_mean, alone[0].running_mean)
    torch.testing.assert_close(parted[0].weight.grad, alone[0].weight.grad + alone[1].weight.grad)
    parted.eval()
    alone[0].eval()
    assert torch.equal(parted(batch), alone[0](batch))


def test_a_share_is_every_nth_sample():
    torch = pytest.importorskip("torch")
    from emacheck.audit.iteration.parted import share

    batch = {"inputs": torch.arange(6), "samples": list("abcdef")}
    tensors, names = share((batch["inputs"], batch["samples"]), 1, 3)
    assert (tensors.tolist(), names) == ([1, 4], ["b", "e"])


def test_what_draws_from_a_generator_of_its_own_is_left_alone_and_anything_else_is_named():
    torch = pytest.importorskip("torch")
    from emacheck.audit.iteration.draws import DrawsOfSamples, ForeignDrawError

    with DrawsOfSamples(0) as draws:
        first = torch.rand(4, generator=torch.Generator().manual_seed(3))
    draws.require_own()
    assert torch.equal(first, torch.rand(4, generator=torch.Generator().manual_seed(3)))
    with DrawsOfSamples(0) as draws:
        torch.nn.functional.dropout(torch.ones(4), 0.5)
    with pytest.raises(ForeignDrawError, match="bernoulli"):
        draws.require_own()


def test_faults_of_processes_break_nothing_in_one_process():
    pytest.importorskip("torch")
    import torch

    from emacheck.audit.faults import NotApplicableError, catalogue
    from emacheck.audit.faults.loading import process_faults
    from emacheck.audit.iteration.subject import Candidate

    assert not set(process_faults()) & set(catalogue())
    for fault in process_faults().values():
        with pytest.raises(NotApplicableError):
            fault(Candidate(model=torch.nn.Linear(1, 1), optimizer=None, loss=None))


@pytest.mark.parametrize(("name", "accepted"), [("0", True), ("module.0", False), ("1", False)])
def test_a_fault_in_a_distributed_model_names_its_module_as_findings_do(tmp_path, name, accepted):
    torch = pytest.importorskip("torch")
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from emacheck.audit.faults.registry import BrokenFaultError, Fault
    from emacheck.audit.iteration.subject import Candidate

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(1, 1)))
        fault = Fault(
            name="named",
            kind="kernel",
            about="",
            severity=1.0,
            unit="",
            imitates=None,
            precisions=("fp32",),
            shows_at=1,
            apply=lambda candidate, severity: name,  # noqa: ARG005
        )
        candidate = Candidate(model=model, optimizer=None, loss=None)
        if accepted:
            assert fault(candidate) == name
        else:
            with pytest.raises(BrokenFaultError, match="expected the name of a module or None"):
                fault(candidate)
    finally:
        dist.destroy_process_group()
