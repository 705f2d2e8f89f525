"""A run that is wrong for a stretch, or parts at its end, does not pass by the mean over the rest."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import record

from emacheck.judge import Outcome, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.rules.worst_window import WorstWindow, worst_window

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def falling(n, seed=0):
    noise = np.random.default_rng([91, seed]).normal(size=n)
    return (1.5 + 2.5 * np.exp(-3 * np.arange(n) / n)) * (1 + 0.03 * noise)


def benign(values, seed=1, level=0.01, draw=np.random.Generator.standard_normal):
    """Differ as rounding does: threefold more at each iteration, until it stays at a level."""
    grown = np.minimum(1e-7 * 3.0 ** np.minimum(np.arange(len(values)), 40), level)
    return values * (1 + grown * draw(np.random.default_rng([92, seed]), size=len(values)))


def finding_on(reference, candidate, **fields):
    (finding,) = WorstWindow(**fields).check(compare(record(reference), record(candidate)))
    return finding


def factors(n, start, stop, values):
    found = np.ones(n)
    found[start:stop] = values
    return found


@pytest.mark.parametrize(
    ("n", "wrong", "outcome", "first"),
    [
        (1000, factors(1000, 950, 1000, np.linspace(1, 1.35, 50)), FAIL, 991),
        (1000, factors(1000, 300, 400, 0.8), FAIL, 301),
        (200, factors(200, 60, 80, 1 + 0.39 * (-1.0) ** np.arange(20)), FAIL, None),
        (200, factors(200, 197, 200, 3.9), FAIL, 191),
        (200, factors(200, 199, 200, 2.7), INCONCLUSIVE, 191),
        (1000, factors(1000, 500, 501, 2.7), PASS, None),
    ],
)
def test_a_stretch_that_is_wrong_is_found_where_the_mean_over_the_whole_run_is_within_its_limit(
    n, wrong, outcome, first
):
    reference = falling(n)
    comparison = compare(record(reference), record(benign(reference, level=0.005) * wrong))
    assert pairing_of(comparison).pairing is Pairing.PAIRED
    (mean,) = decide(comparison, make_rules(["mean_relative_error"])).findings
    assert mean.outcome is PASS
    finding = next(f for f in decide(comparison).findings if f.rule == "worst_window")
    assert finding.outcome is outcome
    assert first is None or f"iterations of loss are {first} to" in finding.message
    assert outcome is not INCONCLUSIVE or "a single iteration" in finding.message


@pytest.mark.parametrize(
    ("level", "draw"),
    [
        (0.06, np.random.Generator.standard_normal),
        (0.045, lambda rng, size: rng.standard_t(8, size=size)),
        (0.015, lambda rng, size: rng.standard_t(3, size=size)),
        (0.015, lambda rng, size: np.repeat(rng.standard_normal(size), 10)[:size]),
    ],
)
@pytest.mark.parametrize("n", [100, 1000, 20_000])
def test_healthy_pairs_whose_differences_are_larger_or_odder_than_those_recorded_hardly_ever_leave_the_limit(
    n, level, draw
):
    """Those of the recorded pair of 1000 iterations level off at a spread of 0.046, uncorrelated; 1 % at most."""
    trials = 150
    passed = sum(
        finding_on(falling(n, seed), benign(falling(n, seed), seed, level, draw)).outcome is PASS
        for seed in range(trials)
    )
    assert passed >= trials - 1


@pytest.mark.parametrize(
    ("n", "length", "factor", "outcome"),
    [
        (100_000, 900, 2.0, FAIL),
        (100_000, 10, 1.4, FAIL),
        (100_000, 3000, 1.25, FAIL),
        (100_000, 3000, 1.05, PASS),
        (100_000, 1, 11.0, INCONCLUSIVE),
        (1000, 10, 1.4, FAIL),
        (1000, 10, 1.2, PASS),
    ],
)
def test_a_stretch_is_found_however_short_a_part_of_the_run_it_is(n, length, factor, outcome):
    reference = falling(n)
    candidate = benign(reference, level=0.005) * factors(n, n // 2, n // 2 + length, factor)
    finding = finding_on(reference, candidate)
    assert finding.outcome is outcome
    assert (finding.outcome is PASS) == (finding.observed <= finding.limit)
    assert outcome is PASS or n // 2 - 15 <= finding.iteration <= n // 2 + length


@given(st.lists(st.floats(0, 10), min_size=1, max_size=450))
def test_the_worst_window_is_the_one_that_a_search_finds(values):
    n = len(values)
    longest = min(max(n // 10, 10), n)
    allowed = {length: 1 + 2 * math.sqrt(10 / length) for length in (10, 20, 40) if length < longest} | {longest: 1}
    searched = [
        np.mean(values[start : start + length]) / allowance
        for length, allowance in allowed.items()
        for start in range(n - length + 1)
    ]
    window = worst_window(np.array(values))
    assert window.relative == pytest.approx(max(*searched, np.mean(values[-10:])), abs=1e-9)
    assert window.mean == pytest.approx(np.mean(values[window.start : window.stop]))


@given(st.integers(0, 10_000), st.floats(0, 0.5))
def test_the_limit_that_a_finding_needs_passes(seed, off):
    reference, candidate = falling(60, seed), falling(60, seed) * factors(60, 20, 35, 1 + off)
    finding = finding_on(reference, candidate)
    assert finding_on(reference, candidate, limit=finding.would_pass_at).outcome is PASS
    assert (finding.outcome is PASS) == (finding.would_pass_at <= 0.1)


@pytest.mark.parametrize(
    ("reference", "candidate", "outcome"),
    [
        (falling(60), np.r_[falling(60)[:59], math.nan], FAIL),
        (falling(60), np.r_[falling(60)[:59], math.inf], FAIL),
        (np.r_[falling(60)[:59], math.nan], falling(60), INCONCLUSIVE),
        ([], falling(60), INCONCLUSIVE),
        (np.zeros(60), falling(60), FAIL),
        (np.zeros(60), np.zeros(60), PASS),
        (np.full(60, 1e-300), np.full(60, 1e300), FAIL),
        ([4.0], [4.0], PASS),
    ],
)
def test_what_is_not_a_number_or_not_there_never_passes(reference, candidate, outcome):
    assert finding_on(reference, candidate).outcome is outcome


def test_where_it_is_not_known_whether_runs_are_paired_a_stretch_is_blamed_only_if_the_levels_differ_too():
    reference = falling(400)
    odd = reference * factors(400, 0, 40, 1.15) * (1 + 0.001 * np.random.default_rng(93).normal(size=400))
    comparison = compare(record(reference, window=10), record(odd, window=10))
    assert pairing_of(comparison).pairing is Pairing.UNKNOWN
    finding = next(f for f in decide(comparison).findings if f.rule == "worst_window")
    assert finding.outcome is INCONCLUSIVE
    assert "--unpaired" in finding.message
