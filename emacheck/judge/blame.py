"""Which findings blame the device for what other batches, or other numbers of iterations, explain as well."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from emacheck.judge.arithmetic import average
from emacheck.judge.averaging import with_equal_windows
from emacheck.judge.choice import MEANS, RANKS
from emacheck.judge.comparison import Comparison, PairedCurve
from emacheck.judge.forensics.numbering import numbered_otherwise
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.noise.scatter import share_noise, slow_scatter
from emacheck.judge.noise.standard_error import mean_by_chance
from emacheck.judge.rules.alternatives import either_suffices
from emacheck.judge.rules.equivalence import Equivalence
from emacheck.judge.rules.means import Bias, MeanAbsoluteError, MeanRelativeError
from emacheck.judge.rules.ranks import Ranks
from emacheck.judge.rules.worst_window import WorstWindow, worst_window
from emacheck.judge.verdict import Finding, Outcome
from emacheck.oddity import OddityKind

INTEGRITY = "integrity"
WHICH_RUN = (OddityKind.SHORT_LAST_RUN, OddityKind.MIXED)
"""Oddities that leave open which records of a log are meant."""
BY_NUMBER = (*MEANS, RANKS, "coverage", "schedule", "equivalence", "envelope", "first_iterations", "final_metric")
"""The default rules that rest on pairs of equal numbers, or on the span that these have in common."""

FEWEST_IN_HALF, CHANCE = 30, 0.01
"""Values in the last half of which a bias is asked as well as of all, and how often chance may explain neither."""
FEWEST = 10
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


def without_blame_for_windows(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make mean errors INCONCLUSIVE that vanish where both records are averaged over the same iterations.

    A value of one iteration and a mean of ten differ however good the device is; ``smoothing`` says so. Rules that the
    user named stay.
    """
    rules = {*MEANS, RANKS}.difference(named)
    blamed = [f for f in findings if f.rule in rules and f.outcome is Outcome.FAIL]
    if not any(_averaged_otherwise(comparison, finding.metric) for finding in blamed):
        return list(findings)
    clear: dict[tuple[str, str], str] = {}
    for alike in with_equal_windows(comparison):
        for each in _means(alike, named):
            count, of = (len(c.curve(each.metric).iterations) for c in (alike, comparison))
            if each.outcome is not Outcome.FAIL and not _averaged_otherwise(alike, each.metric) and 2 * count >= of:
                window = alike.reference.curves[each.metric].window
                clear.setdefault((each.rule, each.metric), f"{each.observed:.2g} as means of {window}")
    return [
        replace(
            each,
            outcome=Outcome.INCONCLUSIVE,
            message=f"over its limit, but the two are averaged differently, see smoothing: over the same iterations it "
            f"is {clear[each.rule, each.metric]}; {each.message}",
        )
        if each in blamed and (each.rule, each.metric) in clear and _averaged_otherwise(comparison, each.metric)
        else each
        for each in findings
    ]


def _means(comparison: Comparison, named: Collection[str]) -> list[Finding]:
    """Return what the mean errors of two records are that average alike."""
    rules = (MeanRelativeError(), MeanAbsoluteError(), Bias(), WorstWindow(), Ranks())
    found = either_suffices(comparison, [each for rule in rules for each in rule.check(comparison)])
    return without_blame_for_chance(comparison, without_blame_for_data(comparison, found, named), named)


def without_blame_for_chance(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make a bias INCONCLUSIVE that the noise of the differences explains as well as a wrong device.

    Paired runs come apart by chaos, which has no sign but whose mean over few iterations, or over slow ones, is not 0.
    It must explain the mean over the last half as well, if that has 30 values: there a difference that grew, or set in,
    has a level by which it is told from noise. A rule that the user named stays.
    """
    if Bias.name in named:
        return list(findings)
    return [
        _by_chance(comparison, each) if each.rule == Bias.name and each.outcome is Outcome.FAIL else each
        for each in findings
    ]


def _by_chance(comparison: Comparison, finding: Finding) -> Finding:
    differences = comparison.curve(finding.metric).relative_difference
    if not np.all(np.isfinite(differences)):
        return finding
    half = differences[len(differences) // 2 :]
    parts = (differences, half) if len(half) >= FEWEST_IN_HALF else (differences,)
    # Two looks share what chance may do.
    reaches = [mean_by_chance(part, 1 - CHANCE / 2) for part in parts]
    if any(not abs(average(part)) <= max(finding.limit, reach) for part, reach in zip(parts, reaches, strict=True)):
        return finding
    reach = reaches[0]
    why = f"it may be {reach:.2g} by chance, with {1 - CHANCE / 2:.1%} confidence"
    if math.isinf(reach):
        why = "the differences change so slowly that they are worth fewer than 4 independent ones"
    message = f"over its limit, but {why}: train longer, or show by --repeat how far benign runs are; {finding.message}"
    return replace(finding, outcome=Outcome.INCONCLUSIVE, message=message)


def _averaged_otherwise(comparison: Comparison, metric: str) -> bool:
    records = (comparison.reference, comparison.candidate)
    return len({each.curves[metric].window for each in records if metric in each.curves}) > 1


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


def without_blame_for_numbers(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make INCONCLUSIVE what FAILs through pairs of records of which nothing tells that they belong together.

    ``integrity`` says why. Rules that the user named stay, and all of them where ``integrity`` is named.
    """
    records = (comparison.reference, comparison.candidate)
    doubtful = any(each.kind in WHICH_RUN for record in records for each in record.oddities)
    if INTEGRITY in named or not (doubtful or numbered_otherwise(comparison)):
        return list(findings)
    blameless = {*BY_NUMBER}.difference(named)
    return [
        replace(
            each, outcome=Outcome.INCONCLUSIVE, message=f"of pairs that may be wrong, see {INTEGRITY}; {each.message}"
        )
        if each.rule in blameless and each.outcome is Outcome.FAIL
        else each
        for each in findings
    ]


def _excuse(comparison: Comparison, level: Finding) -> str:
    """Return why runs that are not paired may differ as much, as a clause; empty where nothing explains it."""
    if level.outcome is Outcome.PASS:
        return f"their levels are the same within {level.would_pass_at:.2g}"
    paired = comparison.curve(level.metric)
    comparable = level.outcome is not Outcome.FAIL and not _averaged_otherwise(comparison, level.metric)
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
