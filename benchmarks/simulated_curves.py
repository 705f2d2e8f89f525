"""What the default rules say of simulated curves whose noise is unlike that of the recorded trainings.

The reference falls from 2 to about 0.6 and fluctuates by 10 % from batch to batch. A paired candidate is that curve
times exp(size * noise), noise of unit variance: chaos that has levelled off, as in a run that was resumed. A candidate
that saw other batches has fluctuations of its own. The constants of the rules were chosen
on other simulations; but the blocks of a bias were made longer, a fifth instead of a sixth of the run, and its last half
was added, after a first look at these.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from other_logs import printed

from emacheck.curve import Curve, Floats
from emacheck.judge import Verdict, decide
from emacheck.judge.comparison import compare
from emacheck.record import Record

TRIALS, SEED = 200, 20
START = 101  # of a resumed run, so that no rule looks for a first iteration
BATCHES = 0.1
LENGTHS = (20, 50, 100, 300)
SIZES = (0.03, 0.05)
PRINTED = (50, 200, 500)  # iterations of a log of means over ten, with four decimals
Draw = np.random.Generator
Noise = Callable[[Draw, int], Floats]


def filtered(white: Floats, *past: float) -> Floats:
    """Return an autoregression of white noise, its start left out."""
    found = [0.0] * len(past)
    for value in white.tolist():
        found.append(value + sum(weight * found[-at] for at, weight in enumerate(past, 1)))
    return np.array(found[len(past) + 200 :])


def moving_mean(draw: Draw, count: int) -> Floats:
    """Return noise that is a moving mean of 15."""
    sums: Floats = np.convolve(draw.normal(size=count + 14), np.full(15, 1 / math.sqrt(15)), mode="valid")
    return sums


def uneven(draw: Draw, count: int) -> Floats:
    """Return noise whose size varies slowly, by log-normal factors of 70 %."""
    factors = np.exp(0.7 * math.sqrt(1 - 0.95**2) * filtered(draw.normal(size=count + 200), 0.95) - 0.7**2)
    noise: Floats = factors * draw.normal(size=count)
    return noise


NOISES: dict[str, Noise] = {
    "white": lambda draw, count: draw.normal(size=count),
    "Student's t with 3 degrees of freedom": lambda draw, count: draw.standard_t(3, size=count) / math.sqrt(3),
    "of a size that varies by 70 %": uneven,
    "autoregression of second order (0.5, 0.3)": lambda draw, count: (
        math.sqrt(0.312 / 0.7) * filtered(draw.normal(size=count + 200), 0.5, 0.3)
    ),
    "autoregression, neighbours correlated by 0.8": lambda draw, count: (
        0.6 * filtered(draw.normal(size=count + 200), 0.8)
    ),
    "a moving mean of 15": moving_mean,
    "a quarter slow (0.95) under white": lambda draw, count: (
        math.sqrt(0.75) * draw.normal(size=count)
        + 0.5 * math.sqrt(1 - 0.95**2) * filtered(draw.normal(size=count + 200), 0.95)
    ),
}
# The candidate's loss, by its factor at each of n iterations.
FAULTS: dict[str, Callable[[int], Floats]] = {
    "39 % too low": lambda n: np.full(n, 0.61),
    "10 % too low": lambda n: np.full(n, 0.9),
    "5 % too low": lambda n: np.full(n, 0.95),
    "3 % too low": lambda n: np.full(n, 0.97),
    "2 % too low": lambda n: np.full(n, 0.98),
    "drifts steadily to 4 % too high": lambda n: np.linspace(1, 1.04, n),
    "the last quarter 8 % too high": lambda n: np.where(np.arange(n) < n - n // 4, 1, 1.08),
    "the last tenth rises to 50 % too high": lambda n: 1 + np.maximum(np.linspace(-4.5, 0.5, n), 0),
}
# Of runs whose reference brings repeats, where chaos is over the default limits.
TRIALS_WITH_REPEATS, SEED_OF_REPEATS, NOISY = 100, 21, 100
SIZES_WITH_REPEATS, REPEATS = (0.05, 0.1), (0, 2, 4, 8)
NOISES_WITH_REPEATS = ("white", "of a size that varies by 70 %", "autoregression, neighbours correlated by 0.8")
# Of the faults, between paired runs: iterations, size of the chaos and its noise.
CASES = ((20, 0.01, "white"), (100, 0.03, "white"), (300, 0.03, "autoregression, neighbours correlated by 0.8"))


def falling(count: int) -> Floats:
    """Return the trend of both losses."""
    trend: Floats = 0.5 + 1.5 * np.exp(-3 * np.linspace(0, 1, count))
    return trend


def record(values: Floats, start: int = START) -> Record:
    """Return a log that holds nothing but a loss."""
    loss = Curve(name="loss", iterations=np.arange(start, start + len(values)), values=values)
    return Record(name="", format="mmengine text", curves={"loss": loss})


def paired(draw: Draw, count: int, size: float, noise: str, factors: Floats | float = 1.0) -> Verdict:
    """Judge two runs that saw the same batches."""
    reference = falling(count) * np.exp(BATCHES * draw.normal(size=count))
    candidate = factors * reference * np.exp(size * NOISES[noise](draw, count))
    return decide(replace(compare(record(reference), record(candidate)), stated=True))


def benign_runs(draw: Draw, count: int, size: float, noise: str, runs: int) -> list[Floats]:
    """Return losses of runs that saw the same batches, each with chaos of its own: reference, candidate, repeats."""
    shared = falling(count) * np.exp(BATCHES * draw.normal(size=count))
    return [shared * np.exp(size * NOISES[noise](draw, count)) for _ in range(runs)]


def with_repeats(
    draw: Draw, count: int, size: float, noise: str, *, repeats: int, factors: Floats | float = 1.0
) -> Verdict:
    """Judge a run against a reference that brings repeats."""
    reference, candidate, *others = benign_runs(draw, count, size, noise, 2 + repeats)
    comparison = compare(record(reference), record(factors * candidate), repeats=[record(each) for each in others])
    return decide(replace(comparison, stated=True))


def of_unknown_pairing(draw: Draw, count: int, noise: str, factors: Floats | float = 1.0) -> Verdict:
    """Judge two runs that saw other batches, as mmengine prints them, so that nothing tells that they did."""
    reference, candidate = (falling(count) * np.exp(BATCHES * NOISES[noise](draw, count)) for _ in range(2))
    return decide(compare(printed(record(reference, 1)), printed(record(factors * candidate, 1))))


def counted(judge: Callable[[], Verdict]) -> dict[str, int]:
    """Count the outcomes of many pairs, and how often a bias alone was over its limit."""
    found: Counter[str] = Counter()
    for _ in range(TRIALS):
        verdict = judge()
        found[verdict.outcome.value] += 1
        biases = [f for f in verdict.findings if f.rule == "bias"]
        found["bias over its limit"] += any(not abs(f.observed) <= f.limit for f in biases)
        found["bias FAIL"] += any(f.outcome.value == "FAIL" for f in biases)
    return dict(found)


def simulated() -> dict[str, Any]:
    """Judge everything."""
    draw = np.random.default_rng(SEED)
    return {
        "trials": TRIALS,
        "paired": {
            str(size): {
                noise: {str(n): counted(lambda n=n, s=size, k=noise: paired(draw, n, s, k)) for n in LENGTHS}  # type: ignore[misc]
                for noise in NOISES
            }
            for size in SIZES
        },
        "faults": {
            fault: [
                counted(lambda n=n, s=size, k=noise, f=factors: paired(draw, n, s, k, f(n)))  # type: ignore[misc]
                for n, size, noise in CASES
            ]
            for fault, factors in FAULTS.items()
        },
        "printed": {
            noise: {str(n): counted(lambda n=n, k=noise: of_unknown_pairing(draw, n, k)) for n in PRINTED}  # type: ignore[misc]
            for noise in NOISES
        },
        "printed faults": {
            fault: {
                noise: counted(lambda k=noise, f=factors: of_unknown_pairing(draw, 500, k, f(500)))  # type: ignore[misc]
                for noise in ("white", "autoregression, neighbours correlated by 0.8")
            }
            for fault, factors in FAULTS.items()
        },
    }


def simulated_with_repeats() -> dict[str, Any]:
    """Judge runs that are noisier than the default limits allow, whose reference brings repeats."""
    draw = np.random.default_rng(SEED_OF_REPEATS)

    def judged(factors: Callable[[int], Floats] | None, size: float, noise: str, repeats: int) -> dict[str, int]:
        factor = 1.0 if factors is None else factors(NOISY)
        verdicts = (
            with_repeats(draw, NOISY, size, noise, repeats=repeats, factors=factor) for _ in range(TRIALS_WITH_REPEATS)
        )
        return dict(Counter(verdict.outcome.value for verdict in verdicts))

    return {
        "trials": TRIALS_WITH_REPEATS,
        "iterations": NOISY,
        "healthy": {
            str(size): {noise: {str(k): judged(None, size, noise, k) for k in REPEATS} for noise in NOISES_WITH_REPEATS}
            for size in SIZES_WITH_REPEATS
        },
        "faults": {
            fault: {
                noise: {str(k): judged(FAULTS[fault], SIZES_WITH_REPEATS[0], noise, k) for k in REPEATS[1:]}
                for noise in (NOISES_WITH_REPEATS[0], NOISES_WITH_REPEATS[-1])
            }
            for fault in FAULTS
        },
    }
