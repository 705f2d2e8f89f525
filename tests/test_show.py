"""The command ``emacheck show``."""

import json
from pathlib import Path

from conftest import falling, write_scalars


def test_show_tells_what_is_understood(emacheck_here, tmp_path):
    write_scalars(tmp_path / "log.json", falling(20))
    done = emacheck_here("show", "log.json")
    assert done.code == 0
    assert "format   mmengine JSON" in done.out
    assert any(line.split()[:4] == ["loss", "20", "1", "20"] for line in done.out.splitlines())


def test_show_as_json(emacheck_here, tmp_path):
    (tmp_path / "log").write_text("seed: 5\nEpoch 1 loss 4.5 val_loss nan\nEpoch 2 loss inf\n")
    shown = json.loads(emacheck_here("show", "log", "--format", "json").out)
    assert (shown["format"], shown["ranks"], shown["header"]) == ("free text", 1, {"seed": "5"})
    assert shown["metrics"] == [
        {
            "name": "loss", "count": 2, "first_iteration": 1, "last_iteration": 2, "first_value": 4.5,
            "last_value": "Infinity", "window": None, "quantum": 0.1,
        }
    ]  # fmt: skip
    assert shown["validation"][0]["first_value"] == "NaN"
    assert any("epoch is taken" in oddity for oddity in shown["oddities"])
    described = (Path(__file__).parents[1] / "docs" / "logs.md").read_text(encoding="utf-8")
    assert [key for key in (*shown, *shown["metrics"][0]) if f"`{key}`" not in described] == []


def test_show_with_a_pattern_and_a_rank(emacheck_here, tmp_path):
    (tmp_path / "log").write_text("1;r0;4.5\n1;r1;3.5\n")
    pattern = r"(?P<iteration>\d+);r(?P<rank>\d);(?P<loss>\S+)"
    assert json.loads(emacheck_here("show", "log", "--pattern", pattern, "--format", "json").out)["ranks"] == 2
    done = emacheck_here("show", "log", "--pattern", pattern, "--rank", "1")
    assert "rank 1 is shown" in done.out
    assert emacheck_here("show", "log", "--pattern", pattern, "--rank", "7").code == 2


def test_show_does_not_take_an_empty_name_for_the_working_directory(emacheck_here, tmp_path):
    (tmp_path / "iterations.jsonl").write_text('{"iteration": 1, "metrics": {"loss": 4.5}}\n')
    refused = emacheck_here("show", "")
    assert (refused.code, "the name of the log is empty" in refused.err) == (2, True), refused


def test_show_refuses_with_exit_code_2(emacheck_here, tmp_path):
    for arguments in (["nowhere"], ["nowhere", "--reader", "x"], [], ["nowhere", "--rank", "-1"]):
        assert emacheck_here("show", *arguments).code == 2


def test_show_lets_no_log_control_the_terminal(emacheck_here, tmp_path):
    (tmp_path / "log").write_text(
        '{"iteration": 1, "lo\\u001b[31mss": 4.5, "loss": 1}\n{"no\\u001bte": "\\u001b]0;x\\u0007"}\n'
    )
    done = emacheck_here("show", "log")
    assert done.code == 0
    assert "\x1b" not in done.out
    assert "\x07" not in done.out
