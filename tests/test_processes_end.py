"""How processes end: with the command that started them, however it ends, and without anybody left over."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from types import SimpleNamespace

import pytest
from conftest import wait_until

from emacheck.train.launching import program, supervision
from emacheck.train.launching.deaths import first_to_blame, note_death
from emacheck.train.launching.parent import MARK, is_stopped, marked_processes
from emacheck.uninterrupted import uninterrupted

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and what Linux does when a parent dies")
SLEEPER = "import time; print('here', flush=True); time.sleep(60)"
WATCHED = f"from emacheck.train.launching.parent import end_with_parent; end_with_parent(); {SLEEPER}"
# As the command, which holds the pipe, the launcher, and a rank in a session of its own.
STARTER = (
    "import subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdin=subprocess.PIPE, start_new_session=True)\n"
    "child.wait()\n"
)


@pytest.fixture
def mark():
    """The mark of a run; whatever a failed test leaves of it is killed."""
    made = uuid.uuid4().hex
    yield made
    for process in marked_processes(made):
        os.kill(process, signal.SIGKILL)


@linux
def test_a_stopped_process_does_not_outlive_the_one_that_started_it(mark):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, WATCHED], stdout=subprocess.PIPE, env={**os.environ, MARK: mark}
    )
    assert starter.stdout.readline() == b"here\n"
    (child,) = set(marked_processes(mark)) - {starter.pid}
    os.kill(child, signal.SIGSTOP)
    assert wait_until(lambda: is_stopped(child))
    starter.kill()
    starter.wait()
    starter.stdout.close()
    assert wait_until(lambda: not marked_processes(mark))


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_while_processes_are_ended_does_not_keep_them_alive(mark, monkeypatch, number):
    """The worker is deaf to SIGTERM, and what it started in a session of its own is stopped."""
    deaf = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True).wait()\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", deaf],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, MARK: mark},
    )
    assert worker.stdout.readline() == b"here\n"
    (child,) = set(marked_processes(mark)) - {worker.pid}
    os.kill(child, signal.SIGSTOP)
    monkeypatch.setattr(supervision, "GRACE_SECONDS", 1.0)
    left = []
    before = signal.signal(number, lambda *_: left.append(marked_processes(mark)))
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
        supervision.end_worker(worker, mark)
    finally:
        signal.signal(number, before)
    worker.stdout.close()
    # It is heard, once nobody is left.
    assert left == [[]]


def test_a_thread_that_hears_no_interrupts_ends_processes_as_well():
    done = []

    def work():
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


LOST = "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4242"


def deaths(tmp_path, monkeypatch, errors, codes, noticed):
    """Let ranks die one after the other, and torch's launcher notice it in some order within one second."""
    for rank, error in errors:
        monkeypatch.setenv("RANK", str(rank))
        note_death(tmp_path, error)
    return {rank: SimpleNamespace(exitcode=codes[rank], timestamp=7) for rank in noticed}


@pytest.mark.parametrize(
    ("events", "blamed"),
    [
        # Both died between two looks of the launcher, which finds them by their numbers.
        (([(1, ValueError("mine")), (0, RuntimeError(LOST))], {0: 1, 1: 1}, (0, 1)), 1),
        # The message about the lost connection was written first.
        (([(0, RuntimeError(LOST)), (1, ValueError("mine"))], {0: 1, 1: 1}, (0, 1)), 1),
        (([(2, ValueError("mine")), (1, ValueError("mine, too"))], {1: 1, 2: 1}, (1, 2)), 2),
        # Nobody could note anything: the first that was noticed.
        (([], {0: 1, 3: 1}, (3, 0)), 3),
        # One that ended without a word is to blame for a connection that was lost.
        (([(0, RuntimeError(LOST))], {0: 1, 1: 3}, (0, 1)), 1),
        (([(0, ValueError("mine"))], {0: 1, 1: -signal.SIGKILL}, (0, 1)), 1),
        # The launcher ends the others by SIGTERM, but nobody before it has noticed a failure.
        (([(1, ValueError("mine"))], {0: -signal.SIGTERM, 1: 1}, (1, 0)), 1),
        (([(0, RuntimeError(LOST))], {0: 1, 1: -signal.SIGTERM}, (1, 0)), 1),
        (([], {0: -signal.SIGTERM, 1: -signal.SIGTERM}, (1, 0)), 1),
    ],
)
def test_the_rank_that_failed_first_is_to_blame(tmp_path, monkeypatch, events, blamed):
    failures = deaths(tmp_path, monkeypatch, *events)
    assert first_to_blame(failures, tmp_path) == blamed


def test_a_process_notes_of_what_it_dies_and_a_single_one_notes_nothing(tmp_path, monkeypatch):
    def work(run_directory):
        raise RuntimeError(LOST)

    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(program, "end_with_parent", lambda: None)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            program.watched_over(work, tmp_path)
        found = {each.name for each in tmp_path.iterdir()}
        monkeypatch.setenv("RANK", "1")
    assert found == {"death.rank1.json"}
