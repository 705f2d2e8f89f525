"""The hint at where two runs part and why: each class from a made-up run of its kind, and never an exception."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emacheck import Curve, Record, decide
from emacheck.judge.comparison import compare
from emacheck.judge.divergence import Divergence, Kind, diagnose, hint
from emacheck.judge.forensics.pairing import paired_by_curves

LENGTH = 60
BATCHES = np.random.default_rng(0).normal(0, 0.15, (2, LENGTH))
REFERENCE = (4.0 * np.exp(-np.arange(LENGTH) / 40) + 0.5) * (1 + BATCHES[0])
GROWTH = np.minimum(1e-7 * 3.0 ** np.arange(LENGTH), 1e-2)


def run(values, *, first=1, every=1, **fields):
    metrics = values if isinstance(values, dict) else {"loss": values}
    curves = {
        metric: Curve(name=metric, iterations=first + every * np.arange(len(v)), values=v, **fields)
        for metric, v in metrics.items()
    }
    return Record(name="run", format="test", curves=curves)


def chaos(seed=1):
    return GROWTH * np.random.default_rng(seed).normal(size=LENGTH)


def parted(candidate, **fields):
    return diagnose(compare(run(REFERENCE, **fields), run(candidate, **fields)))


def from_iteration(first, size):
    return np.where(np.arange(1, LENGTH + 1) >= first, size, 0.0)


def test_equal_curves_are_identical():
    assert parted(REFERENCE).kind is Kind.IDENTICAL
    assert "bit for bit in 60 iterations" in parted(REFERENCE).evidence
    assert "every printed digit" in parted(REFERENCE, quantum=1e-4).evidence


@pytest.mark.parametrize("seed", range(20))
def test_rounding_that_grows_is_benign_chaos(seed):
    found = parted(REFERENCE * (1 + chaos(seed)))
    assert found.kind is Kind.ROUNDING
    assert "rounding grows to" in found.evidence
    late = np.concatenate([np.zeros(7), chaos(seed)[:-7]])
    assert parted(REFERENCE * (1 + late)).kind is Kind.ROUNDING


@pytest.mark.parametrize(
    ("first", "size", "kind"),
    [
        (1, 1e-3, Kind.FORWARD),
        (2, 1e-4, Kind.BACKWARD),
        (3, 2e-3, Kind.BACKWARD),
        (30, 0.1, Kind.LATER),
        (30, 0.02, Kind.LATER),
    ],
)
@pytest.mark.parametrize("noise", [0, 0.1])
def test_the_first_iteration_beyond_noise_and_its_class_are_named(first, size, kind, noise):
    # Amid chaos of a tenth of a percent, a jump shows only when it is larger than chaos ever gets.
    size = size if not noise or first < 30 else 0.3
    found = parted(REFERENCE * (1 + from_iteration(first, size) + chaos() * noise))
    assert (found.kind, found.iteration) == (kind, first)
    assert f"iteration {first}: loss" in found.evidence


def test_repeats_sharpen_the_hint():
    repeats = [run(REFERENCE * (1 + chaos(seed) / 10)) for seed in range(8)]
    candidate = run(REFERENCE * (1 + chaos(9) / 10 + from_iteration(6, 2e-3)))
    assert diagnose(compare(run(REFERENCE), candidate)).kind is Kind.ROUNDING
    found = diagnose(compare(run(REFERENCE), candidate, repeats=repeats))
    assert found.iteration == 6


def test_a_gradient_that_is_wrong_at_iteration_1_under_an_equal_loss_is_the_backward_pass():
    reference = run({"loss": REFERENCE, "grad_norm": REFERENCE})
    candidate = run({"loss": REFERENCE, "grad_norm": REFERENCE * 1.01})
    found = diagnose(compare(reference, candidate), "grad_norm")
    assert (found.iteration, found.kind) == (1, Kind.BACKWARD)
    candidate = run({"loss": REFERENCE * (1 + from_iteration(2, 0.01)), "grad_norm": REFERENCE * 1.01})
    assert diagnose(compare(reference, candidate), "grad_norm").kind is Kind.BACKWARD
    for off in (0.01, 1e-5):
        wrong = run({"loss": REFERENCE * (1 + off), "grad_norm": REFERENCE * 1.01})
        assert diagnose(compare(reference, wrong), "grad_norm").kind is Kind.FORWARD


def test_a_gradient_that_is_wrong_at_iteration_1_without_a_loss_there_may_be_the_forward_pass():
    gradients = run({"grad_norm": REFERENCE}), run({"grad_norm": REFERENCE * 1.01})
    assert diagnose(compare(*gradients, metrics=["grad_norm"]), "grad_norm").kind is Kind.FORWARD
    late = run(REFERENCE[1:], first=2).curves
    records = [replace(each, curves={**each.curves, **late}) for each in gradients]
    assert diagnose(compare(*records), "grad_norm").kind is Kind.FORWARD


def test_a_difference_that_outgrows_rounding_without_a_jump_is_the_optimizer():
    assert parted(REFERENCE * (1 + np.minimum(1e-7 * 5.0 ** np.arange(LENGTH), 0.9))).kind is Kind.BACKWARD


def test_curves_that_do_not_fluctuate_together_are_different_experiments():
    other = (4.0 * np.exp(-np.arange(LENGTH) / 40) + 0.5) * (1 + BATCHES[1])
    comparison = compare(run(REFERENCE), run(other))
    assert paired_by_curves(comparison) is False
    assert diagnose(comparison).kind is Kind.UNPAIRED


def test_fingerprints_say_which_batch_was_another():
    reference = replace(run(REFERENCE), initial_state="s", batches=("b",) * LENGTH)
    other = replace(run(REFERENCE * 1.5), initial_state="s", batches=("b",) * 4 + ("c",) * (LENGTH - 4))
    found = diagnose(compare(reference, other))
    assert (found.kind, found.iteration) == (Kind.UNPAIRED, 5)
    found = diagnose(compare(reference, replace(other, initial_state="t")))
    assert "different weights" in found.evidence


def test_means_and_late_beginnings_hide_the_origin():
    for first, window in ((10, 10), (1, 10), (1, 0)):
        means = parted(REFERENCE * 1.5, window=window, every=max(window, 1), first=first)
        assert means.kind is Kind.UNKNOWN
        assert "means over a window" in means.evidence
    assert "begin at iteration 40" in parted(REFERENCE * 1.5, first=40).evidence
    assert parted(REFERENCE, first=40).kind is Kind.IDENTICAL


def test_iterations_that_are_counted_from_0_tell_what_those_do_that_are_counted_from_1():
    kinds = {0: Kind.FORWARD, 1: Kind.BACKWARD, 2: Kind.BACKWARD, 3: Kind.LATER}
    for (at, kind), first in itertools.product(kinds.items(), (0, 1)):
        found = parted(REFERENCE * (1 + from_iteration(at + 1, 2e-3)), first=first)
        assert (found.iteration, found.kind) == (at + first, kind)


def test_a_printed_log_that_is_equal_until_chaos_shows_is_benign():
    printed = np.round(REFERENCE * (1 + chaos()), 4)
    comparison = compare(run(np.round(REFERENCE, 4), quantum=1e-4), run(printed, quantum=1e-4))
    assert diagnose(comparison).kind is Kind.ROUNDING
    assert paired_by_curves(comparison) is True


def test_a_learning_rate_that_differs_by_then_is_the_hint_and_one_that_differs_later_is_not():
    rates = np.full(LENGTH, 0.01)
    wrong = np.where(np.arange(LENGTH) >= 29, 0.02, rates)

    def hint_of(candidate):
        return hint(decide(compare(run({"loss": REFERENCE, "lr": rates}), run({"loss": candidate, "lr": wrong}))))

    for first in (30, 31):
        found = hint_of(REFERENCE * (1 + from_iteration(first, 0.5)))
        assert found.kind is Kind.LATER
        assert found.evidence == "lr differs from iteration 30 on, at worst 0.02 against 0.01 at iteration 30."
    assert hint_of(REFERENCE * (1 + chaos())).kind is Kind.LATER
    assert hint_of(REFERENCE * (1 + from_iteration(2, 0.5))).kind is Kind.BACKWARD
    # What is NaN, or another experiment, is that whatever the learning rate does.
    assert hint_of(REFERENCE * (1 + from_iteration(31, math.nan))).kind is Kind.NOT_FINITE
    assert hint_of(REFERENCE / (1 + BATCHES[0]) * (1 + BATCHES[1])).kind is Kind.UNPAIRED


@pytest.mark.parametrize(("of_loss", "of_gradients", "named"), [(30, 2, "grad_norm"), (2, 30, "loss")])
def test_the_hint_is_at_the_metric_that_parts_first(of_loss, of_gradients, named):
    first = {"loss": of_loss, "grad_norm": of_gradients}
    reference = run(dict.fromkeys(first, REFERENCE))
    candidate = run({name: REFERENCE * (1 + from_iteration(at, 0.5)) for name, at in first.items()})
    found = hint(decide(compare(reference, candidate, metrics=[*first])))
    assert (found.iteration, found.evidence.split()[2]) == (2, named)
    rounded = run({"loss": REFERENCE * (1 + chaos()), "grad_norm": REFERENCE * (1 + from_iteration(30, 0.5))})
    assert hint(decide(compare(reference, rounded, metrics=[*first]))).iteration == 30


def test_a_fail_of_means_is_never_called_benign_chaos():
    off = REFERENCE * (1 + np.concatenate([chaos()[:20], np.full(LENGTH - 20, 0.06)]))
    means = run(REFERENCE, first=10, every=10, quantum=1e-4), run(off, first=10, every=10, quantum=1e-4)
    assert diagnose(compare(*means)).kind is Kind.ROUNDING
    found = hint(decide(compare(*means)))
    assert found.kind is Kind.UNKNOWN
    assert found.evidence.startswith("no single iteration is beyond noise, but bias FAIL: ")


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_where_they_part(poison):
    values = REFERENCE.copy()
    values[30] = poison
    found = parted(values)
    assert (found.kind, found.iteration) == (Kind.NOT_FINITE, 31)


def test_paired_is_true_for_rounding_unknown_for_a_fault_and_without_early_iterations():
    def paired(candidate, **fields):
        return paired_by_curves(compare(run(REFERENCE, **fields), run(candidate, **fields)))

    assert paired(REFERENCE * (1 + chaos())) is True
    assert paired(REFERENCE * 1.01) is None, "the same data, with a device or weights that are wrong"
    assert paired(REFERENCE * (1 + from_iteration(2, 0.01))) is None
    assert paired(REFERENCE, window=10) is None
    assert paired(REFERENCE, first=4) is None
    assert paired(np.full(LENGTH, 3.0), quantum=10.0) is None
    assert paired_by_curves(compare(run(REFERENCE[:5]), run(REFERENCE[:5] * 1.1))) is None


@settings(max_examples=200)
@given(
    st.lists(st.floats(width=32), min_size=0, max_size=30),
    st.lists(st.floats(width=32), min_size=0, max_size=30),
    st.fixed_dictionaries(
        {"first": st.integers(0, 5), "window": st.integers(0, 3), "quantum": st.sampled_from([0.0, 1e-4, 10.0])}
    ),
    st.lists(st.lists(st.floats(width=32), min_size=1, max_size=30), max_size=3),
)
def test_whatever_the_numbers_there_is_an_answer(reference, candidate, fields, repeats):
    comparison = compare(run(reference), run(candidate, **fields), repeats=[run(values) for values in repeats])
    found = diagnose(comparison)
    assert isinstance(found, Divergence)
    assert found.evidence
    assert paired_by_curves(comparison) in (True, False, None)
    alike = diagnose(compare(run(reference), run(reference)))
    assert alike.kind is (Kind.IDENTICAL if reference else Kind.UNKNOWN)
