"""Standard streams that are closed, full, unread or named twice are trouble, and neither a FAIL nor a bug."""

import errno
import json
import os
import subprocess
import sys

import pytest

from emacheck import cli


def code_and_errors_of(arguments, cwd, *, stdout, stderr=subprocess.PIPE):
    command, environment = [sys.executable, "-m", "emacheck", *arguments], {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, cwd=cwd, env=environment, stdout=stdout, stderr=stderr, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def unread_pipe():
    """The end of a pipe that nobody reads from any more."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize(
    "arguments", [["compare", "reference.json", "good.json"], ["show", "good.json"], ["--help"], ["compare", "--help"]]
)
def test_a_reader_that_goes_away_is_trouble_and_no_fail(logs, unread_pipe, arguments):
    assert code_and_errors_of(arguments, logs, stdout=unread_pipe) == (2, "")


@pytest.mark.parametrize("arguments", [["show", "nowhere.json"], ["show", "--nonsense"], ["show", "good.json"]])
def test_a_reader_of_the_errors_who_goes_away_is_trouble_and_no_fail(logs, unread_pipe, arguments):
    assert code_and_errors_of(arguments, logs, stdout=unread_pipe, stderr=unread_pipe) == (2, None)


def test_output_that_cannot_be_written_is_trouble_that_says_what_to_do_and_no_bug(logs):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        code, said = code_and_errors_of(["compare", "reference.json", "good.json"], logs, stdout=full)
        assert code == 2
        assert said == (
            "emacheck: the output could not be written: No space left on device. Free some space, or send the output "
            "elsewhere.\n"
        )
        assert code_and_errors_of(["show", "good.json"], logs, stdout=full, stderr=full) == (2, None)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_can_be_written_in_part_only_is_trouble_and_no_verdict(logs, unbuffered):
    command = f"ulimit -f 1; exec {sys.executable} -m emacheck compare reference.json good.json --json > cut.json"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["sh", "-c", command], cwd=logs, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "File too large" in done.stderr) == (2, True), done


@pytest.mark.parametrize(
    ("number", "what", "said"),
    [
        (errno.EAGAIN, None, "Resource temporarily unavailable. Allow more threads and processes (ulimit -u, "),
        (errno.ENOMEM, None, "Cannot allocate memory. Allow more memory"),
        (errno.EMFILE, None, "Too many open files. Allow more open files (ulimit -n)."),
        (
            errno.ENOENT,
            "No usable temporary directory found in ['/tmp']",
            "found in ['/tmp']. Set TMPDIR to a directory",
        ),
    ],
)
def test_what_the_system_refuses_is_answered_with_what_to_allow(monkeypatch, capsys, number, what, said):
    def refuse(arguments):
        raise OSError(number, what or os.strerror(number))

    monkeypatch.setattr(cli, "_invoke", refuse)
    assert cli.invoke([]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("candidate", "code"), [("good.json", 0), ("low.json", 1)])
def test_without_any_output_the_verdict_is_the_exit_code(logs, candidate, code):
    command = f"exec {sys.executable} -m emacheck compare reference.json {candidate} >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=logs, check=False).returncode == code


def test_a_terminal_shows_what_is_being_read_until_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "emacheck", "show", "pipe", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        with (tmp_path / "pipe").open("w") as pipe:
            pipe.write("iteration,loss\n1,4.5\n2,4.25\n")
            pipe.flush()
            shown = ""
            while "Reading pipe: 0 MB" not in shown:
                shown += os.read(ours, 1000).decode()
        out, _ = process.communicate(timeout=60)
        shown += os.read(ours, 100_000).decode()
    os.close(ours)
    assert json.loads(out)["format"] == "CSV"
    assert not shown.rpartition("\r")[2]
    assert not shown.split("\r")[-2].strip()


def test_standard_input_is_read_once(emacheck_cli, logs):
    refused = emacheck_cli("compare", "-", "-")
    assert (refused.code, "only once" in refused.err) == (2, True), refused


@pytest.mark.parametrize("names", [("pipe", "pipe"), ("pipe#CUDA", "./pipe#SDAA"), ("pipe", "link")])
def test_a_pipe_under_two_names_is_refused_and_not_waited_for(emacheck_cli, logs, names):
    os.mkfifo(logs / "pipe")
    (logs / "link").symlink_to("pipe")
    for arguments in (names, ("reference.json", "good.json", "--repeat", names[0], "--repeat", names[1])):
        refused = emacheck_cli("compare", *arguments, timeout=20)
        assert (refused.code, "only once" in refused.err) == (2, True), refused


@pytest.mark.parametrize(("given", "code"), [("cat reference.json | {}", 2), ("{} < reference.json", 0)])
def test_standard_input_under_its_other_name_is_refused_where_it_is_a_pipe(logs, given, code):
    command = given.format(f"{sys.executable} -m emacheck compare - /dev/stdin")
    done = subprocess.run(["bash", "-c", command], cwd=logs, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "only once" in done.stderr) == (code, code == 2), done


def test_a_closed_standard_input_is_trouble_that_says_so_and_no_bug(logs):
    command = f"{sys.executable} -m emacheck compare - reference.json <&-"
    done = subprocess.run(["bash", "-c", command], cwd=logs, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "standard input is closed" in done.stderr) == (2, True), done
