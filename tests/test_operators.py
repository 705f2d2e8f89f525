"""Level 3: which operator is wrong, on what inputs, and whether it is the cause; on a CPU with operators broken."""

import json
import math

import pytest

torch = pytest.importorskip("torch")

from small_network import Block, audited, set_on, trained, trained_net  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.faults.places import replace_operator  # noqa: E402
from emacheck.audit.findings.operators import (  # noqa: E402
    PARTLY,
    PROVEN,
    RIGHT,
    UNPROVEN,
    UNRANKED,
    UNREPEATED,
    UNTRIED,
    read_operators,
)
from emacheck.audit.findings.result import read_result  # noqa: E402
from emacheck.audit.findings.text import text  # noqa: E402
from emacheck.audit.limits import Limits  # noqa: E402

QUICK = {"evaluation": False, "end_to_end": False, "operators": True}


def broken(name, change):
    """Return what breaks an operator of the candidate: its result, or what it wrote to, is changed."""

    def prepare(candidate):
        def run(func, args, kwargs):
            return change(func(*args, **kwargs))

        replace_operator(candidate, (name,), run)

    return prepare


def scaled(name, by=1e-3):
    def change(value):
        if isinstance(value, torch.Tensor):
            # In place, so that it holds for operators that work in place as well.
            return value.mul_(1 + by) if value.is_floating_point() else value
        return tuple(change(each) if each is not None and each.is_floating_point() else each for each in value)

    return broken(name, change)


def explained(prepare, subject=None, **options):
    """Return the audit, and what is said of the module that is most to blame."""
    result = audited(subject or trained_net(), prepare, **{**QUICK, **options})
    return result, result.operators.explanations[0]


@pytest.mark.parametrize(
    ("operator", "full", "phase"),
    [
        ("convolution", "aten.convolution.default", "forward"),
        ("convolution_backward", "aten.convolution_backward.default", "backward"),
        ("native_batch_norm_backward", "aten.native_batch_norm_backward.default", "backward"),
        ("add_", "aten.add_.Tensor", "forward"),
        ("_log_softmax", "aten._log_softmax.default", "forward"),
        ("addcdiv_", "aten.addcdiv_.default", "optimizer"),
    ],
)
def test_the_broken_operator_comes_first_and_is_proven_to_be_the_cause(operator, full, phase):
    result, found = explained(scaled(operator, 1e-3))
    assert str(result.outcome) == "FAIL"
    assert found.scope == result.module
    assert (found.conclusion, found.cause) == (PROVEN, (full,))
    worst = found.operators[0]
    assert (worst.operator, worst.phase) == (full, phase)
    assert worst.ratio > worst.limit
    assert found.wrong == (worst,)
    assert found.trials[-1].passes
    assert found.message.startswith(f"{result.module}: {full} ({phase}) is wrong: ratio ")
    assert found.message.endswith("passes")
    survey = result.operators.explanations[-1]
    assert (survey.scope, survey.conclusion, survey.operators[0].operator) == ("(iteration)", UNTRIED, full)


def test_the_worst_call_says_what_it_was_given_and_where_it_is_wrong():
    def one_element(value):
        value[1, 2, 3, 4] += 1.0
        return value

    _, found = explained(broken("convolution", one_element), modules="stem")
    worst = found.operators[0]
    assert (worst.index, worst.measure, worst.result) == ((1, 2, 3, 4), "peak", "result")
    assert worst.value - worst.truth == pytest.approx(1.0, abs=1e-5)
    assert [str(each) for each in worst.inputs][:2] == ["input float32 (4, 3, 16, 16)", "weight float32 (8, 3, 3, 3)"]
    assert worst.settings["padding"] == "[1, 1]"
    assert worst.repeats is True


def test_a_healthy_iteration_is_said_to_be_right_and_nothing_is_said_of_a_cause():
    result, survey = explained(None)
    assert str(result.outcome) == "PASS"
    assert (survey.scope, survey.conclusion, survey.cause, survey.wrong) == ("(iteration)", RIGHT, (), ())
    assert survey.calls > 40
    assert survey.unjudged == ()
    assert "every operator is right on the inputs it got" in survey.message
    assert not any("operator" in note for note in result.notes)


def test_without_the_option_nothing_is_ranked():
    assert audited(trained_net(), scaled("convolution"), evaluation=False, end_to_end=False).operators is None


def test_a_wrong_setting_is_no_wrong_operator_and_the_setting_is_named():
    _, found = explained(set_on("blocks.0.bn", eps=1e-2))
    assert (found.scope, found.conclusion, found.cause) == ("blocks.0.bn", RIGHT, ())
    assert "the error is in what is called with what" in found.message
    assert found.message.endswith(
        "aten.native_batch_norm.default is called with eps=0.01, where the reference has eps=1e-05"
    )


def test_other_code_is_no_wrong_operator_and_the_call_that_is_more_is_named():
    def prepare(candidate):
        candidate.model.head.linear.register_forward_hook(lambda *call: call[-1] * 1.001)

    _, found = explained(prepare)
    assert (found.scope, found.conclusion) == ("head.linear", RIGHT)
    assert "aten.mul.Tensor is called" in found.message


def test_two_wrong_operators_are_proven_together_and_one_that_does_not_matter_is_none_of_the_cause():
    def both(candidate):
        scaled("mean")(candidate)
        scaled("mul", 2e-3)(candidate)

    _, found = explained(both)
    assert found.scope == "head"
    assert found.conclusion == PROVEN
    assert set(found.cause) == {"aten.mean.dim", "aten.mul.Tensor"}
    assert [len(trial.operators) for trial in found.trials] == [1, 2, 1]
    assert [trial.passes for trial in found.trials] == [False, True, False]


def test_a_device_that_is_wrong_elsewhere_as_well_is_not_proven():
    def both(candidate):
        scaled("convolution")(candidate)
        candidate.model.stem.register_forward_hook(lambda *call: call[-1] + 0.5 * call[-1].roll(1, -1))

    _, found = explained(both, modules="stem")
    assert found.scope == "stem"
    assert (found.conclusion, found.cause) == (UNPROVEN, ())
    assert "not shown to be the cause" in found.message


def test_an_operator_that_is_some_of_what_is_wrong_is_called_so():
    def both(candidate):
        scaled("convolution", 0.1)(candidate)
        candidate.model.stem.register_forward_hook(lambda *call: call[-1] * 1.001)

    _, found = explained(both, modules="stem")
    assert (found.conclusion, found.cause) == (PARTLY, ())
    assert "so something else is wrong as well" in found.message


def test_the_outcome_stays_where_an_operator_is_wrong_and_no_module_is_and_a_note_says_so():
    result, survey = explained(scaled("convolution", 1e-4), limits=Limits(isolated=1e9))
    assert str(result.outcome) == "PASS"
    assert survey.wrong[0].operator == "aten.convolution.default"
    assert "aten.convolution.default is over the limit of an operator" in result.notes[-1]


def test_operators_are_ranked_and_proven_without_an_optimizer_as_well():
    model, _, batch, function = trained_net()
    _, found = explained(scaled("convolution"), (model, None, batch, function), modules="stem")
    assert (found.conclusion, found.cause) == (PROVEN, ("aten.convolution.default",))


def test_what_sets_the_wrong_calls_apart_is_said():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 6))

        def forward(self, value):
            return (value @ self.weight) @ self.weight.t()

    def prepare(candidate):
        def run(func, args, kwargs):
            factor = 1.0 if all(each.is_contiguous() for each in args) else 1.001
            return func(*args, **kwargs) * factor

        replace_operator(candidate, ("mm",), run)

    torch.manual_seed(0)
    subject = trained(nn.Sequential(Twice()), torch.randn(5, 6), lambda model, batch: model(batch).square().mean())
    _, found = explained(prepare, subject)
    worst = found.operators[0]
    assert worst.operator == "aten.mm.default"
    assert 0 < worst.over < worst.calls
    assert worst.only == "with inputs that are not contiguous"
    assert "calls, only those with inputs that are not contiguous" in found.message


def test_an_operator_that_does_not_repeat_is_said_to_be_so():
    noise = iter(range(1, 10_000))
    _, found = explained(broken("_log_softmax", lambda value: value * (1 + 1e-3 * next(noise))))
    worst = found.operators[0]
    assert (worst.operator, worst.repeats) == ("aten._log_softmax.default", False)
    assert "and it does not repeat" in found.message


def test_what_is_wrong_once_and_never_again_is_said_not_to_repeat():
    calls = []

    def once(value):
        calls.append(1)
        return value * (1.01 if len(calls) == 1 else 1.0)

    _, found = explained(broken("_log_softmax", once))
    assert found.conclusion == UNREPEATED
    assert "does not repeat" in found.message


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_result_that_is_not_finite_is_infinitely_far_off_and_json_stays_strict(wrong):
    result, found = explained(broken("_log_softmax", lambda value: torch.full_like(value, wrong)))
    assert found.operators[0].operator == "aten._log_softmax.default"
    assert found.operators[0].ratio == math.inf
    assert found.cause == ("aten._log_softmax.default",)
    written = json.dumps(result.to_json(), allow_nan=False)
    again = read_result(json.loads(written))
    assert again.operators.explanations[0].message == found.message
    assert json.dumps(again.to_json(), allow_nan=False) == written
    assert read_operators(result.operators.to_json()).lines == result.operators.lines


def test_an_operator_that_swallows_a_nan_is_found():
    _, found = explained(broken("relu_", lambda value: value.copy_(value.nan_to_num(0.0))), modules="blocks.0.relu")
    worst = found.operators[0]
    assert (worst.operator, worst.measure, worst.over) == ("aten.relu_.default", "nan", 1)
    assert found.cause == ("aten.relu_.default",)


def test_a_device_that_raises_once_its_operators_are_watched_keeps_its_verdict_and_the_reason_is_said():
    stage = []

    def change(value):
        stage.append(1)
        if len(stage) > 2:
            raise RuntimeError("the card fell off the bus")
        return value * 1.01

    result, found = explained(broken("_log_softmax", change), modules="(loss)")
    assert str(result.outcome) == "FAIL"
    assert found.conclusion == UNRANKED
    assert "could not be ranked" in found.message
    assert "the card fell off the bus" in found.message


def test_a_module_that_does_not_run_to_its_end_is_noted():
    def prepare(candidate):
        def fail(*_):
            raise ValueError("no such thing")

        candidate.model.stem.register_forward_hook(fail)

    result = audited(trained_net(), prepare, **{**QUICK, "operators": True})
    assert any("operators of stem were not ranked" in line for line in result.operators.lines)


def test_foreign_names_are_escaped_in_the_text():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("evil\x1b[31m", Block(3))

        def forward(self, value):
            return self._modules["evil\x1b[31m"](value).mean((2, 3))

    torch.manual_seed(0)
    batch = {"image": torch.randn(4, 3, 8, 8), "label": torch.randint(0, 3, (4,))}
    result, _ = explained(scaled("convolution"), trained(Net(), batch), modules="*conv")
    shown = text(result, command="emacheck audit")
    assert "operators: evil\\x1b[31m.conv: aten.convolution.default" in shown
    assert "\x1b" not in shown
    assert "\x1b" not in json.dumps(result.to_json())


def test_the_same_operators_in_16_bits_are_right_and_a_broken_one_is_found():
    subject = trained_net()
    result, survey = explained(None, subject, precision="bf16")
    assert (str(result.outcome), survey.conclusion) == ("PASS", RIGHT), survey.message
    _, found = explained(scaled("native_batch_norm", 0.02), subject, precision="bf16")
    assert found.cause == ("aten.native_batch_norm.default",)


def test_an_operator_of_the_evaluation_mode_alone_is_found():
    def prepare(candidate):
        def run(func, args, kwargs):
            value, *others = func(*args, **kwargs)
            return (value if args[5] else value * 1.001, *others)

        replace_operator(candidate, ("native_batch_norm",), run)

    _, found = explained(prepare, evaluation=True)
    assert (found.level, found.cause) == ("evaluation", ("aten.native_batch_norm.default",))


def test_what_only_the_whole_iteration_shows_is_ranked_there_and_proven_there():
    seen = []

    def prepare(candidate):
        def run(func, args, kwargs):
            found = func(*args, **kwargs)
            # Alone it is right; it is wrong where the whole network runs.
            return found * 1.01 if seen else found

        replace_operator(candidate, ("addmm",), run)

        def start(module, args):
            seen.append(1)

        def end(*_):
            seen.clear()

        candidate.model.register_forward_pre_hook(start)
        candidate.model.register_forward_hook(end)

    result = audited(trained_net(), prepare, evaluation=False, operators=True, modules="stem")
    assert (str(result.outcome), result.module) == ("FAIL", "(iteration)")
    (found,) = result.operators.explanations
    assert (found.scope, found.conclusion, found.cause) == ("(iteration)", PROVEN, ("aten.addmm.default",))
    assert found.operators[0].module == "head.linear"


def test_an_operator_close_to_its_limit_is_tried_as_well_and_called_what_it_is():
    _, found = explained(scaled("convolution", 3e-6), modules="stem", limits=Limits(isolated=3.0))
    assert found.wrong == ()
    assert found.suspects[0].operator == "aten.convolution.default"
    assert (found.conclusion, found.cause) == (PROVEN, ("aten.convolution.default",))
    assert "aten.convolution.default (forward) is close to its limit: ratio" in found.message
