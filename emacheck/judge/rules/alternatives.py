"""Two rules of which either suffices for a metric: mean_relative_error and mean_absolute_error."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import Comparison
from emacheck.judge.rules.means import MeanAbsoluteError
from emacheck.judge.verdict import ALTERNATIVES, Finding, Outcome

# The default absolute limit suffices where it is at most this part of the reference: then the bias, whose limit it is,
# cannot be larger either.
SMALL = 0.01


def either_suffices(comparison: Comparison, findings: Sequence[Finding]) -> list[Finding]:
    """Give an alternative over its limit the better outcome of the other one for the metric, and say so.

    The default limit of mean_absolute_error is made for losses near 1: where it is more than SMALL of the reference's
    level it does not suffice. A limit that somebody set means what it says.
    """
    said = {(f.metric, f.rule): f for f in findings if f.rule in ALTERNATIVES}
    settled = []
    for finding in findings:
        other = next(rule for rule in ALTERNATIVES if rule != finding.rule)
        better = said.get((finding.metric, other)) if finding.rule in ALTERNATIVES else None
        if better is None:
            settled.append(_by_itself(comparison, finding))
        elif finding.outcome is Outcome.PASS:
            settled.append(finding)
        elif better.outcome is Outcome.PASS:
            settled.append(_accepted(comparison, finding, better))
        elif (finding.outcome, better.outcome) == (Outcome.FAIL, Outcome.INCONCLUSIVE):
            message = f"over its limit, but {other} is undecided; {finding.message}"
            settled.append(replace(finding, outcome=Outcome.INCONCLUSIVE, message=message))
        else:
            settled.append(finding)
    return settled


def _by_itself(comparison: Comparison, finding: Finding) -> Finding:
    """Return a finding beside which there is no alternative; undecided if the default limit is too wide for it."""
    level = _too_low_for_the_limit(comparison, finding)
    if finding.outcome is not Outcome.PASS or level is None or finding.observed <= SMALL * level:
        return finding
    message = (
        f"within the default limit, but that is made for losses near 1, and the error is more than {SMALL:.0%} of the "
        f"reference's level, {level:.2g}: set a limit of your own; {finding.message}"
    )
    return replace(finding, outcome=Outcome.INCONCLUSIVE, message=message)


def _accepted(comparison: Comparison, finding: Finding, accepting: Finding) -> Finding:
    level = _too_low_for_the_limit(comparison, accepting)
    if level is not None:
        message = (
            f"{accepting.rule} passes, but its limit is more than {SMALL:.0%} of the reference's level, "
            f"{level:.2g}; {finding.message}"
        )
        return replace(finding, message=message)
    message = f"over its limit, accepted because {accepting.rule} passes; {finding.message}"
    return replace(finding, outcome=Outcome.PASS, message=message)


def _too_low_for_the_limit(comparison: Comparison, finding: Finding) -> float | None:
    """Return the reference's level where the default limit of the absolute error is too much for it, else None."""
    if finding.rule != MeanAbsoluteError.name or finding.limit != MeanAbsoluteError().limit:
        return None
    level = average(np.abs(comparison.curve(finding.metric).reference))
    return None if finding.limit <= SMALL * level else level
