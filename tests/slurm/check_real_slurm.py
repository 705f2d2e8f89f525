"""``emacheck run --launcher slurm`` under a real Slurm, on this machine: ``make test-slurm``.

Not part of continuous integration: it needs root, network namespaces and Debian's packages slurm-wlm and munge.
"""

import subprocess
import sys

import pytest
from conftest import ROOT, SLIM, wait_for_iterations
from private_cluster import PrivateCluster, what_lacks
from several_processes import ONE_EACH, SHORT, nothing_is_left_of

LIVE = ("--device", "cpu", "--reference-device", "cpu")
LONG = ("--iters", 10_000, "--threads", 1, "--no-audit")
ONE_ON_EACH = ("srun", "--nodes=2", "--ntasks-per-node=1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if (lacking := what_lacks()) is not None:
        pytest.skip(lacking)
    with PrivateCluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def start(cluster, tmp_path):
    """Start a command of Slurm on the login node, with ``emacheck run --launcher slurm`` and its options behind it."""
    started = []

    def start(command, *options, **variables):
        own = {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", **variables}
        run = (sys.executable, "-m", "emacheck", "run", "--launcher", "slurm", *LIVE, *options, *ONE_EACH, *SLIM)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(cluster.start("login", *command, *run, cwd=tmp_path, env=own, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_two_nodes_train_together_and_srun_ends_with_the_verdict_of_node_0(start, tmp_path):
    process = start(ONE_ON_EACH, *SHORT, "--nproc-per-node", 2, "--work-dir", "out")
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 0, out
    assert out.count("\nPASS first_iterations") == 1
    assert out.count("This node has done its part of the training (out-node1)") == 1
    assert sorted(path.name for path in tmp_path.glob("out/iterations*")) == [
        "iterations.jsonl",
        *(f"iterations.rank{rank}.jsonl" for rank in (1, 2, 3)),
    ]


def test_a_failing_verdict_is_the_exit_code_of_srun(start):
    process = start(ONE_ON_EACH, *SHORT, "--limit", "first_iterations=0", "--work-dir", "out")
    out, _ = process.communicate(timeout=500)
    assert (process.returncode, "\nFAIL first_iterations" in out) == (1, True), out


def test_two_jobs_on_the_same_nodes_do_not_meet(start, tmp_path):
    (tmp_path / "hosts").write_text("node2\nnode1\n", encoding="utf-8")
    arbitrary = ("srun", "--nodes=2", "--ntasks=2", "--distribution=arbitrary")
    long = start(ONE_ON_EACH, *LONG, "--work-dir", "long")
    wait_for_iterations(tmp_path / "long" / "iterations.jsonl", 1, long)
    short = start(arbitrary, *SHORT, "--work-dir", "out", SLURM_HOSTFILE=str(tmp_path / "hosts"))
    out, _ = short.communicate(timeout=500)
    assert short.returncode == 0, out
    assert long.poll() is None
    long.kill()


def test_a_cancelled_job_keeps_its_record_and_leaves_nobody(start, cluster, tmp_path):
    process = start((*ONE_ON_EACH, "--job-name=ends"), *LONG, "--work-dir", "out")
    wait_for_iterations(tmp_path / "out" / "iterations.jsonl", 1, process)
    assert cluster.start("login", "scancel", "--name=ends").wait(60) == 0
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2, out
    assert "interrupted; the partial record is kept in out\n" in out
    assert nothing_is_left_of(tmp_path / "out")


def test_what_one_node_refuses_ends_all(start, tmp_path):
    (tmp_path / "out-node1" / "mine").mkdir(parents=True)
    process = start(ONE_ON_EACH, *SHORT, "--work-dir", "out")
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 2, out
    assert "\nemacheck: on node 1 (node2): --work-dir out-node1: found something there already" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-node1"]


def test_what_is_not_started_once_on_each_node_is_refused(start, tmp_path):
    script = tmp_path / "batch.sh"
    script.write_text('#!/bin/sh\nexec "$@"\n', encoding="utf-8")
    for command, said in (
        (("srun", "--nodes=2", "--ntasks=4"), "found 4 tasks on 2 nodes"),
        (("sbatch", "--wait", "--nodes=2", "--output=batch.out", script), "without a step"),
        (("salloc", "--nodes=2"), "without a step"),
    ):
        process = start(command, *SHORT, "--work-dir", "out")
        out, _ = process.communicate(timeout=200)
        written = tmp_path / "batch.out"
        said_there = written.read_text(encoding="utf-8") if command[0] == "sbatch" else out
        assert (process.returncode, said in said_there) == (2, True), said_there
    assert not (tmp_path / "out").exists()
