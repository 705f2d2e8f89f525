"""The rules and the verdict: what is good passes, everything else does not."""

import math
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import falling, record
from verdicts_to_show import unhurried

import emacheck
from emacheck.errors import UsageError
from emacheck.judge import DEFAULT_RULES, RULES, Finding, Outcome, Verdict, decide, make_rules
from emacheck.judge.comparison import Comparison, compare, pair
from emacheck.judge.divergence import hint
from emacheck.judge.modelzoo import ModelZoo, seen_by_script
from emacheck.oddity import OddityKind, oddity
from emacheck.record import Record

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def verdict_on(reference, candidate, *names, **limits):
    return decide(compare(reference, candidate), make_rules(names, limits))


def outcome_of(verdict, rule):
    return next(f.outcome for f in verdict.findings if f.rule == rule)


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


def test_a_run_that_died_at_iteration_3_fails_and_says_what_is_missing():
    verdict = verdict_on(record(falling()), record(falling()[:3]))
    coverage = next(f for f in verdict.findings if f.rule == "coverage")
    assert (verdict.outcome, coverage.outcome, coverage.iteration) == (FAIL, FAIL, 4)
    assert "lacks iterations 4 to 100" in coverage.message


def test_iterations_that_only_the_reference_lacks_are_inconclusive():
    verdict = verdict_on(record(falling()[:50]), record(falling()))
    assert verdict.outcome is INCONCLUSIVE


def test_records_without_a_common_iteration_are_inconclusive():
    verdict = verdict_on(record(falling(20)), record(falling(20), first=500))
    assert verdict.outcome is INCONCLUSIVE
    assert outcome_of(verdict, "mean_relative_error") is INCONCLUSIVE


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


def test_bias_sees_a_small_steady_shift_that_the_mean_error_lets_through():
    verdict = verdict_on(record(falling()), record(falling() * 0.97))
    assert outcome_of(verdict, "mean_relative_error") is PASS
    assert outcome_of(verdict, "bias") is FAIL


def test_a_finding_says_what_limit_would_have_passed_and_that_limit_passes():
    reference, candidate = record(falling()), record(falling() * 1.1)
    finding = verdict_on(reference, candidate, "mean_relative_error").findings[0]
    limit = {"limit": finding.would_pass_at}
    assert verdict_on(reference, candidate, "mean_relative_error", mean_relative_error=limit).outcome is PASS


def test_pairing_is_by_iteration_number_and_not_by_position():
    reference, candidate = record(falling()), record(falling()[10:], first=11)
    verdict = verdict_on(reference, candidate, "mean_relative_error")
    assert (verdict.outcome, verdict.findings[0].observed) == (PASS, 0.0)


def test_different_weights_or_batches_are_inconclusive_however_close_the_losses_are():
    reference = record(falling(), initial_state="aa", batches=("1",) * 100)
    for other in ({"initial_state": "bb"}, {"batches": (*("1",) * 41, "2", *("1",) * 58)}):
        candidate = replace(reference, **other)
        verdict = decide(compare(reference, candidate))
        assert verdict.outcome is INCONCLUSIVE
        assert verdict.comparison.paired is False
    assert verdict.findings[0].iteration == 42


def test_fingerprints_that_are_missing_although_asked_for_are_inconclusive():
    assert verdict_on(record(falling()), record(falling()), "fingerprints").outcome is INCONCLUSIVE


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


SPECIAL = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e308, -1e308, 5e-324, 1e300, 1e-300, 1.0])
LONG = st.lists(SPECIAL | st.floats(), max_size=70)


@unhurried
@given(LONG, LONG, st.sampled_from([0, 1, 2**62]), st.sampled_from([1, 1e300]), st.sampled_from([0.0, 1e-4]))
def test_no_numbers_make_a_rule_raise_or_warn(reference, candidate, first, factor, quantum):
    def run(values):
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.multiply(falling(len(values)) if factor > 1 else values, factor)
        iterations = np.arange(first, first + len(values))
        curves = {
            name: emacheck.Curve(name=name, iterations=iterations, values=values, quantum=quantum)
            for name in ("loss", "lr", "grad_norm", "mIoU")
        }
        return Record(name="", format="", curves=curves, validation=curves)

    one, other = run(reference), run(candidate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = decide(compare(one, other, repeats=[run(reference[::-1]), run(reference)]), make_rules(tuple(RULES)))
        hint(verdict)
    assert isinstance(verdict.outcome, Outcome)


def test_a_loss_that_is_too_large_to_square_is_off_and_no_error():
    reference, candidate = record(falling(200)), record(np.multiply(falling(200), 1e300))
    finding = verdict_on(reference, candidate, "equivalence").findings[0]
    assert (finding.outcome, finding.observed > 1e299) == (FAIL, True)


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=60),
    st.lists(st.floats(width=32), min_size=1, max_size=60),
    st.integers(1, 5),
)
def test_whatever_the_numbers_a_pass_means_finite_covered_and_within_limits(reference, candidate, first):
    verdict = verdict_on(record(reference), record(candidate, first=first))
    assert isinstance(verdict.outcome, Outcome)
    if verdict.outcome is PASS:
        assert np.all(np.isfinite(candidate))
        assert np.all(np.isfinite(reference))
        assert len(candidate) == len(reference) >= 10
        assert first == 1
        difference = np.abs(np.subtract(candidate, reference))
        with np.errstate(all="ignore"):
            relative = np.where(difference == 0, 0, difference / np.abs(reference))
        assert relative.mean() <= 0.05 or difference.mean() <= 0.0002


@given(st.lists(st.floats(0.1, 10), min_size=10, max_size=40), st.floats(-0.9, 5))
def test_the_mean_relative_error_of_a_scaled_curve_is_the_scale(values, off):
    finding = verdict_on(record(values), record(np.multiply(values, 1 + off)), "mean_relative_error").findings[0]
    assert finding.observed == pytest.approx(abs(off), abs=1e-9)


@given(st.sets(st.integers(0, 200)), st.sets(st.integers(0, 200)))
def test_pairing_loses_no_iteration(ours, theirs):
    def curve(its):
        return emacheck.Curve(name="loss", iterations=sorted(its), values=np.zeros(len(its)))

    paired = pair("loss", curve(ours), curve(theirs))
    assert set(paired.iterations) | set(paired.only_reference) == ours
    assert set(paired.iterations) | set(paired.only_candidate) == theirs


def test_the_modelzoo_rule_is_signed_and_says_when_only_the_signs_let_it_pass():
    verdict = verdict_on(record(falling()), record(falling() * 0.61), "modelzoo")
    message = verdict.findings[0].message
    assert verdict.outcome is PASS
    assert "passes only because the errors are signed" in message
    assert message.splitlines()[0].startswith("MeanRelativeError: -0.39")
    assert message.splitlines()[3].startswith("pass mean_relative_error=-0.39")


def test_the_modelzoo_rule_cuts_to_the_shorter_then_keeps_the_last_50_by_position():
    reference, candidate = falling(120), falling(112) * 1.01
    finding = verdict_on(record(reference, first=0), record(candidate, first=7), "modelzoo").findings[0]
    expected = ((candidate[62:112] - reference[62:112]) / reference[62:112]).mean()
    assert finding.observed == expected
    assert finding.message.splitlines()[0] == f"MeanRelativeError: {expected}"


def test_the_modelzoo_rule_cannot_see_what_its_expression_cannot_match():
    assert seen_by_script(np.array([math.nan, math.inf, 1.0, 1e20])).tolist() == [1.0]
    assert verdict_on(record([math.nan] * 20), record(falling(20)), "modelzoo").outcome is INCONCLUSIVE


def test_the_modelzoo_rule_names_the_smaller_of_its_two_errors():
    lines = ModelZoo().lines(0.5, 0.1, passed=False)
    assert lines[2] == "Rule,mean_absolute_error 0.1"
    assert lines[3] == "fail mean_relative_error=0.5 <= 0.05 or mean_absolute_error=0.1 <= 0.0002"


@pytest.mark.parametrize(
    ("names", "limits", "message"),
    [
        (["nonsense"], {}, "there is no rule 'nonsense'"),
        (["bias"], {"finite": {"limit": 1}}, "not among the rules in use"),
        (["bias"], {"bias": {"nonsense": 1}}, "has no limit 'nonsense'"),
        (["bias"], {"bias": {"limit": -1}}, "not negative"),
        (["bias"], {"bias": {"limit": math.nan}}, "not negative"),
        (["bias"], {"bias": {"limit": "high"}}, "must be a number"),
        (["bias"], {"bias": {"limit": True}}, "must be a number"),
        (["bias"], {"bias": {"limit": 10**400}}, "bias': limit must be a number of float64"),
        (["bias"], {"bias": {"limit": 16**5000}}, "bias': limit must be a number of float64"),
        (["coverage"], {"coverage": {"minimum": math.inf}}, "coverage': minimum is a count .* whole number, found inf"),
        (["coverage"], {"coverage": {"minimum": 1.9}}, "minimum is a count and must be a whole number, found 1.9"),
        (["first_iterations"], {"first_iterations": {"count": 1.5}}, "count is a count .* found 1.5"),
        (["envelope"], {"envelope": {"also": 1}}, "no limit 'also'. It has: alpha, limit, minimum"),
        (["first_iterations"], {"first_iterations": {"precision": 1}}, "no limit 'precision'. It has: limit, count"),
    ],
)
def test_wrong_rules_and_limits_are_refused_by_name(names, limits, message):
    with pytest.raises(UsageError, match=message):
        make_rules(names, limits)


def test_a_count_may_be_written_with_a_decimal_point_and_a_limit_be_infinite():
    (coverage,) = make_rules(["coverage"], {"coverage": {"minimum": 5.0, "limit": math.inf}})
    assert (coverage.minimum, type(coverage.minimum), coverage.limit) == (5, int, math.inf)


@pytest.mark.parametrize("value", [0, 1e-300, 0.5, 1.0, 3, 1e308, math.inf])
@pytest.mark.parametrize("name", RULES)
def test_whatever_a_limit_is_set_to_it_is_refused_or_decides(name, value):
    repeats = tuple(record(falling(40) * (1 + 1e-7 * np.sin(np.arange(40) + at))) for at in range(3))
    comparison = compare(record(falling(40)), record(falling(40) * 1.001), repeats=repeats)
    for field in fields(RULES[name]):
        try:
            rules = make_rules([name], {name: {field.name: value}})
        except UsageError:
            continue
        assert decide(comparison, rules).outcome in Outcome


@unhurried
@given(
    st.integers(0, 12), st.integers(0, 12), st.sets(st.integers(1, 20), max_size=3), st.sets(st.integers(1, 20)),
    st.sampled_from(["finite", "coverage", "mean_relative_error", "mean_absolute_error", "bias"]),
)  # fmt: skip
def test_the_limit_that_a_finding_needs_lets_it_pass(lost, lacking, broken_here, broken_there, name):
    reference, candidate = falling(20), falling(20) * 1.07
    reference[[at - 1 for at in broken_here]] = math.nan
    candidate[[at - 1 for at in broken_there]] = math.inf
    comparison = compare(record(reference[lost:], first=lost + 1), record(candidate[: 20 - lacking]))
    (finding,) = decide(comparison, make_rules([name])).findings
    if finding.would_pass_at is not None:
        field = "minimum" if finding.unit == "common iterations needed" else "limit"
        (again,) = decide(comparison, make_rules([name], {name: {field: finding.would_pass_at}})).findings
        assert again.outcome is PASS


def test_too_few_common_iterations_beside_missing_ones_are_passed_by_no_limit_alone():
    verdict = verdict_on(record(falling(11)), record(falling(9)), "coverage")
    (finding,) = verdict.findings
    assert (finding.outcome, finding.would_pass_at) == (FAIL, None)
    assert "--limit coverage=0.1819 --limit coverage.minimum=9" in finding.message
    accepted = verdict_on(record(falling(11)), record(falling(9)), "coverage", coverage={"limit": 0.1819, "minimum": 9})
    assert accepted.outcome is PASS


def test_every_rule_is_frozen_and_known_by_its_own_name():
    for name, rule in RULES.items():
        made = rule()
        assert made.name == name
        with pytest.raises(AttributeError):
            made.limit = 1
    assert set(DEFAULT_RULES) < set(RULES)


def test_a_comparison_knows_whether_its_records_are_paired():
    bare = record(falling())
    printed = record(falling(), initial_state="aa", batches=("1", "2"))
    assert compare(bare, printed).paired is None
    assert compare(printed, printed).paired is True
    assert isinstance(compare(bare, bare), Comparison)


def test_a_curve_refuses_what_is_not_a_curve():
    for iterations, values in (([1, 1], [1, 2]), ([2, 1], [1, 2]), ([1], [1, 2]), ([[1]], [[1]])):
        with pytest.raises(ValueError, match="loss"):
            emacheck.Curve(name="loss", iterations=iterations, values=values)
    with pytest.raises(ValueError, match="read-only"):
        emacheck.Curve(name="loss", iterations=[1], values=[1]).values[0] = 2


EXPERIMENT = {"name": "emanet", "seed": 0, "precision": "fp32", "processes": 1, "config": {"model.dropout_ratio": 0.1}}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"precision": "bf16"}, "precision: reference 'fp32', candidate 'bf16'"),
        ({"config": {"model.dropout_ratio": 0.2}}, "model.dropout_ratio: reference 0.1, candidate 0.2"),
        ({"seed": 1}, "seed: reference 0, candidate 1"),
    ],
)
def test_runs_that_were_asked_for_different_things_are_inconclusive_unless_that_is_accepted(asked, said):
    fingerprints = {"initial_state": "aa", "batches": ("bb",) * 100}
    reference = record(falling(), provenance={"experiment": EXPERIMENT}, **fingerprints)
    candidate = record(falling(), provenance={"experiment": {**EXPERIMENT, **asked}}, **fingerprints)
    verdict = verdict_on(reference, candidate)
    assert (verdict.outcome, verdict.worst.rule) == (Outcome.INCONCLUSIVE, "integrity")
    assert f"the two were asked for different things: {said} (accept with --limit integrity=1)" in verdict.worst.message
    accepted = verdict_on(reference, candidate, *DEFAULT_RULES, integrity={"limit": 1})
    assert accepted.outcome is Outcome.PASS
    assert said in next(finding.message for finding in accepted.findings if finding.rule == "integrity")


def test_what_may_differ_between_two_runs_of_one_experiment_is_no_reason():
    fingerprints = {"initial_state": "aa", "batches": ("bb",) * 100}
    reference = record(falling(), provenance={"experiment": EXPERIMENT}, **fingerprints)
    for asked in ({"name": "mine"}, {"data_hash": "ab"}):
        candidate = record(falling(), provenance={"experiment": {**EXPERIMENT, **asked}}, **fingerprints)
        assert verdict_on(reference, candidate).outcome is Outcome.PASS
    unpaired = [
        record(falling(), initial_state=str(seed), provenance={"experiment": {**EXPERIMENT, "seed": seed}})
        for seed in (0, 1)
    ]
    assert outcome_of(verdict_on(*unpaired), "integrity") is Outcome.PASS


@pytest.mark.parametrize("early", ["reference", "candidate"])
def test_a_run_that_ended_before_its_time_never_passes_though_both_hold_the_same_iterations(early):
    sides = {side: record(falling(), complete=side != early) for side in ("reference", "candidate")}
    verdict = decide(compare(sides["reference"], sides["candidate"]))
    assert (verdict.outcome, verdict.worst.rule) == (INCONCLUSIVE, "integrity")
    assert f"the {early}: the run ended before its time (accept with --limit integrity=1)" in verdict.worst.message


def test_a_run_that_says_why_it_is_incomplete_counts_once():
    ended = oddity(OddityKind.ENDED_EARLY, "run.json counts 200 iterations, iterations.jsonl holds 100")
    candidate = record(falling(), complete=False, oddities=(ended,))
    verdict = verdict_on(record(falling()), candidate, "integrity")
    assert (verdict.outcome, verdict.worst.observed) == (INCONCLUSIVE, 1)
    assert str(ended) in verdict.worst.message


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
