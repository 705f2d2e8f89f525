"""``emacheck compare`` as a user meets it: exit codes, last lines, options and messages."""

import errno
import math

import pytest
from conftest import falling, write_scalars


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


def test_a_nan_fails(emacheck_here, logs):
    losses = falling()
    losses[60] = float("nan")
    write_scalars(logs / "nan.json", losses)
    done = emacheck_here("compare", "reference.json", "nan.json")
    assert (done.code, "iteration 61" in done.out) == (1, True), done


def test_a_run_that_died_fails(emacheck_here, logs):
    write_scalars(logs / "dead.json", falling(3))
    assert emacheck_here("compare", "reference.json", "dead.json").code == 1


def test_limits_come_from_options_and_from_a_toml_file(emacheck_here, logs):
    limits = "".join(f"[{rule}]\nlimit = 0.5\n" for rule in ("mean_relative_error", "bias", "worst_window"))
    # A file serves several comparisons: that of a rule that is not in use here is passed over.
    (logs / "limits.toml").write_text(f"{limits}[envelope]\nalpha = 0.02\n", encoding="utf-8")
    assert emacheck_here("compare", "reference.json", "low.json", "--limits", "limits.toml").code == 0
    asked = ("--limits", "limits.toml", "--limit", "mean_relative_error=0.3")
    assert emacheck_here("compare", "reference.json", "low.json", *asked).code == 1
    assert emacheck_here("compare", "reference.json", "good.json", "--limit", "mean_relative_error=0.0001").code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--require", "fingerprints"], "required, and not judged: not both records carry fingerprints"),
        (
            ["--require", "bias", "--unpaired"],
            "required, and not judged: by default it does not judge runs that are not",
        ),
        (["--limits", "limits.toml"], "required, and not judged: not both records carry fingerprints"),
    ],
)
def test_without_a_required_rule_a_good_pair_is_inconclusive_and_the_report_says_why(
    emacheck_here, logs, arguments, said
):
    (logs / "limits.toml").write_text("[fingerprints]\nrequired = true\n", encoding="utf-8")
    done = emacheck_here("compare", "reference.json", "good.json", *arguments)
    assert done.code == 3
    assert said in " ".join(done.out.split())


@pytest.mark.parametrize("arguments", [["--require", "bias"], ["--rule", "finite", "--require", "bias"]])
def test_a_required_rule_judges_where_it_suits_the_logs(emacheck_here, logs, arguments):
    assert emacheck_here("compare", "reference.json", "good.json", *arguments).code == 0
    low = emacheck_here("compare", "reference.json", "low.json", *arguments)
    assert (low.code, "FAIL bias" in " ".join(low.out.split())) == (1, True), low.out


@pytest.mark.parametrize(
    "content",
    [
        "a = " + "[" * 5000 + "]" * 5000,
        "[bias]\nlimit = 1" + "0" * 400,
        "[bias]\nlimit = 0x" + "f" * 9000,
        "[biass]\nlimit = 0.5",
        "[biass]\nrequired = false",
        "[bias]\nrequired = 1",
    ],
    ids=["too deep", "too large", "too long", "no such rule", "no such rule to require", "required as a number"],
)
def test_a_file_of_limits_that_nobody_can_use_is_refused(emacheck_here, logs, content):
    (logs / "limits.toml").write_text(content, encoding="utf-8")
    done = emacheck_here("compare", "reference.json", "good.json", "--limits", "limits.toml")
    assert (done.code, "--limits limits.toml" in done.err, "bug" in done.err) == (2, True, False), done


def test_the_modelzoo_rule_prints_the_script_s_four_lines_and_unmasks_them(emacheck_here, logs):
    done = emacheck_here("compare", "reference.json", "low.json", "--rule", "modelzoo")
    assert done.code == 0
    lines = done.out.splitlines()
    for start in ("MeanRelativeError: -0.39", "MeanAbsoluteError: -", "Rule,mean_absolute_error -", "pass mean_"):
        assert any(line.startswith(start) for line in lines), done
    assert "only because the errors are signed" in done.out


def test_two_arrays_of_a_file_are_told_from_a_metric_that_two_files_have(emacheck_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "both.txt").write_text("=== CUDA ===\n4.5 4.25\n3.75\n=== SDAA ===\n4.5 4.25\n3.5\n", encoding="utf-8")
    done = emacheck_here("compare", "both.txt", "both.txt")
    assert done.code == 2
    assert "name each behind its path, as in both.txt#NAME." in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "mIoU"], "loss"),
        (["--rule", "nonsense"], "mean_relative_error"),
        (["--limit", "nonsense=1"], "no rule 'nonsense'"),
        (["--require", "nonsense"], "no rule 'nonsense'"),
        (["--limit", "bias"], "RULE=NUMBER"),
        (["--limit", "bias=nan"], "not negative"),
        (["--limit", "fingerprints=0"], "is not used here: not both records carry fingerprints"),
        (
            ["--unpaired", "--limit", "bias=0.02"],
            "is not used here: by default it does not judge runs that are not paired",
        ),
        (["--limits", "nowhere.toml"], "nowhere.toml"),
        (["--limits", "reference.json"], "TOML"),
        (["--nonsense"], "--nonsense"),
        (["--format", "yaml"], "markdown"),
        (["--output-dir", "."], "exists already"),
        (["--plot", "nowhere/p.png"], "nowhere"),
        (["--junit", "nowhere/j.xml"], "nowhere"),
    ],
)
def test_wrong_options_exit_2_and_say_what_is_right(emacheck_here, logs, arguments, said):
    done = emacheck_here("compare", "reference.json", "good.json", *arguments)
    assert done.code == 2, done
    assert said in done.err


@pytest.mark.parametrize(
    ("logs_given", "advice"), [((), "emacheck compare cuda.log sdaa.log"), (("good.json",), "emacheck show good.json")]
)
def test_fewer_logs_than_two_are_refused_with_what_each_is_for(emacheck_here, logs, logs_given, advice):
    done = emacheck_here("compare", *logs_given)
    assert (done.code, done.out) == (2, "")
    assert f"expected two logs, LOG_A and LOG_B, found {len(logs_given)}. The first is the reference" in done.err
    assert advice in done.err


def test_three_logs_are_refused_with_what_to_do_about_the_third(emacheck_here, logs):
    done = emacheck_here("compare", "reference.json", "good.json", "low.json", "--format", "json")
    assert (done.code, done.out) == (2, "")
    assert "expected two logs, LOG_A and LOG_B, found 3" in done.err
    assert "--repeat low.json" in done.err


FOREIGN = [b"", b"\x00\x01\x02" * 1000, b"hello\nworld\n", b'{"a": ' * 100_000, b"\xff\xfe" * 50]


@pytest.mark.parametrize("content", FOREIGN, ids=["nothing", "binary", "prose", "nested deeply", "no UTF-8"])
def test_a_file_that_is_no_log_exits_2(emacheck_here, logs, content):
    (logs / "foreign").write_bytes(content)
    done = emacheck_here("compare", "reference.json", "foreign")
    assert done.code == 2, done
    assert "foreign" in done.err


def test_a_foreign_file_of_5_gb_is_refused_at_once(emacheck_cli, logs):
    with (logs / "huge").open("wb") as file:
        file.truncate(5 * 2**30)
    assert emacheck_cli("compare", "reference.json", "huge", timeout=20).code == 2


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


def test_a_bug_exits_2_and_says_so(logs, monkeypatch, capsys):
    import emacheck.logs
    from emacheck.cli import invoke

    def broken(path):
        raise ZeroDivisionError

    monkeypatch.setattr(emacheck.logs, "read_log", broken)
    monkeypatch.chdir(logs)
    assert invoke(["compare", "reference.json", "good.json"]) == 2
    assert "bug in emacheck" in capsys.readouterr().err


def tcap(losses, *, ranks=1, seed=0):
    header = f"01/01 00:00:00 - mmengine - INFO - \nSystem environment:\n    numpy_random_seed: {seed}\n"
    return header + "".join(
        f"TCAPPDLL 2031-01-01 00:00:00.000001 - Epoch: 0 Iteration: {i}  rank : {rank}  train.loss : {loss + rank}  \n"
        for i, loss in enumerate(losses)
        for rank in range(ranks)
    )


def test_two_different_experiments_are_named(emacheck_here, tmp_path):
    (tmp_path / "cuda.log").write_text(tcap(falling()), encoding="utf-8")
    (tmp_path / "sdaa.log").write_text(tcap(falling(off=-0.3), ranks=4, seed=7), encoding="utf-8")
    done = emacheck_here("compare", "cuda.log", "sdaa.log")
    assert done.code == 1
    assert "Two different experiments: processes 1 against 4" in done.out


def test_the_modelzoo_rule_looks_at_rank_0_and_the_others_at_the_mean_of_ranks(emacheck_here, tmp_path):
    (tmp_path / "one.log").write_text(tcap(falling()), encoding="utf-8")
    (tmp_path / "four.log").write_text(tcap(falling(), ranks=4), encoding="utf-8")
    assert emacheck_here("compare", "one.log", "four.log").code == 1
    zoo = emacheck_here("compare", "one.log", "four.log", "--rule", "modelzoo")
    assert (zoo.code, "MeanRelativeError: 0.0" in zoo.out) == (0, True), zoo
    assert emacheck_here("compare", "one.log", "four.log", "--rank", "0").code == 0


def test_the_scoreboard_stands_beside_the_verdict_and_explains_disagreement(emacheck_here, logs):
    done = emacheck_here("compare", "reference.json", "low.json", "--scoreboard")
    assert done.code == 1
    for name in ("modelzoo", "unsigned 5 %", "MindFormers", "Megatron-LM", "bitwise"):
        assert name in done.out
    assert "passes because its errors are signed" in " ".join(done.out.split())
    refused = emacheck_here("compare", "reference.json", "low.json", "--scoreboard", "--format", "json")
    assert refused.code == 2


def test_repeats_of_the_reference_bring_the_envelope_into_play(emacheck_here, logs):
    for at in range(1, 5):
        noise = [loss * (1 + 1e-6 * math.sin(7 * i + at)) for i, loss in enumerate(falling())]
        write_scalars(logs / f"repeat{at}.json", noise)
    repeats = [part for at in range(1, 5) for part in ("--repeat", f"repeat{at}.json")]
    assert emacheck_here("compare", "reference.json", "repeat1.json", *repeats[2:]).code == 0
    off = emacheck_here("compare", "reference.json", "good.json", *repeats)
    assert (off.code, "FAIL     envelope" in off.out) == (1, True), off


def test_a_file_of_limits_may_begin_with_a_byte_order_mark(emacheck_here, logs):
    (logs / "limits.toml").write_text("\ufeff[bias]\r\nlimit = 0.7\r\n", encoding="utf-8")
    assert emacheck_here("compare", "reference.json", "reference.json", "--limits", "limits.toml").code == 0
