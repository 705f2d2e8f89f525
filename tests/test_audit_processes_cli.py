"""``emacheck audit --nproc-per-node`` as a user starts it: what is refused, who dies, and what is left."""

import contextlib
import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from conftest import SLIM, emacheck_process, free_port, wait_until

pytest.importorskip("torch")

# The device alone has tests of its own.
QUICK = ("--modules", "(optimizer)", "--no-end-to-end", "--batches", 1, "--threads", 1)
FEW_CHANNELS = ("--cfg-options", *SLIM)
TWO = ("--nproc-per-node", 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backend", "gloo"), "found one process"),
        (("--launcher", "none", *TWO), "expected one process"),
        (("--device", "cuda:1", *TWO), "found a number"),
        (("--device", "mps", *TWO), "no communication backend is known"),
        (("--nnodes", 2), "--node-rank"),
    ],
)
def test_options_that_contradict_each_other_are_refused_at_once(emacheck_cli, arguments, said):
    done = emacheck_cli("audit", *arguments)
    assert (done.code, said in done.err) == (2, True), done


# Inherited by whatever the tests start, so that nobody else's processes are taken for theirs.
MINE = f"EMACHECK_TESTS={os.getpid()}"


@pytest.fixture(autouse=True)
def _marked(monkeypatch):
    monkeypatch.setenv(*MINE.split("="))


def ranks():
    """Return the processes of these tests that audit as ranks, by rank."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command, variables = ((place / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            rank = next((int(each[5:]) for each in variables if each.startswith(b"RANK=")), None)
            if (
                b"emacheck.cli.audit.rank" in command
                and MINE.encode() in variables
                and rank is not None
                and os.getsid(int(place.name)) == int(place.name)
            ):
                found[rank] = int(place.name)
    return found


def wait_for_ranks(process):
    """Wait for both ranks of a command and return them."""
    deadline = time.monotonic() + 600
    while len(found := ranks()) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return found


def nothing_is_left():
    return wait_until(lambda: not ranks())


@pytest.mark.slow
@pytest.mark.training
def test_a_rank_that_is_killed_in_the_audit_of_a_run_is_named_and_nothing_is_left(tmp_path):
    process = emacheck_process(
        *("run", *TWO, "--threads", 1, "--iters", 3, "--reference-device", "cpu", "--work-dir", "run", *FEW_CHANNELS),
        cwd=tmp_path,
    )
    os.kill(wait_for_ranks(process)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert "rank 1 of 2 was ended by SIGKILL" in err
    assert err.rstrip().endswith("To train and judge without the audit: --no-audit.")
    assert "Training" not in err
    assert nothing_is_left()
    (kept,) = set(re.findall(r"is kept in (\S+)\.\n", err))
    assert (Path(kept) / "ranks").is_dir()
    assert not list(Path(kept).glob("*.pt"))


@pytest.mark.slow
@pytest.mark.training
def test_an_interrupted_audit_of_processes_leaves_no_process_and_no_file(tmp_path):
    """SIGTERM, as a job scheduler ends a command, is heeded like Ctrl-C."""
    (tmp_path / "scratch").mkdir()
    environment = {"TMPDIR": str(tmp_path / "scratch")}
    process = emacheck_process("audit", *TWO, *QUICK, *FEW_CHANNELS, cwd=tmp_path, env=environment)
    wait_for_ranks(process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "interrupted; there is no result of the audit" in err
    assert nothing_is_left()
    assert not list((tmp_path / "scratch").glob("emacheck-*"))


@pytest.mark.slow
@pytest.mark.training
def test_a_wrong_backend_is_refused_with_those_there_are(emacheck_cli):
    done = emacheck_cli("audit", *TWO, "--backend", "nonsense", *QUICK, *FEW_CHANNELS, timeout=600)
    assert done.code == 2, done
    assert "the communication backend nonsense does not serve cpu" in done.err
    assert nothing_is_left()


@pytest.mark.slow
@pytest.mark.training
def test_a_device_that_is_wrong_on_one_rank_fails_only_among_processes(emacheck_cli, simulated_device):
    """That a healthy one passes is tested with ``emacheck run``."""
    environment = simulated_device("scale _softmax by=1e-3 rank=1")
    done = emacheck_cli(
        "audit", "--device", "sdaa", *TWO, *QUICK, *FEW_CHANNELS, "--json", env=environment, timeout=600
    )
    result = json.loads(done.out)
    assert (done.code, result["outcome"], result["phase"]) == (1, "FAIL", "loss"), done
    failing = [row for row in result["tensors"] if not row["error"] <= row["limit"] * row["accepted"]]
    assert {row["level"] for row in failing} == {"processes"}
    assert nothing_is_left()


@pytest.mark.slow
@pytest.mark.training
def test_a_rank_whose_collective_hangs_ends_in_time_and_says_where(emacheck_cli, simulated_device):
    environment = simulated_device("hang tccl::allreduce rank=1 call=5")
    done = emacheck_cli(
        "audit", "--device", "sdaa", *TWO, *QUICK, *FEW_CHANNELS, "--timeout", 60, env=environment, timeout=900
    )
    assert done.code == 2, done
    assert "the audit of the processes hung: no new iteration for 60 s" in done.err
    assert nothing_is_left()


@pytest.mark.slow
@pytest.mark.training
def test_masks_that_belong_to_a_process_are_refused(emacheck_cli, tmp_path):
    """Functional dropout: no module whose masks could be drawn sample by sample."""
    (tmp_path / "lone.py").write_text(
        "import torch.nn.functional as F\n"
        "from mmseg.models import EncoderDecoder\n"
        "from mmseg.registry import MODELS\n"
        "@MODELS.register_module()\n"
        "class DroppingSegmentor(EncoderDecoder):\n"
        "    def extract_feat(self, inputs):\n"
        "        *others, last = super().extract_feat(inputs)\n"
        "        return (*others, F.dropout(last, 0.1, self.training))\n",
        encoding="utf-8",
    )
    from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
    from emacheck.train.presets import config_path
    from emacheck.train.request import TrainingRequest

    (tmp_path / "dropping.py").write_text(
        f"_base_ = ['{config_path(TrainingRequest(preset='cityscapes', config=None))}']\n"
        "custom_imports = dict(imports=['lone'])\n"
        "crop_size = (64, 64)\n"
        "model = dict(type='DroppingSegmentor', data_preprocessor=dict(size=crop_size))\n"
        "train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),\n"
        "                  dict(type='RandomCrop', crop_size=crop_size), dict(type='PackSegInputs')]\n"
        "train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,\n"
        "                        dataset=dict(pipeline=train_pipeline))\n",
        encoding="utf-8",
    )
    ensure_dataset(cache_root() / DEFAULT_NAME)
    options = ("--config", "dropping.py", "--data-root", cache_root() / DEFAULT_NAME)
    env = {"PYTHONPATH": str(tmp_path)}
    done = emacheck_cli("audit", *TWO, *QUICK, *options, *FEW_CHANNELS, env=env, timeout=600)
    assert done.code == 2, done
    assert "draws random numbers for the whole batch of a process" in done.err


@pytest.mark.slow
@pytest.mark.training
def test_an_audit_of_nodes_with_other_options_is_refused_on_both(tmp_path):
    """Two commands on this machine stand for two nodes."""
    port = free_port()
    there = ("--nnodes", 2, "--master-addr", "localhost", "--master-port", port)
    nodes = [
        emacheck_process(
            "audit", *there, "--node-rank", rank, "--precision", precision, *QUICK, *FEW_CHANNELS, cwd=tmp_path
        )
        for rank, precision in enumerate(("fp32", "bf16"))
    ]
    for node in nodes:
        _, err = node.communicate(timeout=300)
        assert node.returncode == 2, err
        assert f"node 1 ({socket.gethostname()}): precision: rank 0 'fp32', rank 1 'bf16'" in err
    assert nothing_is_left()
