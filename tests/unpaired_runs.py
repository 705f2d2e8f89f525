"""Unpaired runs as the tests of `equivalence` judge them: a level that falls, noise with a memory, counted outcomes."""

import math

import numpy as np
from losses import record

from emacheck.judge import Outcome
from emacheck.judge.comparison import compare
from emacheck.judge.rules.equivalence import Equivalence


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
