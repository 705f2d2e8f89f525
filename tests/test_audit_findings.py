"""What an audit makes of the tensors that it compared: who is to blame, in which order, and how that is said."""

import json
import math
from dataclasses import replace

import pytest

from emacheck.audit.findings.operators import OperatorFindings
from emacheck.audit.findings.result import ITERATION, AuditResult, ModuleFinding, TensorError, find, read_result
from emacheck.audit.findings.verdict import audit_finding
from emacheck.audit.operators.scopes import Scope, scopes_of
from emacheck.judge import Outcome

FAIL, INCONCLUSIVE, PASS = Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS


def an_error(module, ratio, *, tensor="output", phase="forward", level="isolated", batch=1, limit=30.0):
    return TensorError(
        module=module,
        kind="Conv2d",
        tensor=tensor,
        phase=phase,
        level=level,
        batch=batch,
        depth=1,
        error=ratio,
        accepted=1.0,
        limit=limit,
    )


def a_trouble(module, outcome=INCONCLUSIVE):
    return ModuleFinding(
        module=module, kind="", outcome=outcome, phase="forward", introduced=True, message=f"{module} could not run"
    )


def whole(ratio, batch, **more):
    return an_error("head", ratio, **{"level": "end to end", "limit": 10.0, "batch": batch, **more})


ERRORS = (
    an_error("stem", 1.0),
    an_error("body", 40.0, phase="backward", tensor="gradient weight"),
    an_error("body", 900.0, phase="optimizer", tensor="update weight"),
    an_error("body", 50.0, level="evaluation"),
    an_error("tail", 5000.0, level="evaluation"),
    whole(60.0, 1, phase="backward"),
    whole(70.0, 2, phase="backward"),
    whole(300.0, 1, phase="optimizer", tensor="update"),
    whole(2.0, 2, phase="optimizer", tensor="update"),
)
TROUBLES = (a_trouble(ITERATION), a_trouble("neck"), a_trouble("neck"))

UNSTEADY = replace(a_trouble("neck"), tensor="neck output", message="the reference itself does not repeat.")


def result_of(errors=ERRORS, troubles=(), **fields):
    return AuditResult(device="sdaa", precision="fp32", errors=tuple(errors), findings=find(errors, troubles), **fields)


def test_what_is_wrong_alone_is_blamed_first_the_worst_before_all_and_what_could_not_run_after_it():
    tail, body, neck, iteration, trouble = find(ERRORS, TROUBLES)
    assert [each.module for each in (tail, body, neck, iteration, trouble)] == [
        "tail",
        "body",
        "neck",
        ITERATION,
        ITERATION,
    ]
    assert (tail.outcome, tail.ratio, tail.limit, tail.count, tail.introduced) == (FAIL, 5000.0, 30.0, 1, True)
    assert tail.message == "tail (Conv2d) is wrong on the reference's own inputs in evaluation mode: output"
    assert (body.phase, body.tensor, body.ratio, body.count) == ("forward", "update weight", 900.0, 3)
    assert body.message == "body (Conv2d) is wrong on the reference's own inputs: update weight"
    assert (neck.outcome, trouble.outcome) == (INCONCLUSIVE, INCONCLUSIVE)


def test_the_whole_iteration_is_blamed_for_what_lasts_and_inherits_it_only_from_a_module_that_is_wrong():
    inherited = next(each for each in find(ERRORS) if each.module == ITERATION)
    assert (inherited.introduced, inherited.phase, inherited.tensor) == (False, "backward", "head output")
    assert (inherited.ratio, inherited.limit, inherited.count) == (70.0, 10.0, 1)
    assert inherited.message.endswith("first in phase backward: inherited from the modules above")
    (between,) = find(ERRORS[5:])
    assert between.introduced
    assert between.message.endswith("no module is wrong alone, so it lies between them")


def test_the_whole_iteration_is_blamed_for_the_phase_that_broke_first_by_the_worst_tensor_of_that_phase():
    errors = [
        whole(11.0, 1, phase="backward", tensor="gradient bias"),
        whole(40.0, 1, phase="backward"),
        whole(9000.0, 1, phase="optimizer", tensor="update"),
    ]
    for order in (errors, errors[::-1]):
        (found,) = find(order)
        assert (found.phase, found.tensor, found.ratio, found.count) == ("backward", "head output", 40.0, 3)


def test_a_module_whose_numbers_are_nan_is_as_much_to_blame_as_any_and_first_where_it_comes_first():
    nan, far = an_error("nan", math.nan), replace(an_error("far", 1.0, phase="backward"), accepted=0.0)
    for order in ((an_error("near", 900.0), far, nan), (nan, far, an_error("near", 900.0))):
        assert [each.module for each in find(order)] == ["nan", "far", "near"]


def test_what_could_not_run_in_one_batch_hides_no_failure_of_the_same_module_in_another():
    failed = a_trouble("neck", FAIL)
    unable = replace(failed, outcome=INCONCLUSIVE, message="neck ran out of memory")
    other = replace(failed, module="head")
    for troubles in ([failed, unable, other], [unable, failed, other]):
        outcomes = {(each.module, each.outcome) for each in find(ERRORS[:1], troubles)}
        assert outcomes == {("neck", FAIL), ("neck", INCONCLUSIVE), ("head", FAIL)}


def test_no_error_is_within_any_accepted_one_and_any_error_is_over_none():
    none, some = replace(an_error("stem", 0.0), accepted=0.0), replace(an_error("stem", 1e-9), accepted=0.0)
    assert (none.ratio, none.passes, some.ratio, some.passes) == (0.0, True, math.inf, False)
    assert an_error("stem", 30.0).passes
    assert result_of([an_error("stem", 29.0), an_error("body", math.nan)]).worst.module == "body"
    assert result_of([an_error("stem", 9.0), an_error("body", 8.0, limit=10.0)]).worst.module == "body"


@pytest.mark.parametrize(
    ("troubles", "outcome", "module", "phase"),
    [((), PASS, None, None), (TROUBLES, INCONCLUSIVE, None, None), ([a_trouble("a", FAIL)], FAIL, "a", "forward")],
)
def test_what_could_not_run_is_never_a_pass_and_blames_nobody(troubles, outcome, module, phase):
    result = result_of(ERRORS[:1], troubles)
    assert (result.outcome, result.module, result.phase) == (outcome, module, phase)
    assert audit_finding(result).outcome is outcome


@pytest.mark.parametrize(
    ("errors", "troubles", "figures", "module", "words"),
    [
        ([whole(4.0, 1), an_error("stem", 6.0)], (), (4.0, 10.0), "", "in 1 batch; the closest is head output"),
        ([], [a_trouble("neck", FAIL)], (math.inf, 30.0), "neck", "neck could not run (in phase forward)"),
        ([], [UNSTEADY], (math.nan, 30.0), "neck", "the reference itself does not repeat (in phase forward)"),
        ([], (), (math.nan, 30.0), "", "no tensor was compared on sdaa"),
    ],
)
def test_the_finding_of_an_audit_has_the_figures_of_what_it_is_about(errors, troubles, figures, module, words):
    finding = audit_finding(result_of(errors, troubles))
    assert (finding.observed, finding.limit) == pytest.approx(figures, nan_ok=True)
    assert finding.module == module
    assert words in finding.message
    assert (finding.would_pass_at is None) is (finding.outcome is not PASS)


def test_a_verdict_blames_what_failed_though_what_could_not_run_is_named_before_it():
    result = replace(result_of(ERRORS[:1]), findings=(a_trouble("neck"), *find(ERRORS[4:5])))
    assert (audit_finding(result).module, audit_finding(result).observed) == ("tail", 5000.0)


def test_the_verdict_of_a_failed_audit_names_the_operator_and_that_of_no_other_does():
    found = OperatorFindings(notes=("aten.bmm.default is wrong", "another"))
    assert audit_finding(result_of(operators=found)).message.endswith("; aten.bmm.default is wrong")
    assert "aten.bmm" not in audit_finding(result_of(ERRORS[:1], operators=found)).message


def test_a_verdict_counts_what_else_is_wrong():
    assert audit_finding(result_of()).message.endswith("; 1 more module is wrong; the whole iteration differs as well")
    said = audit_finding(result_of(ERRORS[:5], TROUBLES)).message
    assert said.endswith("; 1 more module is wrong; 2 more could not be compared")
    assert "is wrong; " not in audit_finding(result_of([ERRORS[4]])).message
    assert "1 tensor of 1 module on sdaa is within its limit" in audit_finding(result_of(ERRORS[:1])).message


def test_a_printed_result_shows_findings_operators_and_notes_and_names_the_devices_of_its_processes():
    devices = tuple(f"sdaa:{number}" for number in range(9))
    result = result_of(notes=("a note",), operators=OperatorFindings(notes=("the device hung",)), ranks=devices)
    first, *findings, operators, note = str(result).splitlines()
    places = ", ".join(devices[:8])
    assert first == f"FAIL audit on sdaa and of 9 processes on {places} ... in fp32: 9 tensors compared"
    assert findings == [f"FAIL {finding.message}" for finding in result.findings]
    assert (operators, note) == ("the device hung", "note: a note")
    assert " on sdaa:1 in fp32" in str(replace(result, ranks=("sdaa:1",) * 9))
    assert repr(result).endswith(f" in fp32: {result.findings[0].message}>")
    assert repr(result_of(ERRORS[:1])) == "<AuditResult PASS on sdaa in fp32>"


def test_a_result_is_read_as_it_was_written():
    result = result_of(
        (*ERRORS, an_error("far", math.inf)),
        troubles=TROUBLES,
        notes=("a note",),
        state_hash="5" * 64,
        batch_hashes=("b", "c"),
        seconds=1.125,
        peak_memory=2**32,
        ranks=("cpu", "cpu"),
        operators=OperatorFindings(notes=("the device hung",), seconds=1.5),
    )
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert read_result(written) == result
    assert (written["worst"]["module"], written["worst"]["ratio"]) == ("far", "Infinity")


def scope(name, **fields):
    return Scope(**{"name": name, "level": "isolated", "batch": 1, "depth": 1, "kind": "Conv2d", **fields})


@pytest.mark.parametrize(
    ("errors", "troubles", "scopes"),
    [
        (ERRORS[:1], (), []),
        (ERRORS, (), [scope("tail", level="evaluation"), scope("body")]),
        # Where it is worst, which is not where it is first.
        (
            [an_error("body", 40.0), an_error("body", 50.0, batch=2), an_error("body", 20.0, batch=3)],
            (),
            [scope("body", batch=2)],
        ),
        ([an_error("body", 8.0, batch=1, limit=5.0), an_error("body", 40.0, batch=2)], (), [scope("body", batch=1)]),
        ([an_error(str(at), 99.0 - at) for at in range(5)], (), [scope("0"), scope("1"), scope("2")]),
        (ERRORS[:1], TROUBLES, []),
        (
            [an_error("stem", 29.0), whole(60.0, 1), whole(70.0, 2), whole(900.0, 1, level="processes")],
            (),
            [scope(ITERATION, level="end to end", batch=2, depth=0, kind="")],
        ),
        # An invariant that is broken names no tensor that an operator made.
        (ERRORS[:1], [a_trouble(ITERATION, FAIL)], []),
    ],
)
def test_operators_are_looked_at_in_the_modules_most_to_blame_where_they_are_worst(errors, troubles, scopes):
    assert scopes_of(result_of(errors, troubles)) == (scopes, [])


def test_why_the_operators_of_a_failing_module_are_not_looked_at_is_noted():
    fails, differs = a_trouble("neck", FAIL), replace(a_trouble("head", FAIL), tensor="output when it was repeated")
    scopes, notes = scopes_of(result_of([*ERRORS[5:7], ERRORS[1], an_error("head", 1.0)], [fails, differs]))
    assert [each.name for each in scopes] == ["body"]
    assert notes == [
        "operators of neck were not ranked: it does not run to its end (neck could not run)",
        "operators of head were not ranked: what is wrong shows only when several calls or processes are held against "
        "each other",
    ]
    # That something fails alone explains the whole iteration.
    assert scopes_of(result_of(ERRORS[5:7], [fails]))[0] == []
    many = [a_trouble(str(at), FAIL) for at in range(5)]
    assert len(scopes_of(result_of((), many))[1]) == 3
