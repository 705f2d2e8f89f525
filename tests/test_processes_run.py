"""``emacheck run`` with several real processes of the real EMANet: what agrees, what breaks, and what is left then."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import emacheck_process, wait_for_iterations

from emacheck.logs import read_log

pytestmark = pytest.mark.training
ITERATIONS = 3
SHORT = ("--iters", ITERATIONS, "--limit", f"coverage.minimum={ITERATIONS}", "--threads", 1, "--no-audit")
TWO = ("--nproc-per-node", 2)
# The joined batch of the smoke preset is two images.
ONE_EACH = ("--cfg-options", "train_dataloader.batch_size=1")
AUDITED = ("--audit", "--audit-batches", 1)


def finished(*arguments, cwd, env=None, timeout=240):
    process = emacheck_process(*arguments, cwd=cwd, env=env)
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in re.sub(r"^  \| .*$", "", err, flags=re.MULTILINE), err
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def processes_of(run_directory):
    """Return every process whose command line names a run directory, with the rank it was given."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command, variables = ((place / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            if os.fsencode(run_directory) in command and b"emacheck.train.worker" in command:
                found[int(place.name)] = next((int(each[5:]) for each in variables if each.startswith(b"RANK=")), None)
    return found


def nothing_is_left_of(run_directory):
    deadline = time.monotonic() + 30
    while processes_of(run_directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes_of(run_directory) == {}


def wait_for_iteration(run_directory, count, process, name="iterations.rank1.jsonl"):
    wait_for_iterations(run_directory / name, count, process)


def process_of_rank(run_directory, rank):
    """Return the process that trains as a rank; those that load its data are in its session."""
    ranks = processes_of(run_directory)
    (found,) = (process for process in ranks if ranks[process] == rank and os.getsid(process) == process)
    return found


def audited_tensors(run_directory):
    return json.loads((run_directory / "audit.json").read_text(encoding="utf-8"))["tensors"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A directory with a cache and a stored reference of one process."""
    place = tmp_path_factory.mktemp("processes")
    os.environ["EMACHECK_CACHE"] = str(place / "cache")
    os.environ["EMACHECK_REFERENCES"] = str(place / "references")
    done = finished(
        *("reference", "make", "--iters", ITERATIONS, "--threads", 1, "--into", place / "references"),
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    yield place
    del os.environ["EMACHECK_CACHE"], os.environ["EMACHECK_REFERENCES"]


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
def test_two_processes_pass_against_a_stored_reference_of_one_and_are_audited(workshop):
    done = finished("run", *SHORT, *TWO, *AUDITED, "--work-dir", "stored", *ONE_EACH, cwd=workshop, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workshop / "stored" / "report.json").read_text(encoding="utf-8"))
    assert (report["evidence"], report["audit"]["ranks"]) == (["curve", "audit"], ["cpu", "cpu"])
    assert {tensor["level"] for tensor in audited_tensors(workshop / "stored")} == {
        "isolated",
        "evaluation",
        "end to end",
        "processes",
    }
    assert "on cpu and of 2 processes on cpu are within their limits" in done.stderr


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
    done = finished("run", *SHORT, *TWO, *live, "--work-dir", "same", *plain, cwd=workshop)
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
        *("--cfg-options", f"train_dataloader.dataset.data_root={data}"),
        *("--iters", 2, "--threads", 1, "--limit", "coverage.minimum=2", "--no-audit", "--reference-device", "cpu"),
        *("--work-dir", "old"),
        cwd=workshop,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_log(workshop / "old").ranks == 2


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_with_its_last_words(workshop):
    directory = workshop / "killed"
    long = ("--iters", 90, "--threads", 1, "--no-audit", "--reference-device", "cpu", "--reference-nproc", 2)
    process = emacheck_process("run", *long, *TWO, "--work-dir", directory, *ONE_EACH, cwd=workshop)
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
    process = emacheck_process("run", *long, *TWO, "--work-dir", directory, *ONE_EACH, cwd=workshop)
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
    process = emacheck_process("run", *long, *TWO, "--work-dir", directory, *ONE_EACH, cwd=workshop)
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
    loading = (*ONE_EACH, "train_dataloader.num_workers=1")
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
# A sum of gradients that is off by 1e-5: no rule of the curves sees it here, and no audit of one process can.
@pytest.mark.parametrize("fault", [None, "scale tccl::allreduce by=1e-5"])
def test_two_processes_on_the_simulated_device_pass_unless_what_they_exchange_is_wrong(
    workshop, simulated_device, fault
):
    """Its backend is tccl, and its SyncBatchNorm is torch's own."""
    directory, env = workshop / f"sdaa-{bool(fault)}", simulated_device(*([fault] if fault else []))
    there = ("--device", "sdaa", "--work-dir", directory)
    done = finished("run", *SHORT, *TWO, *AUDITED, *there, *ONE_EACH, cwd=workshop, env=env, timeout=600)
    assert done.returncode == (1 if fault else 0), done.stdout + done.stderr
    record = read_log(directory)
    assert (record.ranks, record.provenance["device"]["type"]) == (2, "sdaa")
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    assert (report["paired"], report["audit"]["ranks"]) == (True, ["sdaa:0", "sdaa:1"])
    audit, *others = report["findings"]
    assert (audit["outcome"], {other["outcome"] for other in others}) == ("FAIL" if fault else "PASS", {"PASS"})
    wrong = {tensor["level"] for tensor in audited_tensors(directory) if tensor["ratio"] > tensor["limit"]}
    assert wrong == ({"processes"} if fault else set())
    if fault:
        assert audit["module"] == "(processes)"
        assert "between the processes: the all-reduced gradients are not the mean" in audit["message"]
    assert nothing_is_left_of(directory)


@pytest.mark.slow
def test_a_rank_whose_device_hangs_says_where(workshop, simulated_device):
    directory, hanging = workshop / "sdaa-hangs", simulated_device("hang _softmax call=5 rank=1")
    there = ("--device", "sdaa", "--timeout", 60, "--work-dir", directory)
    done = finished("run", *SHORT, *TWO, *there, *ONE_EACH, cwd=workshop, env=hanging)
    assert done.returncode == 2
    assert "hung: no new iteration for 60 s" in done.stderr
    # Three calls an iteration: both ranks are in the second one, and the one that hangs shows its operator.
    assert "ema_head.py" in done.stderr
    assert nothing_is_left_of(directory)


@pytest.mark.slow
def test_two_nodes_train_together_and_the_first_one_judges(workshop):
    """Two commands on this machine stand for two nodes; the audit comes after the training, where rank 0 ran."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    there = ("--nnodes", 2, "--master-addr", "localhost", "--master-port", port, "--work-dir", workshop / "nodes")
    live = ("--reference-device", "cpu", "--log-format", "tcap", *AUDITED)
    nodes = [
        emacheck_process("run", *SHORT, *there, "--node-rank", rank, *live, *ONE_EACH, cwd=workshop) for rank in (0, 1)
    ]
    (out, err), (other, other_err) = (node.communicate(timeout=480) for node in nodes)
    assert [node.returncode for node in nodes] == [0, 0], out + err
    assert "PASS" in out
    assert "rank 0 ran" in other
    report = json.loads((workshop / "nodes" / "report.json").read_text(encoding="utf-8"))
    assert report["evidence"] == ["curve", "audit"]
    assert report["audit"]["notes"][-1].startswith("of 2 nodes, only that of rank 0 was audited, with one process")
    assert "Auditing" in err
    assert err.index("Auditing") > err.index("Training")
    assert "Auditing" not in other_err
    assert read_log(workshop / "nodes").ranks == 2
    assert (workshop / "nodes-node1" / "iterations.rank1.jsonl").is_file()
    tcap, record = read_log(workshop / "nodes" / "cpu.log"), read_log(workshop / "nodes")
    assert (tcap.ranks, tcap.curves["loss"].values.tolist()) == (2, record.curves["loss"].values.tolist())


@pytest.mark.slow
def test_nodes_of_a_rendezvous_share_the_directory_that_the_user_names(workshop):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    there = ("--nnodes", 2, "--rdzv-endpoint", f"localhost:{port}", "--work-dir", workshop / "met")
    nodes = [
        emacheck_process("run", *SHORT, *there, "--reference-device", "cpu", *ONE_EACH, cwd=workshop) for _ in range(2)
    ]
    said = [node.communicate(timeout=240) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sorted("PASS" in out for out, _ in said) == [False, True]
    directories = sorted(workshop.glob(f"met-{socket.gethostname()}-*"))
    assert sorted(read_log(directory).ranks for directory in directories) == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "said"),
    [
        (("optim_wrapper.optimizer.lr=0.02",), "node 1: optim_wrapper.optimizer.lr: rank 0 0.01, rank 1 0.02"),
        (("--precision", "bf16", "--threads", 2), "node 1: precision: rank 0 'fp32', rank 1 'bf16'"),
        (("--seed", 1, "--log-format", "tcap"), "node 1: log format: rank 0 None, rank 1 'tcap'"),
        (("--device", "sdaa"), "node 1: device: rank 0 'cpu', rank 1 'sdaa'"),
    ],
)
def test_other_options_on_one_node_are_refused_on_both(workshop, simulated_device, other, said):
    """Two commands on this machine stand for two nodes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = workshop / f"other-{port}"
    there = ("--nnodes", 2, "--master-addr", "localhost", "--master-port", port, "--work-dir", place)
    options = (*SHORT, *there, "--reference-device", "cpu", *ONE_EACH)
    nodes = [
        emacheck_process("run", *options, *more, "--node-rank", rank, cwd=workshop, env=simulated_device())
        for rank, more in enumerate(((), other))
    ]
    for node in nodes:
        _, err = node.communicate(timeout=120)
        assert (node.returncode, said in err) == (2, True), err
        assert "Give the same options" in err
    assert not list(workshop.glob(f"other-{port}*"))


def test_started_by_torchrun_it_says_that_it_starts_the_processes_itself(workshop):
    done = finished("run", *SHORT, cwd=workshop, env={"RANK": "1", "WORLD_SIZE": "4"}, timeout=30)
    assert (done.returncode, "emacheck calls torchrun itself" in done.stderr) == (2, True), done.stderr
