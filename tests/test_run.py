"""``emacheck run`` and ``emacheck reference make`` with the real EMANet, as a user meets them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SHIPPED, SLIM, SMOKE, emacheck_process, finished, wait_for_iterations, wait_until

from emacheck.cli import invoke
from emacheck.data.synthetic import DEFAULT_NAME
from emacheck.logs import read_log

pytestmark = [pytest.mark.training, pytest.mark.upstream]
ITERATIONS = 3
# Three iterations are enough to see what the commands do; by default a verdict wants ten.
SHORT = ("--iters", ITERATIONS, "--limit", f"coverage.minimum={ITERATIONS}", "--threads", 1, "--no-audit")
LONG = ("--reference-device", "cpu", "--iters", 90, "--threads", 1, "--no-audit", "--cfg-options", *SLIM)


@pytest.fixture(scope="module")
def first_run(workshop):
    """One complete run against the stored reference."""
    done = finished("run", "--device", "cpu", *SHORT, "--work-dir", workshop / "first", cwd=workshop)
    return workshop / "first", done


def workers_of(run_directory):
    found = subprocess.run(["pgrep", "-f", f"emacheck.train.worker {run_directory}"], capture_output=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def wait_until_gone(run_directory):
    assert wait_until(lambda: not workers_of(run_directory))


def test_a_run_passes_against_its_own_reference_and_leaves_record_and_reports(first_run):
    directory, done = first_run
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.rstrip("\n").rpartition("\n")[2]
    assert last.startswith("PASS ")
    assert "emacheck run --device cpu" in last
    left = {path.name for path in directory.iterdir()}
    assert {
        "run.json",
        "iterations.jsonl",
        "report.json",
        "report.md",
        "report.png",
        "report.html",
        "card.md",
        "worker.log",
    } <= left
    assert list(directory.glob("mmengine/*/vis_data/scalars.json"))
    assert list(directory.glob("mmengine/*/*.log"))
    assert json.loads((directory / "report.json").read_text(encoding="utf-8"))["paired"] is True


def test_two_runs_with_the_same_options_are_bit_identical_in_every_recorded_loss(references, first_run):
    one = read_log(references / SMOKE)
    two = read_log(first_run[0])
    recorded = {"loss", "decode.loss_ce", "decode.acc_seg", "aux.loss_ce", "aux.acc_seg", "lr", "grad_norm"}
    assert recorded | {"seconds", "data_seconds"} == set(one.curves) == set(two.curves)
    for name in recorded:
        assert one.curves[name].values.tobytes() == two.curves[name].values.tobytes(), name
    assert one.initial_state == two.initial_state
    assert one.batches == two.batches
    assert len(set(one.batches)) == ITERATIONS


def test_the_smoke_preset_starts_from_the_weights_and_sees_the_batches_of_its_stored_reference(first_run):
    stored = read_log(SHIPPED / SMOKE)
    run = read_log(first_run[0])
    assert run.provenance["experiment"]["draws"] == 2
    assert run.initial_state == stored.initial_state
    assert run.batches == stored.batches[:ITERATIONS]


def test_the_record_agrees_with_what_mmengine_logged_beside_it(first_run):
    (scalars,) = first_run[0].glob("mmengine/*/vis_data/scalars.json")
    ours, theirs = read_log(first_run[0]), read_log(scalars)
    for name in ("loss", "decode.loss_ce", "aux.loss_ce"):
        assert ours.curves[name].values.tolist() == theirs.curves[name].values.tolist()


def test_the_provenance_says_what_the_run_was_made_with(first_run):
    run = json.loads((first_run[0] / "run.json").read_text(encoding="utf-8"))
    provenance = run["provenance"]
    assert run["complete"] is True
    assert provenance["experiment"]["config"]["optim_wrapper.optimizer.momentum"] == 0.9
    assert provenance["experiment"]["config"]["model.decode_head.type"] == "EMAHead"
    assert len(provenance["config_hash"]) == len(provenance["experiment"]["data_hash"]) == 64
    assert provenance["device"]["type"] == "cpu"
    assert (provenance["threads"], provenance["workers"], provenance["experiment"]["seed"]) == (1, 0, 0)
    assert {"torch", "emacheck", "python"} <= set(provenance["versions"])
    for name in ("mmengine", "mmsegmentation"):
        assert len({f"onedl-{name}", name} & set(provenance["versions"])) == 1
    assert provenance["duration_seconds"] > 0
    assert 2**28 < provenance["peak_memory_bytes"]["host"] < 3 * 2**30


def test_another_experiment_is_refused_by_name_before_anything_is_trained(workshop):
    other = ("--seed", 1, "--precision", "bf16", "--cfg-options", "optim_wrapper.optimizer.momentum=0.8")
    done = finished("run", *SHORT, "--reference", SMOKE, "--work-dir", "other", *other, cwd=workshop)
    assert done.returncode == 2
    for said in (
        "seed: reference 0, candidate 1",
        "precision: reference 'fp32', candidate 'bf16'",
        "optim_wrapper.optimizer.momentum: reference 0.9, candidate 0.8",
    ):
        assert said in done.stderr
    assert not (workshop / "other").exists()


def test_another_number_of_workers_is_the_same_experiment_and_bit_identical(workshop):
    workers = ("train_dataloader.num_workers=2", "train_dataloader.persistent_workers=True")
    done = finished("run", *SHORT, "--work-dir", "workers", "--cfg-options", *workers, cwd=workshop)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit-identical" in done.stdout
    assert read_log(workshop / "workers").provenance["workers"] == 2


def test_a_run_finds_the_reference_that_was_made_of_its_own_experiment_beside_others(workshop):
    elsewhere = workshop / "elsewhere"
    elsewhere.mkdir()
    options = ("--seed", "5", "--iters", "2", "--cfg-options", "optim_wrapper.optimizer.momentum=0.8", *SLIM)
    made = finished("reference", "make", *options, cwd=elsewhere)
    assert (made.returncode, "smoke/cpu-fp32-seed5-" in made.stdout) == (0, True), made.stdout + made.stderr
    done = finished("run", "--no-audit", "--limit", "coverage.minimum=2", *options, cwd=elsewhere)
    assert (done.returncode, "bit-identical" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.slow
def test_a_config_that_counts_in_epochs_is_trained_for_the_iterations_asked_for_with_overrides_after_one_option(
    workshop,
):
    from emacheck.train.presets import config_path
    from emacheck.train.request import TrainingRequest

    config = workshop / "epochs.py"
    config.write_text(
        f"_base_ = ['{config_path(TrainingRequest(preset='cityscapes', config=None))}']\n"
        "crop_size = (64, 64)\n"
        "model = dict(data_preprocessor=dict(size=crop_size))\n"
        "train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),\n"
        "                  dict(type='RandomCrop', crop_size=crop_size), dict(type='PackSegInputs')]\n"
        "train_dataloader = dict(num_workers=0, persistent_workers=False,\n"
        "                        dataset=dict(pipeline=train_pipeline, indices=16),\n"
        "                        sampler=dict(type='DefaultSampler', shuffle=True))\n"
        "train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2)\n"
        "param_scheduler = [dict(type='StepLR', by_epoch=True, step_size=1)]\n"
        "log_processor = dict(by_epoch=True)\n",
        encoding="utf-8",
    )
    data = workshop / "cache" / "synthetic-cityscapes-v1"
    done = finished(
        *("run", "--config", config, "--iters", "6", "--threads", "1", "--no-audit", "--work-dir", "epochs"),
        *("--reference-device", "cpu", "--limit", "coverage.minimum=6"),
        *("--cfg-options", f"train_dataloader.dataset.data_root={data}", "train_dataloader.dataset.indices=8"),
        *SLIM,
        cwd=workshop,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit-identical" in done.stdout
    assert read_log(workshop / "epochs" / "reference").complete
    rates = read_log(workshop / "epochs").curves["lr"].values
    # 8 images in batches of 2 are 4 iterations an epoch; the rate falls tenfold after the first.
    assert len(rates) == 6
    assert rates[3] == pytest.approx(10 * rates[4])


def test_a_killed_worker_exits_2_with_its_last_words_and_keeps_the_partial_record(workshop):
    directory = workshop / "killed"
    process = emacheck_process("run", *LONG, "--work-dir", directory, cwd=workshop)
    wait_for_iterations(directory / "reference" / "iterations.jsonl", 2, process)
    for pid in workers_of(directory / "reference"):
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "SIGKILL" in err
    assert "Iter(train)" in err
    record = read_log(directory / "reference")
    assert not record.complete
    assert len(record.curves["loss"]) >= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_exits_2_keeps_the_partial_record_and_leaves_no_process(workshop, number):
    directory = workshop / f"interrupted-{number}"
    process = emacheck_process("run", *LONG, "--work-dir", directory, cwd=workshop)
    wait_for_iterations(directory / "reference" / "iterations.jsonl", 1, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.count("emacheck: interrupted") == 1
    assert "emacheck: interrupted; the partial record is kept in" in err
    assert "Traceback" not in err
    assert not read_log(directory / "reference").complete
    wait_until_gone(directory)


def test_no_worker_outlives_a_command_that_was_killed_outright(workshop):
    directory = workshop / "orphan"
    process = emacheck_process("run", *LONG, "--work-dir", directory, cwd=workshop)
    wait_for_iterations(directory / "reference" / "iterations.jsonl", 1, process)
    process.kill()
    process.communicate(timeout=60)
    wait_until_gone(directory)


@pytest.mark.slow
def test_a_training_that_never_updates_the_weights_is_no_evidence(workshop):
    """Two of them would be bit-identical on any two devices."""
    never = ("--cfg-options", "optim_wrapper.accumulative_counts=100", *SLIM)
    done = finished("run", *SHORT, "--reference-device", "cpu", "--work-dir", "never", *never, cwd=workshop)
    assert done.returncode == 2
    assert "emacheck: no weight was updated before the last of 3 iterations, so the losses say nothing" in done.stderr
    assert "accumulative_counts is more than --iters" in done.stderr
    assert f"the partial record is kept in {Path('never', 'reference')}" in done.stderr
    record = read_log(workshop / "never" / "reference")
    assert (record.complete, len(record.curves["loss"])) == (False, ITERATIONS)


def test_a_hung_worker_is_ended_and_exits_2(workshop):
    # Loading torch alone takes longer than a second, so this worker counts as hung before its first iteration.
    done = finished("run", *SHORT, "--timeout", "1", "--work-dir", "hung", cwd=workshop)
    assert (done.returncode, "hung" in done.stderr) == (2, True), done.stderr
    wait_until_gone(workshop / "hung")


def test_a_crashing_worker_shows_its_last_lines_without_a_traceback_of_our_own_and_what_they_suggest(workshop):
    impossible = "model.decode_head.channels=2000000000"
    done = finished("run", *SHORT, "--work-dir", "crash", "--reference-device", "cpu", "--cfg-options", *SLIM,
                    impossible, cwd=workshop)  # fmt: skip
    assert done.returncode == 2
    assert "  | RuntimeError" in done.stderr
    assert "ended with exit code 1 after iteration 0" in done.stderr
    assert "It ran out of memory." in done.stderr


def test_an_existing_work_dir_is_not_touched(workshop, first_run):
    before = (first_run[0] / "run.json").read_bytes()
    done = finished("run", *SHORT, "--work-dir", first_run[0], cwd=workshop)
    assert (done.returncode, "nothing was overwritten" in done.stderr) == (2, True), done.stderr
    assert (first_run[0] / "run.json").read_bytes() == before


def test_a_changed_data_set_is_not_trained_on(workshop, tmp_path, monkeypatch):
    shutil.copytree(workshop / "cache" / DEFAULT_NAME, tmp_path / "cache" / DEFAULT_NAME)
    monkeypatch.setenv("EMACHECK_CACHE", str(tmp_path / "cache"))
    image = next((tmp_path / "cache").rglob("*_leftImg8bit.png"))
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    done = finished("run", *SHORT, "--work-dir", "changed", cwd=workshop)
    assert (done.returncode, image.name in done.stderr) == (2, True), done.stderr


def test_a_rewritten_reference_exits_2_and_an_unasked_one_is_not_touched(workshop, first_run, tmp_path):
    from emacheck.reference.making import write_bundle

    write_bundle(first_run[0], tmp_path / "store", name=SMOKE)
    refused = finished("reference", "make", "--iters", "1", "--into", tmp_path / "store", cwd=workshop)
    assert (refused.returncode, "exists already" in refused.stderr) == (2, True)
    rewritten = finished("reference", "make", "--iters", "1", "--into", tmp_path / "store", "--rewrite", cwd=workshop)
    assert (rewritten.returncode, "blesses itself" in rewritten.stderr) == (2, True), rewritten.stderr
    assert len(read_log(tmp_path / "store" / SMOKE).curves["loss"]) == 1


def test_more_iterations_than_the_reference_holds_are_refused(workshop):
    done = finished("run", "--iters", "99", "--work-dir", "more", "--reference", SMOKE, cwd=workshop)
    assert (done.returncode, "holds 3 iterations" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "gpu"], "expected one of cpu, cuda, sdaa, npu, mlu, musa, xpu, mps or auto"),
        (["--device", "cpu:"], "expected NAME or NAME:NUMBER"),
        (
            ["--precision", "tf32"],
            "--precision tf32: CPU (cpu) cannot be asked for it, expected one of fp32, bf16, fp16",
        ),
        (["--amp", "--precision", "fp16"], "--amp on cpu is --precision bf16"),
        (["--amp"], "in bf16 on this data set"),
        (["--device", "cuda", "--precision", "tf32"], "No CPU computes in tf32"),
        (["--device", "cuda", "--precision", "tf32", "--reference-device", "cpu"], "CPU does not compute in tf32"),
        (["--device", "musa", "--reference-device", "cpu"], "torch_musa, which is not installed here"),
        (["--nproc-per-node", "4", "--launcher", "none"], "expected one process"),
        (["--launcher", "slurm"], "found no SLURM_JOB_ID"),
        (["--config", "nowhere.py"], "no such file"),
        (["--preset", "smoke", "--config", "x.py"], "give one of the two"),
        (["--preset", "nonsense"], "cityscapes-r101"),
        (["--cfg-options", "no-equals-sign"], "expected KEY=VALUE"),
        (["--reference", "nowhere"], "Stored references: emanet_r50-d8_smoke/cpu-fp32"),
        (["--reference", "x", "--reference-device", "cpu"], "give one of the two"),
        (["--preset", "cityscapes"], "--reference-device cpu"),
        (["--data-root", "nowhere"], "nowhere"),
        (["--iters", "3", "--work-dir", "/proc/nowhere"], "cannot be written"),
        (["--iters", "0"], "--iters"),
        (["--limit", "bias=much"], "expected RULE=NUMBER"),
        (["--limit", "biass=0.1"], "there is no rule 'biass'"),
        (["--require", "biass"], "there is no rule 'biass'"),
        (["--limit", "bias.maximum=0.1"], "rule 'bias' has no limit 'maximum'"),
        (["--rule", "bias", "--limit", "finite=1"], "which is not among the rules in use (bias)"),
        (["--limit", "bias=-1"], "must be a number that is not negative"),
        (["--no-audit", "--audit-batches", "2"], "--no-audit and --audit-batches 2: give one of the two"),
        (["--audit-batches", "0"], "--audit-batches"),
    ],
)
def test_wrong_options_exit_2_at_once_and_say_what_is_right(workshop, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(workshop)
    assert invoke(["run", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_machine_without_torch_says_which_extra_to_install(workshop, monkeypatch, capsys):
    from emacheck.train import packages

    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    monkeypatch.chdir(workshop)
    assert invoke(["run", "--device", "cpu"]) == 2
    assert "pip install 'emacheck[train]'" in capsys.readouterr().err


def test_the_worker_refuses_and_says_why_when_started_by_hand(tmp_path):
    from emacheck.train.request import TrainingRequest

    TrainingRequest(preset=None, config=str(tmp_path / "nowhere.py")).write(tmp_path)
    command = [sys.executable, "-m", "emacheck.train.worker", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as worker:
        worker.wait(timeout=60)
    assert worker.returncode == 4
    assert "nowhere.py: no such configuration file" in (tmp_path / "refusal.txt").read_text(encoding="utf-8")


def test_every_preset_names_a_configuration_of_the_installed_mmsegmentation():
    from emacheck.train.presets import config_path
    from emacheck.train.request import PRESETS, TrainingRequest

    paths = {config_path(TrainingRequest(preset=preset, config=None)) for preset in PRESETS}
    assert len(paths) == 4
    assert all(Path(path).is_file() for path in paths)
