"""Several nodes of which one ends badly: the others hear of it, end at once, and say what it said.

Two launchers on this machine stand for two nodes.
"""

import datetime
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import free_port, wait_until

from emacheck.cli.refusals import heard_by_other_nodes
from emacheck.errors import TrainingError, UsageError
from emacheck.train.launching import nodes, supervision
from emacheck.train.launching.meeting import note_meeting
from emacheck.train.launching.nodes import OtherNodes, heard
from emacheck.train.launching.processes import Processes
from emacheck.train.request import REFUSAL_FILE, TrainingRequest

PROGRAM = supervision.Program(module="program_of_a_test", title="the program", kept="what was printed is kept")
# What ranks do: they wait for each other in the store, then join, then wait within a device's driver.
WORK = """
import os, signal, sys, time
from pathlib import Path
from emacheck.errors import UsageError
from emacheck.train.launching.program import leave_with, watched_over

def fails():
    print("opening the device", flush=True)
    {}

def work(directory):
    from emacheck.train import ranks
    if os.environ["RANK"] == "{}":
        fails()
    {}

leave_with(lambda arguments: watched_over(work, Path(arguments[0])))
"""
IN_THE_STORE = "ranks.agree({'device': 'sdaa'})"
IN_A_DRIVER = "time.sleep(300)"


def train_on_two_nodes(tmp_path, monkeypatch, work, place, before=lambda _: None):
    """Run a program on two nodes, after what each does before; return what each said, and how long it took."""
    (tmp_path / "program_of_a_test.py").write_text(work, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def run(node):
        (tmp_path / str(node)).mkdir()
        numbered = {} if "rdzv_endpoint" in place else {"node_rank": node}
        processes = Processes(launched=True, nnodes=2, **{"node_rank": None, **numbered, **place})
        request = TrainingRequest(preset="smoke", config=None)
        try:
            with heard_by_other_nodes(PROGRAM, processes, lambda: request, timeout=90):
                before(node)
            supervision.run_program(
                PROGRAM,
                tmp_path / str(node),
                progress=print,
                timeout=90,
                processes=processes,
                request=request,
                iterations=3,
            )
        except (TrainingError, UsageError, ZeroDivisionError) as error:
            return error
        return None

    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(run, (0, 1)))
    return said, time.monotonic() - started


def meet(port):
    return {"master_addr": "localhost", "master_port": port}


@pytest.mark.training
@pytest.mark.parametrize(
    ("fails", "rank", "waits"),
    [
        ("raise RuntimeError('device lost')", 1, IN_THE_STORE),
        ("os.kill(os.getpid(), signal.SIGKILL)", 1, IN_A_DRIVER),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", 0, IN_A_DRIVER, marks=pytest.mark.slow),
    ],
)
def test_what_one_node_dies_of_ends_the_other_at_once_with_its_words(tmp_path, monkeypatch, fails, rank, waits):
    pytest.importorskip("torch")
    place = meet(free_port())
    said, seconds = train_on_two_nodes(tmp_path, monkeypatch, WORK.format(fails, rank, waits), place)
    own, other = str(said[rank]), str(said[1 - rank])
    how = "was ended by SIGKILL" if "kill" in fails else "ended with exit code 1"
    assert own.startswith(f"rank {rank} of 2 {how}")
    assert other.startswith("the program ended on another node first, and so here, after iteration 0 of 3; nothing was")
    assert f"\non node {rank} ({socket.gethostname()}): rank {rank} {how}" in other
    assert f"(all of them in {tmp_path / str(rank) / 'ranks'}" in other
    assert ("device lost" if "raise" in fails else "  | opening the device") in other
    assert seconds < 60


@pytest.mark.training
@pytest.mark.slow
def test_at_a_rendezvous_what_one_node_refuses_alone_is_refused_by_all(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    work = WORK.format("raise UsageError('--config: cannot be read here')", 1, IN_THE_STORE)
    said, seconds = train_on_two_nodes(tmp_path, monkeypatch, work, {"rdzv_endpoint": f"localhost:{free_port()}"})
    assert [type(each) for each in said] == [UsageError, UsageError]
    refused = "--config: cannot be read here"
    assert sorted(map(str, said)) == [refused, f"on node 1 ({socket.gethostname()}): {refused}"]
    assert seconds < 60


@pytest.mark.training
def test_a_bug_on_one_node_before_they_meet_ends_the_other_at_once_with_its_name(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    work, place = WORK.format("pass", 0, IN_THE_STORE), meet(free_port())
    said, seconds = train_on_two_nodes(tmp_path, monkeypatch, work, place, before=lambda node: node and 1 // 0)
    assert isinstance(said[1], ZeroDivisionError)
    assert str(said[0]).startswith(f"on node 1 ({socket.gethostname()}): the command there ended with ZeroDivision")
    assert seconds < 60


@pytest.fixture
def two_nodes(tmp_path, monkeypatch):
    """Two launchers whose ranks have met at a store of this process."""
    torch = pytest.importorskip("torch")
    port = free_port()
    patience = datetime.timedelta(seconds=10)
    store = torch.distributed.TCPStore("localhost", port, is_master=True, timeout=patience, wait_for_workers=False)
    given = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "WORLD_SIZE": 2}
    given["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    made = []
    for node in (0, 1):
        monkeypatch.setenv("GROUP_RANK", str(node))
        (tmp_path / str(node) / "ranks").mkdir(parents=True)
        (tmp_path / str(node) / "worker.log").write_text(f"words of {node}\n", encoding="utf-8")
        note_meeting(tmp_path / str(node))
        made.append(OtherNodes(tmp_path / str(node)))
    yield made
    del store


def test_a_node_that_only_lost_its_connection_lets_the_other_speak_first(two_nodes, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(two_nodes[0].tell_of_rank, 0, 1, lost_another=True)
        time.sleep(0.3)
        pool.submit(two_nodes[1].tell_of_rank, 1, -9, lost_another=False).result()
        lost.result()
    said = heard(tmp_path / "0")
    assert said.startswith(f"on node 1 ({socket.gethostname()}): rank 1 was ended by SIGKILL")
    assert said.endswith("  | words of 1\n")
    # As after an interrupt while it tells.
    two_nodes[1].tell("the command there was ended from outside.")
    assert heard(tmp_path / "1") is None


def test_a_node_of_another_training_at_the_same_address_ends_itself_alone(two_nodes, tmp_path):
    two_nodes[1].listen()
    assert wait_until(lambda: two_nodes[1].place_is_ours)
    (tmp_path / "stranger" / "ranks").mkdir(parents=True)
    note_meeting(tmp_path / "stranger")
    stranger, ended = OtherNodes(tmp_path / "stranger"), threading.Event()
    usual = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        stranger.listen()
        assert wait_until(ended.is_set)
        stranger.tell("the command there was ended from outside.")
    finally:
        signal.signal(signal.SIGTERM, usual)
        two_nodes[1].finished()
    refusal = (tmp_path / "stranger" / REFUSAL_FILE).read_text(encoding="utf-8")
    assert refusal.startswith("found a node 1 at localhost:")
    assert "--master-port PORT" in refusal
    assert [heard(tmp_path / "1"), two_nodes[1].ended_us] == [None, False]


def test_nobody_waits_long_for_a_node_that_does_not_answer(two_nodes, tmp_path, monkeypatch):
    for name in ("OTHERS_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(nodes, name, 0.2)
    two_nodes[0].tell_of_rank(0, 1, lost_another=True)
    assert heard(tmp_path / "0") is None
    monkeypatch.setattr(nodes, "CONNECT_SECONDS", 0.2)
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    note_meeting(tmp_path / "1")
    two_nodes[1].tell_of_rank(1, 1, lost_another=False)
    assert heard(tmp_path / "1") is None


@pytest.mark.parametrize(("processes", "held"), [("2", "True"), ("4", "False")])
def test_processes_of_one_node_or_whose_launcher_holds_no_store_note_no_meeting(tmp_path, monkeypatch, processes, held):
    given = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": processes, "TORCHELASTIC_USE_AGENT_STORE": held}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    note_meeting(tmp_path)
    OtherNodes(tmp_path).tell("nobody hears it")
    assert list(tmp_path.iterdir()) == []
