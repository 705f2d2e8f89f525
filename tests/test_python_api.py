"""The public names, what they refuse, and the page about them."""

import copy
import doctest
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

import emacheck
from emacheck import EmacheckError, Outcome

PAGE = ROOT / "docs" / "python-api.md"


def recorded(factor=1.0, **known):
    loss = emacheck.Curve(name="loss", iterations=range(1, 51), values=[(4 - 0.02 * i) * factor for i in range(50)])
    return emacheck.Record(name="run", format="example", curves={"loss": loss}, **known)


@pytest.fixture(scope="module")
def passed():
    return emacheck.compare(recorded(), recorded())


@pytest.fixture(scope="module")
def failed():
    return emacheck.decide(emacheck.compare(recorded(), recorded(0.61)))


def test_the_page_shows_what_it_says():
    pytest.importorskip("torch")
    done = doctest.testfile(str(PAGE), module_relative=False)
    assert (done.failed, done.attempted > 15) == (0, True)


def test_every_public_name_is_on_the_page_and_can_be_listed():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in emacheck.__all__ if f"`{name}" not in text and f"emacheck.{name}" not in text] == []
    assert set(emacheck.__all__) <= set(dir(emacheck))


def test_what_needs_torch_says_how_to_install_it_and_the_help_of_the_rest_can_be_read():
    program = (
        "import pydoc, sys\n"
        "sys.modules['torch'] = None\n"
        "import emacheck\n"
        "assert 'is training on this device' in pydoc.render_doc(emacheck)\n"
        "try:\n"
        "    emacheck.audit_step\n"
        "except emacheck.EmacheckError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtraError emacheck.audit_step needs torch, which is not installed here.")


def test_a_verdict_is_never_taken_for_true_so_that_assert_cannot_pass_a_fail(failed):
    audit = emacheck.AuditResult(device="cpu", precision="fp32", errors=(), findings=())
    for each in (failed, failed.outcome, audit):
        with pytest.raises(EmacheckError, match=r"neither true nor false.*verdict\.outcome is emacheck\.Outcome\.PASS"):
            assert each
    assert failed.outcome == "FAIL"


def test_what_decided_is_seen_wherever_a_verdict_is_shown(failed, passed):
    assert repr(failed).startswith("<Verdict FAIL bias[loss] -0.39 (limit 0.01) at iteration ")
    assert (
        repr(passed)
        == "<Comparison in loss of <Record 'run' (example): loss (50)> and <Record 'run' (example): loss (50)>>"
    )
    assert repr(emacheck.Verdict(comparison=passed, findings=())) == "<Verdict INCONCLUSIVE>"
    audit = emacheck.AuditResult(device="cpu", precision="fp32", errors=(), findings=())
    assert repr(audit) == "<AuditResult INCONCLUSIVE on cpu in fp32>"


def test_a_record_of_many_metrics_is_shown_in_a_line_that_obeys_nobody():
    curve = recorded().curves["loss"]
    shown = repr(emacheck.Record(name="a\x1b", format="example", curves={f"loss{at}\x1b": curve for at in range(9)}))
    assert "\x1b" not in shown
    assert shown.endswith("3 more>")


def test_verdicts_can_be_copied_and_come_from_other_processes(failed):
    for same in (copy.deepcopy(failed), pickle.loads(pickle.dumps(failed))):  # noqa: S301
        assert str(same) == str(failed)
        assert same.comparison.candidate.curves["loss"].values.tolist() == [
            *failed.comparison.candidate.curves["loss"].values
        ]
        with pytest.raises(TypeError, match="does not support item assignment"):
            same.comparison.candidate.curves["loss"] = None
    several = recorded(of_ranks={0: recorded().curves, 1: recorded().curves}, provenance={"seed": 1})
    assert pickle.loads(pickle.dumps(several)).of_ranks[1]["loss"].name == "loss"  # noqa: S301


def test_batches_are_the_same_ones_whether_listed_or_not():
    one, two = (recorded(initial_state="state", batches=batches) for batches in (("a", "b") * 25, ["a", "b"] * 25))
    assert emacheck.compare(one, two).paired is True


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"curves": [1]}, "curves is a list, expected a mapping"),
        ({"curves": None}, "curves is a NoneType, expected a mapping"),
        ({"curves": {"loss": [4.0, 3.9]}}, "curves has a list under 'loss', expected a Curve"),
        ({"curves": {}, "validation": {"mIoU": 0.5}}, "validation has a float under 'mIoU', expected a Curve"),
        ({"curves": {}, "batches": "abc"}, "batches is a string"),
    ],
)
def test_what_is_no_record_is_refused_and_said(known, message):
    with pytest.raises(EmacheckError, match=f"record 'mine': {message}"):
        emacheck.Record(name="mine", format="example", **known)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: emacheck.compare("a.log", "b.log"), r"found str as the reference.*emacheck\.read_log\(path\)"),
        (lambda c: emacheck.compare(c.reference, c.reference.curves["loss"]), "found Curve as the candidate"),
        (lambda c: emacheck.compare(c.reference, c.candidate, repeats=c.reference), r"repeats=\[record\]"),
        (lambda c: emacheck.compare(c.reference, c.candidate, repeats=["a.log"]), r"found str as repeats\[0\]"),
        (lambda c: emacheck.compare(c.reference, c.candidate, metrics="loss"), r"metrics=\['loss'\]"),
        (lambda c: emacheck.compare(c.reference, c.candidate, metrics=["acc"]), r"in Python metrics=\[NAME\]"),
        (lambda c: emacheck.decide(c.reference), "found Record, expected a Comparison"),
        (lambda c: emacheck.decide(c, ["bias"]), r"found 'bias' as a rule.*emacheck\.make_rules"),
        (lambda c: emacheck.decide(c, "bias"), "found 'bias' as a rule"),
        (lambda c: emacheck.decide(c, emacheck.make_rules(["bias"])[0]), r"expected a sequence: \[rule\]"),
        (lambda c: emacheck.decide(c, [type(emacheck.make_rules(["bias"])[0])]), "found <class .*Bias'> as a rule"),
        (lambda _: emacheck.make_rules("bias"), r"expected a sequence: \['bias'\]"),
        (lambda _: emacheck.make_rules(["bias"], {"bias": 0.01}), 'expected a mapping .*{"bias": {"limit": ...}}'),
    ],
)
def test_arguments_of_another_kind_are_refused_and_what_was_meant_is_said(passed, call, message):
    with pytest.raises(EmacheckError, match=message):
        call(passed)


def test_a_score_of_validations_that_is_asked_for_is_said_to_be_judged_anyway():
    score = emacheck.Curve(name="mIoU", iterations=[50], values=[0.4])
    record = recorded(validation={"mIoU": score})
    with pytest.raises(
        EmacheckError, match="mIoU is of validations, of which the rule final_metric judges every score"
    ):
        emacheck.compare(record, record, metrics=["mIoU"])
    assert "final_metric" in {finding.rule for finding in emacheck.decide(emacheck.compare(record, record)).findings}


def test_a_limit_may_be_a_number_of_numpy():
    (rule,) = emacheck.make_rules(["coverage"], {"coverage": {"limit": np.float32(0.5), "minimum": np.int64(3)}})
    assert (rule.limit, rule.minimum) == (0.5, 3)


class NoSpike:
    """A rule of one's own, as the page shows one."""

    name = "no_spike"

    def __init__(self, outcome=Outcome.PASS):
        self.outcome = outcome

    def check(self, comparison):  # noqa: ARG002
        found = emacheck.Finding(
            rule=self.name, outcome=self.outcome, observed=1.0, limit=2.0, unit="x", iteration=None, message="m"
        )
        return (found,)


def test_an_own_rule_judges_beside_the_others_and_beside_the_default_ones(passed):
    verdict = emacheck.decide(passed, (*emacheck.make_rules(["bias"]), NoSpike("FAIL")))
    assert [str(finding.outcome) for finding in verdict.findings] == ["PASS", "FAIL"]
    assert verdict.worst.rule == "no_spike"
    default = emacheck.decide(passed)
    both = replace(default, findings=(*default.findings, *NoSpike("FAIL").check(passed)))
    assert (default.outcome, both.outcome, both.worst.rule) == (Outcome.PASS, Outcome.FAIL, "no_spike")


def test_an_own_rule_whose_answer_is_none_of_the_three_or_no_finding_does_not_pass(passed):
    with pytest.raises(EmacheckError, match="finding of no_spike: found outcome 'Fail', expected one of PASS, FAIL"):
        emacheck.decide(passed, (*emacheck.make_rules(["bias"]), NoSpike("Fail")))
    for answer in (False, NoSpike().check(passed)[0], ["FAIL"]):
        rule = NoSpike()
        rule.check = lambda _, answer=answer: answer
        with pytest.raises(EmacheckError, match=r"rule no_spike: check returned .*, expected a tuple of findings"):
            emacheck.decide(passed, [rule])
