"""``emacheck run`` with several real processes that break: what is said, and that nothing is left."""

import os
import signal
import socket
import time

import pytest
from conftest import SLIM, emacheck_process, finished
from several_processes import (
    ONE_EACH,
    SHORT,
    TWO,
    nothing_is_left_of,
    process_of_rank,
    processes_of,
    wait_for_iteration,
)

from emacheck.logs import read_log

pytestmark = pytest.mark.training


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_with_its_last_words(workshop):
    directory = workshop / "killed"
    long = ("--iters", 90, "--threads", 1, "--no-audit", "--reference-device", "cpu", "--reference-nproc", 2)
    process = emacheck_process("run", *long, *TWO, "--work-dir", directory, *ONE_EACH, *SLIM, cwd=workshop)
    wait_for_iteration(directory / "reference", 2, process)
    os.kill(process_of_rank(directory / "reference", 1), signal.SIGKILL)
    started = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert process.returncode == 2
    assert "rank 1 of 2 was ended by SIGKILL (often the system out of memory) after iteration" in err
    assert "the partial record is kept in" in err
    record = read_log(directory / "reference")
    assert (record.complete, record.ranks) == (False, 2)
    assert len(record.curves["loss"]) >= 2
    assert nothing_is_left_of(directory / "reference")


@pytest.mark.slow
def test_a_stopped_rank_is_named_and_nothing_is_left(workshop):
    # Starting two processes beside others takes up to half a minute, and counts.
    directory, patience = workshop / "stopped", 60
    long = (
        "--iters",
        90,
        "--threads",
        1,
        "--no-audit",
        "--reference-device",
        "cpu",
        "--reference-nproc",
        2,
        "--timeout",
        patience,
    )
    process = emacheck_process("run", *long, *TWO, "--work-dir", directory, *ONE_EACH, *SLIM, cwd=workshop)
    wait_for_iteration(directory / "reference", 1, process)
    os.kill(process_of_rank(directory / "reference", 1), signal.SIGSTOP)
    started = time.monotonic()
    _, err = process.communicate(timeout=180)
    assert time.monotonic() - started < patience + 30
    assert process.returncode == 2
    assert f"hung: no new iteration for {patience} s" in err
    assert "rank 1 is stopped, after iteration" in err, err
    assert "A slower device needs a longer --timeout." in err
    assert not read_log(directory / "reference").complete
    assert nothing_is_left_of(directory / "reference")
    # The other one was asked where it is, and said so: it waits for the one that is stopped.
    (log,) = (directory / "reference" / "ranks").glob("*/attempt_0/0/stderr.log")
    assert "File" in log.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interrupted twice", "killed outright"])
def test_no_stopped_rank_outlives_a_command_that_was(workshop, how):
    directory = workshop / f"stopped-{how.split()[0]}"
    long = ("--iters", 90, "--threads", 1, "--no-audit", "--reference-device", "cpu", "--reference-nproc", 2)
    process = emacheck_process("run", *long, *TWO, "--work-dir", directory, *ONE_EACH, *SLIM, cwd=workshop)
    wait_for_iteration(directory / "reference", 1, process)
    os.kill(process_of_rank(directory / "reference", 1), signal.SIGSTOP)
    if how == "interrupted twice":
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
    else:
        process.kill()
    _, err = process.communicate(timeout=60)
    assert err.count("emacheck: interrupted") == (how == "interrupted twice"), err
    assert nothing_is_left_of(directory / "reference")


@pytest.mark.slow
def test_no_rank_outlives_a_command_that_was_killed_outright(workshop):
    """Nor does a process that loads the data of one."""
    directory = workshop / "orphans"
    long = ("--iters", 90, "--threads", 1, "--no-audit", "--reference-device", "cpu", "--reference-nproc", 2)
    loading = (*ONE_EACH, *SLIM, "train_dataloader.num_workers=1")
    process = emacheck_process("run", *long, *TWO, "--work-dir", directory, *loading, cwd=workshop)
    wait_for_iteration(directory / "reference", 1, process)
    found = list(processes_of(directory / "reference").values())
    assert {rank: found.count(rank) for rank in (None, 0, 1)} == {None: 1, 0: 2, 1: 2}
    process.kill()
    process.communicate(timeout=60)
    assert nothing_is_left_of(directory / "reference")


@pytest.mark.slow
def test_a_port_in_use_is_named_with_the_way_to_another(workshop):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        there = ("--master-addr", "localhost", "--master-port", port, "--work-dir", "port")
        done = finished("run", *SHORT, *TWO, *there, *ONE_EACH, cwd=workshop)
    assert done.returncode == 2
    assert f"port {port} is in use on this machine" in done.stderr
    assert f"--master-port {port + 1}" in done.stderr
    assert nothing_is_left_of("port")


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "said"), [("nccl", "does not serve cpu"), ("nonsense", "it is not there")])
def test_a_wrong_backend_is_refused_with_those_there_are(workshop, backend, said):
    directory = workshop / f"backend-{backend}"
    done = finished("run", *SHORT, *TWO, "--backend", backend, "--work-dir", directory, *ONE_EACH, cwd=workshop)
    assert done.returncode == 2
    assert f"the communication backend {backend}" in done.stderr
    assert said in done.stderr
    assert "gloo" in done.stderr
    assert nothing_is_left_of(directory)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", pytest.param("after", marks=pytest.mark.slow)])
def test_ranks_that_are_not_equal_are_an_error_that_names_the_rank(workshop, moment, monkeypatch):
    """A rank draws other weights, or its bases drift away from the others' in the last iteration."""
    (workshop / "uneven.py").write_text(
        "import os\n"
        "from mmengine.hooks import Hook\n"
        "from mmengine.registry import HOOKS\n"
        "from mmseg.models import EncoderDecoder\n"
        "from mmseg.registry import MODELS\n"
        "OFF = 0.5 * (os.environ.get('RANK') == '1')\n"
        "@MODELS.register_module()\n"
        "class UnevenSegmentor(EncoderDecoder):\n"
        "    def init_weights(self):\n"
        "        super().init_weights()\n"
        "        self.decode_head.conv_seg.bias.data += OFF\n"
        "@HOOKS.register_module()\n"
        "class UnevenHook(Hook):\n"
        "    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):\n"
        "        runner.model.module.decode_head.ema_module.bases[0, 3, 5] += OFF\n",
        encoding="utf-8",
    )
    from emacheck.train.presets import config_path
    from emacheck.train.request import TrainingRequest

    where = {"before": "model.update(type='UnevenSegmentor')", "after": "custom_hooks = [dict(type='UnevenHook')]"}
    (workshop / f"uneven-{moment}.py").write_text(
        f"_base_ = ['{config_path(TrainingRequest(preset='cityscapes', config=None))}']\n"
        "custom_imports = dict(imports=['uneven'])\n"
        "crop_size = (64, 64)\n"
        "model = dict(data_preprocessor=dict(size=crop_size))\n"
        "train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),\n"
        "                  dict(type='RandomCrop', crop_size=crop_size), dict(type='PackSegInputs')]\n"
        "train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,\n"
        "                        dataset=dict(pipeline=train_pipeline))\n"
        f"{where[moment]}\n",
        encoding="utf-8",
    )
    data = workshop / "cache" / "synthetic-cityscapes-v1"
    monkeypatch.setenv("PYTHONPATH", str(workshop))
    done = finished(
        *("run", "--config", workshop / f"uneven-{moment}.py", *SHORT, *TWO, "--data-root", data),
        *("--reference-device", "cpu", "--reference-nproc", 2, "--work-dir", f"uneven-{moment}"),
        cwd=workshop,
    )
    tensor = {"before": "decode_head.conv_seg.bias", "after": "decode_head.ema_module.bases"}[moment]
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"not equal {moment} training: rank 1 differs from rank 0 in 1 of" in done.stderr
    assert f"tensors: {tensor}" in done.stderr
    assert not list((workshop / f"uneven-{moment}" / "reference").glob("iterations*")) or moment == "after"
    assert nothing_is_left_of(workshop / f"uneven-{moment}" / "reference")


@pytest.mark.slow
def test_a_rank_whose_device_hangs_says_where(workshop, simulated_device):
    directory, hanging = workshop / "sdaa-hangs", simulated_device("hang _softmax call=5 rank=1")
    there = ("--device", "sdaa", "--timeout", 60, "--work-dir", directory)
    done = finished("run", *SHORT, *TWO, *there, *ONE_EACH, *SLIM, cwd=workshop, env=hanging)
    assert done.returncode == 2
    assert "hung: no new iteration for 60 s" in done.stderr
    # Three calls an iteration: both ranks are in the second one, and the one that hangs shows its operator.
    assert "ema_head.py" in done.stderr
    assert nothing_is_left_of(directory)
