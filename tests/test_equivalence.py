"""Two one-sided tests: equal levels pass, unequal ones do not, and what cannot be told is not told."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import curve, record

from emacheck.errors import UsageError
from emacheck.judge import Outcome, make_rules
from emacheck.judge.advice import rounded_up
from emacheck.judge.comparison import Comparison, compare
from emacheck.judge.noise.standard_error import autoregressive_error, block_error, block_length, student
from emacheck.judge.rules.equivalence import Equivalence, last_part
from emacheck.record import Record

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def finding_on(reference, candidate, **fields):
    (finding,) = Equivalence(**fields).check(compare(reference, candidate))
    return finding


def falling(n):
    return 1 + 0.6 * np.exp(-2 * np.arange(n) / n)


def autoregressive(rng, phi, shape):
    """Noise of unit variance whose neighbours correlate by phi."""
    noise = rng.normal(size=shape) * math.sqrt(1 - phi**2)
    noise[..., 0] /= math.sqrt(1 - phi**2)
    for at in range(1, shape[-1]):
        noise[..., at] += phi * noise[..., at - 1]
    return noise


def outcomes(*, phi, n, sigma, off, trials, seed, slow=1.0):
    """Judge pairs of unpaired runs whose levels truly differ by ``off``; count the outcomes.

    A share ``slow`` of the noise's variance has neighbours that correlate by ``phi``, the rest has no memory.
    """
    rng = np.random.default_rng(seed)
    noise = sigma * math.sqrt(slow) * autoregressive(rng, phi, (trials, 2, n))
    if slow < 1:
        noise += sigma * math.sqrt(1 - slow) * rng.normal(size=noise.shape)
    counts = dict.fromkeys(Outcome, 0)
    for of_reference, of_candidate in noise:
        reference, candidate = falling(n) + of_reference, falling(n) * (1 + off) + of_candidate
        counts[finding_on(record(reference), record(candidate)).outcome] += 1
    return counts


def most_of(trials, rate=0.05):
    """Return how many of so many trials may be counted if each is counted with that rate: three standard deviations."""
    return rate * trials + 3 * math.sqrt(rate * (1 - rate) * trials)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("n", [100, 400])
@pytest.mark.parametrize("off", [0.05, -0.05])
def test_levels_that_differ_by_exactly_the_limit_pass_in_at_most_5_percent_of_the_pairs(phi, n, off):
    counts = outcomes(phi=phi, n=n, sigma=0.03, off=off, trials=300, seed=[71, int(10 * phi), n, int(off > 0)])
    assert counts[PASS] <= most_of(300)
    assert counts[FAIL] <= most_of(300)


@pytest.mark.parametrize("off", [0.05, -0.05])
def test_slow_noise_under_fast_noise_does_not_fool_it_either(off):
    rng = np.random.default_rng([84, int(off > 0)])
    noise = 0.03 * (0.8 * rng.normal(size=(300, 2, 400)) + 0.6 * autoregressive(rng, 0.9, (300, 2, 400)))
    pairs = [(record(falling(400) + r), record(falling(400) * (1 + off) + c)) for r, c in noise]
    found = [finding_on(*pair).outcome for pair in pairs]
    assert found.count(PASS) <= most_of(300)
    assert found.count(FAIL) <= most_of(300)


def measured_table():
    """Measure the table of docs/rules-unpaired.md, in percent, as its lines."""
    lines = []
    for judged in (50, 100, 250, 500):
        for phi in (0.0, 0.3, 0.6, 0.9):
            common = {"phi": phi, "n": 2 * judged, "sigma": 0.03}
            at_limit = outcomes(**common, off=0.05, trials=1000, seed=[81, judged, int(10 * phi)])
            equal = outcomes(**common, off=0.0, trials=500, seed=[82, judged, int(10 * phi)])
            twice = outcomes(**common, off=0.1, trials=500, seed=[83, judged, int(10 * phi)])
            rates = (at_limit[PASS] / 10, at_limit[FAIL] / 10, equal[PASS] / 5, equal[FAIL] / 5, twice[FAIL] / 5)
            lines.append(f"| {judged} | {phi} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |")
    return lines


def measured_slow_noise():
    """Measure the table of slow noise under fast noise in docs/rules-unpaired.md, in percent, as its lines."""
    lines = []
    for slow, phi in ((0.33, 0.9), (0.36, 0.97)):
        for judged in (30, 50, 100, 200):
            common = {"phi": phi, "slow": slow, "n": 2 * judged, "sigma": 0.03}
            at_limit = outcomes(**common, off=0.05, trials=500, seed=[86, judged, int(100 * phi)])
            equal = outcomes(**common, off=0.0, trials=200, seed=[87, judged, int(100 * phi)])
            rates = (at_limit[PASS] / 5, at_limit[FAIL] / 5, equal[PASS] / 2, equal[FAIL] / 2)
            lines.append(f"| {slow:.0%} | {phi} | {judged} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |")
    return lines


def autoregressive_of_second_order(rng, shape):
    """Noise of unit variance, x(i) = 0.5 x(i - 1) + 0.3 x(i - 2) + e(i), behind its start."""
    noise = rng.normal(size=(*shape[:-1], shape[-1] + 100))
    for at in range(2, noise.shape[-1]):
        noise[..., at] += 0.5 * noise[..., at - 1] + 0.3 * noise[..., at - 2]
    return noise[..., 100:] / np.std(noise[..., 100:])


def moving_mean(rng, shape):
    """Noise of unit variance, each value a mean of 10 neighbours."""
    raw = rng.normal(size=(*shape[:-1], shape[-1] + 9))
    return np.lib.stride_tricks.sliding_window_view(raw, 10, axis=-1).mean(axis=-1) * math.sqrt(10)


def half_shared(rng, shape):
    """Noise of unit variance, half of which both runs have, as from shared batches."""
    return (rng.normal(size=shape) + rng.normal(size=(shape[0], 1, shape[2]))) / math.sqrt(2)


def log_normal(rng, shape):
    """Factors of mean 1 that scatter by 20 %, less 1, in units of 3 %."""
    return np.expm1(0.2 * rng.normal(size=shape) - 0.02) / 0.03


def heavy_tailed(rng, shape):
    return rng.standard_t(3, size=shape) / math.sqrt(3)


OTHER_NOISE = (
    ("a moving mean of 10, logged at every iteration", 250, moving_mean),
    ("Student's t with 3 degrees of freedom", 50, heavy_tailed),
    ("log-normal factors of 20 %", 250, log_normal),
    ("half of it shared by both runs", 50, half_shared),
    *(
        ("autoregression of second order (0.5, 0.3)", judged, autoregressive_of_second_order)
        for judged in (50, 100, 400)
    ),
)


def measured_other_noise():
    """Measure the table of other noise in docs/rules-unpaired.md, in percent, as its lines."""
    lines = []
    for at, (name, judged, noise) in enumerate(OTHER_NOISE):
        counts = dict.fromkeys(Outcome, 0)
        level, window = falling(2 * judged), 10 if noise is moving_mean else 1
        for r, c in 0.03 * noise(np.random.default_rng([90, at]), (2000, 2, 2 * judged)):
            scale = level if noise is log_normal else 1.0
            sides = (level + scale * r, 1.05 * (level + scale * c) if noise is log_normal else 1.05 * level + c)
            counts[finding_on(*(record(side, window=window) for side in sides)).outcome] += 1
        lines.append(f"| {name} | {judged} | {counts[PASS] / 20:.1f} | {counts[FAIL] / 20:.1f} |")
    return lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "measure"),
    [
        (r"\| \d+ \| 0\.\d \|", measured_table),
        (r"\| \d+% \| 0\.\d+ \|", measured_slow_noise),
        (r"\| [aSlh][^|]* \| \d+ \|", measured_other_noise),
    ],
)
def test_the_tables_in_the_documentation_are_what_is_measured(row, measure):
    text = (Path(__file__).parent.parent / "docs/rules-unpaired.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if re.match(row, line)] == measure()


def test_noise_too_slow_for_the_judged_part_is_seen_over_the_whole_span():
    counts = outcomes(phi=0.97, slow=0.36, n=200, sigma=0.03, off=0.05, trials=150, seed=[88])
    assert counts[PASS] <= most_of(150)


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


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_equal_levels_pass_and_levels_that_differ_by_twice_the_limit_fail(phi):
    equal = outcomes(phi=phi, n=400, sigma=0.03, off=0.0, trials=100, seed=[72, int(10 * phi)])
    assert equal[PASS] >= 95
    assert equal[FAIL] == 0
    assert outcomes(phi=phi, n=400, sigma=0.03, off=0.1, trials=100, seed=[73, int(10 * phi)])[FAIL] >= 95


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


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.99])
def test_equal_levels_under_slow_noise_hardly_ever_look_all_far_off(phi):
    counts = outcomes(phi=phi, n=24, sigma=0.03, off=0.0, trials=400, seed=[78, int(100 * phi)])
    assert counts[FAIL] <= most_of(400, rate=0.01)


def test_of_several_metrics_each_gets_its_share_of_the_false_fails_and_none_of_the_false_passes():
    rng = np.random.default_rng(79)
    together = {PASS: 0, FAIL: 0}
    for noise in 0.03 * rng.normal(size=(300, 8, 100)):
        sides = [
            {str(m): curve(falling(100) * scale + noise[2 * m + side]) for m in range(4)}
            for side, scale in enumerate((1.0, 1.05))
        ]
        records = [Record(name="cpu", format="test", curves=curves) for curves in sides]
        said = {f.outcome for f in Equivalence().check(compare(*records, metrics=["0", "1", "2", "3"]))}
        together[PASS] += said == {PASS}
        together[FAIL] += FAIL in said
    assert together[PASS] <= most_of(300)
    assert together[FAIL] <= most_of(300)


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


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
def test_one_standard_error_is_that_of_the_mean_of_many_such_series_and_the_other_is_on_the_safe_side(phi):
    series = autoregressive(np.random.default_rng([78, int(10 * phi)]), phi, (400, 800))
    true = float(np.std(series.mean(axis=1)))
    assert np.mean([block_error(values, block_length(values)) for values in series]) == pytest.approx(true, rel=0.15)
    assert 0.95 * true <= np.median([autoregressive_error(values) for values in series]) <= 1.6 * true


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [(0.95, 4, 2.1318), (0.95, 9, 1.8331), (0.95, 30, 1.6973), (0.8, 4, 0.9410), (0.99, 10, 2.7638)],
)
def test_quantiles_of_student_are_those_of_the_tables(probability, freedom, expected):
    assert student(probability, freedom) == pytest.approx(expected, rel=1e-3)


@given(
    st.lists(st.floats() | st.floats(0.5, 2), max_size=80),
    st.lists(st.floats() | st.floats(0.5, 2), max_size=80),
    st.integers(1, 50),
)
def test_whatever_the_numbers_there_is_a_finding_and_a_pass_is_finite(reference, candidate, first):
    finding = finding_on(record(reference), record(candidate, first=first))
    if finding.outcome is PASS:
        assert np.all(np.isfinite(candidate))
        assert np.all(np.isfinite(reference))
        assert abs(finding.observed) <= 0.05
        assert finding.would_pass_at is not None
        assert finding.would_pass_at <= 0.05


def test_a_loss_that_is_zero_in_both_short_runs_is_undecided_and_no_crash():
    zeros = record([0.0] * 20)
    finding = Equivalence().check(compare(zeros, zeros))[0]
    assert finding.outcome is Outcome.INCONCLUSIVE
