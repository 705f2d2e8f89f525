"""What is said of several processes that do not begin: who hangs, who has not started, and nodes that do not meet."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from conftest import free_port

from emacheck import cli
from emacheck.cli.training import interruptible
from emacheck.errors import TrainingError
from emacheck.train.launching import hints, last_words, meeting, supervision
from emacheck.train.launching.heartbeat import Heartbeat
from emacheck.train.launching.processes import Processes
from emacheck.train.request import TrainingRequest

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
TWO = Processes(launched=True, nproc_per_node=2)
PROGRAM = supervision.Program(module="program_of_a_test", title="the program", kept="what was printed is kept")
BLOCKED = """
import os, signal, sys, time
from pathlib import Path
if os.environ["RANK"] == "1":
    print("importing", file=sys.stderr, flush=True)
    time.sleep(300)
from emacheck.train.launching.program import watched_over
def wait_for_the_others(directory):
    time.sleep(300)
watched_over(wait_for_the_others, Path(sys.argv[1]))
"""


def answering(code):
    process = subprocess.Popen(
        [sys.executable, "-c", f"import faulthandler, signal, time; {code}; print('here', flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout.readline() == b"here\n"
    return process


@linux
def test_only_a_process_that_can_answer_is_asked_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(last_words, "ANSWER_SECONDS", 0.2)
    ready, unready, stopped = (
        answering("faulthandler.register(signal.SIGUSR1)"),
        answering("pass"),
        answering("pass"),
    )
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        os.waitpid(stopped.pid, os.WUNTRACED)
        said = last_words.who_hangs(Heartbeat(run_directory=tmp_path), {0: ready.pid, 1: unready.pid, 2: stopped.pid})
        assert said == {1: "has not started yet", 2: "is stopped, after iteration 0"}
        assert [process.poll() for process in (ready, unready, stopped)] == [None, None, None]
    finally:
        for process in (ready, unready, stopped):
            process.kill()
            process.communicate()


def test_frames_of_cpp_do_not_hide_what_went_wrong(tmp_path):
    frames = "".join(f"frame #{number}: c10d::TCPStore::doGet() + 0x2a (0x7f in libtorch.so)\n" for number in range(40))
    log = tmp_path / "stderr.log"
    log.write_text(f"DistNetworkError: Failed to recv\nException raised from recvBytes\n{frames}")
    assert last_words.last_words_in(log).endswith(
        "\n  | DistNetworkError: Failed to recv\n  | Exception raised from recvBytes"
    )


def test_a_rank_that_printed_nothing_does_not_get_the_words_of_the_launcher(tmp_path):
    (tmp_path / "worker.log").write_text("Signal 15\n", encoding="utf-8")
    assert "Signal 15" in last_words.last_words(tmp_path, 0)
    for rank, text in ((0, ""), (1, "mine\n")):
        place = tmp_path / "ranks" / "x" / "attempt_0" / str(rank)
        place.mkdir(parents=True)
        (place / "stderr.log").write_text(text, encoding="utf-8")
        (place / "stdout.log").touch()
    assert last_words.last_words(tmp_path, 0) == "It printed nothing."
    assert "  | mine" in last_words.last_words(tmp_path, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"nnodes": 2, "node_rank": 1, "master_addr": "n0"},
            "at n0:29500 within 5 s, so no process was started. n0 has no",
        ),
        ({"nnodes": 2, "node_rank": 1, "master_addr": "n0"}, "running on the other node, is the address"),
        ({"nnodes": 4, "rdzv_endpoint": "n0:29400"}, "the nodes did not meet at n0:29400 within 5 s"),
        ({"nnodes": 4, "rdzv_endpoint": "n0:7"}, "running on the other 3 nodes"),
        ({"nnodes": 4, "rdzv_endpoint": "n0:7"}, "must be the same on every node, but for --work-dir, --data-root."),
        ({"master_addr": "n0"}, "On a single node no address is needed"),
        ({"nproc_per_node": 2}, "did not meet on this machine within 5 s, so none was started: expected localhost to"),
    ],
)
def test_nodes_that_do_not_meet_are_told_where_and_what_to_look_at(options, said):
    assert said in meeting.did_not_meet(Processes(launched=True, **options), 5)


@pytest.mark.parametrize(("port", "other"), [(29500, 29501), (65535, 65534)])
def test_a_port_in_use_is_answered_with_one_that_exists(port, other):
    said = meeting.port_in_use(Processes(launched=True, nproc_per_node=2, master_port=port))
    assert said.startswith(f"port {port} is in use on this machine")
    assert f"--master-port {other}," in said
    assert "port 7 is" in meeting.port_in_use(Processes(launched=True, nnodes=2, rdzv_endpoint="n0:7"))


@pytest.mark.parametrize(
    "printed",
    [
        "OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 2: Resource temporarily unavailable",
        "RuntimeError: can't start new thread",
        "BlockingIOError: [Errno 11] Resource temporarily unavailable",
    ],
)
def test_a_limit_of_processes_is_named_by_which_a_process_could_start_no_thread(tmp_path, printed):
    log = tmp_path / "worker.log"
    log.write_text(f"{printed}\n" + "Traceback\n" * 40 + "KeyboardInterrupt\n")
    said = hints.hint_of(last_words.last_words_in(log), log)
    assert "no further thread or process. Allow more (ulimit -u, docker run --pids-limit" in said


def test_a_process_that_found_no_home_says_what_to_set(tmp_path):
    (tmp_path / "worker.log").write_text("RuntimeError: could not determine the home directory for '~/.cache', set\n")
    assert "Set HOME to a directory." in hints.hint_of(last_words.last_words(tmp_path), tmp_path / "worker.log")


def test_what_is_left_is_a_partial_record_only_if_something_was_recorded(tmp_path):
    assert supervision.left_in(tmp_path) == supervision.left_in(tmp_path / "removed") == "nothing was recorded"
    (tmp_path / "worker.log").touch()
    (tmp_path / "iterations.jsonl").touch()
    printed = f"nothing was recorded, and what the processes printed is kept in {tmp_path}"
    assert supervision.left_in(tmp_path) == printed
    (tmp_path / "iterations.jsonl").write_text("{}\n", encoding="utf-8")
    assert supervision.left_in(tmp_path) == f"the partial record is kept in {tmp_path}"


def ended_in(run_directory, processes):
    heartbeat = Heartbeat(run_directory=run_directory)
    return supervision._Ended(
        program=supervision.TRAINING, run_directory=run_directory, heartbeat=heartbeat, processes=processes
    )


@pytest.mark.parametrize(("nodes", "lost"), [(2, True), (2, False), (1, True)])
def test_a_node_whose_others_say_nothing_speaks_of_a_connection_that_was_lost_to_them(tmp_path, nodes, lost):
    (tmp_path / "worker.log").touch()
    (tmp_path / "failure.json").write_text('{"rank": 0, "code": 1}')
    (tmp_path / "death.rank0.json").write_text(json.dumps({"time": 1.0, "of_another": lost}))
    said = ended_in(tmp_path, Processes(launched=True, nnodes=nodes, nproc_per_node=2 // nodes)).failing(1, 3)
    assert said.startswith("rank 0 of 2 ended with exit code 1 after iteration 0 of 3")
    assert ("It only lost its connection to a process of another node." in said) == (nodes == 2 and lost)


@pytest.mark.parametrize("free", [4096, 1 << 30])
def test_a_full_disk_is_named_where_a_process_failed_without_a_word(tmp_path, monkeypatch, free):
    monkeypatch.setattr(hints.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    (tmp_path / "worker.log").touch()
    said = ended_in(tmp_path, Processes()).failing(1, 3)
    assert said.startswith("the worker ended with exit code 1 after iteration 0 of 3; nothing was recorded, and what")
    assert (f"The disk of {tmp_path} is full: found 4096 bytes free there" in said) == (free == 4096)


@pytest.mark.training
def test_a_header_that_cannot_be_written_leaves_no_half_of_one(tmp_path, monkeypatch):
    pytest.importorskip("mmseg")
    from emacheck.train import worker

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        worker._write_run(tmp_path, complete=False, recorder=None, provenance={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_told_once_with_what_is_left(monkeypatch, capsys, number):
    @click.command()
    def works():
        with interruptible(lambda: "something is left"):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(cli, "emacheck", works)
    # Whoever runs the tests in the background of a shell has them ignore Ctrl-C.
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert cli.invoke([]) == 2
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert capsys.readouterr().err.strip() == "emacheck: interrupted; something is left"


def run_program(code, tmp_path, monkeypatch, *, timeout, processes=TWO):
    """Run a program in processes of torch's launcher and return what is said of its bad end."""
    provide_program(code, tmp_path, monkeypatch)
    with pytest.raises(TrainingError) as caught:
        run_node(tmp_path / "run", timeout=timeout, processes=processes)
    return str(caught.value)


def provide_program(code, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    (tmp_path / "program_of_a_test.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def run_node(run_directory, *, timeout, processes, seed=0):
    run_directory.mkdir()
    supervision.run_program(
        PROGRAM,
        run_directory,
        progress=print,
        timeout=timeout,
        processes=processes,
        request=TrainingRequest(preset="smoke", config=None, seed=seed),
        iterations=3,
    )


@pytest.mark.training
@pytest.mark.parametrize("same", [True, False])
def test_nodes_meet_at_a_rendezvous_only_if_they_are_asked_for_the_same(tmp_path, monkeypatch, same):
    provide_program("", tmp_path, monkeypatch)
    place = f"localhost:{free_port()}"
    nodes = Processes(launched=True, nnodes=2, node_rank=None, rdzv_endpoint=place)

    def run(node):
        seed = 0 if same else node
        try:
            run_node(tmp_path / str(node), timeout=120 if same else 15, processes=nodes, seed=seed)
        except TrainingError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(run, (0, 1)))
    if same:
        assert said == [None, None]
    for each in () if same else said:
        assert each.startswith(f"the nodes did not meet at {place}")
        assert "The options must be the same on every node" in each


@linux
@pytest.mark.training
def test_ranks_that_hang_before_they_train_are_named_with_their_own_words(tmp_path, monkeypatch):
    said = run_program(BLOCKED, tmp_path, monkeypatch, timeout=15)
    assert "the program hung: no new iteration for 15 s" in said
    assert said.index("rank 1 has not started yet.") < said.index("rank 0 has finished no iteration.")
    assert "  | importing" in said
    assert "in wait_for_the_others" in said
    assert "SIGUSR1" not in said
    assert "Signal 15" not in said


@pytest.mark.training
def test_a_node_whose_others_never_come_says_so_and_not_that_it_is_slow(tmp_path, monkeypatch):
    port = free_port()
    alone = Processes(launched=True, nnodes=2, node_rank=0, master_addr="localhost", master_port=port)
    said = run_program("", tmp_path, monkeypatch, timeout=8, processes=alone)
    assert said.startswith(f"the nodes did not meet at localhost:{port} within 8 s")
    assert "slower device" not in said
    assert "Signal 15" not in said


@pytest.mark.training
@pytest.mark.parametrize("node_rank", [None, 1])
def test_an_address_where_something_else_listens_is_named(tmp_path, monkeypatch, node_rank):
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]

        def answer():
            while True:
                try:
                    other.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        address = (
            {"rdzv_endpoint": f"localhost:{port}"}
            if node_rank is None
            else {
                "master_addr": "localhost",
                "master_port": port,
            }
        )
        nodes = Processes(launched=True, nnodes=2, node_rank=node_rank, **address)
        said = run_program("", tmp_path, monkeypatch, timeout=12, processes=nodes)
        other.shutdown(socket.SHUT_RDWR)
    assert said.startswith(f"the nodes did not meet at localhost:{port}")
    assert "slower device" not in said


def test_a_refusal_for_whose_words_there_was_no_room_says_how_the_worker_ended(tmp_path, monkeypatch):
    refuses = "import sys\nopen(sys.argv[1] + '/refusal.txt', 'x').close()\nsys.exit('No space left on device')\n"
    said = run_program(refuses, tmp_path, monkeypatch, timeout=60, processes=Processes())
    assert said.startswith("the worker ended with exit code 1 after iteration 0 of 3; nothing was recorded")
    assert "No space left on device" in said
