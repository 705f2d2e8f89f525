"""``emacheck run`` on several nodes: several commands on this machine stand for them."""

import json
import socket

import pytest
from conftest import SLIM, emacheck_process, free_port
from several_processes import AUDITED, ONE_EACH, SHORT

from emacheck.logs import read_log

pytestmark = pytest.mark.training


@pytest.mark.slow
def test_two_nodes_train_together_and_the_first_one_judges(workshop):
    """Two commands on this machine stand for two nodes; the audit comes after the training, where rank 0 ran."""
    port = free_port()
    there = ("--nnodes", 2, "--master-addr", "localhost", "--master-port", port, "--work-dir", workshop / "nodes")
    live = ("--reference-device", "cpu", "--log-format", "tcap", *AUDITED)
    nodes = [
        emacheck_process("run", *SHORT, *there, "--node-rank", rank, *live, *ONE_EACH, *SLIM, cwd=workshop)
        for rank in (0, 1)
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
    port = free_port()
    there = ("--nnodes", 2, "--rdzv-endpoint", f"localhost:{port}", "--work-dir", workshop / "met")
    nodes = [
        emacheck_process("run", *SHORT, *there, "--reference-device", "cpu", *ONE_EACH, *SLIM, cwd=workshop)
        for _ in range(2)
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
        (
            ("--device", "sdaa", "--nproc-per-node", 2),
            "node 1: nodes x processes of each: rank 0 '2 x 1', rank 1 '2 x 2'",
        ),
    ],
)
def test_other_options_on_one_node_are_refused_on_both(workshop, simulated_device, other, said):
    """Two commands on this machine stand for two nodes."""
    port = free_port()
    place = workshop / f"other-{port}"
    there = ("--nnodes", 2, "--master-addr", "localhost", "--master-port", port, "--work-dir", place)
    options = (*SHORT, *there, "--reference-device", "cpu", *ONE_EACH, *SLIM)
    nodes = [
        emacheck_process("run", *options, *more, "--node-rank", rank, cwd=workshop, env=simulated_device())
        for rank, more in enumerate(((), other))
    ]
    for node in nodes:
        _, err = node.communicate(timeout=120)
        assert (node.returncode, said in err) == (2, True), err
        assert "Give the same options" in err
    assert not list(workshop.glob(f"other-{port}*"))
