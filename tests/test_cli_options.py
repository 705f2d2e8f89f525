"""Options that several commands share."""

import json
import re

import click
import numpy as np
import pytest

from emacheck import cli
from emacheck.cli import invoke
from emacheck.cli.seconds import Seconds


@pytest.mark.parametrize("command", [["run"], ["audit"], ["reference", "make"], ["doctor"]])
def test_a_timeout_that_is_no_number_is_refused(emacheck_here, command):
    done = emacheck_here(*command, "--device", "abacus", "--timeout", "nan")
    assert done.code == 2
    assert "'--timeout': 'nan' is not a number, expected seconds" in done.err
    assert "found no such device" not in done.err + done.out


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b31m", "a\u202eb", "\n::error::all is well", "##[error]", "\udcff"])
@pytest.mark.parametrize(
    "arguments", [["compare", "a", "b"], ["compare", "--format"], ["run", "--iters"], ["run", "--seed=1"], []]
)
def test_what_was_typed_is_repeated_so_that_no_terminal_and_no_ci_server_obeys_it(capsys, arguments, hostile):
    assert invoke([*arguments, f"x{hostile}"]) == 2
    said = capsys.readouterr().err
    assert re.search("^(Error|emacheck): .*x", said, flags=re.MULTILINE)
    assert all(c.isprintable() or c == "\n" for c in said)
    assert not re.search(r"^::|##\[", said, flags=re.MULTILINE)


def test_memory_that_runs_out_is_trouble_that_says_what_to_do_and_no_bug(monkeypatch, capsys):
    @click.command()
    def reads():
        np.ones(1 << 60, dtype=np.int8)

    monkeypatch.setattr(cli, "emacheck", reads)
    assert invoke([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("emacheck: out of memory (Unable to allocate 1.00 EiB")
    assert "bug" not in said


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "0", "0.999", "-inf", "x", ""])
def test_seconds_are_numbers_of_at_least_one(text):
    with pytest.raises(click.BadParameter):
        Seconds().convert(text, None, None)


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("600.5", 600.5), ("inf", float("inf"))])
def test_seconds_may_be_without_limit(text, seconds):
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "arguments", [["compare", "reference.json", "good.json"], ["show", "good.json"], ["doctor", "--device", "abacus"]]
)
def test_json_is_asked_for_in_two_ways(emacheck_here, logs, arguments):
    long, short = emacheck_here(*arguments, "--format", "json"), emacheck_here(*arguments, "--json")
    assert short.code == long.code
    assert json.loads(short.out).keys() == json.loads(long.out).keys()


@pytest.mark.parametrize("name", ["curves.pdf", "curves.svg", "curves.JPG"])
def test_a_picture_that_would_not_be_what_its_name_says_is_refused(emacheck_here, logs, name):
    done = emacheck_here("compare", logs / "reference.json", logs / "good.json", "--plot", name)
    assert (done.code, f"--plot {name}: found " in done.err, "FILE.png" in done.err) == (2, True, True)
    assert not (logs / name).exists()


@pytest.mark.parametrize(
    ("word", "meant"), [("comapre", "emacheck compare"), ("self-test", "emacheck selftest"), ("xyz", None)]
)
def test_a_word_that_is_no_command_is_told_which_one_is_like_it(capsys, word, meant):
    assert invoke([word, "a.log", "b.log"]) == 2
    said = capsys.readouterr().err
    assert f"No such command '{word}'." in said
    assert (f"Did you mean '{meant}'?" in said) is (meant is not None)
    assert ("Did you mean" in said) is (meant is not None)


def test_two_logs_without_a_command_are_told_of_compare(capsys, tmp_path):
    log = tmp_path / "cuda.log"
    log.write_text("x", encoding="utf-8")
    assert invoke([str(log), str(log)]) == 2
    assert "Did you mean 'emacheck compare LOG_A LOG_B'?" in capsys.readouterr().err
