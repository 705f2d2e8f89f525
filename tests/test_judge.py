"""The rules and the verdict: what is good passes, everything else does not."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import falling, outcome_of, record, verdict_on

import emacheck
from emacheck.errors import UsageError
from emacheck.judge import Finding, Outcome, Verdict
from emacheck.judge.comparison import compare, pair
from emacheck.record import Record

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def test_identical_runs_pass_every_rule_with_nothing_observed():
    verdict = verdict_on(record(falling()), record(falling()))
    assert verdict.outcome is PASS
    assert all(f.observed == 0 for f in verdict.findings)


@pytest.mark.parametrize("factor", [0.61, 1.39])
def test_a_loss_that_is_39_percent_off_fails_in_either_direction(factor):
    verdict = verdict_on(record(falling()), record(falling() * factor))
    assert verdict.outcome is FAIL
    assert verdict.worst is not None
    assert outcome_of(verdict, "mean_relative_error") is FAIL
    assert outcome_of(verdict, "bias") is FAIL


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 57, 99])
def test_a_non_finite_candidate_never_passes(poison, at):
    values = falling()
    values[at] = poison
    verdict = verdict_on(record(falling()), record(values))
    assert verdict.outcome is FAIL
    finite = next(f for f in verdict.findings if f.rule == "finite")
    assert (finite.outcome, finite.iteration) == (FAIL, at + 1)


def test_a_non_finite_reference_proves_nothing():
    values = falling()
    values[40] = math.nan
    assert verdict_on(record(values), record(falling())).outcome is INCONCLUSIVE


def test_a_nan_in_a_loss_component_that_is_not_judged_fails_as_well():
    good = record(falling())
    aux = emacheck.Curve(name="aux.loss_ce", iterations=[1, 2], values=[0.3, math.nan])
    bad = replace(good, curves={**good.curves, "aux.loss_ce": aux})
    assert verdict_on(good, bad).outcome is FAIL


def test_a_nan_in_a_loss_component_of_the_reference_alone_proves_nothing_and_says_where():
    def with_component(*values):
        good = record(falling())
        return replace(
            good, curves={**good.curves, "aux_loss": emacheck.Curve(name="aux_loss", iterations=[3, 5], values=values)}
        )

    good, bad = with_component(0.3, 0.3), with_component(0.3, math.nan)
    (finding,) = verdict_on(bad, good, "finite").findings
    assert (finding.outcome, finding.iteration) == (INCONCLUSIVE, 5)
    assert finding.message == "the reference has 1 NaN or infinite values, the first in aux_loss at iteration 5"
    values = falling()
    values[40] = math.nan
    both = replace(bad, curves={**bad.curves, **record(values).curves})
    (finding,) = verdict_on(bad, both, "finite").findings
    assert (finding.outcome, finding.iteration) == (FAIL, 5)
    assert finding.message.startswith(
        "the candidate has 2 NaN or infinite values, the first in aux_loss at iteration 5; so"
    )
    assert verdict_on(good, bad, "finite", finite={"limit": 1}).outcome is PASS


def test_a_run_that_died_at_iteration_3_fails_and_says_what_is_missing():
    verdict = verdict_on(record(falling()), record(falling()[:3]))
    coverage = next(f for f in verdict.findings if f.rule == "coverage")
    assert (verdict.outcome, coverage.outcome, coverage.iteration) == (FAIL, FAIL, 4)
    assert "lacks iterations 4 to 100" in coverage.message


def test_a_verdict_is_printed_as_its_outcome_and_a_line_for_each_finding():
    verdict = verdict_on(record(falling()), record(falling()[:3]))
    shown = str(verdict).splitlines()
    assert shown[0] == "FAIL"
    assert len(shown) == 1 + len(verdict.findings)
    assert "FAIL coverage[loss] 0.97 (limit 0) at iteration 4: 3 iterations in both; " in str(verdict)


def test_the_iteration_of_a_fail_of_coverage_is_the_first_that_the_candidate_lacks():
    verdict = verdict_on(record(falling()), record(falling(40), first=0))
    coverage = next(f for f in verdict.findings if f.rule == "coverage")
    assert "the reference lacks iteration 0" in coverage.message
    assert (coverage.outcome, coverage.iteration) == (FAIL, 40)
    gaps = record(falling())
    gaps = replace(
        gaps,
        curves={
            "loss": emacheck.Curve(
                name="loss",
                iterations=[*range(1, 50), *range(52, 70), *range(71, 101)],
                values=np.delete(falling(), [49, 50, 69]),
            )
        },
    )
    coverage = verdict_on(record(falling()), gaps, "coverage").worst
    assert (coverage.iteration, "the candidate lacks 3 iterations between 50 and 70 " in coverage.message) == (50, True)


@pytest.mark.parametrize(("theirs", "ours"), [(50, 20), (20, 50), (10, 7), (10, 20), (1, 10)])
def test_what_a_record_lacks_because_it_logs_at_another_interval_is_not_missing(theirs, ours):
    def every(interval, last=3500):
        at = np.arange(interval, last + 1, interval)
        curve = emacheck.Curve(name="loss", iterations=at, values=2 + 1 / at)
        return emacheck.Record(name="", format="", curves={"loss": curve})

    coverage = verdict_on(every(theirs), every(ours), "coverage").worst
    assert (coverage.outcome, coverage.observed, len(coverage.limited_by)) == (PASS, 0, 1)
    died = verdict_on(every(theirs), every(ours, last=1800), "coverage").worst
    assert (died.outcome, died.iteration > 1800) == (FAIL, True)


def test_iterations_that_only_the_reference_lacks_are_inconclusive():
    verdict = verdict_on(record(falling()[:50]), record(falling()))
    assert verdict.outcome is INCONCLUSIVE
    said = "50 iterations in both; the reference lacks iterations 51 to 100 (accept with --limit coverage=0.5)"
    assert (verdict.worst.iteration, verdict.worst.message) == (51, said)


def test_records_without_a_common_iteration_are_inconclusive():
    verdict = verdict_on(record(falling(20)), record(falling(20), first=500))
    assert verdict.outcome is INCONCLUSIVE
    assert outcome_of(verdict, "mean_relative_error") is outcome_of(verdict, "coverage") is INCONCLUSIVE


def test_one_common_record_is_too_little_to_pass_on():
    assert verdict_on(record([4.0]), record([4.0])).outcome is INCONCLUSIVE
    assert verdict_on(record([4.0]), record([4.0]), coverage={"minimum": 1}).outcome is PASS


def test_a_metric_that_the_candidate_lacks_is_a_failure_that_lists_what_it_has():
    candidate = Record(name="x", format="test", curves={"accuracy": record(falling()).curves["loss"]})
    verdict = verdict_on(record(falling()), candidate)
    assert verdict.outcome is FAIL
    assert "it has accuracy" in next(f.message for f in verdict.findings if f.rule == "coverage")


def test_a_metric_that_the_reference_lacks_is_refused_with_the_list_of_metrics():
    with pytest.raises(UsageError, match="reference has: loss"):
        compare(record(falling()), record(falling()), metrics=["mIoU"])


def test_a_candidate_loss_of_constant_zero_fails():
    assert verdict_on(record(falling()), record(np.zeros(100))).outcome is FAIL


@pytest.mark.parametrize(("zeros", "outcome"), [(50, INCONCLUSIVE), (9, PASS)])
def test_a_loss_below_the_last_printed_digit_in_both_is_no_evidence(zeros, outcome):
    printed = [*np.repeat([0.05, 0.04, 0.03, 0.02, 0.01], 10), *np.zeros(zeros)]
    assert outcome_of(verdict_on(record(printed), record(printed)), "integrity") is outcome


def test_a_reference_of_zero_lets_only_zero_pass():
    rules = ("mean_relative_error", "mean_absolute_error", "bias")
    assert verdict_on(record(np.zeros(20)), record(np.zeros(20)), *rules).outcome is PASS
    assert outcome_of(verdict_on(record(np.zeros(20)), record(np.full(20, 1e-3))), "mean_relative_error") is FAIL


def test_a_relative_error_over_its_limit_is_accepted_when_the_absolute_error_is_within_its_own():
    early = [4.0] * 10
    reference, candidate = record([*early, *[1e-4] * 10]), record([*early, *[1.9e-4] * 10])
    verdict = verdict_on(reference, candidate, "mean_relative_error", "mean_absolute_error")
    assert verdict.outcome is PASS
    assert "accepted because mean_absolute_error passes" in verdict.findings[0].message
    # Alone it is undecided: the ratios are to values near zero.
    assert verdict_on(reference, candidate, "mean_relative_error").outcome is Outcome.INCONCLUSIVE


def test_bias_lets_through_what_goes_either_way():
    candidate = record(falling() * (1 + 0.04 * (-1.0) ** np.arange(100)))
    assert verdict_on(record(falling()), candidate, "bias").outcome is PASS


def test_bias_sees_a_small_steady_shift_that_the_mean_error_lets_through():
    verdict = verdict_on(record(falling()), record(falling() * 0.97))
    assert outcome_of(verdict, "mean_relative_error") is PASS
    assert outcome_of(verdict, "bias") is FAIL


def test_pairing_is_by_iteration_number_and_not_by_position():
    reference, candidate = record(falling()), record(falling()[10:], first=11)
    verdict = verdict_on(reference, candidate, "mean_relative_error")
    assert (verdict.outcome, verdict.findings[0].observed) == (PASS, 0.0)


@given(st.sets(st.integers(0, 200)), st.sets(st.integers(0, 200)))
def test_pairing_loses_no_iteration(ours, theirs):
    def curve(its):
        return emacheck.Curve(name="loss", iterations=sorted(its), values=np.zeros(len(its)))

    paired = pair("loss", curve(ours), curve(theirs))
    assert set(paired.iterations) | set(paired.only_reference) == ours
    assert set(paired.iterations) | set(paired.only_candidate) == theirs


def test_no_findings_are_inconclusive_and_fail_beats_inconclusive_beats_pass():
    comparison = compare(record(falling()), record(falling()))
    some = Finding(rule="r", outcome=PASS, observed=0, limit=1, unit="", iteration=None, message="")

    def outcome(*outcomes):
        findings = tuple(replace(some, outcome=each) for each in outcomes)
        return Verdict(comparison=comparison, findings=findings).outcome

    assert outcome() is INCONCLUSIVE
    assert outcome(PASS, PASS) is PASS
    assert outcome(PASS, INCONCLUSIVE) is INCONCLUSIVE
    assert outcome(INCONCLUSIVE, FAIL, PASS) is FAIL


def test_whether_many_metrics_are_paired_is_looked_at_once(monkeypatch):
    from emacheck.judge.forensics import pairing

    looked = []
    moves = pairing._move
    monkeypatch.setattr(pairing, "_move", lambda *given: looked.append(given) or moves(*given))
    losses = {f"loss_{i}": emacheck.Curve(name="", iterations=range(1, 21), values=falling()[:20]) for i in range(50)}
    many = Record(name="", format="", curves=losses)
    emacheck.decide(compare(many, many, metrics=[*losses]))
    assert len(looked) == len(losses)


def test_the_worst_finding_is_the_alternative_that_was_closer_to_its_limit():
    worst = verdict_on(record(falling()), record(falling() * 0.61)).worst
    assert worst is not None
    assert worst.rule == "bias"
    both = verdict_on(record(falling()), record(falling() * 0.61), "mean_absolute_error", "mean_relative_error")
    assert both.worst is both.findings[1]


@pytest.mark.parametrize(
    ("common", "factor", "rule"),
    [
        (1, 1.03, "coverage"),
        (1, 20.0, "coverage"),
        (9, 1.5, "coverage"),
        (12, 1.03, "coverage"),
        (50, 1.015, "coverage"),
        (50, 1.03, "bias"),
        (99, 1.03, "bias"),
        (99, 1.0, "coverage"),
        (1, math.nan, "finite"),
    ],
)
def test_what_a_run_that_died_lacks_is_named_first_unless_much_of_it_is_there_and_far_off(common, factor, rule):
    verdict = verdict_on(record(falling()), record(falling()[:common] * factor))
    assert (verdict.outcome, verdict.worst.rule) == (FAIL, rule)


@pytest.mark.parametrize(("first", "other"), [(0, 1), (1, 0)])
def test_a_record_that_counts_from_0_lacks_nothing_of_one_that_counts_from_1(first, other):
    verdict = verdict_on(record(falling(), first=first), record(falling(), first=other), "coverage")
    assert verdict.outcome is INCONCLUSIVE
    assert (
        f"the reference counts its iterations from {first}, the candidate from {other}" in verdict.findings[0].message
    )
    assert verdict_on(record(falling(), first=0), record(falling()[1:], first=1), "coverage").outcome is FAIL
    assert verdict_on(record(falling(), first=1), record(falling(), first=2), "coverage").outcome is FAIL


def test_too_few_common_iterations_are_named_before_whatever_else_is_undecided():
    late = emacheck.Curve(name="loss", iterations=range(1, 6), values=falling(5), window=10)
    verdict = verdict_on(record(falling(5)), replace(record(falling(5)), curves={"loss": late}))
    assert outcome_of(verdict, "smoothing") is INCONCLUSIVE
    assert (verdict.outcome, verdict.worst.rule) == (INCONCLUSIVE, "coverage")


def test_an_absolute_limit_of_the_size_of_the_loss_excuses_nothing():
    wave = 1 + 0.8 * (-1.0) ** (np.arange(200) // 20)
    small = 1e-4 * (1 + np.exp(-3 * np.arange(200) / 200))
    verdict = verdict_on(record(small), record(small * wave))
    assert (verdict.outcome, outcome_of(verdict, "mean_relative_error")) == (FAIL, FAIL)
    assert outcome_of(verdict, "mean_absolute_error") is PASS
    message = next(f.message for f in verdict.findings if f.rule == "mean_relative_error")
    assert "mean_absolute_error passes, but its limit is more than 1% of the reference's level, 0.00013" in message
    chosen = verdict_on(
        record(small),
        record(small * wave),
        "mean_relative_error",
        "mean_absolute_error",
        mean_absolute_error={"limit": 1e-3},
    )
    assert chosen.outcome is PASS, "a limit that somebody set means what it says"


@pytest.mark.parametrize(("factor", "outcome"), [(0.5, INCONCLUSIVE), (1.2, INCONCLUSIVE), (1.005, PASS), (1.0, PASS)])
def test_an_absolute_limit_of_the_size_of_the_loss_lets_nothing_pass_by_itself_that_is_off(factor, outcome):
    small = record(1e-4 * falling())
    verdict = verdict_on(small, record(factor * 1e-4 * falling()), "mean_absolute_error")
    assert (verdict.outcome, verdict.worst.limit) == (outcome, 0.0002)
    assert ("set a limit of your own" in verdict.worst.message) is (outcome is INCONCLUSIVE)
    chosen = verdict_on(small, record(0.5e-4 * falling()), "mean_absolute_error", mean_absolute_error={"limit": 1e-3})
    assert chosen.outcome is PASS
    of_nothing = verdict_on(record(np.zeros(20)), record(np.full(20, 1e-4)), "mean_absolute_error")
    assert of_nothing.outcome is INCONCLUSIVE
