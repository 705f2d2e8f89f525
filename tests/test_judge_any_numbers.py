"""Whatever the numbers are: no rule raises or warns, and a PASS means what it says."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import alike, falling, record, verdict_on

import emacheck
from emacheck.judge import RULES, Outcome, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.divergence import hint
from emacheck.judge.scoreboard import scoreboard
from emacheck.record import Record

PASS, FAIL = Outcome.PASS, Outcome.FAIL
SPECIAL = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e308, -1e308, 5e-324, 1e300, 1e-300, 1.0])
LONG = st.lists(SPECIAL | st.floats(), max_size=70)


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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("reference", "candidate"),
    [(falling(30), [1e308, 0.1] * 5 + [2.0] * 20), (3e307 * falling(30), [-1e308] * 30)],
    ids=["beside large numbers", "far from large numbers"],
)
def test_a_loss_that_stands_still_is_found_without_a_warning_however_large_the_numbers_are(reference, candidate):
    finding = verdict_on(record(reference), record(candidate), "integrity").findings[0]
    assert (finding.outcome, "the candidate is " in finding.message) == (FAIL, True)


@pytest.mark.filterwarnings("error")
def test_few_levels_that_are_too_far_off_to_average_fail_without_a_warning():
    finding = verdict_on(record([1.0] * 20), record([1e308] * 20), "equivalence").findings[0]
    assert (finding.outcome, finding.observed) == (FAIL, math.inf)


@pytest.mark.filterwarnings("error")
def test_the_scoreboard_shows_errors_that_are_too_large_to_add_without_a_warning():
    comparison = compare(record([1.0] * 20), record([1e308] * 20))
    undecided = decide(comparison, make_rules(["fingerprints"]))
    sentences = [entry.sentence for entry in scoreboard(comparison, undecided) if entry.rule == "Megatron-LM"]
    assert "their mean is inf" in sentences[0]


def test_a_loss_that_is_too_large_to_square_is_off_and_no_error():
    reference, candidate = record(falling(200)), record(np.multiply(falling(200), 1e300))
    finding = verdict_on(reference, candidate, "equivalence").findings[0]
    assert (finding.outcome, finding.observed > 1e299) == (FAIL, True)


def test_whatever_the_numbers_a_pass_means_finite_covered_and_within_limits():
    seen = set()

    @given(alike(), st.sampled_from([1] * 7 + [2]))
    def check(pair, first):
        reference, candidate = pair
        verdict = verdict_on(record(reference), record(candidate, first=first))
        seen.add(verdict.outcome)
        if verdict.outcome is not PASS:
            return
        assert np.all(np.isfinite(candidate))
        assert np.all(np.isfinite(reference))
        assert len(candidate) == len(reference) >= 10
        assert first == 1
        difference = np.abs(np.subtract(candidate, reference))
        with np.errstate(all="ignore"):
            relative = np.where(difference == 0, 0, difference / np.abs(reference))
        assert relative.mean() <= 0.05 or difference.mean() <= 0.0002

    check()
    assert PASS in seen


@given(st.lists(st.floats(0.1, 10), min_size=10, max_size=40), st.floats(-0.9, 5))
def test_the_mean_relative_error_of_a_scaled_curve_is_the_scale(values, off):
    finding = verdict_on(record(values), record(np.multiply(values, 1 + off)), "mean_relative_error").findings[0]
    assert finding.observed == pytest.approx(abs(off), abs=1e-9)
