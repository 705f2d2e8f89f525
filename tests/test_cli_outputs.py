"""What ``emacheck compare`` writes: reports, JSON, annotations, and a command that reproduces it."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from hashlib import sha256

import click
import pytest

from emacheck.cli import emacheck
from emacheck.cli.judging import REPORTS


def test_json_on_standard_output_is_the_report_and_nothing_else(emacheck_cli, logs):
    done = emacheck_cli("compare", "reference.json", "low.json", "--format", "json", "--output-dir", "out", "--github")
    report = json.loads(done.out)
    assert report["outcome"] == "FAIL"
    assert report["format_version"] == 1
    assert report == json.loads((logs / "out" / "report.json").read_text(encoding="utf-8"))
    assert "::error" in done.err


def test_every_report_is_written_and_none_is_overwritten(emacheck_here, logs):
    files = ("--junit", "junit.xml", "--plot", "p.png", "--html", "p.html", "--card", "c.md")
    asked = ("compare", "reference.json", "low.json", "--output-dir", "out", *files)
    done = emacheck_here(*asked)
    assert (done.code, done.out.splitlines()[0]) == (
        1,
        "Report: out/report.html  (report.md, report.json, report.png, card.md beside it)",
    )
    assert sorted(p.name for p in (logs / "out").iterdir()) == [
        *("card.md", "report.html", "report.json", "report.md", "report.png")
    ]
    # With the places that are taken now, it would be refused.
    report = json.loads((logs / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["command"] == "emacheck compare reference.json low.json"
    assert (logs / "p.png").read_bytes().startswith(b"\x89PNG")
    assert (logs / "p.html").read_bytes() == (logs / "out" / "report.html").read_bytes()
    assert (logs / "p.html").read_bytes().startswith(b"<!DOCTYPE html>")
    card = (logs / "c.md").read_text(encoding="utf-8")
    assert card == (logs / "out" / "card.md").read_text(encoding="utf-8")
    assert card.startswith("## emacheck: FAIL\n")
    assert card.endswith("```sh\nemacheck compare reference.json low.json\n```\n")
    for name in ("reference.json", "low.json"):
        assert sha256((logs / name).read_bytes()).hexdigest() in card
    assert ET.parse(logs / "junit.xml").getroot().findall(".//failure")  # noqa: S314 - our own file
    again = emacheck_here(*asked)
    assert (again.code, "exists already" in again.err) == (2, True), again


def test_an_interrupt_while_the_report_is_made_leaves_no_directory_that_would_refuse_the_next(logs, monkeypatch):
    def interrupted(verdict):
        raise KeyboardInterrupt

    monkeypatch.chdir(logs)
    monkeypatch.setattr("emacheck.report.plot.draw", interrupted)
    with pytest.raises(click.Abort):
        emacheck.main(["compare", "reference.json", "low.json", "--output-dir", "out"], standalone_mode=False)
    assert not (logs / "out").exists()


def test_a_kill_while_the_report_is_written_leaves_no_directory_that_would_refuse_the_next(logs, emacheck_cli):
    killed = (
        "import os, pathlib, signal, sys, emacheck.cli\n"
        "pathlib.Path.write_bytes = lambda self, content: os.kill(os.getpid(), signal.SIGKILL)\n"
        "emacheck.cli.invoke(sys.argv[1:])"
    )
    command = ("compare", "reference.json", "good.json", "--output-dir", "new/out")
    done = subprocess.run([sys.executable, "-c", killed, *command], cwd=logs, check=False)
    assert (done.returncode, (logs / "new").exists()) == (-signal.SIGKILL, False)
    assert emacheck_cli(*command).code == 0
    assert {path.name for path in (logs / "new" / "out").iterdir()} == set(REPORTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--junit", "x", "--plot", "./x"], "--junit names the same file"),
        (["--output-dir", "d", "--junit", "d/report.json"], "report.json is a report that is written into d anyway"),
        (["--output-dir", "d", "--plot", "other/../d/report.png"], "report.png is a report"),
        (["--output-dir", "d", "--html", "d/report.html"], "report.html is a report"),
        (["--html", "good.json"], "exists already and was not touched"),
        (["--output-dir", "d", "--card", "d/card.md"], "card.md is a report"),
        (["--output-dir", "d", "--junit", "d/deeper/x.xml"], "expected a file right in d"),
        (["--output-dir", "d", "--junit", "d"], "expected a file right in d"),
        (["--output-dir", "d/e", "--plot", "d"], "d/e is to be in there"),
        (["--output-dir", "d", "--junit", "nowhere/x.xml"], "mkdir -p"),
        (["--plot", "q.png", "--junit", "nowhere/x"], "mkdir -p"),
        (["--plot", "q.png", "--junit", "good.json/x"], "found:    a file"),
        (["--output-dir", "good.json/d", "--plot", "q.png"], "good.json/d"),
    ],
)
def test_outputs_that_clash_or_have_no_place_are_refused_and_leave_nothing(emacheck_here, logs, arguments, said):
    before = sorted(logs.iterdir())
    done = emacheck_here("compare", "reference.json", "good.json", *arguments)
    assert (done.code, said in done.err, sorted(logs.iterdir())) == (2, True, before), done


def test_further_outputs_may_lie_in_the_new_directory(emacheck_here, logs):
    asked = ("--output-dir", "d", "--junit", "d/j.xml", "--plot", "d/p.png")
    assert emacheck_here("compare", "reference.json", "good.json", *asked).code == 0
    assert {path.name for path in (logs / "d").iterdir()} == {"j.xml", "p.png", *REPORTS}


def run_with_files_of_at_most(size, *command, **more):
    limited = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
        "os.execv(sys.executable, [sys.executable, '-m', 'emacheck', *sys.argv[1:]])"
    )
    command = (sys.executable, "-c", limited, *command)
    return subprocess.run(command, check=False, capture_output=True, text=True, **more)


def test_a_disk_that_is_too_small_for_the_picture_leaves_no_report_that_says_pass(emacheck_cli, logs):
    command = ("compare", "reference.json", "good.json", "--output-dir", "out")
    small = run_with_files_of_at_most(20_000, *command, cwd=logs)
    assert small.returncode == 2, small
    assert "report.png: cannot be written" in small.stderr
    assert not (logs / "out").exists()
    assert emacheck_cli(*command).code == 0


def test_github_gets_annotations_and_a_summary(emacheck_cli, logs):
    env = {"GITHUB_STEP_SUMMARY": str(logs / "summary.md")}
    done = emacheck_cli("compare", "reference.json", "low.json", "--github", env=env)
    assert "::error title=" in done.out
    assert "FAIL" in (logs / "summary.md").read_text(encoding="utf-8")


def test_a_disk_that_is_too_small_for_the_summary_leaves_no_half_of_it(emacheck_cli, logs):
    summary = logs / "summary.md"
    summary.write_bytes(b"of a step before\n")
    command = ("compare", "reference.json", "low.json", "--github")
    env = {"GITHUB_STEP_SUMMARY": str(summary)}
    small = run_with_files_of_at_most(500, *command, cwd=logs, env=os.environ | env)
    assert small.returncode == 2, small
    assert "summary.md: cannot be written" in small.stderr
    assert summary.read_bytes() == b"of a step before\n"
    assert emacheck_cli(*command, env=env).code == 1
    assert summary.read_bytes().startswith(b"of a step before\n# emacheck: FAIL\n")


def test_terminal_sequences_and_markup_in_a_log_are_never_replayed(emacheck_here, logs):
    evil = "loss\x1b[31m<script>[red]"
    row = [json.dumps({evil: 4 - 0.1 * i, "loss": 4.0, "iter": i, "step": i}) for i in range(1, 20)]
    (logs / "evil.json").write_text("\n".join(row), encoding="utf-8")
    done = emacheck_here("compare", "evil.json", "evil.json", "--metric", evil, "--output-dir", "out")
    assert done.code == 0, done
    assert "\x1b" not in done.out
    prose, _, _ = (logs / "out" / "report.md").read_text(encoding="utf-8").partition("```")  # code is never rendered
    assert "<script>" not in prose
    page = (logs / "out" / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    "word", ["\x1b[2Jx", "\x1b2", "it's\n\\here", "a\u202eb", "损 失", os.fsdecode(b"\xff"), "::error::x", "##[error]"]
)
def test_the_command_reproduces_whatever_the_arguments_hold(emacheck_cli, logs, word):
    (logs / word).write_bytes((logs / "reference.json").read_bytes())
    done = emacheck_cli("compare", word, "reference.json", "--output-dir", "out")
    command = done.last_line.partition(" | ")[2]
    assert command.isprintable()
    shown = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    assert [os.fsdecode(each) for each in shown.split(b"\0")[:-1]] == ["emacheck", "compare", word, "reference.json"]
    assert f"```\n{command}\n" in (logs / "out" / "report.md").read_text(encoding="utf-8").replace("```sh", "```")
    assert json.loads((logs / "out" / "report.json").read_bytes())["command"] == command
