"""The audit inside of ``emacheck run``: what it adds to the verdict, to the reports and to what is left of a run."""

import json
import math
import os
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SLIM, emacheck_process, wait_until

from emacheck.audit.findings.result import ITERATION, AuditResult, ModuleFinding, TensorError, find, read_result
from emacheck.audit.findings.verdict import audit_finding
from emacheck.cli.audit.before import _told
from emacheck.cli.judging import with_audit
from emacheck.curve import Curve
from emacheck.judge import Outcome, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.rules.integrity import Integrity
from emacheck.logs import read_log
from emacheck.oddity import OddityKind, oddity
from emacheck.on_cpu import ran_on_the_cpu
from emacheck.record import Record
from emacheck.report.card import card
from emacheck.report.document import document
from emacheck.report.github import annotations
from emacheck.report.junit import junit
from emacheck.report.markdown import markdown
from emacheck.report.text import text
from emacheck.report.wording import headline
from emacheck.strict_json import to_json
from emacheck.train.launching.parent import MARK

# What audit.json holds and report.json elsewhere, or not at all.
BESIDE = ("tensors", "operators")
HEAD, NORM = "decode_head.ema_module", "backbone.bn1"


def an_error(module=HEAD, ratio=1.5, *, tensor="output", phase="forward", level="isolated", batch=1, limit=30.0):
    return TensorError(
        module=module, kind="EMAModule", tensor=tensor, phase=phase, level=level, batch=batch, depth=3,
        error=ratio * 1e-7, accepted=1e-7, limit=limit,
    )  # fmt: skip


def an_audit(*errors, troubles=(), notes=()):
    return AuditResult(
        device="sdaa", precision="fp32", errors=errors, findings=find(errors, troubles), notes=tuple(notes),
        seconds=62.0, peak_memory=2**32, state_hash="5" * 64, batch_hashes=("b",),
    )  # fmt: skip


def a_trouble(module=NORM, outcome=Outcome.INCONCLUSIVE, message="bn1 needs aten::native_batch_norm, which it lacks"):
    return ModuleFinding(
        module=module, kind="BatchNorm2d", outcome=outcome, phase="forward", introduced=True, message=message
    )


def a_verdict(audit=None, *, off=0.0, oddities=()):
    falling = [4.0 - 0.013 * at for at in range(20)]
    curves = [[value * (1 + x) for value in falling] for x in (0.0, off)]
    loss = [Curve(name="loss", iterations=range(1, 21), values=values) for values in curves]
    reference, candidate = (
        Record(name=name, format="example", curves={"loss": c}) for name, c in zip("rc", loss, strict=True)
    )
    comparison = compare(reference, replace(candidate, oddities=oddities))
    return with_audit(decide(comparison, make_rules(["mean_relative_error"])), audit)


GOOD = an_audit(an_error(), an_error(NORM, 0.5))
WRONG = an_audit(
    an_error(ratio=900.0, tensor="input gradient x", phase="backward"),
    an_error(ratio=1200.0, tensor="gradient conv1.weight", phase="backward"),
    an_error(NORM, 0.5),
    an_error(NORM, 400.0, tensor="gradient weight", phase="backward", level="end to end", limit=10.0),
)


class TestFinding:
    def test_a_good_audit_passes_with_its_worst_ratio_and_blames_nobody(self):
        finding = audit_finding(GOOD)
        assert (finding.rule, finding.outcome, finding.module) == ("audit", Outcome.PASS, "")
        assert (finding.observed, finding.limit) == (pytest.approx(1.5), 30.0)
        assert finding.would_pass_at == finding.observed
        assert "2 tensors of 2 modules on sdaa" in finding.message
        assert finding.message.endswith(f"the closest is {HEAD} output")

    def test_a_fail_names_module_tensor_phase_ratio_and_limit(self):
        finding = audit_finding(WRONG)
        assert (finding.outcome, finding.module, finding.iteration) == (Outcome.FAIL, HEAD, 1)
        assert (finding.observed, finding.limit, finding.unit) == (pytest.approx(1200.0), 30.0, "x accepted error")
        for said in (HEAD, "gradient conv1.weight", "phase backward", "2 of its tensors", "whole iteration differs"):
            assert said in finding.message
        assert finding.would_pass_at is None

    def test_what_lies_between_the_modules_is_named_as_the_iteration(self):
        finding = audit_finding(an_audit(an_error(NORM, 400.0, level="end to end", limit=10.0)))
        assert (finding.outcome, finding.module) == (Outcome.FAIL, ITERATION)
        assert (finding.observed, finding.limit) == (pytest.approx(400.0), 10.0)
        assert f"{NORM} output" in finding.message

    def test_a_missing_operator_is_inconclusive_and_nothing_was_observed(self):
        finding = audit_finding(an_audit(an_error(), troubles=[a_trouble()]))
        assert (finding.outcome, finding.module) == (Outcome.INCONCLUSIVE, NORM)
        assert math.isnan(finding.observed)
        assert "aten::native_batch_norm" in finding.message

    def test_a_fail_beats_what_could_not_be_compared_and_counts_it(self):
        finding = audit_finding(an_audit(an_error(ratio=50.0), troubles=[a_trouble()]))
        assert (finding.outcome, finding.module) == (Outcome.FAIL, HEAD)
        assert "1 more could not be compared" in finding.message

    def test_an_exception_on_the_device_alone_is_infinitely_far_off(self):
        finding = audit_finding(an_audit(troubles=[a_trouble(outcome=Outcome.FAIL, message="bn1 fails: boom")]))
        assert (finding.outcome, finding.observed, finding.severity) == (Outcome.FAIL, math.inf, math.inf)

    def test_nothing_compared_is_inconclusive(self):
        assert audit_finding(an_audit()).outcome is Outcome.INCONCLUSIVE

    def test_a_nan_is_no_pass(self):
        finding = audit_finding(an_audit(an_error(ratio=math.nan)))
        assert finding.outcome is Outcome.FAIL
        assert finding.severity == math.inf

    def test_notes_limit_the_verdict_whatever_the_outcome(self):
        finding = audit_finding(an_audit(an_error(), notes=["fp16 overflows"]))
        assert finding.limited_by == ("fp16 overflows",)
        assert "limited by: fp16 overflows" in finding.message

    def test_what_ran_on_the_cpu_in_the_training_as_well_is_said_once(self):
        (remark,) = ran_on_the_cpu("sdaa", fallback=["aten::relu"])
        audit = an_audit(an_error(), notes=[remark, "fp16 overflows"])
        candidate = oddity(OddityKind.ON_CPU, remark)
        trained = a_verdict(oddities=(candidate,))
        verdict = with_audit(replace(trained, findings=Integrity().check(trained.comparison)), audit)
        assert [finding.limited_by for finding in verdict.findings] == [
            ("fp16 overflows",),
            (f"the candidate: {remark}",),
        ]
        shown = card(verdict, command="emacheck run", environment={}).replace("\\", "")
        assert (shown.count(remark), shown.count("fp16 overflows")) == (1, 1)
        assert sum(finding.message.count(remark) for finding in verdict.findings) == 1
        # Where no other finding says it, the audit does.
        assert remark in with_audit(trained, audit).findings[0].limited_by

    def test_is_made_without_torch(self):
        code = "import sys, emacheck.audit.findings.verdict, emacheck.report.audited; assert 'torch' not in sys.modules"
        subprocess.run([os.sys.executable, "-c", code], check=True)


class TestVerdict:
    @pytest.mark.parametrize(
        ("audit", "off", "outcome", "rule"),
        [
            (GOOD, 0.0, "PASS", "audit"),
            (WRONG, 0.0, "FAIL", "audit"),
            (GOOD, 0.5, "FAIL", "mean_relative_error"),
            (WRONG, 0.1, "FAIL", "audit"),
            (an_audit(), 0.0, "INCONCLUSIVE", "audit"),
            (an_audit(), 0.5, "FAIL", "mean_relative_error"),
        ],
    )
    def test_fail_beats_inconclusive_beats_pass_and_the_worst_is_named(self, audit, off, outcome, rule):
        verdict = a_verdict(audit, off=off)
        assert (str(verdict.outcome), verdict.worst.rule) == (outcome, rule)

    def test_says_what_it_rests_on(self):
        assert a_verdict().evidence == ("curve",)
        assert a_verdict(GOOD).evidence == ("curve", "audit")

    def test_the_headline_names_the_module_and_that_no_curve_shows_it(self):
        assert headline(a_verdict(WRONG)) == (
            f"FAIL audit 1200 (limit 30) at iteration 1 in {HEAD}, curves bit-identical"
        )
        assert headline(a_verdict(GOOD)) == "PASS audit 1.5 (limit 30) at iteration 1, bit-identical"


class TestReports:
    def test_the_document_holds_the_audit_without_its_tensors(self):
        made = json.loads(to_json(document(a_verdict(WRONG), command="", environment={}, audit=WRONG)))
        assert made["evidence"] == ["curve", "audit"]
        assert made["audit"].pop("tensors_in") == "audit.json"
        assert made["audit"] == {key: value for key, value in WRONG.to_json().items() if key not in BESIDE}
        assert made["findings"][0]["module"] == made["audit"]["module"] == HEAD
        assert made["operators"] is None

    def test_the_whole_of_it_can_be_read_again(self):
        assert read_result(json.loads(json.dumps(WRONG.to_json()))).findings == WRONG.findings

    def test_markdown_shows_outcome_module_worst_tensors_and_picture(self):
        shown = markdown(
            a_verdict(WRONG), command="", environment={}, plot=None, audit=WRONG, audit_plot="audit.png"
        )  # fmt: skip
        section = shown[shown.index("## Audit") : shown.index("## Records")]
        assert f"**FAIL** on sdaa in fp32, module {HEAD.replace('_', '_')}, first in phase backward" in section
        rows = [line for line in section.splitlines() if line.startswith("| **FAIL**")]
        assert ["gradient conv1.weight" in rows[0], "end to end" in rows[-1], len(rows)] == [True, True, 3]
        assert "](audit.png)" in section
        assert "rests on curves and an audit" in shown

    def test_text_and_last_line_name_it(self):
        shown = text(a_verdict(WRONG), command="emacheck run", colour=False)
        assert "rests on   curves and an audit of the device, tensor by tensor" in shown
        assert shown.splitlines()[-1].startswith(f"FAIL audit 1200 (limit 30) at iteration 1 in {HEAD}")

    @pytest.mark.parametrize(("audit", "element"), [(WRONG, "failure"), (an_audit(), "error"), (GOOD, "system-out")])
    def test_junit_has_it_as_a_test_case_whose_name_never_changes(self, audit, element):
        case = ET.fromstring(junit(a_verdict(audit), command="")).find("testcase")  # noqa: S314
        assert (case.get("classname"), case.get("name"), case[0].tag) == ("emacheck.audit", "audit", element)

    def test_github_is_told(self):
        (error,) = annotations(a_verdict(WRONG))
        assert error.startswith("::error title=emacheck audit::FAIL: observed 1200, limit 30. ")
        assert HEAD in error
        (notice,) = annotations(a_verdict(GOOD))
        assert "an audit of the device" in notice

    @pytest.mark.parametrize("foreign", ["\x1b[31m", "a|b\n# x", "<script>", "\u202e", "::error::x"])
    def test_nothing_that_a_device_says_is_obeyed(self, foreign):
        from emacheck.audit.findings.text import text as audit_text

        audit = an_audit(troubles=[a_trouble(module=foreign, message=foreign)], notes=[foreign])
        verdict = a_verdict(audit)
        shown = markdown(verdict, command="", environment={}, plot=None, audit=audit)
        for said in (text(verdict, command="", colour=False), audit_text(audit, command=""), shown):
            assert all(c.isprintable() or c == "\n" for c in said)
        assert "<script>" not in shown
        assert not any(line.startswith("# x") for line in shown.splitlines())
        ET.fromstring(junit(verdict, command=""))  # noqa: S314
        assert all(line.startswith("::warning title=emacheck audit::") for line in annotations(verdict))


def workers():
    """Return the processes that any run has marked as its own and that audit."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
        except OSError:
            continue
        if b"emacheck.cli.audit.worker" in command and f"{MARK}=".encode() in variables:
            found.append(int(place.name))
    return found


def worker_of(process):
    """Wait for the audit's worker of a command and return it."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for worker in workers():
            try:
                parent = (Path("/proc") / str(worker) / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == process.pid:
                return worker
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return pytest.fail("no worker was started")


def is_gone(worker):
    return wait_until(lambda: worker not in workers())


@pytest.fixture
def run(tmp_path):
    """Start a run that audits; its data and states lie in the user's cache."""
    pytest.importorskip("mmseg")

    def start(*arguments, **options):
        return emacheck_process(
            "run", "--iters", 3, "--threads", 1, "--work-dir", tmp_path / "run", *arguments, cwd=tmp_path, **options
        )

    return start


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        (GOOD, None),
        (WRONG, "The verdict will be FAIL."),
        (an_audit(troubles=[a_trouble()]), "cannot be PASS"),
    ],
)
def test_what_the_audit_means_for_the_verdict_is_said_before_the_training(tmp_path, audit, said):
    told = _told(audit, tmp_path)
    assert told.startswith(f"Audit: {audit.outcome}. ")
    assert str(tmp_path / "audit.html") in told
    assert "The verdict" not in told if said is None else said in told.splitlines()[-1]


@pytest.mark.training
def test_an_interrupt_during_the_audit_exits_2_and_leaves_no_process(run, tmp_path):
    process = run()
    worker = worker_of(process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "interrupted; there is no result of the audit" in err
    assert "Traceback" not in err
    assert all(path.stat().st_size for path in tmp_path.rglob("run/*"))
    assert is_gone(worker)


@pytest.mark.training
def test_no_worker_outlives_a_command_that_was_killed_outright(run):
    process = run()
    worker = worker_of(process)
    # Once it reads its job it watches the command; until then there is nothing that could outlive for long.
    process.kill()
    process.communicate(timeout=60)
    assert is_gone(worker)


@pytest.mark.training
def test_a_killed_audit_exits_2_says_so_and_trains_nothing(run, tmp_path):
    process = run()
    os.kill(worker_of(process), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "the audit on cpu was ended by SIGKILL (often the system out of memory)" in err
    assert err.rstrip().endswith("To train and judge without the audit: --no-audit.")
    assert not (tmp_path / "run" / "iterations.jsonl").exists()


@pytest.mark.training
def test_an_audit_that_hangs_exits_2_and_says_after_what(run):
    # Loading torch and the data takes longer than that.
    process = run("--timeout", 1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "the audit on cpu hung: no progress for 3 s after" in err
    assert "--no-audit" in err


@pytest.mark.training
def test_another_experiment_is_refused_before_it_is_audited_and_leaves_nothing(run, tmp_path):
    process = run("--cfg-options", "optim_wrapper.optimizer.momentum=0.8")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "optim_wrapper.optimizer.momentum: reference 0.9, candidate 0.8" in err
    assert "Auditing batch" not in err
    assert not (tmp_path / "run").exists()
    assert not err.rstrip().endswith("--no-audit.")


@pytest.mark.slow
@pytest.mark.training
# No rule of the curves sees a softmax of the attention that is off by 0.1 %.
@pytest.mark.parametrize("fault", [None, "scale _softmax by=1e-3"])
def test_a_run_on_the_simulated_device_rests_on_the_audit(emacheck_cli, simulated_device, references, tmp_path, fault):
    outcome, module = ("FAIL", HEAD) if fault else ("PASS", None)
    env = simulated_device(*([fault] if fault else [])) | {"EMACHECK_REFERENCES": str(references)}
    short = ("--iters", 3, "--limit", "coverage.minimum=3", "--audit-batches", 1, "--threads", 1)
    done = emacheck_cli(
        "run", "--device", "sdaa", *short, "--work-dir", "run", "--cfg-options", *SLIM, env=env, timeout=600
    )
    assert done.code == (1 if fault else 0), done
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert (report["outcome"], report["evidence"]) == (outcome, ["curve", "audit"])
    assert (report["audit"]["outcome"], report["audit"]["module"]) == (outcome, module)
    assert report["findings"][0]["module"] == module
    causes = [each["cause"] for each in report["operators"]["explanations"]] if fault else report["operators"]
    assert causes == ([["aten._softmax.default"]] if fault else None)
    assert all(finding["outcome"] == "PASS" for finding in report["findings"][1:])
    assert done.last_line.startswith(f"{outcome} audit " if fault else "PASS ")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {
        "audit.json",
        "audit.txt",
        "audit.png",
        "audit.html",
        "audit.log",
        "report.json",
        "report.html",
        "card.md",
        "iterations.jsonl",
    } <= left
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"<title>{outcome} run against " in page
    assert (f">{causes[0][0]}</th>" in page) if fault else (">Operators</h2>" not in page)
    whole = json.loads((tmp_path / "run" / "audit.json").read_text(encoding="utf-8"))
    assert len(whole["tensors"]) > 1000
    assert f"Audit: {outcome}." in done.err
    assert ("The verdict will be FAIL" in done.err) == bool(fault)
    norms = [
        read_log(place).curves["grad_norm"].values.tolist()
        for place in (tmp_path / "run", next(references.glob("*/cpu-fp32-*")))
    ]
    assert (norms[0] == norms[1]) == (not fault)
