"""Whether benign repeats of the reference are as far off as the candidate: no limit for all networks knows that."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from emacheck.counted import counted
from emacheck.curve import Curve, Integers
from emacheck.judge.comparison import Comparison
from emacheck.judge.noise.repeats import distinct_repeats
from emacheck.judge.rules.envelope import Envelope
from emacheck.judge.rules.means import Bias, MeanRelativeError
from emacheck.judge.rules.ranks import Ranks
from emacheck.judge.rules.worst_window import WorstWindow
from emacheck.judge.verdict import Finding, Outcome
from emacheck.record import Record

BEYOND = 2.0
"""How many times farther off than any two benign runs one more of them may be, unsigned."""
_MEANS: dict[str, MeanRelativeError | Bias | WorstWindow | Ranks] = {
    rule.name: rule for rule in (MeanRelativeError(), Bias(), WorstWindow(), Ranks())
}


def without_blame_for_repeats(
    comparison: Comparison, findings: Sequence[Finding], named: Collection[str]
) -> list[Finding]:
    """Let a mean error over its limit PASS that is no larger than the same error of any two benign runs.

    The benign runs are the reference and its repeats, two distinct ones or more, which `envelope` has found to be
    benign and the candidate to stay among: otherwise nothing is excused. An unsigned mean error that is larger, but
    less than BEYOND times as large, is INCONCLUSIVE: one more benign run may be so. Rules that the user named stay.
    """
    among = {each.metric for each in findings if each.rule == Envelope.name and each.outcome is Outcome.PASS}
    return [
        _held_against_repeats(comparison, each)
        if each.rule in _MEANS and each.rule not in named and each.metric in among and each.outcome is not Outcome.PASS
        else each
        for each in findings
    ]


def _held_against_repeats(comparison: Comparison, finding: Finding) -> Finding:
    repeats = distinct_repeats(comparison, finding.metric)
    if finding.would_pass_at is None or len(repeats) < Envelope().minimum:
        return finding
    default = _MEANS[finding.rule].limit
    needed = [*_needed(comparison, finding, (comparison.reference, *repeats))]
    spread = max((each for each in needed if each is not None), default=0.0)
    if None in needed or not spread > default:
        return finding
    among = f"the reference and {counted(len(repeats), 'repeat')} of it are up to {spread:.2g} from each other"
    # A window may be off by a multiple of the limit.
    allowed = replace(finding, limit=finding.limit * spread / default)
    if finding.would_pass_at <= spread:
        remark = f"{finding.rule} passes as far off as repeats of the reference are from each other"
        message = f"over the default limit {finding.limit:.2g}, but {among}; {finding.message}"
        return replace(allowed, outcome=Outcome.PASS, message=message, limited_by=(*finding.limited_by, remark))
    if finding.rule != Bias.name and finding.would_pass_at <= BEYOND * spread:
        message = f"{among}, and one more may be farther: give more repeats; {finding.message}"
        return replace(allowed, outcome=Outcome.INCONCLUSIVE, message=message)
    return finding


def _needed(comparison: Comparison, finding: Finding, benign: Sequence[Record]) -> Iterator[float | None]:
    """Yield the limit that each benign run would need against each other, at the iterations that are judged."""
    metric = finding.metric
    judged = comparison.curve(metric).iterations
    records = [_alone(record, metric, judged) for record in benign]
    for reference, candidate in combinations(records, 2):
        (found,) = _MEANS[finding.rule].check(Comparison(reference=reference, candidate=candidate, metrics=(metric,)))
        yield found.would_pass_at


def _alone(record: Record, metric: str, iterations: Integers) -> Record:
    """Return one metric of a record and of its ranks, at some iterations."""
    of_ranks = {rank: _at(curves, metric, iterations) for rank, curves in record.of_ranks.items()}
    return replace(record, curves=_at(record.curves, metric, iterations), of_ranks=of_ranks)


def _at(curves: Mapping[str, Curve], metric: str, iterations: Integers) -> dict[str, Curve]:
    if metric not in curves:
        return {}
    kept = np.isin(curves[metric].iterations, iterations)
    curve = curves[metric]
    return {metric: replace(curve, iterations=curve.iterations[kept], values=curve.values[kept])}
