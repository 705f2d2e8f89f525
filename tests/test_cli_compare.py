"""``emacheck compare`` as a user meets it: exit codes, last lines, files and messages."""

import ast
import errno
import json
import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import falling, write_scalars

from emacheck.cli.judging import REPORTS


def test_exit_code_0_and_a_last_line_that_says_pass(emacheck_cli, logs):
    done = emacheck_cli("compare", "reference.json", "good.json")
    assert done.code == 0, done
    assert done.last_line.startswith("PASS ")
    assert done.last_line.endswith("emacheck compare reference.json good.json")


def test_exit_code_1_and_a_last_line_that_names_rule_observed_limit_and_iteration(emacheck_cli, logs):
    done = emacheck_cli("compare", "reference.json", "low.json")
    assert done.code == 1, done
    assert done.last_line.startswith("FAIL ")
    assert "0.39 (limit 0." in done.last_line
    assert " at iteration " in done.last_line


def test_exit_code_2_and_the_file_s_name_when_a_log_is_missing(emacheck_cli, logs):
    done = emacheck_cli("compare", "reference.json", "nowhere.json")
    assert done.code == 2, done
    assert "nowhere.json" in done.err
    assert done.out == ""


def test_exit_code_3_when_there_is_no_evidence(emacheck_cli, logs):
    write_scalars(logs / "later.json", falling(), first=500)
    done = emacheck_cli("compare", "reference.json", "later.json")
    assert done.code == 3, done
    assert done.last_line.startswith("INCONCLUSIVE ")


def test_a_nan_fails(emacheck_cli, logs):
    losses = falling()
    losses[60] = float("nan")
    write_scalars(logs / "nan.json", losses)
    done = emacheck_cli("compare", "reference.json", "nan.json")
    assert (done.code, "iteration 61" in done.out) == (1, True), done


def test_a_run_that_died_fails(emacheck_cli, logs):
    write_scalars(logs / "dead.json", falling(3))
    assert emacheck_cli("compare", "reference.json", "dead.json").code == 1


def test_json_on_standard_output_is_the_report_and_nothing_else(emacheck_cli, logs):
    done = emacheck_cli("compare", "reference.json", "low.json", "--format", "json", "--output-dir", "out", "--github")
    report = json.loads(done.out)
    assert report["outcome"] == "FAIL"
    assert report["format_version"] == 1
    assert report == json.loads((logs / "out" / "report.json").read_text(encoding="utf-8"))
    assert "::error" in done.err


def test_every_report_is_written_and_none_is_overwritten(emacheck_cli, logs):
    asked = ("compare", "reference.json", "low.json", "--output-dir", "out", "--junit", "junit.xml", "--plot", "p.png")
    assert emacheck_cli(*asked).code == 1
    assert sorted(p.name for p in (logs / "out").iterdir()) == ["report.json", "report.md", "report.png"]
    assert (logs / "p.png").read_bytes().startswith(b"\x89PNG")
    assert ET.parse(logs / "junit.xml").getroot().findall(".//failure")  # noqa: S314 - our own file
    again = emacheck_cli(*asked)
    assert (again.code, "exists already" in again.err) == (2, True), again


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--junit", "x", "--plot", "./x"], "--junit names the same file"),
        (["--output-dir", "d", "--junit", "d/report.json"], "report.json is a report that is written into d anyway"),
        (["--output-dir", "d", "--plot", "other/../d/report.png"], "report.png is a report"),
        (["--output-dir", "d", "--junit", "d/deeper/x.xml"], "expected a file right in d"),
        (["--output-dir", "d", "--junit", "d"], "expected a file right in d"),
        (["--output-dir", "d/e", "--plot", "d"], "d/e is to be in there"),
        (["--output-dir", "d", "--junit", "nowhere/x.xml"], "mkdir -p"),
        (["--plot", "q.png", "--junit", "nowhere/x"], "mkdir -p"),
        (["--plot", "q.png", "--junit", "good.json/x"], "found:    a file"),
        (["--output-dir", "good.json/d", "--plot", "q.png"], "good.json/d"),
    ],
)
def test_outputs_that_clash_or_have_no_place_are_refused_and_leave_nothing(emacheck_cli, logs, arguments, said):
    before = sorted(logs.iterdir())
    done = emacheck_cli("compare", "reference.json", "good.json", *arguments)
    assert (done.code, said in done.err, sorted(logs.iterdir())) == (2, True, before), done


def test_further_outputs_may_lie_in_the_new_directory(emacheck_cli, logs):
    asked = ("--output-dir", "d", "--junit", "d/j.xml", "--plot", "d/p.png")
    assert emacheck_cli("compare", "reference.json", "good.json", *asked).code == 0
    assert {path.name for path in (logs / "d").iterdir()} == {"j.xml", "p.png", *REPORTS}


def test_github_gets_annotations_and_a_summary(emacheck_cli, logs):
    env = {"GITHUB_STEP_SUMMARY": str(logs / "summary.md")}
    done = emacheck_cli("compare", "reference.json", "low.json", "--github", env=env)
    assert "::error title=" in done.out
    assert "FAIL" in (logs / "summary.md").read_text(encoding="utf-8")


def test_limits_come_from_options_and_from_a_toml_file(emacheck_cli, logs):
    limits = "".join(f"[{rule}]\nlimit = 0.5\n" for rule in ("mean_relative_error", "bias", "worst_window"))
    (logs / "limits.toml").write_text(limits, encoding="utf-8")
    assert emacheck_cli("compare", "reference.json", "low.json", "--limits", "limits.toml").code == 0
    asked = ("--limits", "limits.toml", "--limit", "mean_relative_error=0.3")
    assert emacheck_cli("compare", "reference.json", "low.json", *asked).code == 1
    assert emacheck_cli("compare", "reference.json", "good.json", "--limit", "mean_relative_error=0.0001").code == 1


@pytest.mark.parametrize(
    "content", ["a = " + "[" * 5000 + "]" * 5000, "[bias]\nlimit = 1" + "0" * 400, "[bias]\nlimit = 0x" + "f" * 9000]
)
def test_a_file_of_limits_that_nobody_can_use_is_refused(emacheck_cli, logs, content):
    (logs / "limits.toml").write_text(content, encoding="utf-8")
    done = emacheck_cli("compare", "reference.json", "good.json", "--limits", "limits.toml")
    assert (done.code, "limit" in done.err, "bug" in done.err) == (2, True, False), done


def test_the_modelzoo_rule_prints_the_script_s_four_lines_and_unmasks_them(emacheck_cli, logs):
    done = emacheck_cli("compare", "reference.json", "low.json", "--rule", "modelzoo")
    assert done.code == 0
    lines = done.out.splitlines()
    for start in ("MeanRelativeError: -0.39", "MeanAbsoluteError: -", "Rule,mean_absolute_error -", "pass mean_"):
        assert any(line.startswith(start) for line in lines), done
    assert "only because the errors are signed" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "mIoU"], "loss"),
        (["--rule", "nonsense"], "mean_relative_error"),
        (["--limit", "nonsense=1"], "no rule 'nonsense'"),
        (["--limit", "bias"], "RULE=NUMBER"),
        (["--limit", "bias=nan"], "not negative"),
        (["--limits", "nowhere.toml"], "nowhere.toml"),
        (["--limits", "reference.json"], "TOML"),
        (["--nonsense"], "--nonsense"),
        (["--format", "yaml"], "markdown"),
        (["--output-dir", "."], "exists already"),
        (["--plot", "nowhere/p.png"], "nowhere"),
        (["--junit", "nowhere/j.xml"], "nowhere"),
    ],
)
def test_wrong_options_exit_2_and_say_what_is_right(emacheck_cli, logs, arguments, said):
    done = emacheck_cli("compare", "reference.json", "good.json", *arguments)
    assert done.code == 2, done
    assert said in done.err


FOREIGN = [b"", b"\x00\x01\x02" * 1000, b"hello\nworld\n", b'{"a": ' * 100_000, b"\xff\xfe" * 50]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_that_is_no_log_exits_2(emacheck_cli, logs, content):
    (logs / "foreign").write_bytes(content)
    done = emacheck_cli("compare", "reference.json", "foreign")
    assert done.code == 2, done
    assert "foreign" in done.err


def test_a_foreign_file_of_5_gb_is_refused_at_once(emacheck_cli, logs):
    with (logs / "huge").open("wb") as file:
        file.truncate(5 * 2**30)
    assert emacheck_cli("compare", "reference.json", "huge", timeout=20).code == 2


def test_terminal_sequences_and_markup_in_a_log_are_never_replayed(emacheck_cli, logs):
    evil = "loss\x1b[31m<script>[red]"
    row = [json.dumps({evil: 4 - 0.1 * i, "loss": 4.0, "iter": i, "step": i}) for i in range(1, 20)]
    (logs / "evil.json").write_text("\n".join(row), encoding="utf-8")
    done = emacheck_cli("compare", "evil.json", "evil.json", "--metric", evil, "--output-dir", "out")
    assert done.code == 0, done
    assert "\x1b" not in done.out
    prose, _, _ = (logs / "out" / "report.md").read_text(encoding="utf-8").partition("```")  # code is never rendered
    assert "<script>" not in prose


def code_and_errors_of(arguments, cwd, *, stdout, stderr=subprocess.PIPE):
    command = [sys.executable, "-m", "emacheck", *arguments]
    done = subprocess.run(command, cwd=cwd, stdout=stdout, stderr=stderr, text=True, check=False)
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


@pytest.mark.parametrize(("candidate", "code"), [("good.json", 0), ("low.json", 1)])
def test_without_any_output_the_verdict_is_the_exit_code(logs, candidate, code):
    command = f"exec {sys.executable} -m emacheck compare reference.json {candidate} >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=logs, check=False).returncode == code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "working directory is gone: No such file"),
        (PermissionError(errno.EACCES, "Permission denied", "a\x1b.log"), "a\\x1b.log: Permission denied. See that"),
    ],
)
def test_what_the_system_refuses_is_trouble_that_says_what_to_do_and_no_bug(tmp_path, monkeypatch, capsys, error, said):
    import emacheck.logs
    from emacheck.cli import invoke

    def refused(*_, **__):
        raise error

    (tmp_path / "gone").mkdir()
    monkeypatch.setattr(emacheck.logs, "read_log", refused)
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert invoke(["compare", "reference.json", "good.json"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "bug" not in told


def modules_after(arguments, cwd):
    script = (
        "import sys\nfrom emacheck.cli import invoke\n"
        f"code = invoke({[str(a) for a in arguments]!r})\n"
        "print('\\n' + ' '.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_neither_numpy_nor_pandas(tmp_path):
    assert not modules_after(["--help"], tmp_path) & {"numpy", "pandas", "torch", "matplotlib", "rich", "scipy"}


def test_compare_imports_neither_torch_nor_matplotlib_nor_pandas_nor_scipy(logs):
    heavy = {"torch", "mmengine", "mmcv", "mmseg", "matplotlib", "pandas", "scipy"}
    assert not modules_after(["compare", "reference.json", "good.json"], logs) & heavy


def test_a_plot_does_not_import_pyplot(logs):
    script = (
        "import sys\nfrom emacheck.cli import invoke\n"
        "invoke(['compare', 'reference.json', 'good.json', '--plot', 'p.png'])\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=logs, check=False).returncode == 0


def test_importing_emacheck_imports_nothing_heavy():
    script = "import sys, emacheck; sys.exit(bool({'torch', 'mmengine', 'pandas', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_public_api_is_what_it_says():
    import emacheck

    for name in emacheck.__all__:
        assert getattr(emacheck, name) is not None
    assert len(emacheck.__all__) <= 13
    with pytest.raises(AttributeError, match="nonsense"):
        _ = emacheck.nonsense


def test_a_bug_exits_2_and_says_so(logs, monkeypatch, capsys):
    import emacheck.logs
    from emacheck.cli import invoke

    def broken(path):
        raise ZeroDivisionError

    monkeypatch.setattr(emacheck.logs, "read_log", broken)
    monkeypatch.chdir(logs)
    assert invoke(["compare", "reference.json", "good.json"]) == 2
    assert "bug in emacheck" in capsys.readouterr().err


def test_only_the_command_line_prints_or_exits():
    package = Path(__file__).parent.parent / "emacheck"
    for source in package.rglob("*.py"):
        # The worker and the probe are processes of their own and must exit with a code.
        if "cli" not in source.parts and source.name not in ("worker.py", "probe.py"):
            calls = [node.func for node in ast.walk(ast.parse(source.read_bytes())) if isinstance(node, ast.Call)]
            assert not {ast.unparse(call) for call in calls} & {"print", "sys.exit", "exit", "click.echo"}, source


def tcap(losses, *, ranks=1, seed=0):
    header = f"01/01 00:00:00 - mmengine - INFO - \nSystem environment:\n    numpy_random_seed: {seed}\n"
    return header + "".join(
        f"TCAPPDLL 2031-01-01 00:00:00.000001 - Epoch: 0 Iteration: {i}  rank : {rank}  train.loss : {loss + rank}  \n"
        for i, loss in enumerate(losses)
        for rank in range(ranks)
    )


def test_two_different_experiments_are_named(emacheck_cli, tmp_path):
    (tmp_path / "cuda.log").write_text(tcap(falling()), encoding="utf-8")
    (tmp_path / "sdaa.log").write_text(tcap(falling(off=-0.3), ranks=4, seed=7), encoding="utf-8")
    done = emacheck_cli("compare", "cuda.log", "sdaa.log")
    assert done.code == 1
    assert "Two different experiments: processes 1 against 4" in done.out


def test_the_modelzoo_rule_looks_at_rank_0_and_the_others_at_the_mean_of_ranks(emacheck_cli, tmp_path):
    (tmp_path / "one.log").write_text(tcap(falling()), encoding="utf-8")
    (tmp_path / "four.log").write_text(tcap(falling(), ranks=4), encoding="utf-8")
    assert emacheck_cli("compare", "one.log", "four.log").code == 1
    zoo = emacheck_cli("compare", "one.log", "four.log", "--rule", "modelzoo")
    assert (zoo.code, "MeanRelativeError: 0.0" in zoo.out) == (0, True), zoo
    assert emacheck_cli("compare", "one.log", "four.log", "--rank", "0").code == 0


def test_the_scoreboard_stands_beside_the_verdict_and_explains_disagreement(emacheck_cli, logs):
    done = emacheck_cli("compare", "reference.json", "low.json", "--scoreboard")
    assert done.code == 1
    for name in ("modelzoo", "unsigned 5 %", "MindFormers", "Megatron-LM", "bitwise"):
        assert name in done.out
    assert "passes because its errors are signed" in " ".join(done.out.split())
    refused = emacheck_cli("compare", "reference.json", "low.json", "--scoreboard", "--format", "json")
    assert refused.code == 2


def test_repeats_of_the_reference_bring_the_envelope_into_play(emacheck_cli, logs):
    for at in range(1, 5):
        noise = [loss * (1 + 1e-6 * math.sin(7 * i + at)) for i, loss in enumerate(falling())]
        write_scalars(logs / f"repeat{at}.json", noise)
    repeats = [part for at in range(1, 5) for part in ("--repeat", f"repeat{at}.json")]
    assert emacheck_cli("compare", "reference.json", "repeat1.json", *repeats[2:]).code == 0
    off = emacheck_cli("compare", "reference.json", "good.json", *repeats)
    assert (off.code, "FAIL     envelope" in off.out) == (1, True), off


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


@pytest.mark.parametrize(
    "word", ["\x1b[2Jx", "\x1b2", "it's\n\\here", "a\u202eb", "损 失", os.fsdecode(b"\xff"), "::error::x", "##[error]"]
)
def test_the_command_reproduces_whatever_the_arguments_hold(emacheck_cli, logs, word):
    (logs / word).write_bytes((logs / "reference.json").read_bytes())
    done = emacheck_cli("compare", word, "reference.json", "--output-dir", "out")
    command = done.last_line.partition(" | ")[2]
    assert command.isprintable()
    shown = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    assert [os.fsdecode(each) for each in shown.split(b"\0")[:-1]] == [
        *("emacheck", "compare", word, "reference.json", "--output-dir", "out")
    ]
    assert f"```\n{command}\n" in (logs / "out" / "report.md").read_text(encoding="utf-8").replace("```sh", "```")
    assert json.loads((logs / "out" / "report.json").read_bytes())["command"] == command


def test_a_file_of_limits_may_begin_with_a_byte_order_mark(emacheck_cli, logs):
    (logs / "limits.toml").write_text("\ufeff[bias]\r\nlimit = 0.7\r\n", encoding="utf-8")
    assert emacheck_cli("compare", "reference.json", "reference.json", "--limits", "limits.toml").code == 0
