"""Chance, and other batches, FAIL no healthy run more often than is said; what is far off FAILs all the same."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emacheck.judge import Outcome, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.noise.scatter import correlated, share_noise
from emacheck.judge.noise.standard_error import mean_by_chance

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from simulated_curves import NOISES, filtered, of_unknown_pairing, paired, record

FAIL, INCONCLUSIVE = Outcome.FAIL, Outcome.INCONCLUSIVE
SLOW = "autoregression, neighbours correlated by 0.8"
PAIRS = 150


def outcomes(judge):
    return Counter(judge(np.random.default_rng(seed)).outcome for seed in range(PAIRS))


def bias_of(verdict):
    return next(finding for finding in verdict.findings if finding.rule == "bias")


class TestPairedRuns:
    # Of slow noise 4 % are expected: 20 values do not show all of its memory.
    @pytest.mark.parametrize(("noise", "size", "most"), [("white", 0.05, 0.03), (SLOW, 0.03, 0.08)])
    def test_few_iterations_of_chaos_rarely_fail_a_healthy_run_by_their_bias(self, noise, size, most):
        biases = [bias_of(paired(np.random.default_rng(seed), 20, size, noise)) for seed in range(PAIRS)]
        over = [finding for finding in biases if abs(finding.observed) > finding.limit]
        assert len(over) > 0.25 * PAIRS
        assert sum(finding.outcome is FAIL for finding in over) <= most * PAIRS
        assert {finding.outcome for finding in over} <= {FAIL, INCONCLUSIVE}
        if noise == "white":
            assert all("by chance, with 99.5% confidence" in each.message for each in over if each.outcome is not FAIL)

    def test_a_single_iteration_shows_no_noise_that_its_bias_could_be_held_against(self):
        one, several = (
            bias_of(decide(replace(compare(record(np.full(n, 2.0)), record(np.full(n, 2.06))), stated=True)))
            for n in (1, 2)
        )
        assert (one.outcome, "over its limit, but the differences are too few" in one.message) == (INCONCLUSIVE, True)
        assert several.outcome is FAIL

    @pytest.mark.parametrize(("count", "size", "low"), [(20, 0.01, 0.97), (100, 0.03, 0.95), (1000, 0.05, 0.97)])
    def test_what_is_low_from_beginning_to_end_fails_by_its_bias_where_the_noise_allows_it(self, count, size, low):
        seeds = range(30)
        found = [bias_of(paired(np.random.default_rng(seed), count, size, "white", low)).outcome for seed in seeds]
        assert found.count(FAIL) >= 28

    @pytest.mark.parametrize("fault", ["drifts", "sets in"])
    @pytest.mark.parametrize(("count", "size"), [(60, 0.01), (300, 0.03)])
    def test_what_grows_or_sets_in_before_the_middle_fails_by_the_bias_of_the_last_half(self, fault, count, size):
        factors = np.linspace(1, 1.04, count) if fault == "drifts" else np.where(np.arange(count) < count // 3, 1, 1.05)
        found = [
            bias_of(paired(np.random.default_rng(seed), count, size, "white", factors)).outcome for seed in range(30)
        ]
        assert found.count(FAIL) >= 26

    @pytest.mark.parametrize("noise", NOISES)
    @pytest.mark.parametrize("count", [20, 100])
    def test_a_loss_that_is_39_percent_low_fails_whatever_the_noise(self, noise, count):
        for seed in range(10):
            assert paired(np.random.default_rng(seed), count, 0.05, noise, 0.61).outcome is FAIL

    def test_a_constant_ratio_has_no_noise_that_could_explain_it(self):
        values = 2 + np.random.default_rng(0).normal(size=40)
        comparison = replace(compare(record(values), record(1.02 * values)), stated=True)
        assert bias_of(decide(comparison)).outcome is FAIL

    def test_the_rule_means_what_it_says_where_somebody_names_it_or_sets_its_limit(self):
        values = 2 + 0.1 * np.random.default_rng(0).normal(size=20)
        slowly = values * (1 + np.linspace(0, 0.04, 20))
        comparison = replace(compare(record(values), record(slowly)), stated=True)
        assert bias_of(decide(comparison)).outcome is INCONCLUSIVE
        assert "change so slowly" in bias_of(decide(comparison)).message
        assert decide(comparison, make_rules(["bias"])).outcome is FAIL
        assert bias_of(decide(comparison, make_rules(), named=["bias"])).outcome is FAIL


class TestTheBoundOfAMean:
    def test_it_is_exceeded_once_in_a_hundred_series_without_memory(self):
        draw = np.random.default_rng(1)
        series = draw.normal(size=(2000, 40))
        assert np.mean([abs(each.mean()) > mean_by_chance(each) for each in series]) <= 0.015

    @pytest.mark.parametrize("scale", [1e-300, 1e300])
    def test_it_scales_with_the_series(self, scale):
        series = np.random.default_rng(2).normal(size=50)
        assert mean_by_chance(scale * series) == pytest.approx(scale * mean_by_chance(series))

    @pytest.mark.parametrize("series", [[], [0.0], [0.3] * 4, [0.0] * 20])
    def test_what_does_not_move_has_no_chance_in_it(self, series):
        assert mean_by_chance(np.array(series)) == 0

    def test_few_values_that_move_explain_any_mean(self):
        assert mean_by_chance(np.array([1.0, 1.1, 1.2, 1.3])) == np.inf


class TestRunsThatMayBeOfOtherBatches:
    @pytest.mark.parametrize("noise", ["white", SLOW, "a moving mean of 15"])
    @pytest.mark.parametrize(("count", "most"), [(50, 0.1), (90, 0.05), (300, 0.05)])
    def test_slow_noise_does_not_fail_a_healthy_run(self, noise, count, most):
        assert outcomes(lambda draw: of_unknown_pairing(draw, count, noise))[FAIL] <= most * PAIRS

    @pytest.mark.parametrize("noise", ["white", SLOW])
    @pytest.mark.parametrize("count", [50, 300])
    def test_a_loss_that_is_39_percent_low_fails(self, noise, count):
        assert outcomes(lambda draw: of_unknown_pairing(draw, count, noise, 0.61))[FAIL] == PAIRS

    @pytest.mark.parametrize("trend", ["falls", "drops"])
    def test_a_trend_that_both_curves_share_is_no_shared_noise(self, trend):
        position = np.linspace(0, 1, 40)
        level = 0.5 + 2 * np.exp(-6 * position) if trend == "falls" else np.where(position < 0.6, 1.0, 0.6)
        draw = np.random.default_rng(3)
        pairs = [level * np.exp(0.03 * draw.normal(size=(2, 40))) for _ in range(200)]
        assert sum(bool(share_noise(pair)) for pair in pairs) <= 8
        assert sum(bool(correlated(np.diff(np.log(pair)))) for pair in pairs) > 40

    def test_curves_of_the_same_batches_share_their_noise(self):
        draw = np.random.default_rng(4)
        batches, chaos = 0.1 * draw.normal(size=(100, 1, 20)), 0.03 * draw.normal(size=(100, 2, 20))
        assert all(share_noise(np.exp(each)) for each in batches + chaos)

    def test_slow_noise_of_both_curves_is_no_shared_noise(self):
        draw = np.random.default_rng(5)
        pairs = [np.exp([0.05 * filtered(draw.normal(size=240), 0.9) for _ in range(2)]) for _ in range(200)]
        assert sum(bool(share_noise(pair)) for pair in pairs) <= 8
