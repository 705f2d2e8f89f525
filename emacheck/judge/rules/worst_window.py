"""Are two paired runs apart for a stretch, or at their end, which a mean over the whole run hides?"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from emacheck.curve import Floats
from emacheck.judge.comparison import Comparison, PairedCurve
from emacheck.judge.near_zero import near_zero, scaled_difference
from emacheck.judge.verdict import Finding, Outcome

# The longest windows are this part of the common iterations; fewer than the fewest do not tell a stretch from a spike.
SHARE = 10
FEWEST = 10
# By how much more than the limit the shortest windows may be off: single iterations average out less in them.
SPIKES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstWindow:
    """mean(|candidate - reference| / |reference|) over each window of L iterations must be <= limit * allowance(L).

    Windows at every place are a tenth of the common iterations long, at least 10, with an allowance of 1; and in runs
    of more than 100 iterations also 10, 20, 40, ... long, with an allowance of 1 + 2 sqrt(10 / L), in which a stretch
    shows that is too short for a tenth of the run. The last 10 iterations are a window as well, with an allowance of 1,
    because a run that diverges does so at its end. FAIL is a window that is over the limit even if the worst
    iteration of the run is taken for equal. Otherwise that one iteration is to blame, and it is INCONCLUSIVE: it may be
    the start of a divergence or one odd batch. Over the limit, but not relative to the reference's mean size, is
    INCONCLUSIVE where the reference comes close to zero.

    Attributes:
        limit: Largest allowed mean of a window, a dimensionless ratio.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def run(*end):
        ...     values = [2.0] * (40 - len(end)) + list(end)
        ...     loss = Curve(name="loss", iterations=range(40), values=values)
        ...     return Record(name="", format="", curves={"loss": loss})
        >>> for end in ((2.1,) * 10, (6.0,), (6.0, 6.0)):
        ...     (finding,) = WorstWindow().check(compare(run(), run(*end)))
        ...     print(finding.outcome, round(finding.observed, 3))
        PASS 0.05
        INCONCLUSIVE 0.2
        FAIL 0.4
    """

    limit: float = 0.1
    name: ClassVar[str] = "worst_window"
    unit: ClassVar[str] = "of the reference"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Average the unsigned relative differences of each judged metric over each window."""
        return tuple(self._check(comparison.curve(metric)) for metric in comparison.metrics)

    def _check(self, paired: PairedCurve) -> Finding:
        off = np.abs(paired.relative_difference)
        if not off.size:
            return Finding.of(self, paired.metric, Outcome.INCONCLUSIVE, "there is nothing to average")
        if not np.all(np.isfinite(paired.reference)) and np.all(np.isfinite(paired.candidate)):
            broken = "the reference has values that are NaN or infinite"
            return Finding.of(self, paired.metric, Outcome.INCONCLUSIVE, broken)
        worst = worst_window(off)
        start, stop = worst.start, worst.stop
        at = start + int(np.argmax(off[start:stop]))
        message = (
            f"the worst {stop - start} of {off.size} iterations of {paired.metric} are {paired.iterations[start]} to "
            f"{paired.iterations[stop - 1]}; the worst of them is iteration {paired.iterations[at]} with {off[at]:.4g} "
            f"({paired.candidate[at]:.6g} against {paired.reference[at]:.6g})"
        )
        outcome = Outcome.PASS if worst.relative <= self.limit else Outcome.FAIL
        if outcome is Outcome.FAIL:
            outcome, why = self._over(paired, off)
            message = f"{why}{message}"
        iteration = int(paired.iterations[at])
        finding = Finding.of(self, paired.metric, outcome, message, observed=worst.mean, iteration=iteration)
        would_pass_at = worst.relative if math.isfinite(worst.relative) else None
        return replace(finding, limit=self.limit * worst.allowance, would_pass_at=would_pass_at)

    def _over(self, paired: PairedCurve, off: Floats) -> tuple[Outcome, str]:
        """Say what a window over the limit means, and why that is undecided where it is."""
        scaled = scaled_difference(paired)
        size = math.nan if scaled is None else worst_window(np.abs(scaled)).relative
        if size <= self.limit:
            return Outcome.INCONCLUSIVE, f"{near_zero(paired.metric, size)}; "
        others = off.copy()
        others[np.argmax(off)] = 0.0
        if np.all(np.isfinite(off)) and worst_window(others).relative <= self.limit:
            return Outcome.INCONCLUSIVE, "a single iteration, an odd batch or the start of a divergence; "
        return Outcome.FAIL, ""


class Window(NamedTuple):
    """Some iterations in a row.

    Attributes:
        start: Position of the first one.
        stop: Position behind the last one.
        mean: The mean of their values.
        allowance: How many times the limit this mean may be.
    """

    start: int
    stop: int
    mean: float
    allowance: float = 1.0

    @property
    def relative(self) -> float:
        """The mean, divided by its allowance."""
        return self.mean / self.allowance


def worst_window(values: Floats) -> Window:
    """Return the window with the largest mean, relative to what is allowed for its length.

    Args:
        values: One number >= 0 for each iteration, shape (n,), n > 0.

    Returns:
        Of the windows that are a tenth of n long, at least 10, the shorter ones of 10, 20, 40, ... and the last 10
        values, the worst; all values where one of them is not finite.

    Example:
        >>> worst_window(np.array([0.0] * 30 + [1.0] * 10))
        Window(start=30, stop=40, mean=1.0, allowance=1.0)
    """
    count = len(values)
    longest = min(max(count // SHARE, FEWEST), count)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.concatenate([[0.0], np.cumsum(values)])
        if not np.isfinite(sums[-1]):
            return Window(0, count, float(sums[-1]))
        found = [Window(max(count - FEWEST, 0), count, float(np.mean(values[-FEWEST:])))]
        for length in _lengths(longest):
            start = int(np.argmax(sums[length:] - sums[:-length]))
            allowance = 1.0 if length == longest else 1.0 + SPIKES * math.sqrt(FEWEST / length)
            found.append(Window(start, start + length, float(np.mean(values[start : start + length])), allowance))
    return max(reversed(found), key=lambda window: window.relative)


def _lengths(longest: int) -> list[int]:
    """Return 10, 20, 40, ... below the longest, and the longest."""
    lengths = [longest]
    length = FEWEST
    while length < longest:
        lengths.insert(-1, length)
        length *= 2
    return lengths
