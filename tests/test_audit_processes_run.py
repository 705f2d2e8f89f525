"""The audit of two real processes of EMANet on the CPU: healthy, and broken in what they exchange."""

import os
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace

import pytest
from conftest import SLIM

torch = pytest.importorskip("torch")

from emacheck.audit.faults.loading import process_faults  # noqa: E402
from emacheck.audit.findings.result import PROCESSES, AuditResult  # noqa: E402
from emacheck.audit.judging.reference import Plan  # noqa: E402
from emacheck.cli.audit import ranks  # noqa: E402
from emacheck.cli.audit.rank import RankJob  # noqa: E402
from emacheck.cli.audit.ranks import run_ranks  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402
from emacheck.train.launching.processes import Processes  # noqa: E402

pytestmark = [pytest.mark.training, pytest.mark.slow]
TWO = Processes(launched=True, nproc_per_node=2)
EMPTY = AuditResult(device="cpu", precision="fp32", errors=(), findings=())
EMA = "decode_head.ema_module"


def prepared(place, *overrides):
    """Return a training, and what one process with its joined batches does."""
    from emacheck.cli.audit.command import audited_request
    from emacheck.cli.audit.joined import join
    from emacheck.cli.audit.training import prepare_training

    options = {"preset": None, "config": None, "seed": 0, "threads": 1, "data_root": None, "more_options": ()}
    request = audited_request({**options, "cfg_options": overrides})
    training = prepare_training(request, batches=1, scratch=place / "mmengine", processes=2)
    return SimpleNamespace(place=place, request=request, training=training, joined=join(training, 2, Plan(), keep=True))


@pytest.fixture(scope="module")
def emanet(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("ranks"), "train_dataloader.batch_size=1", *SLIM)


def ran(subject, **options):
    """Run two processes; return the directory with what they left."""
    directory = Path(mkdtemp(dir=subject.place))
    job = RankJob(
        request=subject.request,
        device="cpu",
        batches=1,
        place=str(subject.training.place),
        state_hash=subject.training.state_hash,
        **options,
    )
    run_ranks(job, directory, processes=TWO, timeout=300)
    return directory


@pytest.fixture(scope="module")
def broken(emanet):
    """Run two processes with every fault; return the directory with what they left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "RANKS", replace(ranks.RANKS, module="broken_ranks"))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        return ran(emanet)


def audited(subject, directory):
    from emacheck.cli.audit.joined import with_processes

    return with_processes(EMPTY, subject.joined, directory)


def test_two_healthy_processes_pass(emanet):
    result = audited(emanet, ran(emanet))
    assert (result.outcome, result.findings) == (Outcome.PASS, ()), result.findings
    kinds = [error.tensor.split()[0] for error in result.errors]
    parameters = sum(p.requires_grad for p in emanet.training.subject.model.parameters())
    assert kinds.count("gradient") == kinds.count("all-reduce") == parameters
    assert kinds.count("output") == 4  # two losses of two ranks
    assert {e.tensor for e in result.errors if e.module == EMA} == {"buffer bases"}


WHERE = {
    # name: phase, module (None: whichever the fault says), rank, first words of the first finding
    "all_reduce_adds": ("backward", PROCESSES, None, "the all-reduced gradients are not the mean"),
    "all_reduce_in_bfloat16": ("backward", PROCESSES, None, "the all-reduced gradients are not the mean"),
    "gradients_not_reduced": ("backward", "backbone.stem.0", 1, "rank 1 differs from rank 0 in gradient"),
    "one_rank_scales_its_gradients": ("backward", PROCESSES, None, "2 processes differ from one"),
    "one_rank_scales_one_gradient": ("backward", "backbone.layer3.3.conv2", None, "2 processes differ from one"),
    "one_rank_scales_a_reduced_gradient": ("backward", None, 1, "rank 1 differs from rank 0 in gradient"),
    "bases_not_reduced": ("buffers", EMA, 1, "rank 1 differs from rank 0 in buffer decode_head.ema_module.bases"),
    "batch_norm_not_synchronised": ("loss", "backbone.stem.1", 1, "rank 1 differs from rank 0 in buffer backbone.stem"),
    "one_batch_norm_not_synchronised": ("loss", None, 1, "rank 1 differs from rank 0 in buffer"),
    "one_rank_repeats_the_batch_of_another": ("forward", PROCESSES, 1, "rank 1 was fed other samples than its share"),
    "one_rank_starts_one_ulp_off": ("forward", None, 1, "rank 1 starts from another state than the shared one"),
    "one_rank_keeps_another_momentum": ("optimizer", "backbone.stem.0", 1, "rank 1 differs from rank 0 in update"),
}


def test_every_fault_is_tried():
    assert set(process_faults()) == set(WHERE)


@pytest.mark.parametrize("fault", WHERE)
def test_what_is_exchanged_wrongly_fails_in_its_phase_and_module(emanet, broken, fault):
    result = audited(emanet, broken / fault)
    phase, module, rank, words = WHERE[fault]
    first = result.findings[0]
    assert result.outcome is Outcome.FAIL
    assert (result.phase, first.rank) == (phase, rank)
    assert first.message.startswith(words)
    if module is not None:
        assert first.module == module


def farthest(subject):
    """Run two processes in float64; return how far they are from the arbiter, by kind of tensor."""
    from emacheck.audit.lockstep.end_to_end import distances
    from emacheck.cli.audit.joined import read_reports, together

    directory = ran(subject, double=True)
    found = together(read_reports(directory), 1, directory)
    here = distances(found, subject.joined.references[0].iteration().truth)
    kinds = {part.kind for _, part in here}
    return {kind: max(each.norm for (_, part), each in here.items() if part.kind == kind) for kind in kinds}


def test_two_processes_in_float64_are_one_process_with_the_joined_batch(emanet):
    """The proof of the arbiter: the same mathematics, apart from the last digits of float64."""
    far = farthest(emanet)
    assert set(far) == {"output", "gradient", "update", "buffer"}
    assert max(far.values()) <= 1e-9, far


def test_what_each_process_normalises_by_itself_is_in_the_arbiter_as_well(tmp_path):
    """A loss over labelled pixels, batch norms that are not synchronised, and masks that belong to the sample."""
    heads = ("decode_head", "auxiliary_head")
    subject = prepared(
        tmp_path,
        "train_dataloader.batch_size=2",
        "train_dataloader.dataset.pipeline.3.crop_size=(32,64)",
        "model.data_preprocessor.size=(32,64)",
        "model.backbone.norm_cfg.type=BN",
        *SLIM,
        *(f"model.{head}.loss_decode.avg_non_ignore=True" for head in heads),
        "train_dataloader.dataset.reduce_zero_label=True",  # what was the first class is ignored
        *(f"model.{head}.dropout_ratio=0.1" for head in heads),
    )
    labels = [sample.gt_sem_seg.data for sample in subject.training.joined[0]["data_samples"]]
    ignored = [sum(int((label == 255).sum()) for label in labels[rank::2]) for rank in (0, 1)]
    assert ignored[0] != ignored[1]
    far = farthest(subject)
    assert max(far.values()) <= 1e-9, far
    assert any(name.startswith("backbone.") for name in subject.joined.own)
    assert not any(name.startswith("decode_head.") for name in subject.joined.own)
