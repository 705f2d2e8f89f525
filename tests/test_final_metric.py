"""The last validation scores: close ones pass, others do not, and scores after other training are not compared."""

import math
from dataclasses import replace

import pytest

import emacheck
from emacheck.judge import Outcome
from emacheck.judge.comparison import compare
from emacheck.judge.forensics.metric_names import is_score
from emacheck.judge.rules.final_metric import FinalMetric
from emacheck.record import Record

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def record(*, at=(1000, 2000), before=0.0, quantum=0.0, loss=3.0, **scores):
    """A record that was validated at some iterations; all scores but the last are lower by ``before``."""
    loss = emacheck.Curve(name="loss", iterations=[1, 2], values=[4.0, loss])
    validation = {
        name: emacheck.Curve(
            name=name, iterations=list(at), values=[score - before] * (len(at) - 1) + [score], quantum=quantum
        )
        for name, score in scores.items()
    }
    return Record(name="cpu", format="test", curves={"loss": loss}, validation=validation)


def findings_on(reference, candidate, **fields):
    return FinalMetric(**fields).check(compare(reference, candidate))


def outcome_on(reference, candidate, **fields):
    (finding,) = findings_on(reference, candidate, **fields)
    return finding.outcome


@pytest.mark.parametrize(
    ("reference", "candidate", "outcome"),
    [
        (78.25, 78.25, PASS),
        (78.25, 79.25, PASS),
        (78.25, 77.25, PASS),
        (78.25, 79.375, FAIL),
        (78.25, 77.125, FAIL),
        (0.75, 0.7578125, PASS),
        (0.75, 0.7421875, PASS),
        (0.75, 0.765625, FAIL),
        (0.75, 0.734375, FAIL),
        (78.25, math.nan, FAIL),
        (78.25, math.inf, FAIL),
        (math.nan, 78.25, INCONCLUSIVE),
        (math.nan, math.nan, FAIL),
    ],
)
def test_a_score_must_be_within_a_percentage_point_in_either_direction(reference, candidate, outcome):
    assert outcome_on(record(mIoU=reference), record(mIoU=candidate)) is outcome


@pytest.mark.parametrize(
    ("reference", "candidate", "outcome"),
    [
        (0.7, 70.25, INCONCLUSIVE),
        (70.25, 0.7, INCONCLUSIVE),
        (0.7, 1.6, INCONCLUSIVE),
        (70.25, 0.6, FAIL),
        (0.6, 70.25, FAIL),
        (1.2, 1.6, PASS),
        (1.6, 1.2, PASS),
        (1.2, 70.25, FAIL),
    ],
)
def test_of_a_percentage_beside_what_may_be_a_fraction_only_what_holds_for_both_is_decided(
    reference, candidate, outcome
):
    (finding,) = findings_on(record(mIoU=reference), record(mIoU=candidate))
    assert (finding.outcome, finding.limit) == (outcome, 1.0)
    assert ("write both logs alike" in finding.message) == (outcome is INCONCLUSIVE)


@pytest.mark.parametrize(
    ("reference", "candidate", "outcome"),
    [(0.95, 0.955, PASS), (0.3, 0.9, INCONCLUSIVE), (0.9, 1.2, PASS), (0.9, 2.5, FAIL)],
)
def test_a_score_below_one_beside_percentages_may_be_one_of_them(reference, candidate, outcome):
    finding = findings_on(record(mIoU=reference, aAcc=30.0), record(mIoU=candidate, aAcc=30.5))[0]
    assert finding.outcome is outcome
    assert ("it may be a very low percentage" in finding.message) == (outcome is INCONCLUSIVE)


def test_the_option_that_a_low_score_beside_percentages_names_lets_it_pass():
    reference, candidate = record(mIoU=0.3, aAcc=30.0), record(mIoU=0.9, aAcc=30.5)
    needed = findings_on(reference, candidate)[0].message.partition("final_metric.fraction_limit=")[2]
    assert findings_on(reference, candidate, fraction_limit=float(needed))[0].outcome is PASS


def test_a_fraction_that_has_not_settled_has_not_beside_a_percentage_either():
    percentages = record(mIoU=57.0, before=0.5)
    assert outcome_on(record(mIoU=0.55, before=0.05), percentages) is INCONCLUSIVE
    assert outcome_on(record(mIoU=55.0, before=5.0), percentages) is INCONCLUSIVE
    assert outcome_on(record(mIoU=0.55, before=0.002), percentages) is FAIL


def test_a_record_that_holds_any_percentage_holds_no_fractions():
    reference, candidate = record(mIoU=70.25, aAcc=90.0), record(mIoU=0.7, aAcc=40.0)
    assert {finding.outcome for finding in findings_on(reference, candidate)} == {FAIL}


def test_a_score_that_was_in_percent_before_is_in_percent_when_it_is_small():
    assert outcome_on(record(mIoU=1.25, before=-1.0), record(mIoU=0.75, before=-1.0)) is PASS


@pytest.mark.parametrize(("rider", "outcome"), [(0.5, PASS), (1.4, FAIL)])
def test_a_class_that_is_hardly_found_is_in_percent_where_the_others_are(rider, outcome):
    reference = record(mIoU=70.0, **{"IoU.rider": 0.3})
    candidate = record(mIoU=70.0, **{"IoU.rider": rider})
    found = {finding.metric: finding.outcome for finding in findings_on(reference, candidate)}
    assert found == {"mIoU": PASS, "IoU.rider": outcome}


def test_the_option_that_a_fraction_names_lets_it_pass():
    (finding,) = findings_on(record(mIoU=0.7), record(mIoU=0.6703))
    needed = finding.message.partition("accept with --limit final_metric.fraction_limit=")[2].rstrip(")")
    assert outcome_on(record(mIoU=0.7), record(mIoU=0.6703), fraction_limit=float(needed)) is PASS


def test_every_score_that_both_hold_gets_a_finding_and_times_and_losses_get_none():
    reference = record(mIoU=70.0, mAcc=80.0, aAcc=95.0, loss=0.3, data_time=0.1)
    candidate = record(mIoU=70.1, mAcc=77.0, aAcc=95.0, loss=0.9, data_time=9.0)
    found = {finding.metric: finding.outcome for finding in findings_on(reference, candidate)}
    assert found == {"mIoU": PASS, "mAcc": FAIL, "aAcc": PASS}


def test_the_last_validation_counts_and_is_named():
    (finding,) = findings_on(record(mIoU=70.0), record(mIoU=60.0))
    assert (finding.iteration, finding.observed, finding.would_pass_at) == (2000, -10.0, 10.0)
    assert "the last mIoU, at iteration 2000, is 60 against 70" in finding.message
    assert outcome_on(record(mIoU=70.0), record(mIoU=60.0), limit=finding.would_pass_at) is PASS


@pytest.mark.parametrize(
    ("reference", "candidate", "outcome"),
    [
        (record(mIoU=70.0, before=2.0), record(mIoU=69.5), PASS),
        (record(mIoU=70.0, before=2.0), record(mIoU=65.0), INCONCLUSIVE),
        (record(mIoU=70.0), record(mIoU=65.0, before=-2.0), INCONCLUSIVE),
        (record(mIoU=70.0, at=(2000,)), record(mIoU=65.0), INCONCLUSIVE),
        (record(mIoU=70.0, at=(2000,)), record(mIoU=59.5), FAIL),
        (record(mIoU=70.0, before=0.5), record(mIoU=65.0), FAIL),
    ],
)
def test_a_score_that_has_not_settled_fails_only_when_it_is_far_off(reference, candidate, outcome):
    (finding,) = findings_on(reference, candidate)
    assert finding.outcome is outcome
    assert ("settled" in finding.message) is (outcome is INCONCLUSIVE)


def repeats_with(*scores, at=(2000,)):
    return [record(loss=3.0 + 1e-6 * i, mIoU=score, at=at) for i, score in enumerate(scores, 1)]


def with_repeats(candidate, repeats, **fields):
    reference = record(mIoU=14.0, at=(2000,))
    (finding,) = FinalMetric(**fields).check(compare(reference, candidate, repeats=repeats))
    return finding


def test_a_score_passes_that_is_no_further_off_than_repeats_of_the_reference_are_from_each_other():
    close, far = record(mIoU=12.3, at=(2000,), loss=2.9), record(mIoU=12.1, at=(2000,), loss=2.9)
    assert with_repeats(close, ()).outcome is INCONCLUSIVE
    finding = with_repeats(close, repeats_with(13.4, 15.2))
    assert (finding.outcome, round(finding.limit, 9)) == (PASS, 1.8)
    assert "the reference and 2 repeats of it differ by up to 1.8 among themselves" in finding.message
    assert finding.limited_by == ("mIoU passes as far off as repeats of the reference are from each other",)
    near = with_repeats(record(mIoU=13.3, at=(2000,), loss=2.9), repeats_with(13.4, 15.2))
    assert (near.outcome, near.limited_by) == (PASS, ())
    assert with_repeats(far, repeats_with(13.4, 15.2)).outcome is INCONCLUSIVE


@pytest.mark.parametrize(
    "repeats",
    [
        repeats_with(12.0),
        repeats_with(12.0, 16.0, at=(1000,)),
        repeats_with(12.0, math.nan),
        [record(loss=3.0, mIoU=12.0, at=(2000,)), record(loss=2.9, mIoU=16.0, at=(2000,))],
    ],
    ids=["one alone", "validated earlier", "not a number", "the reference's and the candidate's own curves"],
)
def test_repeats_that_do_not_show_how_far_good_runs_differ_widen_nothing(repeats):
    finding = with_repeats(record(mIoU=12.3, at=(2000,), loss=2.9), repeats)
    assert (finding.outcome, finding.limit) == (INCONCLUSIVE, 1.0)
    assert "validated repeats of the reference would show" in finding.message


def test_repeats_of_the_candidates_device_widen_nothing():
    def on(device, made):
        return replace(made, provenance={"device": {"type": device, "name": device}})

    reference, candidate = on("cpu", record(mIoU=14.0, at=(2000,))), on("sdaa", record(mIoU=12.3, at=(2000,), loss=2.9))
    found = [
        FinalMetric().check(
            compare(reference, candidate, repeats=[on(device, each) for each in repeats_with(13.4, 15.2)])
        )
        for device in ("cpu", "sdaa")
    ]
    assert [finding.outcome for (finding,) in found] == [PASS, INCONCLUSIVE]


def test_repeats_however_far_apart_excuse_nothing_beyond_what_fails_an_unsettled_score():
    finding = with_repeats(record(mIoU=25.0, at=(2000,), loss=2.9), repeats_with(2.0, 30.0))
    assert (finding.outcome, finding.limit) == (FAIL, 10.0)


def test_the_spread_of_repeats_counts_like_the_limit_where_the_score_has_settled():
    settled = record(mIoU=70.0, before=0.2)
    repeats = [record(mIoU=score, loss=3 + score / 1e6) for score in (69.2, 70.7)]
    outcomes = [
        FinalMetric().check(compare(settled, record(mIoU=score, before=0.2, loss=2.9), repeats=repeats))[0].outcome
        for score in (71.4, 71.6)
    ]
    assert outcomes == [PASS, FAIL]


def test_scores_after_different_training_are_not_compared():
    (finding,) = findings_on(record(mIoU=70.0), record(mIoU=70.0, at=(1000, 3000)))
    assert finding.outcome is INCONCLUSIVE
    assert "last at iteration 2000, the candidate at iteration 3000" in finding.message


def test_validation_that_one_side_lacks_is_inconclusive_and_says_which():
    (finding,) = findings_on(record(mIoU=70.0), record())
    assert (finding.outcome, finding.metric) == (INCONCLUSIVE, "mIoU")
    assert "only the reference has validation records of mIoU" in finding.message
    (finding,) = findings_on(record(), record(mIoU=70.0))
    assert "only the candidate" in finding.message
    both = findings_on(record(mIoU=70.0, mAcc=80.0), record(mIoU=70.0))
    assert [finding.outcome for finding in both] == [PASS, INCONCLUSIVE]


def test_no_validation_at_all_is_inconclusive():
    (finding,) = findings_on(record(), record(loss=0.3))
    assert (finding.outcome, finding.metric) == (INCONCLUSIVE, "loss")
    assert "no validation records" in finding.message


@pytest.mark.parametrize(
    ("candidate", "outcome"), [(70.0, PASS), (70.99, PASS), (71.0, INCONCLUSIVE), (71.005, INCONCLUSIVE), (71.02, FAIL)]
)
def test_printed_decimals_that_reach_across_the_limit_decide_nothing(candidate, outcome):
    assert outcome_on(record(mIoU=70.0, quantum=0.01), record(mIoU=candidate, quantum=0.01)) is outcome


def test_both_limits_can_be_set():
    assert outcome_on(record(mIoU=70.0), record(mIoU=70.5), limit=0.4) is FAIL
    assert outcome_on(record(mIoU=0.7), record(mIoU=0.72), fraction_limit=0.03) is PASS


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("mIoU", True),
        ("eval_accuracy", True),
        ("accuracy/top1", True),
        ("top-5", True),
        ("coco/bbox_mAP_50", True),
        ("mDice", True),
        ("mFscore", True),
        ("loss", False),
        ("acc_seg_loss", False),
        ("time", False),
        ("eval_samples_per_second", False),
        ("mapping_time", False),
        ("lr", False),
    ],
)
def test_scores_are_told_by_their_names(name, score):
    assert is_score(name) is score
