"""Two one-sided tests: equal levels pass, unequal ones do not, and what cannot be told is not told."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import alike, curve, record
from unpaired_runs import falling, finding_on

from emacheck.errors import UsageError
from emacheck.judge import Outcome, make_rules
from emacheck.judge.advice import rounded_up
from emacheck.judge.comparison import Comparison, compare
from emacheck.judge.noise.standard_error import block_length, student
from emacheck.judge.rules.equivalence import Equivalence, last_part
from emacheck.record import Record

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


@pytest.mark.parametrize("wrong", [3.0, 1 / 3])
def test_a_pass_needs_a_first_half_that_is_no_other_run(wrong):
    noise = 0.03 * np.random.default_rng(89).normal(size=(2, 400))
    reference, candidate = falling(400) + noise[0], falling(400) + noise[1]
    assert finding_on(record(reference), record(candidate)).outcome is PASS
    candidate[:195] *= wrong
    finding = finding_on(record(reference), record(candidate))
    assert finding.outcome is INCONCLUSIVE
    assert "over all iterations the two drift" in finding.message


def test_a_level_that_is_far_off_fails_whatever_happened_before():
    noise = 0.03 * np.random.default_rng(90).normal(size=(2, 400))
    candidate = 1.39 * falling(400) + noise[1]
    candidate[:195] *= 3
    assert finding_on(record(falling(400) + noise[0]), record(candidate)).outcome is FAIL


def test_a_fail_says_which_limit_a_pass_needs_where_its_interval_does_not_show_it():
    noise = 0.1 * np.random.default_rng(90).normal(size=(2, 400))
    candidate = 1.39 * falling(400) + noise[1]
    candidate[:195] += 0.2 * np.sin(np.arange(195) / 25)
    finding = finding_on(record(falling(400) + noise[0]), record(candidate))
    assert finding.outcome is FAIL
    assert finding.would_pass_at is not None
    assert f"and needs {rounded_up(finding.would_pass_at):.4g}" in finding.message


def test_noise_that_hides_the_difference_is_inconclusive_and_says_what_it_could_have_seen():
    rng = np.random.default_rng(74)
    finding = finding_on(record(1 + 0.3 * rng.normal(size=80)), record(1 + 0.3 * rng.normal(size=80)))
    assert finding.outcome is INCONCLUSIVE
    assert "the smallest difference that these 40 values could have shown is 0.1" in finding.message
    assert finding.would_pass_at is not None
    assert finding.would_pass_at > 0.05
    again = finding_on(record(falling(100)), record(falling(100) * 1.02), limit=0.0201)
    assert (again.outcome, round(again.observed, 6)) == (PASS, 0.02)


@given(st.integers(0, 10_000), st.floats(-0.2, 0.2))
def test_the_limit_that_a_finding_needs_passes(seed, off):
    noise = 0.02 * np.random.default_rng(seed).normal(size=(2, 100))
    reference, candidate = record(falling(100) + noise[0]), record(falling(100) * (1 + off) + noise[1])
    finding = finding_on(reference, candidate)
    if finding.would_pass_at is not None:
        assert finding_on(reference, candidate, limit=finding.would_pass_at).outcome is PASS
        assert finding.outcome is not PASS or finding.would_pass_at <= 0.05
        assert finding_on(reference, candidate) == finding


def test_a_trend_that_both_share_is_not_noise():
    steep = np.linspace(10, 1, 200)
    finding = finding_on(record(steep), record(steep * 1.01))
    assert finding.outcome is PASS
    assert finding.would_pass_at == pytest.approx(0.01)


def test_a_loss_that_is_39_percent_too_low_fails():
    noise = 0.05 * np.random.default_rng(75).normal(size=(2, 120))
    finding = finding_on(record(falling(120) + noise[0]), record(0.61 * falling(120) + noise[1]))
    assert finding.outcome is FAIL
    assert finding.observed == pytest.approx(-0.39, abs=0.03)


def test_too_few_values_and_too_few_independent_blocks_are_inconclusive():
    finding = finding_on(record(falling(58)), record(falling(58)))
    assert finding.outcome is INCONCLUSIVE
    assert "29 values" in finding.message
    walk = np.cumsum(np.random.default_rng(76).normal(size=(2, 100)), axis=1) / 100
    finding = finding_on(record(3 + walk[0]), record(3 + walk[1]))
    assert finding.outcome is INCONCLUSIVE
    assert "drift so slowly" in finding.message


@pytest.mark.parametrize(
    ("off", "n", "outcome"),
    [(0.39, 24, FAIL), (-0.39, 24, FAIL), (0.39, 12, INCONCLUSIVE), (0.09, 24, INCONCLUSIVE), (0.39, 200, FAIL)],
)
def test_values_that_are_all_far_off_fail_even_where_there_are_too_few_for_a_test(off, n, outcome):
    finding = finding_on(record(falling(n)), record(falling(n) * (1 + off)))
    assert finding.outcome is outcome
    crossing = falling(24) * (1 + 0.39 * (-1.0) ** np.arange(24))
    assert finding_on(record(falling(24)), record(crossing)).outcome is INCONCLUSIVE


@pytest.mark.parametrize(
    ("reference", "candidate", "outcome", "message"),
    [
        (falling(60), np.r_[falling(59), math.nan], FAIL, "the candidate has values"),
        (falling(60), np.r_[math.nan, falling(59)], FAIL, "the candidate has values"),
        (np.full(80, 1e308), np.full(80, 1.7e308), FAIL, "too far apart"),
        (np.r_[falling(59), math.inf], falling(60), INCONCLUSIVE, "the reference has values"),
        (np.zeros(60), falling(60), INCONCLUSIVE, "is zero"),
        (np.sin(np.arange(60)), falling(60), INCONCLUSIVE, "changes sign"),
        ([], falling(60), INCONCLUSIVE, "0 values"),
        ([1.0], [1.0], INCONCLUSIVE, "0 values"),
    ],
)
def test_what_has_no_level_is_never_a_pass(reference, candidate, outcome, message):
    finding = finding_on(record(reference), record(candidate))
    assert finding.outcome is outcome
    assert message in finding.message


def test_a_metric_that_is_missing_is_inconclusive():
    empty = Record(name="x", format="test", curves={})
    (finding,) = Equivalence().check(Comparison(reference=record(falling(60)), candidate=empty))
    assert finding.outcome is INCONCLUSIVE


def test_only_the_span_that_both_have_is_judged():
    long, short = falling(400), falling(400)[:200]
    part = last_part(curve(long), curve(short), 0.5)
    assert (part.first, part.last, len(part.reference)) == (101, 200, 100)
    assert np.array_equal(part.reference, part.candidate)
    assert len(last_part(curve(long), curve(short, first=1000), 0.5).reference) == 0


def test_logs_that_count_from_zero_and_from_one_share_a_grid():
    part = last_part(curve(falling(40), first=50, every=50), curve(falling(40), first=49, every=50), 1.0)
    assert len(part.reference) == 40
    assert np.array_equal(part.reference, part.candidate)


def test_a_raw_log_is_averaged_over_the_windows_of_a_smoothed_one():
    raw = 5 - np.arange(800) / 200
    smooth = raw.reshape(80, 10).mean(axis=1)
    finding = finding_on(record(raw), record(smooth, first=10, every=10, window=10))
    assert finding.outcome is PASS
    assert finding.observed == pytest.approx(0, abs=1e-12)


def test_values_that_share_a_smoothing_window_do_not_count_as_independent():
    rng = np.random.default_rng(77)
    raw = falling(1010) + 0.1 * rng.normal(size=(2, 1010))
    smooth = [np.convolve(values, np.ones(11) / 11, mode="valid") for values in raw]
    part = last_part(*(curve(values, first=11, window=11) for values in smooth), 0.5)
    assert part.window == 11
    finding = finding_on(*(record(values, first=11, window=11) for values in smooth))
    blind = finding_on(*(record(values, first=11) for values in raw[:, 10:]))
    assert finding.would_pass_at >= 0.8 * blind.would_pass_at


def test_printed_decimals_widen_the_interval_by_half_a_quantum_of_each_record():
    exact = finding_on(record(np.full(60, 0.2)), record(np.full(60, 0.2)))
    printed = finding_on(record(np.full(60, 0.2), quantum=0.01), record(np.full(60, 0.2), quantum=0.01))
    assert (exact.outcome, exact.would_pass_at) == (PASS, 0.0)
    assert (printed.outcome, round(printed.would_pass_at, 9)) == (PASS, 0.05)


@pytest.mark.parametrize("fields", [{"last": 0.0}, {"last": 1.5}, {"alpha": 0.5}, {"alpha": 0.0}])
def test_a_part_or_an_alpha_that_means_nothing_is_refused(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        Equivalence(**fields)


def test_the_rule_is_known_by_name_and_its_fields_can_be_set():
    (rule,) = make_rules(["equivalence"], {"equivalence": {"limit": 0.01, "last": 1.0, "minimum": 50}})
    assert rule == Equivalence(limit=0.01, last=1.0, minimum=50)


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [(0.95, 4, 2.1318), (0.95, 9, 1.8331), (0.95, 30, 1.6973), (0.8, 4, 0.9410), (0.99, 10, 2.7638)],
)
def test_quantiles_of_student_are_those_of_the_tables(probability, freedom, expected):
    assert student(probability, freedom) == pytest.approx(expected, rel=1e-3)


def test_whatever_the_numbers_there_is_a_finding_and_a_pass_is_finite():
    seen = set()

    @given(alike(), st.sampled_from([1] * 7 + [50]))
    def check(pair, first):
        reference, candidate = pair
        finding = finding_on(record(reference), record(candidate, first=first))
        seen.add(finding.outcome)
        if finding.outcome is not PASS:
            return
        assert np.all(np.isfinite(candidate))
        assert np.all(np.isfinite(reference))
        assert abs(finding.observed) <= 0.05
        assert finding.would_pass_at is not None
        assert finding.would_pass_at <= 0.05

    check()
    assert PASS in seen


@pytest.mark.parametrize("once", [1e78, 1e200])
def test_a_loss_that_is_without_bounds_once_is_no_pass_and_no_crash(once):
    values = np.linspace(2.0, 1.0, 80)
    reference, candidate = (values + np.random.default_rng(seed).normal(0, 0.1, 80) for seed in (1, 2))
    candidate[60] = once
    assert finding_on(record(reference), record(candidate)).outcome is not PASS


@pytest.mark.parametrize("exponent", [-600, -1, 1, 600])
def test_the_length_of_the_blocks_does_not_depend_on_the_unit(exponent):
    series = np.cumsum(np.random.default_rng(0).normal(size=400))
    assert block_length(np.ldexp(series, exponent)) == block_length(series) > 1


def test_a_loss_that_is_zero_in_both_short_runs_is_undecided_and_no_crash():
    zeros = record([0.0] * 20)
    finding = Equivalence().check(compare(zeros, zeros))[0]
    assert finding.outcome is Outcome.INCONCLUSIVE
