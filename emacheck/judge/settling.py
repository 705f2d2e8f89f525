"""What findings mean together: alternatives of which one suffices, and blame that only paired runs deserve."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from emacheck.judge.choice import MEANS
from emacheck.judge.comparison import Comparison
from emacheck.judge.equivalence import Equivalence
from emacheck.judge.pairing import Pairing, pairing_of
from emacheck.judge.verdict import ALTERNATIVES, Finding, Outcome


def either_suffices(findings: Sequence[Finding]) -> list[Finding]:
    """Give an alternative over its limit the better outcome of the other one for the metric, and say so."""
    said = {(f.metric, f.rule): f.outcome for f in findings if f.rule in ALTERNATIVES}
    settled = []
    for finding in findings:
        if finding.rule in ALTERNATIVES and finding.outcome is not Outcome.PASS:
            other = next(rule for rule in ALTERNATIVES if rule != finding.rule)
            better = said.get((finding.metric, other), Outcome.FAIL)
            if better not in (Outcome.FAIL, finding.outcome):
                why = f"accepted because {other} passes" if better is Outcome.PASS else f"but {other} is undecided"
                message = f"over its limit, {why}; {finding.message}"
                settled.append(replace(finding, outcome=better, message=message))
                continue
        settled.append(finding)
    return settled


def without_blame_for_data(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Make mean errors INCONCLUSIVE that other batches explain as well as a wrong device.

    That is so where it is not known whether the runs are paired, and their levels are the same within the limit of
    ``equivalence``: paired runs would FAIL, runs that are not paired would PASS. Rules that the user named stay.
    """
    blamed = [f for f in findings if f.rule in MEANS and f.rule not in named and f.outcome is Outcome.FAIL]
    if not blamed or pairing_of(comparison).pairing is not Pairing.UNKNOWN:
        return list(findings)
    levels = {f.metric: f for f in Equivalence().check(comparison) if f.outcome is Outcome.PASS}
    return [_undecided(f, levels[f.metric]) if f in blamed and f.metric in levels else f for f in findings]


def _undecided(finding: Finding, level: Finding) -> Finding:
    message = (
        "over its limit if the runs are paired, which nothing tells (say --paired); if they are not (say --unpaired), "
        f"their levels are the same within {level.would_pass_at:.2g}; {finding.message}"
    )
    return replace(finding, outcome=Outcome.INCONCLUSIVE, message=message)
