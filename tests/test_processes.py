"""Several processes: what is decided before they start, what they write, and how their records are read."""

import json
import os
import socket
from pathlib import Path

import pytest
from conftest import ROOT

from emacheck.errors import LogError, UsageError
from emacheck.experiment import differences
from emacheck.judge import Outcome, decide
from emacheck.judge.comparison import compare
from emacheck.logs import read_log
from emacheck.oddity import OddityKind
from emacheck.rank_files import rank_file
from emacheck.record import hash_of_samples
from emacheck.train.launching.planning import plan_processes
from emacheck.train.launching.processes import Processes, work_dir_of_node
from emacheck.train.request import TrainingRequest

RUN = Path("run")
# What a real Slurm gave each task; the file says how the tasks were started.
UNDER_SLURM = json.loads((ROOT / "tests" / "slurm" / "environments.json").read_text(encoding="utf-8"))["environments"]
SLURM, SBATCH = UNDER_SLURM["srun.1"], UNDER_SLURM["sbatch.0"]


def without(variables, name):
    return {key: value for key, value in variables.items() if key != name}


def arguments(environment=None, **options):
    return plan_processes(environment=environment or {}, **options).launcher_arguments(RUN)


def test_one_process_needs_no_launcher():
    assert plan_processes(environment={}) == Processes()
    assert plan_processes(nproc_per_node=1, nnodes=1, environment={}).launched is False
    assert plan_processes(nproc_per_node=1, launcher="pytorch", environment={}).launched is True


def test_several_processes_on_one_node_meet_on_any_free_port():
    made = arguments(nproc_per_node=2)
    assert {"--nproc-per-node=2", "--nnodes=1", "--standalone", "--max-restarts=0"} <= set(made)
    assert "--log-dir=run/ranks" in made


def test_nodes_meet_at_the_address_of_node_0():
    made = arguments(nnodes=2, node_rank=1, master_addr="n0", nproc_per_node=4)
    assert {"--nnodes=2", "--node-rank=1", "--master-addr=n0", "--master-port=29500"} <= set(made)
    assert plan_processes(nnodes=2, node_rank=1, master_addr="n0", nproc_per_node=4, environment={}).world_size == 8


def test_a_chosen_port_is_used_on_one_node():
    assert {"--master-addr=localhost", "--master-port=1234"} <= set(arguments(nproc_per_node=2, master_port=1234))


def test_a_rendezvous_takes_the_place_of_an_address():
    made = arguments(nnodes=2, rdzv_endpoint="n0:1")
    assert {"--rdzv-backend=c10d", "--rdzv-endpoint=n0:1"} <= set(made)
    assert not [argument for argument in made if argument.startswith("--node-rank")]


def test_only_nodes_of_the_same_job_meet_at_a_rendezvous():
    def identity(nnodes=2, **options):
        request = TrainingRequest(**{"preset": "smoke", "config": None, **options})
        there = Processes(launched=True, nnodes=nnodes, node_rank=None, rdzv_endpoint="n0:1")
        return next(each for each in there.launcher_arguments(RUN, request.in_common()) if "--rdzv-id=" in each)

    same = {"data_root": "/there", "git_commit": "1", "must_match": ({"seed": 0},), "cfg_options": ("data_root=/x",)}
    assert identity() == identity(**same)
    others = [{"seed": 1}, {"precision": "bf16"}, {"iterations": 3}, {"cfg_options": ("a=1",)}, {"device": "sdaa"}]
    assert len({identity(), identity(nnodes=3), *(identity(**other) for other in others)}) == 2 + len(others)
    assert identity(device="sdaa:1") == identity(device="sdaa")


def test_equal_jobs_at_a_rendezvous_are_told_apart_by_a_name():
    def identity(environment=None, **options):
        made = arguments(environment, nnodes=2, rdzv_endpoint="n0:1", **options)
        return next(each for each in made if "--rdzv-id=" in each)

    def of_job(number, **options):
        return identity({**SLURM, "SLURM_JOB_ID": number}, launcher="slurm", **options)

    assert identity(rdzv_id="1") == identity(rdzv_id="1")
    assert len({identity(), identity(rdzv_id="1"), identity(rdzv_id="2")}) == 3
    assert of_job("7") == of_job("7") == of_job("8", rdzv_id="7.0") != of_job("8")
    assert identity(rdzv_id="1") == identity(rdzv_id="1", nproc_per_node=2) != identity(nproc_per_node=2)
    assert identity({**SLURM, "SLURM_STEP_ID": "1"}, launcher="slurm") != identity(SLURM, launcher="slurm")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("n0:1", "n0:1"),
        ("10.0.0.1", "10.0.0.1:29400"),
        ("[fd00::1]:65535", "[fd00::1]:65535"),
        ("[::1]", "[::1]:29400"),
    ],
)
def test_a_rendezvous_without_a_port_has_that_of_torch(given, taken):
    assert plan_processes(nnodes=2, rdzv_endpoint=given, environment={}).rdzv_endpoint == taken


@pytest.mark.parametrize(
    "given",
    ["", " ", ":1", "localhost:abc", "localhost:", "localhost:99999", "localhost:0", "fd00::1", "a b:1", "a:1:2"],
)
def test_an_address_that_is_no_rendezvous_is_refused(given):
    with pytest.raises(UsageError, match="expected HOST:PORT with a port from 1 to 65535"):
        plan_processes(nnodes=2, rdzv_endpoint=given, environment={})


@pytest.mark.parametrize(
    ("task", "node"),
    [
        *(("srun.0", 0), ("srun.1", 1), ("sbatch_srun.0", 0), ("sbatch_srun.1", 1), ("het.0", 0), ("het.1", 1)),
        # Tasks are numbered as they were spread, nodes as they stand in the list.
        *(("srun_arbitrary.0", 1), ("srun_arbitrary.1", 0)),
    ],
)
def test_slurm_says_which_node_this_is(task, node):
    made = arguments(UNDER_SLURM[task], launcher="slurm", nproc_per_node=4)
    assert {"--nnodes=2", f"--node-rank={node}", "--master-addr=node1", "--nproc-per-node=4"} <= set(made)


def test_what_a_batch_script_has_chosen_comes_before_what_slurm_says():
    named = arguments({**SLURM, "MASTER_ADDR": "m", "MASTER_PORT": "5"}, launcher="slurm")
    assert {"--master-addr=m", "--master-port=5"} <= set(named)
    assert "--master-port=6" in arguments({**SLURM, "MASTER_PORT": "5"}, launcher="slurm", master_port=6)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("a7,b2", "a7"),
        ("node[1-2]", "node1"),
        ("node[08,10-16],other", "node08"),
        ("rack[0-1]n[03-04],x[7,9]", "rack0n03"),
        ("n[1-2].cluster", "n1.cluster"),
        ("gpu-a[003-004]-ib", "gpu-a003-ib"),
    ],
)
def test_the_first_host_of_a_list_is_known_without_slurms_programs(names, first, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert f"--master-addr={first}" in arguments({**SLURM, "SLURM_STEP_NODELIST": names}, launcher="slurm")


def test_every_step_under_slurm_has_a_port_and_a_name_of_its_own():
    def of_step(job, step):
        made = arguments({**SLURM, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}, launcher="slurm")
        return [each for each in made if each.startswith(("--master-port=", "--rdzv-id="))]

    assert of_step(21, 3) == ["--master-port=29713", "--rdzv-id=emacheck-21.3"]
    ports = {of_step(job, step)[0] for job in range(67_000_000, 67_000_300) for step in range(10)}
    assert ports == {f"--master-port={port}" for port in range(29500, 32500)}
    assert not [each for each in arguments(nnodes=2, node_rank=0, master_addr="n0") if "--rdzv-id" in each]


@pytest.mark.parametrize("task", ["sbatch_one_node.0", "sbatch_srun_one_node.0", "array.0", "array_srun.0"])
def test_slurm_on_one_node_needs_no_address(task):
    assert "--standalone" in arguments(UNDER_SLURM[task], launcher="slurm", nproc_per_node=2)


def test_one_node_of_a_job_of_several_is_used_alone_if_told_so():
    for task in ("sbatch.0", "salloc", "salloc_interactive.0"):
        assert "--standalone" in arguments(UNDER_SLURM[task], launcher="slurm", nproc_per_node=2, nnodes=1)


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        ({"launcher": "none", "nproc_per_node": 2}, {}, "expected one process"),
        ({"nnodes": 2}, {}, "found no --node-rank and no --master-addr"),
        ({"nnodes": 2, "node_rank": 0}, {}, "found a --node-rank and no --master-addr"),
        ({"nnodes": 2, "node_rank": 2, "master_addr": "a"}, {}, "expected 0 to 1"),
        ({"rdzv_endpoint": "a:1", "master_port": 1}, {}, "Give either"),
        ({"rdzv_id": "a", "nnodes": 2}, {}, "--rdzv-id a: found no --rdzv-endpoint"),
        ({}, {"RANK": "1", "WORLD_SIZE": "4"}, "emacheck calls torchrun itself"),
        ({"nproc_per_node": 4, "launcher": "pytorch"}, {"RANK": "0", "WORLD_SIZE": "4"}, "Start it once for each node"),
        ({}, SLURM, "srun has started emacheck several times"),
        ({"launcher": "slurm"}, {}, "found no SLURM_JOB_ID"),
        (
            {"launcher": "slurm"},
            UNDER_SLURM["srun_four_tasks.3"],
            "--nodes=2 --ntasks-per-node=1 .*-node 2 ",
        ),
        ({"launcher": "slurm"}, UNDER_SLURM["srun_two_tasks_one_node.0"], "--nodes=1 --ntasks-per-node=1"),
        ({"launcher": "slurm"}, {**SLURM, "SLURM_STEP_NUM_NODES": "two"}, "SLURM_STEP_NUM_NODES=two"),
        ({"launcher": "slurm"}, {**SLURM, "SLURM_STEP_NODELIST": "node[1-"}, "--master-addr HOST"),
        ({"launcher": "slurm"}, SBATCH, "Start it with srun: srun --nodes=2"),
        ({"launcher": "slurm"}, UNDER_SLURM["salloc"], "Start it with srun: srun --nodes=2"),
        ({"launcher": "slurm"}, UNDER_SLURM["salloc_interactive.0"], "Start it with srun: srun --nodes=2"),
        ({"launcher": "slurm", "nnodes": 2}, UNDER_SLURM["salloc_interactive.0"], "Start it with srun: srun --nodes=2"),
        ({"launcher": "slurm", "nnodes": 2}, SBATCH, "Start it with srun: srun --nodes=2"),
        ({"launcher": "slurm", "rdzv_endpoint": "a:1"}, SBATCH, "Start it with srun: srun --nodes=2"),
        ({"launcher": "slurm"}, without(SLURM, "SLURM_NODEID"), "no SLURM_NODEID"),
        ({"launcher": "slurm"}, {**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, "found 1 tasks on 2 nodes"),
        ({"launcher": "slurm"}, {**SLURM, "MASTER_ADDR": "m", "MASTER_PORT": "99999"}, "from 1 to 65535"),
        ({"launcher": "slurm"}, {**SLURM, "MASTER_ADDR": "m", "MASTER_PORT": "0"}, "from 1 to 65535"),
        ({"launcher": "slurm"}, {**SLURM, "SLURM_STEP_NUM_NODES": "9" * 5000}, "from 1 to"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(options, environment, said):
    with pytest.raises(UsageError, match=said):
        plan_processes(environment=environment, **options)


def test_what_others_left_in_the_environment_of_one_process_does_not_matter():
    assert plan_processes(environment={"RANK": "0", "WORLD_SIZE": "1"}) == Processes()
    assert plan_processes(environment={"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == Processes()


def test_every_node_writes_into_a_directory_of_its_own():
    first, second = (Processes(launched=True, nnodes=2, node_rank=rank, master_addr="a") for rank in (0, 1))
    assert work_dir_of_node(Path("x/out"), first) == Path("x/out")
    assert work_dir_of_node(Path("x/out"), second) == Path("x/out-node1")
    assert work_dir_of_node(Path(), second) == Path.cwd().with_name(f"{Path.cwd().name}-node1")


def test_nodes_that_a_rendezvous_numbers_are_told_apart_by_host_and_process(monkeypatch):
    somewhere = Processes(launched=True, nnodes=2, node_rank=None, rdzv_endpoint="a:1")
    monkeypatch.setattr(socket, "gethostname", lambda: "n/0 é.x")
    assert work_dir_of_node(Path("x/out"), somewhere) == Path(f"x/out-n_0__.x-{os.getpid()}")
    alone = Processes(launched=True, nproc_per_node=2, node_rank=None, rdzv_endpoint="a:1")
    assert work_dir_of_node(Path("x/out"), alone) == Path("x/out")


def experiment(processes, batch_size, **config):
    return {"processes": processes, "config": {"train_dataloader.batch_size": batch_size, **config}, "seed": 0}


def test_processes_that_part_the_same_batch_are_the_same_experiment():
    assert differences(experiment(1, 4), experiment(2, 2)) == []
    assert differences(experiment(4, 1), experiment(2, 2)) == []


def test_processes_that_train_on_more_samples_are_another_experiment():
    (line,) = differences(experiment(1, 4), experiment(2, 4))
    assert line == (
        "joined batch: reference 4 (1 process x 4), candidate 8 (2 processes x 4); "
        "train_dataloader.batch_size=2 would fit"
    )
    (line,) = differences(experiment(1, 2), experiment(3, 2))
    assert line == (
        "joined batch: reference 2 (1 process x 2), candidate 6 (3 processes x 2); "
        "only --reference-device trains a fitting one"
    )
    assert differences(experiment(1, 2), experiment(1, 4)) == ["train_dataloader.batch_size: reference 2, candidate 4"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.backbone.norm_cfg.type", "BN"),
        ("model.decode_head.loss_decode.avg_non_ignore", True),
        ("model.decode_head.loss_decode.class_weight.0", 0.5),
        ("model.decode_head.sampler.type", "OHEMPixelSampler"),
    ],
)
def test_what_depends_on_how_the_batch_is_parted_is_named(key, value):
    config = {key: value}
    (line,) = differences(experiment(1, 4, **config), experiment(2, 2, **config))
    assert line.startswith(f"{key}: ")
    assert differences(experiment(2, 2, **config), experiment(2, 2, **config)) == []


def write_run(folder, ranks, *, processes=None, iterations=2):
    """Write a run directory: for each rank a list of loss and samples per iteration."""
    folder.mkdir()
    for rank, rows in ranks.items():
        lines = [
            {"iteration": at, "batch": hash_of_samples(samples), "samples": samples, "metrics": {"loss": loss}}
            for at, (loss, samples) in enumerate(rows, 1)
        ]
        (folder / rank_file(rank)).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    header = {
        "format_version": 1,
        "complete": True,
        "iterations": iterations,
        "initial_state": "s",
        "provenance": {"experiment": {"processes": processes or len(ranks)}},
    }
    (folder / "run.json").write_text(json.dumps(header), encoding="utf-8")
    return folder


@pytest.fixture
def parted(tmp_path):
    """Two ranks of two samples each, and one process that saw the same samples joined."""
    ranks = {
        0: [(1.0, ["a", "c"]), (3.0, ["e", "g"])],
        1: [(2.0, ["b", "d"]), (5.0, ["f", "h"])],
    }
    joined = {0: [(1.5, ["a", "b", "c", "d"]), (4.0, ["e", "f", "g", "h"])]}
    return write_run(tmp_path / "ranks", ranks), write_run(tmp_path / "joined", joined)


def test_ranks_are_averaged_and_one_can_be_picked(parted):
    record = read_log(parted[0])
    assert record.curves["loss"].values.tolist() == [1.5, 4.0]
    assert (record.ranks, record.complete) == (2, True)
    assert [each.kind for each in record.oddities] == [OddityKind.RANKS]
    assert read_log(parted[0], rank=1).curves["loss"].values.tolist() == [2.0, 5.0]
    with pytest.raises(LogError, match="expected rank 2"):
        read_log(parted[0], rank=2)


def test_the_samples_of_all_ranks_are_the_joined_batch(parted):
    ranks, joined = map(read_log, parted)
    assert ranks.batches == joined.batches
    assert compare(joined, ranks).paired is True
    assert compare(joined, read_log(parted[0], rank=0)).paired is False


def test_ranks_in_another_order_are_not_the_joined_batch(tmp_path, parted):
    swapped = {0: [(1.0, ["b", "d"]), (3.0, ["f", "h"])], 1: [(2.0, ["a", "c"]), (5.0, ["e", "g"])]}
    other = read_log(write_run(tmp_path / "swapped", swapped))
    assert compare(read_log(parted[1]), other).paired is False


def test_a_rank_that_ended_early_is_averaged_where_all_are_and_the_record_is_incomplete(tmp_path):
    ranks = {0: [(1.0, ["a"]), (3.0, ["c"])], 1: [(2.0, ["b"])]}
    record = read_log(write_run(tmp_path / "short", ranks))
    assert record.curves["loss"].values.tolist() == [1.5]
    assert record.complete is False
    assert any("iterations.rank1.jsonl holds 1" in str(each) for each in record.oddities)
    assert OddityKind.RANKS_LACKING in {each.kind for each in record.oddities}


def test_a_rank_whose_file_is_missing_makes_the_record_incomplete(tmp_path):
    record = read_log(write_run(tmp_path / "missing", {0: [(1.0, ["a"])]}, processes=2, iterations=1))
    assert record.complete is False
    assert any("found the iterations of rank 0, expected those of 2 processes" in str(each) for each in record.oddities)


def partial_of_node_1(tmp_path, count):
    """What the second of two nodes holds when the first is gone: the iterations of rank 1, and no description."""
    rows = [(4.0 - 0.1 * at, [f"b{at}"]) for at in range(count)]
    folder = write_run(tmp_path / "node1", {1: rows}, iterations=count)
    (folder / "run.json").unlink()
    return folder


def test_the_directory_of_a_node_without_rank_0_is_read_as_incomplete(tmp_path):
    folder = partial_of_node_1(tmp_path, 3)
    record = read_log(folder)
    assert record.curves["loss"].values.tolist() == [4.0, 3.9, 3.8]
    assert (record.complete, record.batches) == (False, ())
    (missing,) = (each for each in record.oddities if each.kind is OddityKind.RANKS_MISSING)
    assert "found the iterations of rank 1, expected those of 2 processes" in missing.message
    picked = read_log(folder, rank=1)
    assert (picked.complete, len(picked.batches)) == (False, 3)


def test_a_record_that_lacks_a_rank_never_passes(tmp_path):
    record = read_log(partial_of_node_1(tmp_path, 30))
    assert decide(compare(record, record)).outcome is Outcome.INCONCLUSIVE


def test_a_directory_without_the_iterations_of_any_rank_is_no_run(tmp_path):
    (tmp_path / "iterations.rank01.jsonl").touch()
    with pytest.raises(LogError, match="this is no run directory"):
        read_log(tmp_path)


def test_a_stored_reference_keeps_every_rank(tmp_path, parted):
    from emacheck.reference.making import write_bundle
    from emacheck.reference.stored import find_bundle

    write_bundle(parted[0], tmp_path / "store", name="x/cpu-fp32")
    assert find_bundle(str(tmp_path / "store" / "x" / "cpu-fp32")).record.ranks == 2
