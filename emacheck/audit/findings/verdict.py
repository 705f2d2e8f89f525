"""An audit as one finding of a verdict, beside those of the curves; no torch."""

import math
from collections.abc import Collection

from emacheck.audit.findings.processes import LEVEL
from emacheck.audit.findings.result import ITERATION, AuditResult, ModuleFinding
from emacheck.audit.limits import Limits
from emacheck.counted import counted
from emacheck.judge.verdict import AUDIT, Finding, Outcome

UNIT = "x accepted error"
SHOWN_NOTES = 6


def audit_finding(result: AuditResult, *, said: Collection[str] = ()) -> Finding:
    """Turn what an audit says into one finding: the worst error ratio, its limit, and the module to blame.

    Args:
        result: What the audit said.
        said: What other findings are limited by; a note of the audit that stands there is not said again.

    Returns:
        A finding of the rule ``audit``. Every audited iteration starts from one shared state: it is the first. No
        ``would_pass_at`` unless it passed: the limits of the audit are not options.

    Example:
        >>> found = audit_finding(AuditResult(device="sdaa", precision="fp32", errors=(), findings=()))
        >>> str(found.outcome), found.message
        ('INCONCLUSIVE', 'no tensor was compared on sdaa')
    """
    blamed = next((each for each in result.findings if each.outcome is result.outcome), None)
    observed, limit = _figures(result, blamed)
    message = _passing(result) if blamed is None else _blaming(result, blamed)
    if result.operators is not None and result.outcome is Outcome.FAIL:
        message = "; ".join((message, *result.operators.lines[:1]))
    limits = tuple(note for note in result.notes if not any(remark.endswith(note) for remark in said))
    notes = "; ".join(limits[:SHOWN_NOTES])
    return Finding(
        rule=AUDIT,
        outcome=result.outcome,
        observed=observed,
        limit=limit,
        unit=UNIT,
        iteration=1,
        message=f"{message}; limited by: {notes}" if notes else message,
        would_pass_at=observed if result.outcome is Outcome.PASS else None,
        metric="",
        limited_by=limits,
        module=blamed.module if blamed is not None else "",
    )


def _figures(result: AuditResult, blamed: ModuleFinding | None) -> tuple[float, float]:
    if blamed is None:
        worst = result.worst
        return (math.nan, Limits().isolated) if worst is None else (worst.ratio, worst.limit)
    if blamed.outcome is Outcome.INCONCLUSIVE:
        return math.nan, blamed.limit or Limits().isolated
    return blamed.ratio, blamed.limit or Limits().isolated


def _passing(result: AuditResult) -> str:
    worst = result.worst
    if worst is None:
        return f"no tensor was compared {result.where}"
    modules, batches = ({getattr(error, name) for error in result.errors} for name in ("module", "batch"))
    within = "is within its limit" if len(result.errors) == 1 else "are within their limits"
    return (
        f"{counted(len(result.errors), 'tensor')} of {counted(len(modules), 'module')} {result.where} {within} in "
        f"{counted(len(batches), 'batch', 'batches')}; the closest is {worst.module} {worst.tensor}"
    )


def _blaming(result: AuditResult, blamed: ModuleFinding) -> str:
    """Name the module, its worst tensor and the phase, and say what else is wrong."""
    if blamed.kind == LEVEL:
        said = f"between the processes: {blamed.message}"
    elif not blamed.tensor or blamed.outcome is Outcome.INCONCLUSIVE:
        said = f"{blamed.message.rstrip('.')} (in phase {blamed.phase})"
    elif blamed.module == ITERATION:
        said = f"{blamed.message}; the worst tensor is {blamed.tensor}"
    else:
        said = (
            f"{blamed.message}, first in phase {blamed.phase}; {blamed.count} of its tensors "
            f"{'is' if blamed.count == 1 else 'are'} over the limit"
        )
    others = [each for each in result.findings if each is not blamed]
    among = sum(each.kind == LEVEL for each in others)
    failing = sum(each.outcome is Outcome.FAIL and each.module != ITERATION for each in others) - among
    unable = sum(each.outcome is Outcome.INCONCLUSIVE for each in others)
    if failing:
        said += f"; {counted(failing, 'more module is', 'more modules are')} wrong"
    if any(each.module == ITERATION and each.outcome is Outcome.FAIL for each in others):
        said += "; the whole iteration differs as well"
    if among:
        said += f"; {counted(among, 'finding')} about the processes as well"
    if unable:
        said += f"; {unable} more could not be compared"
    return said
