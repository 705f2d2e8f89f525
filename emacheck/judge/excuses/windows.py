"""Whether windows of unlike lengths explain a difference, as a value of one iteration and a mean of ten differ."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from emacheck.judge.averaging import averaged_otherwise, with_equal_windows
from emacheck.judge.choice import MEANS, RANKS
from emacheck.judge.comparison import Comparison
from emacheck.judge.excuses.chance import without_blame_for_chance
from emacheck.judge.excuses.data import without_blame_for_data
from emacheck.judge.rules.alternatives import either_suffices
from emacheck.judge.rules.means import Bias, MeanAbsoluteError, MeanRelativeError
from emacheck.judge.rules.ranks import Ranks
from emacheck.judge.rules.worst_window import WorstWindow
from emacheck.judge.verdict import Finding, Outcome


def without_blame_for_windows(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make mean errors INCONCLUSIVE that vanish where both records are averaged over the same iterations.

    A value of one iteration and a mean of ten differ however good the device is; ``smoothing`` says so. Rules that the
    user named stay.
    """
    rules = {*MEANS, RANKS}.difference(named)
    blamed = [f for f in findings if f.rule in rules and f.outcome is Outcome.FAIL]
    if not any(averaged_otherwise(comparison, finding.metric) for finding in blamed):
        return list(findings)
    clear: dict[tuple[str, str], str] = {}
    for alike in with_equal_windows(comparison):
        for each in _means(alike, named):
            count, of = (len(c.curve(each.metric).iterations) for c in (alike, comparison))
            if each.outcome is not Outcome.FAIL and not averaged_otherwise(alike, each.metric) and 2 * count >= of:
                window = alike.reference.curves[each.metric].window
                clear.setdefault((each.rule, each.metric), f"{each.observed:.2g} as means of {window}")
    return [
        replace(
            each,
            outcome=Outcome.INCONCLUSIVE,
            message=f"over its limit, but the two are averaged differently, see smoothing: over the same iterations it "
            f"is {clear[each.rule, each.metric]}; {each.message}",
        )
        if each in blamed and (each.rule, each.metric) in clear and averaged_otherwise(comparison, each.metric)
        else each
        for each in findings
    ]


def _means(comparison: Comparison, named: Collection[str]) -> list[Finding]:
    """Return what the mean errors of two records are that average alike."""
    rules = (MeanRelativeError(), MeanAbsoluteError(), Bias(), WorstWindow(), Ranks())
    found = either_suffices(comparison, [each for rule in rules for each in rule.check(comparison)])
    return without_blame_for_chance(comparison, without_blame_for_data(comparison, found, named), named)
