"""A loss that crosses zero or decays to it: ratios mean nothing there, gross errors still fail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import record

from emacheck.judge import Outcome, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.near_zero import scaled_difference

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
RELATIVE = ("mean_relative_error", "bias", "worst_window")


def verdict_on(reference, candidate, *names):
    return decide(compare(record(reference), record(candidate)), make_rules(names) if names else None)


def crossing(seed):
    return np.linspace(2, -2, 200) + 0.02 * np.random.default_rng([94, seed]).normal(size=200)


def decaying():
    return 2 * 10.0 ** (-6 * np.arange(200) / 200)


def with_noise(values, size, seed):
    noise = size * np.random.default_rng([95, seed]).normal(size=len(values))
    noise[:3] = 0
    return values + noise


@pytest.mark.parametrize("size", [0.001, 0.003, 0.01])
def test_healthy_pairs_of_a_loss_that_crosses_zero_never_fail(size):
    for seed in range(15):
        assert verdict_on(crossing(seed), with_noise(crossing(seed), size, seed)).outcome is not FAIL


def test_healthy_pairs_of_a_loss_that_decays_to_nothing_are_undecided_and_the_message_says_what_to_do():
    for seed in range(10):
        verdict = verdict_on(decaying(), with_noise(decaying(), 1e-4, seed))
        assert verdict.outcome is INCONCLUSIVE
        undecided = [f for f in verdict.findings if f.outcome is INCONCLUSIVE and f.rule in RELATIVE]
        assert all("crosses zero or comes close to it" in f.message for f in undecided)
        assert all("--rule mean_absolute_error" in f.message for f in undecided)


@pytest.mark.parametrize("values", [crossing(0), decaying()])
@pytest.mark.parametrize("wrong", [0.61, 1.39, -1.0])
def test_gross_errors_fail_there_as_well(values, wrong):
    assert verdict_on(values, values * wrong).outcome is FAIL


@pytest.mark.parametrize("off", [-0.03, 0.03])
def test_a_loss_that_is_zero_once_does_not_hide_a_bias(off):
    values = np.linspace(2, 1, 100)
    values[70] = 0.0
    wrong = values * (1 + off)
    wrong[70] = 1e-4
    assert verdict_on(values, wrong, "bias").outcome is FAIL
    wrong = values.copy()
    wrong[70] = 1e-4
    assert verdict_on(values, wrong, "bias").outcome is INCONCLUSIVE


def test_differences_that_go_either_way_are_no_bias_there_but_an_error():
    either_way = (-1.0) ** np.arange(200)
    assert verdict_on(crossing(0), crossing(0) + 0.2 * either_way, "mean_relative_error").outcome is FAIL
    at_zero = np.append(0.001, crossing(0)[1:])
    assert verdict_on(at_zero, at_zero + 0.04 * either_way, "bias").outcome is INCONCLUSIVE


def test_an_absolute_error_over_its_limit_does_not_fail_what_the_relative_one_leaves_undecided():
    rules = ("mean_relative_error", "mean_absolute_error")
    candidate = with_noise(decaying(), 1e-3, 0)
    verdict = verdict_on(decaying(), candidate, *rules)
    assert [f.outcome for f in verdict.findings] == [INCONCLUSIVE, INCONCLUSIVE]
    assert "but mean_relative_error is undecided" in verdict.findings[1].message
    verdict = verdict_on(decaying(), with_noise(decaying(), 1e-4, 0), *rules)
    assert [f.outcome for f in verdict.findings] == [PASS, PASS]


@given(st.lists(st.floats(0.1, 9.9), min_size=10, max_size=40), st.floats(-0.9, 5))
def test_ordinary_losses_are_judged_by_their_ratios_alone(values, off):
    comparison = compare(record(values), record(np.multiply(values, 1 + off)))
    assert scaled_difference(comparison.curve("loss")) is None
    for name in RELATIVE:
        (finding,) = decide(comparison, make_rules([name])).findings
        assert finding.outcome is (PASS if abs(finding.observed) <= finding.limit else FAIL) or (
            name == "worst_window" and "a single iteration" in finding.message
        )


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [-3.0, -2.0]])
def test_there_is_no_scale_without_finite_values_and_none_is_needed_for_one_sign(values):
    assert scaled_difference(compare(record(values), record(values)).curve("loss")) is None
