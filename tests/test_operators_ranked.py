"""How calls of operators are counted, ranked and told apart, and what an explanation says of them; no torch."""

import json
import math
from dataclasses import replace

import pytest

from emacheck.audit.findings.operator_wording import message_of
from emacheck.audit.findings.operators import (
    PARTLY,
    PROVEN,
    RIGHT,
    UNPROVEN,
    UNREPEATED,
    UNTRIED,
    Explanation,
    Input,
    OperatorError,
    OperatorFindings,
    Trial,
    Unjudged,
    read_operators,
)
from emacheck.audit.operators.ranking import Ranking, Traits, apart


def row(operator="aten.mm.default", ratio=90.0, **fields):
    given = {"module": "head", "phase": "forward", "result": "result", "limit": 30.0, "error": ratio, "accepted": 1.0}
    more = {"measure": "norm", "index": (), "value": 0.0, "truth": 0.0, "inputs": (), "settings": {}, "calls": 2}
    return OperatorError(**{"operator": operator, "ratio": ratio, "over": 1, **given, **more, **fields})


def traits(phase="forward", *, contiguous=True, dtype="float32"):
    return Traits(phase=phase, contiguous=contiguous, dtype=dtype)


@pytest.mark.parametrize(
    ("over", "right", "said"),
    [
        ([traits(contiguous=False)], [traits()], "with inputs that are not contiguous"),
        ([traits()], [traits(contiguous=False)], "with inputs that are all contiguous"),
        ([traits("backward")], [traits(), traits("optimizer")], "in phase backward"),
        ([traits(dtype="bfloat16")], [traits(), traits("backward")], "of bfloat16"),
        ([traits("backward"), traits("backward", dtype="float16")], [traits()], "in phase backward"),
        ([traits("backward"), traits()], [traits("optimizer")], ""),
        ([traits()], [traits(), traits("backward")], ""),
        ([traits()], [], ""),
        ([], [traits()], ""),
    ],
)
def test_only_what_all_wrong_calls_have_and_no_right_one_has_sets_them_apart(over, right, said):
    assert apart(over, right) == said


def test_calls_are_counted_and_the_worst_operator_comes_first():
    ranking = Ranking()
    for name, ratio, limit in (("first", 29.0, 30.0), ("nan", math.nan, 30.0), ("half", 20.0, 10.0)):
        ranking.worst[name] = row(name, ratio, limit=limit)
        ranking.add(name, traits(), over=not ratio <= limit)
    ranking.add("half", traits(), over=True)
    ranking.add("half", traits("backward"), over=False)
    ranking.add("half", traits("backward"), over=False)
    ranked = ranking.ranked()
    assert [(each.operator, each.calls, each.over, each.only) for each in ranked] == [
        ("nan", 1, 1, ""),
        ("half", 4, 2, "in phase forward"),
        ("first", 1, 0, ""),
    ]
    assert ranking.calls == 6
    assert [each.badness for each in ranked] == [math.inf, 2.0, 29 / 30]


def test_what_was_not_judged_is_listed_unless_only_a_probe_was_left_out_of_what_was():
    ranking = Ranking()
    ranking.add("judged", traits(), over=False)
    for name in ("judged", "probed", "probed"):
        ranking.skip_probe(name, "its inputs hold NaN")
    ranking.skip("judged", "the CPU lacks it")
    ranking.skip("judged", "the CPU lacks it")
    assert ranking.unjudged() == (
        Unjudged(operator="judged", calls=2, why="the CPU lacks it"),
        Unjudged(operator="probed", calls=2, why="its inputs hold NaN"),
    )


def explanation(conclusion, *operators, trials=(), **fields):
    given = {"scope": "head", "level": "isolated", "batch": 1, "message": "", "ratio": 500.0, "limit": 30.0}
    trials = tuple(Trial(operators=(), ratio=ratio, limit=30.0, passes=ratio <= 30) for ratio in trials)
    more = {"operators": operators, "trials": trials, "calls": 2 * len(operators)}
    return Explanation(**{"conclusion": conclusion, **given, **more, **fields})


def test_suspects_are_what_is_wrong_and_what_is_close_to_its_limit_only_where_nothing_is():
    wrong, close, right = row("wrong"), row("close", 11.0), row("right", 10.0)
    assert explanation(RIGHT, wrong, close, right).suspects == (wrong,)
    assert explanation(RIGHT, close, right).suspects == (close,)
    assert explanation(RIGHT, close, right).wrong == ()
    assert explanation(RIGHT, row("nan", math.nan)).wrong != ()
    assert explanation(RIGHT, row("at its limit", 30.0)).wrong == ()


NORM, MM = row("aten.norm.default", 60.0, module="backbone", phase="backward"), row(over=2, repeats=False)
FINE, UNJUDGED = row(ratio=2.0), tuple(Unjudged(operator=str(at), calls=1, why="so") for at in range(5))
WRONG_MM = "aten.mm.default (forward) is wrong: ratio 90 (limit 30), 2 of 2 calls, and it does not repeat"
WRONG_NORM = "aten.norm.default (backward in backbone) is wrong: ratio 60 (limit 30), 1 of 2 calls"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (explanation(PROVEN, MM, NORM, cause=(MM.operator,)), f"{WRONG_MM}; with it computed on the CPU the module"),
        (
            explanation(PROVEN, MM, NORM, cause=(MM.operator, NORM.operator), scope="(optimizer)"),
            "1 of 2 calls; with them computed on the CPU the optimizer passes",
        ),
        (explanation(UNTRIED, MM, NORM), f"{WRONG_MM} and {WRONG_NORM}"),
        (explanation(UNTRIED, MM, *[row(str(at)) for at in range(4)]), "(limit 30), 1 of 2 calls and 2 more"),
        (
            explanation(PARTLY, MM, trials=(40.0,)),
            "with it computed on the CPU it differs by 40 (limit 30) instead of 500, so something else is wrong as",
        ),
        (
            explanation(UNPROVEN, MM, NORM, trials=(450.0,)),
            "with them computed on the CPU it differs by 450 (limit 30)",
        ),
        (explanation(UNREPEATED, MM, trials=(2.0,)), "repeated as it is it is within its limits now (2, limit 30), so"),
        (
            explanation(UNREPEATED, MM, ratio=3.0),
            "with its operators watched it is within its limits (3, limit 30), so",
        ),
        (explanation(RIGHT), "no operator could be judged (it runs none that computes)"),
        (explanation(RIGHT, FINE), "2 calls of 1 operator; the worst ratio is 2 (limit 30), of aten.mm.default)"),
        (explanation(RIGHT, FINE), ": the error is in what is called with what, not in an operator"),
        (
            explanation(RIGHT, FINE, unjudged=UNJUDGED),
            "not judged: 0 (so), 1 (so), 2 (so) and 2 more",
        ),
    ],
)
def test_an_explanation_says_what_is_wrong_how_often_and_what_was_proven(found, said):
    assert said in message_of(found)
    assert message_of(found).startswith(f"{found.scope}: ")


def test_what_is_wrong_is_said_and_no_more_than_there_is():
    assert message_of(explanation(UNTRIED, MM, NORM)) == f"head: {WRONG_MM} and {WRONG_NORM}"


def test_a_module_whose_numbers_are_nan_though_every_operator_is_right_is_called_otherwise():
    assert message_of(explanation(RIGHT, FINE, ratio=math.nan)).endswith("called with what, not in an operator")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((FINE,), "every operator that torch shows is right on the inputs it got (2 calls of 1 operator; "),
        ((), "no operator could be judged: "),
    ],
)
def test_what_a_device_computes_unseen_is_not_called_right(rows, said):
    found = message_of(explanation(RIGHT, *rows), also="aten.t.default is called once", unseen="aten.silu.default")
    assert found.startswith(f"head: {said}")
    assert found.endswith(
        "aten.silu.default, which the reference calls, is not called there: either it is left out, or the device "
        "computes it in a kernel that torch does not show"
    )


def test_a_survey_in_which_nothing_failed_blames_no_call():
    survey = explanation(RIGHT, FINE, level="end to end", ratio=math.nan)
    assert message_of(survey).endswith("of aten.mm.default)")


def test_findings_are_read_as_they_were_written_with_what_is_no_number():
    given = Input(name="self", dtype="float32", shape=(2, 3), strides=(1, 2), contiguous=False)
    odd = row(
        error=math.inf,
        accepted=math.inf,
        value=-math.inf,
        truth=math.inf,
        limit=math.inf,
        index=(1, 2),
        inputs=(given,),
    )
    found = explanation(PROVEN, odd, ratio=math.inf, limit=math.inf, trials=(math.inf,), cause=("aten.mm.default",))
    found = replace(found, message="mm is wrong", unjudged=UNJUDGED)
    findings = OperatorFindings(explanations=(found,), notes=("a note",), seconds=1.5)
    written = json.loads(json.dumps(findings.to_json(), allow_nan=False))
    assert read_operators(written) == findings
    assert read_operators(written).lines == ("mm is wrong", "a note")
    assert str(read_operators(written).explanations[0].operators[0].inputs[0]) == "self float32 (2, 3) strides (1, 2)"
