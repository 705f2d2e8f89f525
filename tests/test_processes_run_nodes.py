"""``emacheck run`` on several nodes: several commands on this machine stand for them."""

import json
import re
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


def two_nodes(workshop, name, others, *, env=None):
    """Start two commands that stand for two nodes, each with options of its own, and return what they said."""
    options = (*SHORT, "--nnodes", 2, "--work-dir", workshop / name, "--reference-device", "cpu")
    nodes = [emacheck_process("run", *options, *own, *ONE_EACH, *SLIM, cwd=workshop, env=env) for own in others]
    said = [node.communicate(timeout=120)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [2, 2], said
    assert not list(workshop.glob(f"{name}*"))
    return said


def at_an_address():
    port = free_port()
    return [("--master-addr", "localhost", "--master-port", port, "--node-rank", rank) for rank in (0, 1)]


def at_a_rendezvous():
    return [("--rdzv-endpoint", f"localhost:{free_port()}")] * 2


def at_a_rendezvous_with_a_name():
    return [(*options, "--rdzv-id", "job") for options in at_a_rendezvous()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("places", "other", "said"),
    [
        (
            at_an_address,
            ("--device", "sdaa", "--nproc-per-node", 2),
            "nodes x processes of each: rank 0 '2 x 1', rank 1 '2 x 2'",
        ),
        (at_a_rendezvous_with_a_name, ("--seed", 1, "--precision", "bf16"), "seed: rank 0 "),
    ],
)
def test_other_options_on_one_node_are_refused_on_both(workshop, simulated_device, places, other, said):
    first, second = places()
    for err in two_nodes(workshop, "other", (first, (*second, *other)), env=simulated_device()):
        assert f"node 1 ({socket.gethostname()}): {said}" in err
        assert "Give the same options" in err


@pytest.mark.slow
@pytest.mark.parametrize(("places", "refuses"), [(at_an_address, 0), (at_a_rendezvous, 1)])
def test_what_one_node_refuses_before_they_meet_is_heard_by_the_other(workshop, places, refuses):
    options = places()
    options[refuses] = (*options[refuses], "--data-root", "nowhere")
    said = two_nodes(workshop, "refused", options)
    refusal = "nowhere: expected a directory that holds leftImg8bit and gtFine, found nothing."
    assert said[refuses].startswith(f"emacheck: {refusal}")
    assert said[refuses].endswith("The other nodes are told as soon as they come, for which they have 600 s ...\n")
    other = rf"^emacheck: on node [01] \({re.escape(socket.gethostname())}\): {refusal}"
    assert re.search(other, said[1 - refuses], re.MULTILINE)


def test_a_node_that_refuses_and_meets_nobody_says_that_nobody_knows(tmp_path):
    there = ("--nnodes", 2, *at_an_address()[1], "--data-root", "nowhere")
    alone = emacheck_process("run", *there, "--timeout", 1, cwd=tmp_path)
    _, err = alone.communicate(timeout=60)
    assert alone.returncode == 2
    assert err.startswith("emacheck: nowhere: expected a directory that holds leftImg8bit and gtFine"), err
    assert err.endswith("They were not reached, and one that waits for this node does so until its --timeout.\n")
