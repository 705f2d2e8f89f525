"""Losses as the tests of the rules judge them: a curve, a record of nothing else, a plausible course, and a verdict."""

import numpy as np
from hypothesis import strategies as st

from emacheck.curve import Curve
from emacheck.judge import decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.record import Record


def curve(values, *, first=1, every=1, window=1, quantum=0.0):
    iterations = first + every * np.arange(len(values))
    values = np.asarray(values, dtype=float)
    return Curve(name="loss", iterations=iterations, values=values, window=window, quantum=quantum)


def record(values, *, first=1, every=1, window=1, quantum=0.0, name="cpu", **fields):
    loss = curve(values, first=first, every=every, window=window, quantum=quantum)
    return Record(name=name, format="test", curves={"loss": loss}, **fields)


@st.composite
def alike(draw):
    """Two losses that are close enough to pass, but for what may have become of them: drawn anyhow, none ever is."""
    length, seed = draw(st.sampled_from([3, 10, 80, 80])), draw(st.integers(0, 2**32 - 1))
    reference = 1 + np.random.default_rng(seed).random(length)
    candidate = reference * draw(st.sampled_from([1.0, 1.0, 0.995, 1.03]))
    for values in draw(st.sampled_from([(), (), (reference,), (candidate,)])):
        values[draw(st.integers(0, length - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]) | st.floats())
    return reference, candidate[draw(st.sampled_from([0] * 7 + [1])) :]


def falling(n=100):
    return 4.0 * np.exp(-np.arange(n) / 80) + 0.5


def verdict_on(reference, candidate, *names, **limits):
    return decide(compare(reference, candidate), make_rules(names, limits))


def outcome_of(verdict, rule):
    return next(f.outcome for f in verdict.findings if f.rule == rule)
