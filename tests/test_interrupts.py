"""What ends a command from outside, at whatever moment: exit code 2 and a word, and nothing left over."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, emacheck_process, hear_signals, wait_until

SIGNALS = [signal.SIGTERM, signal.SIGHUP]


def status(process, field):
    """Return a set of signals of a process, such as those that it catches (``SigCgt``)."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith(f"{field}:"))
    return {number for number in SIGNALS if mask >> (number - 1) & 1}


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()


def run_alone(program):
    """Run a program that sends signals to itself."""
    return subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=hear_signals,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_any_command_with_exit_code_2_and_a_word(tmp_path, number):
    process = emacheck_process("show", "-", cwd=tmp_path, stdin=subprocess.PIPE)
    assert wait_until(lambda: status(process, "SigCgt") == set(SIGNALS))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (2, "", "emacheck: interrupted")


def test_a_signal_that_is_ignored_as_under_nohup_stays_ignored(tmp_path):
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "emacheck", "show", "-"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,  # noqa: PLW1509 - no threads here
    )
    assert wait_until(lambda: signal.SIGTERM in status(process, "SigCgt"))
    assert status(process, "SigIgn") == {signal.SIGHUP}
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(b"iteration,loss\n1,4.5\n2,4.25\n", timeout=30)
    assert (process.returncode, b"CSV" in out) == (0, True), err


@pytest.mark.parametrize("first", [*SIGNALS, signal.SIGINT])
def test_a_second_signal_does_not_interrupt_what_cleans_up_after_the_first(first):
    """Somebody impatient presses Ctrl-C again; a CI server sends SIGINT and then SIGTERM."""
    program = (
        "import os, signal, time\n"
        "from emacheck.cli.interrupts import heed_signals\n"
        "heed_signals()\n"
        "try:\n"
        f"    os.kill(os.getpid(), {int(first)})\n"
        "    time.sleep(30)\n"
        "except KeyboardInterrupt:\n"
        "    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):\n"
        "        os.kill(os.getpid(), number)\n"
        "    print('cleaned up')\n"
    )
    done = run_alone(program)
    assert (done.returncode, done.stdout) == (0, "cleaned up\n"), done.stderr


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGINT])
def test_a_signal_that_comes_while_an_object_is_freed_is_not_lost(number):
    """Python drops exceptions there, and the command would go on as if nobody had stopped it."""
    program = (
        "import os, sys, time\n"
        "from emacheck.cli.interrupts import heed_signals\n"
        "class Freed:\n"
        "    def __del__(self):\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        time.sleep(0.1)\n"
        "heed_signals()\n"
        "try:\n"
        "    Freed()\n"
        "    time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = run_alone(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_a_closed_terminal_ends_a_command_with_exit_code_2(tmp_path):
    """Nothing can be said there any more; that must not look like a FAIL."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "emacheck", "show", "-"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=hear_signals,  # noqa: PLW1509 - no threads here
    ) as process:
        os.close(terminal)
        assert wait_until(lambda: status(process, "SigCgt") == set(SIGNALS))
        os.close(controller)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=30) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_processes_of_a_selftest_end_with_it(tmp_path, number):
    """A trial takes minutes: nobody waits for it after an interrupt."""
    (tmp_path / "jobs.py").write_text(
        "import time\n"
        "from functools import partial\n"
        "from importlib import import_module\n"
        "from emacheck.cli.interrupts import heed_signals\n"
        "if __name__ == '__main__':\n"
        "    heed_signals()\n"
        "    list(import_module('emacheck.cli.selftest')._run(partial(time.sleep, 300), [('benign', None)] * 2, 2))\n",
        encoding="utf-8",
    )
    with subprocess.Popen(
        [sys.executable, "jobs.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,  # noqa: PLW1509 - no threads here
    ) as process:
        # The tracker of multiprocessing's resources is the third.
        assert wait_until(lambda: len(children(process)) == 3)
        time.sleep(1)
        found = children(process)
        process.send_signal(number)
        process.communicate(timeout=30)
    assert wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in found))


def test_logs_are_compared_where_neither_posix_signals_nor_locks_exist(tmp_path):
    log = tmp_path / "loss.csv"
    log.write_text("iteration,loss\n" + "".join(f"{at},{4 / at}\n" for at in range(1, 21)), encoding="utf-8")
    done = run_alone(
        "import signal, sys\n"
        "sys.modules.update(fcntl=None, resource=None, termios=None)\n"
        "del signal.SIGHUP, signal.SIGALRM, signal.setitimer\n"
        "import emacheck, emacheck.reference.making\n"
        "from emacheck.cli import main\n"
        f"sys.argv = ['emacheck', 'compare', {str(log)!r}, {str(log)!r}]\n"
        "main()\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_of_code_that_was_made_from_text_does_not_change_the_exit_code(tmp_path):
    (tmp_path / "interrupted.py").write_text(
        "import sys\n"
        "from emacheck.cli import main\n"
        "try:\n"
        "    exec('raise KeyboardInterrupt')\n"
        "except KeyboardInterrupt:\n"
        "    sys.argv = ['emacheck', '--version']\n"
        "    main()\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "interrupted"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, *SIGNALS])
def test_a_signal_that_comes_when_the_command_is_over_changes_nothing(number):
    program = (
        "import atexit, os, sys\n"
        "from emacheck.cli import main\n"
        f"atexit.register(os.kill, os.getpid(), {int(number)})\n"
        "sys.argv = ['emacheck', '--version']\n"
        "main()"
    )
    done = run_alone(program)
    assert (done.returncode, done.stderr) == (0, "")
