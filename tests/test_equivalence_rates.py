"""How often two one-sided tests pass what differs and fail what does not, under noise of many kinds."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from losses import curve, record
from unpaired_runs import autoregressive, falling, finding_on, most_of, outcomes

from emacheck.judge import Outcome
from emacheck.judge.comparison import compare
from emacheck.judge.noise.standard_error import autoregressive_error, block_error, block_length
from emacheck.judge.rules.equivalence import Equivalence
from emacheck.record import Record

PASS, FAIL = Outcome.PASS, Outcome.FAIL


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


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_equal_levels_pass_and_levels_that_differ_by_twice_the_limit_fail(phi):
    equal = outcomes(phi=phi, n=400, sigma=0.03, off=0.0, trials=100, seed=[72, int(10 * phi)])
    assert equal[PASS] >= 95
    assert equal[FAIL] == 0
    assert outcomes(phi=phi, n=400, sigma=0.03, off=0.1, trials=100, seed=[73, int(10 * phi)])[FAIL] >= 95


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


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
def test_one_standard_error_is_that_of_the_mean_of_many_such_series_and_the_other_is_on_the_safe_side(phi):
    series = autoregressive(np.random.default_rng([78, int(10 * phi)]), phi, (400, 800))
    true = float(np.std(series.mean(axis=1)))
    assert np.mean([block_error(values, block_length(values)) for values in series]) == pytest.approx(true, rel=0.15)
    assert 0.95 * true <= np.median([autoregressive_error(values) for values in series]) <= 1.6 * true
