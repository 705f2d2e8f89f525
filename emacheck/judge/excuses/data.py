"""Whether other batches explain a difference as well as a wrong device, where nothing tells if two runs are paired."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from emacheck.judge.arithmetic import average
from emacheck.judge.averaging import averaged_otherwise
from emacheck.judge.choice import MEANS, RANKS
from emacheck.judge.comparison import Comparison, PairedCurve
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.noise.scatter import share_noise, slow_scatter
from emacheck.judge.rules.equivalence import Equivalence
from emacheck.judge.rules.worst_window import worst_window
from emacheck.judge.verdict import Finding, Outcome

FEWEST = 5
"""Common iterations that show how much a curve scatters."""
ERRORS = 2.0
"""Standard errors by which a mean may be over what is expected of it."""


def without_blame_for_data(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make mean errors INCONCLUSIVE that other batches explain as well as a wrong device.

    That is so where it is not known whether the runs are paired, and `equivalence`, which would judge them if they are
    not, passes; or where it is undecided, and the differences are no larger than the reference's own scatter makes
    them (:func:`scatter_explains`). Rules that the user named stay.
    """
    rules = {*MEANS, RANKS}.difference(named)
    blamed = [f for f in findings if f.rule in rules and f.outcome is Outcome.FAIL]
    if not blamed or pairing_of(comparison).pairing is not Pairing.UNKNOWN:
        return list(findings)
    excuses = {f.metric: _excuse(comparison, f) for f in Equivalence().check(comparison)}
    # A rank that is wrong by itself is so whatever the mean of all does.
    wrong = _wrong_ranks(comparison) if any(f.rule == RANKS for f in blamed) else frozenset()
    settled = []
    for finding in findings:
        excuse = excuses[finding.metric] if finding in blamed else ""
        if excuse and not (finding.rule == RANKS and finding.metric in wrong):
            settled.append(_undecided(finding, excuse))
        else:
            settled.append(finding)
    return settled


def scatter_explains(paired: PairedCurve, margin: float) -> bool:
    """Tell whether another run of the reference, on other batches, may differ as much.

    Two curves that scatter by s around one trend, independently, differ by sqrt(2) s. The mean of n such differences,
    relative to one of them, is up to s² for values that scatter by factors, with a standard error of sqrt(2 t / n) s
    for noise with a correlation time of t; that of their sizes is sqrt(4 / pi) s with less than sqrt(4 t / (pi n)) s.
    Bias, mean relative error and the worst window may each be over that by ERRORS such errors and a margin, the worst
    of n / L windows of L values by sqrt(ERRORS² + 2 ln(n / L)) of them. Only the scatter of the reference counts, for
    that of the candidate may be what is wrong with it. Curves that fluctuate together see the same batches, and are
    never explained.

    Args:
        paired: One metric of a comparison.
        margin: By how much the levels of two good runs may differ, relative to the reference.

    Example:
        >>> from emacheck import Curve
        >>> from emacheck.judge.comparison import pair
        >>> one, other = np.exp(np.random.default_rng(0).normal(scale=0.1, size=(2, 20)))
        >>> def curve(values):
        ...     return Curve(name="loss", iterations=range(20), values=values)
        >>> [scatter_explains(pair("loss", curve(one), curve(c)), 0.05) for c in (other, 0.61 * other, 1.1 * one)]
        [True, False, False]
    """
    values = np.array([paired.reference, paired.candidate])
    count = values.shape[1]
    if count < FEWEST or not (np.all(np.isfinite(values)) and (np.all(values > 0) or np.all(values < 0))):
        return False
    if share_noise(values) is not False:
        return False
    once, time = slow_scatter(values)
    off = paired.relative_difference
    bias, worst = average(off), worst_window(np.abs(off))
    bias -= min(max(bias, 0.0), math.expm1(min(once, 1.0) ** 2))
    size, length = math.sqrt(4 / math.pi) * once, worst.stop - worst.start
    of_worst = math.sqrt(ERRORS**2 + 2 * math.log(count / length))
    return bool(
        abs(bias) <= margin + ERRORS * once * math.sqrt(2 * min(time / count, 1))
        and average(np.abs(off)) <= margin + size * (1 + ERRORS * math.sqrt(min(time / count, 1)))
        and worst.mean <= margin + size * (1 + of_worst * math.sqrt(min(time / length, 1)))
    )


def _excuse(comparison: Comparison, level: Finding) -> str:
    """Return why runs that are not paired may differ as much, as a clause; empty where nothing explains it."""
    if level.outcome is Outcome.PASS:
        return f"their levels are the same within {level.would_pass_at:.2g}"
    paired = comparison.curve(level.metric)
    comparable = level.outcome is not Outcome.FAIL and not averaged_otherwise(comparison, level.metric)
    if not (comparable and scatter_explains(paired, level.limit)):
        return ""
    once, _ = slow_scatter(np.array([paired.reference, paired.candidate]))
    return f"the reference itself scatters by {once:.2g} around its trend, which explains it"


def _wrong_ranks(comparison: Comparison) -> frozenset[str]:
    """Return the metrics of which any rank differs by more than other batches explain."""
    alone = (comparison.of_rank(rank) for rank in comparison.ranks)
    found = ((each, level) for each in alone for level in Equivalence().check(each))
    return frozenset(level.metric for each, level in found if not _excuse(each, level))


def _undecided(finding: Finding, excuse: str) -> Finding:
    message = (
        "over its limit if the runs are paired, which nothing tells (say --paired); if they are not (say --unpaired), "
        f"{excuse}; {finding.message}"
    )
    return replace(finding, outcome=Outcome.INCONCLUSIVE, message=message)
