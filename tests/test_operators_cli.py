"""Level 3 in the reports, and on the command line: it explains a verdict, and whatever it does leaves it as it is."""

import json
from dataclasses import replace

import pytest
from test_audit_before import HEAD, WRONG, a_verdict

from emacheck.audit.findings.operators import PROVEN, Explanation, OperatorFindings
from emacheck.audit.findings.result import read_result
from emacheck.audit.findings.text import text
from emacheck.audit.findings.verdict import audit_finding
from emacheck.cli.audit import supervision
from emacheck.cli.audit.job import AuditJob
from emacheck.cli.audit.supervision import audit_in_worker
from emacheck.cli.judging import with_audit
from emacheck.errors import TrainingError
from emacheck.report.document import document
from emacheck.report.markdown import markdown
from emacheck.strict_json import to_json
from emacheck.train.request import TrainingRequest

CAUSE = (
    f"{HEAD}: aten._softmax.default (forward) is wrong: ratio 949 (limit 30), 3 of 3 calls; with it computed on the "
    "CPU the module passes"
)
RANKED = OperatorFindings(
    explanations=(
        Explanation(
            scope=HEAD,
            level="isolated",
            batch=1,
            conclusion=PROVEN,
            cause=("aten._softmax.default",),
            message=CAUSE,
        ),
    ),
    notes=("operators of backbone.bn1 were not ranked: \x1b[31mit does not run",),
    seconds=7.5,
)
EXPLAINED = replace(WRONG, operators=RANKED)
JOB = AuditJob(request=TrainingRequest(preset="smoke", config=None), device="sdaa")


class TestReports:
    def test_the_document_holds_the_operators_once_and_in_strict_json(self):
        made = json.loads(to_json(document(a_verdict(EXPLAINED), command="", environment={}, audit=EXPLAINED)))
        assert made["operators"] == RANKED.to_json()
        assert "operators" not in made["audit"]
        assert read_result(json.loads(json.dumps(EXPLAINED.to_json()))).operators == RANKED

    def test_the_message_of_a_fail_names_the_cause_and_outcome_and_figures_stay(self):
        plain, explained = audit_finding(WRONG), audit_finding(EXPLAINED)
        assert CAUSE in explained.message
        assert replace(explained, message="") == replace(plain, message="")

    def test_text_and_markdown_show_every_line_and_escape_it(self):
        shown = text(EXPLAINED, command="emacheck audit")
        assert f"  operators: {CAUSE}" in shown
        assert "operators: operators of backbone.bn1 were not ranked: \\x1b[31mit does not run" in shown
        section = markdown(a_verdict(EXPLAINED), command="", environment={}, plot=None, audit=EXPLAINED)
        assert "- operators: decode" in section
        assert "\x1b" not in shown + section

    def test_a_verdict_is_the_same_with_and_without_them(self):
        verdict = a_verdict(None)
        one, other = with_audit(verdict, WRONG), with_audit(verdict, EXPLAINED)
        assert (one.outcome, one.worst.observed) == (other.outcome, other.worst.observed)


def a_worker(tmp_path, after):
    """Return a stand-in for Python that decides, says that it ranks, and then does something."""
    (tmp_path / "decided.json").write_text(json.dumps(WRONG.to_json()), encoding="utf-8")
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\n# -m emacheck.cli.audit.worker DIRECTORY\n"
        f'cp {tmp_path}/decided.json "$3/decided.json"\n'
        'echo "Ranking operators of decode_head.ema_module" >> "$3/progress.txt"\n'
        f"{after}\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("after", "timeout", "said"),
    [
        ("kill -SEGV $$", 60, "SIGSEGV"),
        ("exec sleep 60", 0.3, "hung: no progress for 0.3 s"),
        ("exit 7", 60, "exit code 7"),
    ],
)
def test_the_verdict_stays_if_the_device_crashes_or_hangs_while_operators_are_ranked(
    monkeypatch, tmp_path, after, timeout, said
):
    monkeypatch.setattr(supervision.sys, "executable", a_worker(tmp_path, after))
    result = audit_in_worker(JOB, timeout=timeout)
    assert (str(result.outcome), result.module, result.findings) == ("FAIL", HEAD, WRONG.findings)
    (note,) = result.operators.notes
    assert note.startswith("operators could not be ranked: the audit on sdaa ")
    assert said in note
    assert "Ranking operators of decode_head.ema_module" in note


def test_a_worker_that_fails_after_it_has_written_its_result_fails_as_ever(monkeypatch, tmp_path):
    after = 'cp "$3/decided.json" "$3/result.json"\nexit 7'
    monkeypatch.setattr(supervision.sys, "executable", a_worker(tmp_path, after))
    with pytest.raises(TrainingError, match="exit code 7"):
        audit_in_worker(JOB, timeout=60)


def test_operators_without_an_audit_are_refused(emacheck_cli):
    done = emacheck_cli("run", "--no-audit", "--operators")
    assert done.code == 2
    assert "--no-audit and --operators: give one of the two." in done.err


ALONE = ("--batches", 1, "--modules", "decode_head.ema_module", "--no-end-to-end")


@pytest.mark.slow
@pytest.mark.training
def test_a_fail_on_the_command_line_names_the_operator_and_proves_it(emacheck_cli, simulated_device, tmp_path):
    broken = simulated_device("scale _softmax by=1e-3")
    done = emacheck_cli("audit", "--device", "sdaa", *ALONE, "--output-dir", "report", env=broken, timeout=600)
    assert done.code == 1, done
    assert "aten._softmax.default (forward) is wrong: ratio " in done.out
    assert "3 of 3 calls; with it computed on the CPU the module passes" in done.out
    found = json.loads((tmp_path / "report" / "audit.json").read_text(encoding="utf-8"))["operators"]
    assert [each["cause"] for each in found["explanations"]] == [["aten._softmax.default"]]
    assert found["explanations"][0]["operators"][0]["inputs"][0]["dtype"] == "float32"
    without = emacheck_cli("audit", "--device", "sdaa", *ALONE, "--no-operators", "--json", env=broken, timeout=600)
    assert (without.code, json.loads(without.out)["operators"]) == (1, None)
    assert (
        json.loads(without.out)["worst"]
        == json.loads((tmp_path / "report" / "audit.json").read_text(encoding="utf-8"))["worst"]
    )


@pytest.mark.slow
@pytest.mark.training
def test_a_device_that_hangs_while_its_operators_are_ranked_keeps_its_fail(emacheck_cli, simulated_device):
    # The audit calls it three times in training, with NaN and in evaluation mode.
    broken = simulated_device("scale _softmax by=1e-3", "hang _softmax call=11")
    done = emacheck_cli("audit", "--device", "sdaa", *ALONE, "--timeout", 60, "--json", env=broken, timeout=600)
    assert done.code == 1, done
    found = json.loads(done.out)
    assert found["module"] == "decode_head.ema_module"
    assert "hung: no progress for 60 s" in found["operators"]["notes"][0]
