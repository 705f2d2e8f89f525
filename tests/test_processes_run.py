"""``emacheck run`` with several real processes of the real EMANet: what agrees with one process, and what cannot."""

import json
import re

import pytest
from conftest import SLIM, finished
from several_processes import AUDITED, ITERATIONS, ONE_EACH, SHORT, TWO, nothing_is_left_of

from emacheck.logs import read_log

pytestmark = pytest.mark.training
SLIM_EACH = (*ONE_EACH, *SLIM)


@pytest.fixture(scope="module")
def two(workshop):
    """Two processes with batches of one, against one process with the joined batch, trained now."""
    directory = workshop / "two"
    live = ("--reference-device", "cpu", "--log-format", "tcap")
    done = finished("run", *SHORT, *TWO, *live, "--work-dir", directory, *ONE_EACH, cwd=workshop)
    return directory, done


@pytest.mark.upstream
def test_two_processes_pass_against_one_with_the_joined_batch(two):
    directory, done = two
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    assert report["paired"] is True
    assert "ranks" not in {finding["rule"] for finding in report["findings"]}  # one process has none
    reference, candidate = read_log(directory / "reference"), read_log(directory)
    assert (reference.ranks, candidate.ranks) == (1, 2)
    assert reference.initial_state == candidate.initial_state
    assert reference.batches == candidate.batches
    first = [record.curves["loss"].values[0] for record in (reference, candidate)]
    # One sum in another order; nothing has been learnt yet that could amplify it.
    assert first[1] == pytest.approx(first[0], rel=2e-7)


@pytest.mark.upstream
def test_every_rank_has_a_record_of_its_own(two):
    directory, _ = two
    ranks = [read_log(directory, rank=rank) for rank in (0, 1)]
    mean = read_log(directory).curves["loss"].values
    assert ((ranks[0].curves["loss"].values + ranks[1].curves["loss"].values) / 2).tolist() == mean.tolist()
    assert ranks[0].curves["loss"].values.tolist() != ranks[1].curves["loss"].values.tolist()
    # What is averaged or shared among the processes is the same on each.
    for name in ("lr", "grad_norm"):
        assert ranks[0].curves[name].values.tolist() == ranks[1].curves[name].values.tolist()


def test_the_provenance_says_how_many_processes_there_were(two):
    run = json.loads((two[0] / "run.json").read_text(encoding="utf-8"))
    assert run["complete"] is True
    assert run["provenance"]["experiment"]["processes"] == 2
    assert run["provenance"]["experiment"]["config"]["train_dataloader.batch_size"] == 1


def test_nothing_is_left_after_a_run(two):
    assert nothing_is_left_of(two[0])


def test_the_old_script_reads_the_tcap_log(two):
    """Its regular expression, as the scripts that accompany the model zoo have it."""
    text = (two[0] / "cpu.log").read_text(encoding="utf-8")
    seen = [float(value) for value in re.findall(r"rank : 0  train.loss : ([\d\.e-]+)", text)]
    assert seen == read_log(two[0], rank=0).curves["loss"].values.tolist()
    everything = re.findall(r"train.loss : ([\d\.e-]+)", text)
    assert len(everything) == 2 * ITERATIONS


@pytest.mark.upstream
def test_the_tcap_log_is_read_like_the_record(two):
    log, record = read_log(two[0] / "cpu.log"), read_log(two[0])
    assert (log.format, log.ranks) == ("TCAPPDLL text", 2)
    assert log.curves["loss"].iterations.tolist() == list(range(ITERATIONS))
    assert log.curves["loss"].values.tolist() == record.curves["loss"].values.tolist()


@pytest.mark.parametrize("rule", [(), ("--rule", "modelzoo")])
def test_the_tcap_logs_of_both_are_judged(two, rule):
    logs = ("reference/cpu.log", "cpu.log")
    minimum = () if rule else ("--limit", f"coverage.minimum={ITERATIONS}")
    done = finished("compare", *logs, *rule, *minimum, cwd=two[0])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.upstream
def test_two_processes_pass_against_a_stored_reference_of_one(workshop):
    done = finished("run", *SHORT, *TWO, "--work-dir", "stored", *SLIM_EACH, cwd=workshop)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workshop / "stored" / "report.json").read_text(encoding="utf-8"))
    assert (report["paired"], report["evidence"]) == (True, ["curve"])


def test_two_processes_with_full_batches_are_another_experiment(workshop):
    done = finished("run", *SHORT, *TWO, "--work-dir", "full", cwd=workshop)
    assert done.returncode == 2
    assert "joined batch: reference 2 (1 process x 2), candidate 4 (2 processes x 2)" in done.stderr
    assert nothing_is_left_of("full")


def test_batch_norm_that_is_not_synchronised_needs_as_many_processes_in_the_reference(workshop):
    plain = (*ONE_EACH, "model.backbone.norm_cfg.type=BN")
    done = finished("run", *SHORT, *TWO, "--reference-device", "cpu", "--work-dir", "plain", *plain, cwd=workshop)
    assert done.returncode == 2
    assert "model.backbone.norm_cfg.type: BN takes its statistics from the batch of one process" in done.stderr
    assert "--reference-nproc" in done.stderr


@pytest.mark.slow
def test_a_reference_of_as_many_processes_is_bit_identical_whatever_the_norm(workshop):
    plain = (*ONE_EACH, "model.backbone.norm_cfg.type=BN")
    live = ("--reference-device", "cpu", "--reference-nproc", 2)
    done = finished("run", *SHORT, *TWO, *live, "--work-dir", "same", *plain, *SLIM, cwd=workshop)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit-identical" in done.stdout
    report = json.loads((workshop / "same" / "report.json").read_text(encoding="utf-8"))
    (ranks,) = (each for each in report["findings"] if each["rule"] == "ranks")
    assert (ranks["outcome"], ranks["observed"]) == ("PASS", 0.0)


@pytest.mark.slow
@pytest.mark.upstream
def test_the_users_old_command_line_works(workshop):
    """As their README has it, but for the number of processes and the length."""
    from emacheck.train.presets import config_path
    from emacheck.train.request import TrainingRequest

    data = workshop / "cache" / "synthetic-cityscapes-v1"
    config = workshop / "emanet.py"
    config.write_text(
        f"_base_ = ['{config_path(TrainingRequest(preset='cityscapes', config=None))}']\n"
        "crop_size = (64, 64)\n"
        "model = dict(data_preprocessor=dict(size=crop_size), decode_head=dict(dropout_ratio=0.0),\n"
        "             auxiliary_head=dict(dropout_ratio=0.0))\n"
        "train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),\n"
        "                  dict(type='RandomCrop', crop_size=crop_size), dict(type='PackSegInputs')]\n"
        "train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,\n"
        "                        dataset=dict(pipeline=train_pipeline))\n",
        encoding="utf-8",
    )
    done = finished(
        *("run", "--config", config, "--launcher", "pytorch", "--nproc-per-node", "2", "--amp"),
        *("--cfg-options", f"train_dataloader.dataset.data_root={data}", *SLIM),
        *("--iters", 2, "--threads", 1, "--limit", "coverage.minimum=2", "--no-audit", "--reference-device", "cpu"),
        *("--work-dir", "old"),
        cwd=workshop,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_log(workshop / "old").ranks == 2


@pytest.mark.slow
# A sum of gradients that is off by 1e-5: no rule of the curves sees it here, and no audit of one process can.
@pytest.mark.parametrize("fault", [None, "scale tccl::allreduce by=1e-5"])
def test_two_processes_on_the_simulated_device_pass_unless_what_they_exchange_is_wrong(
    workshop, simulated_device, fault
):
    """Its backend is tccl, and its SyncBatchNorm is torch's own."""
    directory, env = workshop / f"sdaa-{bool(fault)}", simulated_device(*([fault] if fault else []))
    there = ("--device", "sdaa", "--work-dir", directory)
    done = finished("run", *SHORT, *TWO, *AUDITED, *there, *SLIM_EACH, cwd=workshop, env=env, timeout=600)
    assert done.returncode == (1 if fault else 0), done.stdout + done.stderr
    record = read_log(directory)
    assert (record.ranks, record.provenance["device"]["type"]) == (2, "sdaa")
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    assert (report["paired"], report["audit"]["ranks"]) == (True, ["sdaa:0", "sdaa:1"])
    assert report["evidence"] == ["curve", "audit"]
    audit, *others = report["findings"]
    assert (audit["outcome"], {other["outcome"] for other in others}) == ("FAIL" if fault else "PASS", {"PASS"})
    tensors = json.loads((directory / "audit.json").read_text(encoding="utf-8"))["tensors"]
    assert {each["level"] for each in tensors} == {"isolated", "evaluation", "end to end", "processes"}
    wrong = {each["level"] for each in tensors if each["ratio"] > each["limit"]}
    assert wrong == ({"processes"} if fault else set())
    if fault:
        assert audit["module"] == "(processes)"
        assert "between the processes: the all-reduced gradients are not the mean" in audit["message"]
    else:
        assert "on sdaa and of 2 processes on sdaa:0, sdaa:1 are within their limits" in done.stderr
    assert nothing_is_left_of(directory)


def test_started_by_torchrun_it_says_that_it_starts_the_processes_itself(workshop):
    done = finished("run", *SHORT, cwd=workshop, env={"RANK": "1", "WORLD_SIZE": "4"}, timeout=30)
    assert (done.returncode, "emacheck calls torchrun itself" in done.stderr) == (2, True), done.stderr
