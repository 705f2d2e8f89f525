"""What benign repeats do among themselves fails no candidate; what is farther off than they are does."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emacheck import Curve, Record, decide
from emacheck.judge import Outcome
from emacheck.judge.comparison import compare
from emacheck.judge.noise.repeats import two_groups
from emacheck.judge.rules.envelope import GROUPS
from emacheck.judge.rules.means import MeanRelativeError

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from simulated_curves import NOISES_WITH_REPEATS, benign_runs, record

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
LENGTH = 100


def judged(seed, *, repeats=8, size=0.08, factors=1.0, noise="white", named=(), length=LENGTH):
    """A verdict on one more run of such a kind, whose loss is multiplied by the factors."""
    reference, candidate, *others = benign_runs(np.random.default_rng(seed), LENGTH, size, noise, 2 + repeats)
    made = record((factors * candidate)[:length])
    comparison = compare(record(reference), made, repeats=[record(each) for each in others])
    return decide(replace(comparison, stated=True), named=named)


def outcomes(rule, **options):
    return Counter(finding_of(judged(seed, **options), rule).outcome for seed in range(30))


def finding_of(verdict, rule):
    return next(finding for finding in verdict.findings if finding.rule == rule)


def test_a_healthy_run_whose_noise_is_over_the_limits_fails_without_repeats_and_passes_with_eight():
    assert {judged(seed, repeats=0).outcome for seed in range(10)} == {FAIL}
    found = Counter(judged(seed).outcome for seed in range(30))
    assert found[PASS] >= 24
    assert found[FAIL] <= 1


@pytest.mark.parametrize("rule", ["mean_relative_error", "worst_window"])
def test_such_a_pass_says_what_it_rests_on(rule):
    finding = next(f for f in (finding_of(judged(seed), rule) for seed in range(30)) if f.outcome is PASS)
    assert "over the default limit 0." in finding.message
    assert ", but the reference and 8 repeats of it are up to" in finding.message
    assert finding.observed <= finding.limit
    assert finding.limited_by == (f"{rule} passes as far off as repeats of the reference are from each other",)


def test_a_pass_within_its_limit_says_nothing_of_repeats_that_are_farther_from_each_other():
    found = [finding_of(judged(seed, size=0.046), "mean_relative_error") for seed in range(10)]
    assert {finding.outcome for finding in found} == {PASS}
    default = MeanRelativeError().limit
    within = [finding.would_pass_at <= default for finding in found]
    assert {True, False} == set(within)
    assert [finding.limited_by == () for finding in found] == within
    assert ["over the default limit" not in finding.message for finding in found] == within
    assert [finding.limit == default for finding in found] == within


def test_a_candidate_that_is_no_farther_from_a_noisy_reference_than_its_repeats_are_does_not_fail():
    found = Counter()
    for seed in range(10):
        draw = np.random.default_rng(seed)
        reference, *others = (2 + draw.normal(size=LENGTH) * size for size in (0.16, 0.04, 0.04, 0.04, 0.04))
        candidate, *repeats = map(record, others)
        comparison = replace(compare(record(reference), candidate, repeats=repeats), stated=True)
        found[finding_of(decide(comparison), "mean_relative_error").outcome] += 1
    assert found[FAIL] == 0
    assert found[PASS] >= 5


def test_a_run_that_is_a_little_farther_off_than_two_repeats_are_is_undecided_and_asks_for_more():
    verdicts = [judged(seed, repeats=2) for seed in range(30)]
    undecided = [f for v in verdicts for f in v.findings if "and one more may be farther" in f.message]
    assert len(undecided) > 5
    assert {finding.outcome for finding in undecided} == {INCONCLUSIVE}
    assert all(finding.limit < abs(finding.observed) <= 2 * finding.limit for finding in undecided)
    # Who gave repeats is not told to give some.
    by_chance = [f.message for v in verdicts for f in v.findings if "by chance" in f.message]
    assert {"or give more repeats;" in said for said in by_chance} == {True}
    assert Counter(verdict.outcome for verdict in verdicts)[FAIL] <= 2


@pytest.mark.parametrize("repeats", [2, 8])
def test_a_loss_that_is_39_percent_too_low_fails_whatever_the_repeats_do(repeats):
    assert outcomes("bias", repeats=repeats, factors=0.61) == {FAIL: 30}


def test_a_bias_that_is_larger_than_that_of_any_two_repeats_is_not_left_undecided_because_of_them():
    found = [finding_of(judged(seed, factors=0.94), "bias") for seed in range(20)]
    assert sum(finding.outcome is FAIL for finding in found) >= 8
    # What chance explains is undecided whatever the repeats do.
    assert all("by chance" in finding.message for finding in found if finding.outcome is not FAIL)


def test_what_scatters_more_than_twice_as_far_as_the_repeats_fails():
    def scattered(seed):
        return np.exp(0.35 * np.random.default_rng(1000 + seed).normal(size=LENGTH))

    found = [judged(seed, factors=scattered(seed)) for seed in range(20)]
    assert {finding_of(verdict, "mean_relative_error").outcome for verdict in found} == {FAIL}


def test_a_stretch_that_is_off_fails_although_the_mean_error_is_that_of_the_repeats():
    factors = np.where((np.arange(LENGTH) >= 50) & (np.arange(LENGTH) < 60), 1.6, 1.0)
    assert outcomes("worst_window", factors=factors)[FAIL] >= 28


def test_repeats_within_the_limits_excuse_nothing():
    # Of two of them the error is about 0.045, and of the candidate about 0.07: one more repeat may be over 0.05.
    assert outcomes("mean_relative_error", size=0.035, factors=1.065) == {FAIL: 30}


def test_repeats_that_the_envelope_refuses_excuse_nothing():
    reference, candidate, one, other = benign_runs(np.random.default_rng(0), LENGTH, 0.08, "white", 4)
    still = record(np.full(LENGTH, one[0]))
    comparison = replace(compare(record(reference), record(candidate), repeats=[still, record(other)]), stated=True)
    verdict = decide(comparison)
    assert finding_of(verdict, "envelope").outcome is INCONCLUSIVE
    assert finding_of(verdict, "mean_relative_error").outcome is FAIL


@pytest.mark.parametrize("wrong", [1, 2, 4])
def test_repeats_that_are_as_wrong_as_the_candidate_excuse_nothing(wrong):
    draw = np.random.default_rng(wrong)
    reference, candidate, *others = benign_runs(draw, LENGTH, 0.02, "white", 6)
    late = np.where(np.arange(LENGTH) < 10, 1.0, 0.61)  # as of a device that goes wrong after the first iterations
    others = [each * late if at < wrong else each for at, each in enumerate(others)]
    repeats = [replace(record(each), name=f"run {at}") for at, each in enumerate(others)]
    comparison = replace(compare(record(reference), record(candidate * late), repeats=repeats), stated=True)
    verdict = decide(comparison)
    assert {finding_of(verdict, rule).outcome for rule in ("mean_relative_error", "bias", "worst_window")} == {FAIL}
    envelope = finding_of(verdict, "envelope")
    assert envelope.outcome is INCONCLUSIVE
    named = {1: "is run 0", 2: "are run 0, run 1", 4: "are run 0, run 1, run 2, ..."}[wrong]
    assert envelope.message.startswith("loss of reference and repeats falls into two groups, on average 0.3")
    assert envelope.message.endswith(f"on the other side than the reference {named}")


def test_benign_runs_are_seldom_taken_for_two_groups():
    apart = 0
    for seed in range(300):
        draw, noise = np.random.default_rng(seed), NOISES_WITH_REPEATS[seed % len(NOISES_WITH_REPEATS)]
        between, within, _ = two_groups(np.array(benign_runs(draw, LENGTH, 0.2, noise, 3 + 2 * (seed % 2))))
        apart += between > GROUPS * within
    assert apart <= 3


def test_a_repeat_that_says_that_it_was_trained_on_the_candidates_device_excuses_nothing():
    reference, candidate, *others = benign_runs(np.random.default_rng(0), LENGTH, 0.08, "white", 6)

    def on(device, values):
        return replace(record(values), name=device, provenance={"device": {"type": device, "name": device}})

    def judged_with(*devices):
        repeats = [on(device, values) for device, values in zip(devices, others, strict=True)]
        comparison = compare(on("cpu", reference), on("sdaa", candidate), repeats=repeats)
        return finding_of(decide(replace(comparison, stated=True)), "envelope")

    assert judged_with("cpu", "cpu", "cpu", "cpu").outcome is PASS
    finding = judged_with("cpu", "cpu", "cpu", "sdaa")
    assert finding.outcome is INCONCLUSIVE
    assert finding.message == "the repeat sdaa was trained on the device of the candidate, not on that of the reference"


@pytest.mark.parametrize("rule", ["mean_relative_error", "worst_window"])
def test_a_rule_that_was_named_means_what_it_says(rule):
    assert outcomes(rule, named=(rule,)) == {FAIL: 30}


def test_repeats_are_held_against_each_other_where_the_candidate_has_iterations():
    # The noise of all is small in the first half, in which the candidate ends.
    draw = np.random.default_rng(3)
    sizes = np.where(np.arange(LENGTH) < 50, 0.002, 0.3)
    runs = [(2.0 + draw.normal(size=LENGTH) * sizes) for _ in range(6)]
    candidate = 0.9 * runs[1][:50]
    comparison = compare(record(runs[0]), record(candidate), repeats=[record(each) for each in runs[2:]])
    assert finding_of(decide(replace(comparison, stated=True)), "mean_relative_error").outcome is FAIL


def run_of_ranks(draw):
    def loss(values):
        return {"loss": Curve(name="loss", iterations=range(101, 161), values=values)}

    values = 2 * np.exp(0.1 * draw.normal(size=(4, 60)))
    of_ranks = dict(enumerate(map(loss, values)))
    return Record(name="", format="", curves=loss(values.mean(axis=0)), ranks=4, of_ranks=of_ranks)


def test_ranks_that_fluctuate_are_held_against_those_of_the_repeats():
    found = Counter()
    for seed in range(20):
        draw = np.random.default_rng(seed)
        reference, candidate, *repeats = (run_of_ranks(draw) for _ in range(10))
        alone = replace(compare(reference, candidate), stated=True)
        assert finding_of(decide(alone), "ranks").outcome is FAIL
        found[finding_of(decide(replace(alone, repeats=tuple(repeats))), "ranks").outcome] += 1
    assert found[PASS] >= 16
    assert found[FAIL] == 0


@pytest.mark.parametrize("of_ranks", [{}, {0: {}, 1: {}, 2: {}, 3: {}}])
def test_a_repeat_without_the_losses_of_its_ranks_shows_nothing_about_ranks(of_ranks):
    draw = np.random.default_rng(0)
    reference, candidate, *repeats = (run_of_ranks(draw) for _ in range(10))
    comparison = replace(compare(reference, candidate, repeats=repeats), stated=True)
    assert finding_of(decide(comparison), "ranks").outcome is PASS
    comparison = replace(comparison, repeats=(*repeats[:-1], replace(repeats[-1], of_ranks=of_ranks)))
    assert finding_of(decide(comparison), "envelope").outcome is PASS
    assert finding_of(decide(comparison), "ranks").outcome is FAIL
