"""What a gate demands and the logs give no ground for: no evidence is INCONCLUSIVE."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from emacheck.judge.choice import default_rules
from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.pairing import pairing_of
from emacheck.judge.verdict import Finding, Outcome

NOT_JUDGED = "required, and not judged: "


def without_ground(comparison: Comparison, required: Sequence[Any]) -> tuple[Finding, ...]:
    """Say of rules that are required, and that do not suit the comparison, why nothing was judged by them.

    Args:
        comparison: What was measured.
        required: The rules that are required and not in use.

    Returns:
        For each rule what it lacks, INCONCLUSIVE: one finding per metric, or one that says what the runs are.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> from emacheck.judge.rules.fingerprints import Fingerprints
        >>> loss = Curve(name="loss", iterations=[1, 2], values=[4.0, 3.9])
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> [finding] = without_ground(compare(record, record), [Fingerprints()])
        >>> print(finding.outcome, finding.message[:56])
        INCONCLUSIVE required, and not judged: not both records carry fingerp
    """
    findings = (finding for rule in required for finding in why_not_judged(comparison, rule))
    return tuple(replace(each, message=f"{NOT_JUDGED}{each.message}") for each in findings)


def without_evidence(comparison: Comparison, findings: Sequence[Finding], required: Sequence[Any]) -> list[Finding]:
    """Take back the PASS of a required rule that had nothing to compare, such as learning rates that no log has.

    Args:
        comparison: What was measured.
        findings: What the rules in use found.
        required: The rules that are required and in use.

    Returns:
        The findings, such a PASS as INCONCLUSIVE.
    """
    blind = {rule.name for rule in required if hasattr(rule, "can_tell") and not rule.can_tell(comparison)}
    return [
        replace(each, outcome=Outcome.INCONCLUSIVE, observed=math.nan, message=f"{NOT_JUDGED}{each.message}")
        if each.rule in blind and each.outcome is Outcome.PASS
        else each
        for each in findings
    ]


def why_not_judged(comparison: Comparison, rule: Any) -> tuple[Finding, ...]:
    """Say of a rule that is not in use why that is so, INCONCLUSIVE: what it lacks, or which runs it is not for."""
    lacks = tuple(each for each in rule.check(comparison) if each.outcome is Outcome.INCONCLUSIVE)
    if lacks:
        return lacks
    if rule.name in default_rules(comparison):
        message = "it is not among the rules in use"
    else:
        message = f"by default it does not judge runs that are {pairing_of(comparison)}"
    finding = Finding(
        rule=rule.name,
        outcome=Outcome.INCONCLUSIVE,
        observed=math.nan,
        limit=rule.limit,
        unit="",
        iteration=None,
        message=message,
        metric=comparison.metrics[0],
    )
    return (finding,)
