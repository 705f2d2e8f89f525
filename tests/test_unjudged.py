"""What stands beside the judged metrics: broken validations and gradients, loss components that are off or lacking."""

import math
from dataclasses import replace

import numpy as np
import pytest

from emacheck import Curve, Record
from emacheck.judge import Outcome, decide, default_rules, make_rules
from emacheck.judge.comparison import compare

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
COUNT = 200
RNG = np.random.default_rng(0)
LOSS = (1.5 + 2.5 * np.exp(-3 * np.arange(COUNT) / COUNT)) * (1 + 0.03 * RNG.standard_normal(COUNT))


def curve_of(name, values, at=None):
    iterations = range(1, len(values) + 1) if at is None else at
    return Curve(name=name, iterations=list(iterations), values=list(values))


def run(*, off=0.0, validation=None, loss=LOSS, format="test", precision=None, **curves):  # noqa: A002
    metrics = {"loss": loss * (1 + off), **curves}
    return Record(
        name="run",
        format=format,
        curves={name: curve_of(name, values) for name, values in metrics.items()},
        validation={
            name: values if isinstance(values, Curve) else curve_of(name, values, range(50, 50 * len(values) + 1, 50))
            for name, values in (validation or {}).items()
        },
        provenance={"experiment": {"precision": precision}} if precision else {},
    )


def with_nan(at, value=math.inf):
    values = np.full(COUNT, 3.0)
    values[at] = value
    return values


def finding_on(reference, candidate, rule="integrity"):
    found = decide(compare(reference, candidate), make_rules([rule])).findings
    return next((each for each in found if each.outcome is not PASS), found[0])


@pytest.mark.parametrize("off", [1e-8, 0.001], ids=["paired", "perhaps paired"])
def test_scores_count_whether_runs_are_paired_or_not(off):
    reference = run(validation={"mIoU": [70.0, 72.0, 72.3]})
    assert default_rules(compare(reference, run(off=off)))[-1] == "final_metric"
    good = decide(compare(reference, run(off=off, validation={"mIoU": [70.0, 72.0, 72.2]})))
    wrong = decide(compare(reference, run(off=off, validation={"mIoU": [3.0, 3.1, 3.1]})))
    none = decide(compare(reference, run(off=off)))
    assert [each.outcome for each in (good, wrong, none)] == [PASS, FAIL, INCONCLUSIVE]
    assert wrong.worst.rule == none.worst.rule == "final_metric"


def test_scores_that_only_the_candidate_has_are_not_asked_of_a_paired_reference():
    comparison = compare(run(), run(validation={"mIoU": [70.0, 72.0, 72.3]}))
    assert "final_metric" not in default_rules(comparison)
    assert decide(comparison).outcome is PASS


def test_a_run_that_is_shorter_than_the_first_validation_lacks_no_score():
    reference = run(validation={"mIoU": Curve(name="mIoU", iterations=[180], values=[72.0])})
    short = run(loss=LOSS[:170])
    comparison = compare(reference, short)
    assert "final_metric" not in default_rules(comparison)
    assert {each.rule for each in decide(comparison).findings if each.outcome is not PASS} == {"coverage"}


def test_a_run_that_trains_as_far_as_the_first_validation_of_any_score_lacks_its_scores():
    late, early = (Curve(name="score", iterations=[at], values=[72.0]) for at in (180, 50))
    reference = run(validation={"mIoU": late, "aAcc": early})
    for candidate in (run(loss=LOSS[:50]), run(loss=LOSS[:170]), run(loss=LOSS[:170], acc_seg=LOSS[:20])):
        assert "final_metric" in default_rules(compare(reference, candidate))
    assert "final_metric" not in default_rules(compare(reference, run(loss=LOSS[:49])))


@pytest.mark.parametrize("metric", ["loss", "mIoU"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_validation_that_is_not_finite_fails_the_candidate_and_makes_the_reference_useless(metric, poison):
    good = run(validation={metric: [0.7, 0.7, 0.7]})
    broken = run(validation={metric: [0.7, poison, 0.7]})
    candidate, reference = decide(compare(good, broken)), decide(compare(broken, good))
    assert (candidate.outcome, candidate.worst.rule, candidate.worst.iteration) == (FAIL, "finite", 100)
    assert (reference.outcome, reference.worst.rule, reference.worst.metric) == (INCONCLUSIVE, "finite", metric)
    assert decide(compare(good, broken), make_rules(["finite"], {"finite": {"limit": 1}})).outcome is PASS


def test_the_score_of_a_class_that_the_data_lack_is_nan_on_both_sides_and_no_finding():
    lacking = run(validation={"IoU.train": [math.nan, math.nan]})
    assert finding_on(lacking, lacking, "finite").outcome is PASS
    less_often = run(validation={"IoU.train": [math.nan]})
    assert (
        finding_on(lacking, less_often, "finite").outcome is finding_on(less_often, lacking, "finite").outcome is PASS
    )
    assert finding_on(run(), lacking, "finite").outcome is FAIL
    scored = run(validation={"IoU.train": [math.nan, math.nan], "mIoU": [70.0, 70.0]})
    assert decide(compare(scored, scored)).outcome is PASS
    has = run(validation={"IoU.train": [30.0, 31.0]})
    assert finding_on(has, lacking, "finite").outcome is FAIL
    mean = run(validation={"mIoU": [math.nan, math.nan]})
    assert finding_on(mean, mean, "finite").outcome is FAIL


@pytest.mark.parametrize(
    ("at", "more", "outcome"),
    [
        (range(3, COUNT), {}, INCONCLUSIVE),
        (range(COUNT - 3, COUNT), {}, INCONCLUSIVE),
        (range(0, 80, 2), {}, INCONCLUSIVE),
        ([0, 1, 2, 90], {}, PASS),
        ([COUNT - 1], {}, PASS),
        ([0, 1, 2, 90], {"precision": "fp16"}, PASS),
        ([90], {"precision": "fp32"}, INCONCLUSIVE),
        ([0, 1, 90], {"skipped_steps": np.repeat([2.0, 3.0], [90, COUNT - 90])}, PASS),
        ([0, 1, 90, 91], {"skipped_steps": np.repeat([2.0, 3.0], [90, COUNT - 90])}, INCONCLUSIVE),
    ],
)
def test_gradient_norms_may_be_infinite_where_a_scaler_leaves_steps_out_but_not_to_the_end(at, more, outcome):
    reference = run(grad_norm=np.full(COUNT, 3.0))
    candidate = run(grad_norm=with_nan(list(at)), **more)
    finding = finding_on(reference, candidate, "finite")
    assert finding.outcome is outcome
    if outcome is INCONCLUSIVE:
        assert (finding.metric, finding.iteration) == ("grad_norm", at[0] + 1)


def test_a_scaler_explains_no_short_run_without_any_finite_gradient_and_none_in_a_precision_that_needs_no_scaler():
    short, infinite = (run(loss=LOSS[:20], grad_norm=np.full(20, value)) for value in (3.0, math.inf))
    assert finding_on(short, infinite, "finite").outcome is INCONCLUSIVE
    once = compare(run(grad_norm=with_nan([])), run(grad_norm=with_nan([90])))
    outcomes = [
        decide(replace(once, stated_precision=said), make_rules(["finite"])).outcome for said in ("", "fp16", "fp32")
    ]
    assert outcomes == [PASS, PASS, INCONCLUSIVE]


@pytest.mark.parametrize(("every", "outcome"), [(50, PASS), (1, INCONCLUSIVE)])
def test_a_scaler_leaves_out_the_more_steps_the_longer_a_run_is(every, outcome):
    def spaced(values):
        curves = {"loss": LOSS, "grad_norm": values}
        at = range(every, COUNT * every + 1, every)
        return Record(name="", format="test", curves={name: curve_of(name, each, at) for name, each in curves.items()})

    candidate = spaced(with_nan(list(range(0, 80, 2))))
    assert finding_on(spaced(with_nan([])), candidate, "finite").outcome is outcome


def test_what_is_not_finite_in_the_reference_either_or_is_no_gradient_is_told_apart():
    broken = run(grad_norm=with_nan(list(range(3, COUNT))))
    assert finding_on(broken, broken, "finite").outcome is PASS
    reference, candidate = run(acc_seg=with_nan([])), run(acc_seg=with_nan([7], math.nan))
    finding = finding_on(reference, candidate, "finite")
    assert (finding.outcome, finding.metric, finding.iteration) == (INCONCLUSIVE, "acc_seg", 8)


def test_a_loss_component_that_the_candidate_lacks_is_inconclusive_in_the_same_format_and_else_limits():
    reference = run(loss_aux=0.4 * LOSS, loss_scale=np.full(COUNT, 1024.0))
    finding = finding_on(reference, run())
    assert (finding.outcome, finding.observed) == (INCONCLUSIVE, 1)
    assert "the candidate lacks loss_aux, which the reference has (accept with" in finding.message
    other = finding_on(reference, run(format="another"))
    assert (other.outcome, other.limited_by) == (PASS, ("the candidate lacks loss_aux, which the reference has",))
    assert finding_on(run(), reference).outcome is PASS


@pytest.mark.parametrize("factor", [50.0, 0.0, 1.6])
def test_a_component_that_is_far_off_is_inconclusive_between_paired_runs_and_else_limits(factor):
    reference = run(loss_aux=0.4 * LOSS)
    paired = finding_on(reference, run(loss_aux=0.4 * LOSS * factor))
    assert paired.outcome is INCONCLUSIVE
    assert "loss_aux is off by" in paired.message
    perhaps = finding_on(reference, run(off=0.001, loss_aux=0.4 * LOSS * factor))
    assert perhaps.outcome is PASS
    assert "loss_aux is off by" in "".join(perhaps.limited_by)


def test_noise_of_a_component_and_one_that_is_almost_nothing_speak_against_nobody():
    reference = run(loss_aux=0.4 * LOSS, loss_tiny=np.full(COUNT, 1e-6))
    candidate = run(loss_aux=0.4 * LOSS * (1 + 0.3 * RNG.standard_normal(COUNT)), loss_tiny=np.full(COUNT, 1e-4))
    finding = finding_on(reference, candidate)
    assert (finding.outcome, finding.limited_by) == (PASS, ())


@pytest.mark.parametrize("off", [1e-8, 0.001], ids=["paired", "perhaps paired"])
@pytest.mark.parametrize("losses", [[1.9, 5.0, 5.1, 5.2], [0.9, 0.8, 0.7, 0.6]])
def test_a_validation_loss_that_is_far_off_in_the_end_is_inconclusive_although_the_training_is_the_same(off, losses):
    reference = run(validation={"loss": [9.0, 1.7, 1.6, 1.5]})
    finding = finding_on(reference, run(off=off, validation={"loss": losses}))
    assert finding.outcome is INCONCLUSIVE
    assert f"loss in validation is far off: {losses[-1]} against 1.5 at iteration 200" in finding.message
    good = finding_on(reference, run(off=off, validation={"loss": [1.0, 1.6, 1.5, 3.0]}))
    assert (good.outcome, good.limited_by) == (PASS, ())


def test_a_validation_loss_that_the_candidate_lacks_although_it_trains_that_far_is_inconclusive_in_the_same_format():
    reference = run(validation={"loss": [1.7, 1.6]})
    assert "the candidate lacks loss in validation" in finding_on(reference, run()).message
    assert finding_on(reference, run()).outcome is INCONCLUSIVE
    assert finding_on(run(), reference).outcome is PASS
    early = finding_on(run(validation={"loss": curve_of("loss", [1.5], [COUNT + 1])}), run())
    assert (early.outcome, early.limited_by) == (PASS, ())


def test_an_accuracy_of_the_training_that_is_far_off_limits_what_a_pass_rests_on():
    finding = finding_on(run(acc=np.full(COUNT, 90.0)), run(off=0.001, acc=np.full(COUNT, 1.0)))
    assert finding.outcome is PASS
    assert finding.limited_by == ("acc is off by 89 on average, its level in the reference is 90",)


def test_gradient_norms_that_are_far_off_limit_what_a_pass_rests_on():
    reference, candidate = run(grad_norm=np.full(COUNT, 3.0)), run(grad_norm=np.repeat([3.0, 9.0], [3, COUNT - 3]))
    finding = finding_on(reference, candidate)
    assert finding.outcome is PASS
    assert finding.limited_by == ("grad_norm is off by 5.91 on average, its level in the reference is 3",)


@pytest.mark.parametrize("metric", ["grad_norm", "decode.loss_ce"])
@pytest.mark.parametrize("still", [0.0, 2.5], ids=["zero", "stuck"])
def test_gradients_and_components_that_stand_still_where_the_reference_moves_limit_what_a_pass_rests_on(metric, still):
    moving = 2.5 + 0.2 * RNG.standard_normal(COUNT)
    stuck = np.append(moving[:-20], [still] * 20)
    found = finding_on(run(**{metric: moving}), run(**{metric: stuck}))
    assert (found.outcome, len(found.limited_by)) == (PASS, 1)
    assert f"{metric} of the candidate is {'exactly 0' if still == 0 else '2.5'} 20 times" in found.limited_by[0]
    for reference, candidate in ((moving, moving), (stuck, stuck), (stuck, moving)):
        assert finding_on(run(**{metric: reference}), run(**{metric: candidate})).limited_by == ()


def test_a_component_that_the_candidate_has_only_at_some_of_its_records_limits_what_a_pass_rests_on():
    reference, candidate = run(**{"decode.loss_ce": LOSS / 2}), run(**{"decode.loss_ce": LOSS[:150] / 2})
    found = finding_on(reference, candidate)
    said = ("the candidate lacks decode.loss_ce 50 times, first at iteration 151",)
    assert (found.outcome, found.limited_by) == (PASS, said)
    assert finding_on(candidate, reference).limited_by == ()


def test_gradient_norms_and_learning_rates_that_the_candidate_lacks_are_said_in_the_same_format():
    reference = run(grad_norm=LOSS, lr=LOSS / 100)
    found = finding_on(reference, run())
    assert (found.outcome, found.limited_by) == (PASS, ("the candidate lacks grad_norm, lr, which the reference has",))
    assert finding_on(reference, run(grad_norm=LOSS, base_lr=LOSS / 100)).limited_by == ()
    assert finding_on(reference, run(format="another")).limited_by == ()


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize(("counted", "outcome"), [((4, 8), PASS), ((4,), INCONCLUSIVE)])
def test_a_norm_is_missing_of_right_where_a_step_was_counted_as_left_out_whatever_is_accumulated(
    every, counted, outcome
):
    def record(missing, left_out):
        at = [each for each in range(every, COUNT + 1, every) if each not in missing]
        norms = curve_of("grad_norm", 2 + LOSS[np.array(at) - 1], at)
        skipped = [sum(each <= iteration for each in left_out) for iteration in range(1, COUNT + 1)]
        whole = run(precision="fp16", skipped_steps=np.array(skipped))
        return replace(whole, curves={**whole.curves, "grad_norm": norms})

    comparison = compare(record((4,), (4,)), record((4, 8), counted), metrics=["grad_norm"])
    assert decide(comparison).outcome is outcome


@pytest.mark.parametrize("left_out", [1, 2, 3, 5])
def test_first_steps_that_a_scaler_left_out_of_both_runs_speak_against_nobody_and_a_wrong_gradient_after_them_does(
    left_out,
):
    norms = np.append([math.inf] * left_out, 3 + 0.3 * RNG.standard_normal(COUNT - left_out))
    good = decide(compare(run(grad_norm=norms), run(off=1e-8, grad_norm=norms * (1 + 1e-6))))
    assert good.outcome is PASS
    wrong = decide(compare(run(grad_norm=norms), run(off=1e-8, grad_norm=norms * 1.3)))
    assert wrong.outcome is (FAIL if left_out < 3 else PASS)
    one = decide(compare(run(grad_norm=norms), run(off=1e-8, grad_norm=np.nan_to_num(norms, posinf=3.0))))
    assert one.outcome is INCONCLUSIVE
