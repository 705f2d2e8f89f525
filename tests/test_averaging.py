"""Two records that average differently: only what is apart over the same iterations too is a FAIL."""

import math
from dataclasses import replace

import numpy as np
import pytest

from emacheck import Curve, Record
from emacheck.judge import Outcome, decide, make_rules
from emacheck.judge.averaging import averaged_alike
from emacheck.judge.comparison import compare
from emacheck.judge.verdict import ALTERNATIVES

FAIL, INCONCLUSIVE = Outcome.FAIL, Outcome.INCONCLUSIVE
COUNT = 300
DRAW = np.random.default_rng(5)
LOSS = (0.5 + 3.5 * np.exp(-4 * np.arange(COUNT) / COUNT)) * np.exp(0.1 * DRAW.standard_normal(COUNT))
ROUNDING = 1 + 0.01 * DRAW.standard_normal(COUNT)


def curve_of(values, window=1, every=None):
    every = every or window
    ends = np.arange(every, len(values) + 1, every)
    means = np.array([np.mean(values[max(end - window, 0) : end]) for end in ends])
    return Curve(name="loss", iterations=ends, values=means, window=window)


def run(values, window=1, every=None, ranks=()):
    curve = curve_of(values, window, every)
    of_ranks = {rank: {"loss": curve_of(each, window, every)} for rank, each in enumerate(ranks)}
    return Record(name="", format="", curves={"loss": curve}, ranks=max(len(ranks), 1), of_ranks=of_ranks)


def not_known(record):
    """Return a record of means of an unknown number of iterations, as mmengine's logs are."""
    return replace(record, curves={name: replace(each, window=0) for name, each in record.curves.items()})


WINDOWS = pytest.mark.parametrize(
    ("ours", "theirs"),
    [((1,), (10,)), ((10,), (1,)), ((10,), (20,)), ((1,), (10, 50)), ((4,), (10,)), ((10,), (15,))],
)


@WINDOWS
def test_a_good_candidate_that_averages_otherwise_is_inconclusive(ours, theirs):
    comparison = compare(run(LOSS, *ours), run(LOSS * ROUNDING, *theirs))
    verdict = decide(comparison)
    assert verdict.outcome is INCONCLUSIVE
    found = next(f for f in verdict.findings if "see smoothing: over the same iterations it is" in f.message)
    assert f" as means of {math.lcm(ours[0], theirs[0])}; " in found.message
    assert decide(comparison, make_rules([found.rule])).outcome is FAIL


@WINDOWS
@pytest.mark.parametrize(
    "wrong",
    [
        lambda loss: 0.61 * loss,
        lambda loss: 1.06 * loss,
        lambda loss: np.append(loss[:-60], 1.6 * loss[-60:]),
    ],
    ids=["far too low", "6 % too high", "an end that parts"],
)
def test_what_is_apart_over_the_same_iterations_too_still_fails(ours, theirs, wrong):
    comparison = compare(run(LOSS, *ours), run(wrong(LOSS * ROUNDING), *theirs))
    # Else other batches explain 6 % of a loss that fluctuates by 10 %, where there are six records.
    assert decide(replace(comparison, stated=True)).outcome is FAIL


@pytest.mark.parametrize("means", [(10,), (10, 1), (10, 50), (30,)], ids=str)
@pytest.mark.parametrize("paired", [None, True])
def test_a_window_that_is_not_known_is_tried_as_mmengines_own_and_as_the_interval(means, paired):
    # Of six records that need not be paired, other batches explain 6 % of a loss that fluctuates by 10 %.
    a_little = INCONCLUSIVE if paired is None and means == (10, 50) else FAIL
    for raw_is_reference in (True, False):
        for factor, outcome in ((1, INCONCLUSIVE), (0.61, FAIL), (1.06, a_little)):
            raw, averaged = LOSS, LOSS * ROUNDING * factor
            records = (run(raw), not_known(run(averaged, *means)))
            comparison = compare(*records) if raw_is_reference else compare(*records[::-1])
            assert decide(replace(comparison, stated=paired)).outcome is outcome


def test_ranks_are_averaged_alike_as_well():
    ranks = [LOSS * np.exp(0.1 * DRAW.standard_normal(COUNT)) for _ in range(4)]
    reference = run(np.mean(ranks, axis=0), ranks=ranks)
    for factors, outcome in (((1, 1, 1, 1), INCONCLUSIVE), ((1, 1.3, 0.7, 1), FAIL)):
        theirs = [each * ROUNDING * factor for each, factor in zip(ranks, factors, strict=True)]
        verdict = decide(compare(reference, run(np.mean(theirs, axis=0), 10, ranks=theirs)))
        assert {f.outcome for f in verdict.findings if f.rule == "ranks"} == {outcome}
        assert all(f.outcome is not FAIL for f in verdict.findings if f.rule in ALTERNATIVES)


def test_only_whole_windows_are_averaged_both_where_neither_divides_the_other():
    raw, means = curve_of(LOSS), curve_of(LOSS, 10)
    gappy = replace(raw, iterations=np.delete(raw.iterations, 14), values=np.delete(raw.values, 14))
    assert averaged_alike(means, replace(raw, values=2 * raw.values))[0].values.tolist() == means.values.tolist()
    made, other = averaged_alike(gappy, means)
    assert made.iterations.tolist() == other.iterations.tolist() == [10, *range(30, COUNT + 1, 10)]
    assert np.allclose(made.values, other.values)
    shifted = replace(curve_of(LOSS, 5), iterations=[5, 10, 16, *range(19, COUNT, 5)])
    assert averaged_alike(shifted, means)[1].iterations.tolist() == [10]
    for made in averaged_alike(means, curve_of(LOSS, 15)):
        assert made.iterations.tolist() == list(range(30, COUNT + 1, 30))
        assert np.allclose(made.values, curve_of(LOSS, 30).values)
    assert [len(made) for made in averaged_alike(means, curve_of(LOSS, 15, 10))] == [0, 0]  # its windows overlap
    for ours, theirs in ((means, means), (replace(raw, window=0), means)):
        assert averaged_alike(ours, theirs) is None
    empty = replace(raw, iterations=np.zeros(0), values=np.zeros(0))
    for ours, theirs in ((empty, means), (raw, replace(empty, window=10))):
        assert [len(made) for made in averaged_alike(ours, theirs)] == [0, 0]
