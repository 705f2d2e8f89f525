"""The verdict as the object in ``report.json``; every key is described in docs/report-format.md."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emacheck.judge.divergence import hint
from emacheck.judge.forensics.pairing import pairing_of
from emacheck.judge.verdict import Finding, Verdict
from emacheck.record import Record
from emacheck.report.contrast import header_differences
from emacheck.report.wording import divergence
from emacheck.strict_json import strict

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult

FORMAT_VERSION = 1
AUDIT_FILE = "audit.json"


def document(
    verdict: Verdict, *, command: str, environment: Mapping[str, Any], audit: "AuditResult | None" = None
) -> dict[str, Any]:
    """Return the verdict as one object of strict JSON types.

    Args:
        verdict: What was decided.
        command: The command that reproduces it.
        environment: What is known about the machine and the software that judged.
        audit: The audit of the device, None where there was none.

    Returns:
        The object. Numbers that JSON cannot write are the strings "NaN", "Infinity" and "-Infinity".

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> found = document(decide(compare(record, record)), command="emacheck compare", environment={})
        >>> found["outcome"], found["reference"]["iterations"], found["first_divergence"]
        ('PASS', [1, 20], {'unequal_at': None, 'over_limit_at': None})
    """
    comparison, parting = verdict.comparison, divergence(verdict)
    metric = comparison.metrics[0]
    suggested, known = hint(verdict), pairing_of(comparison)
    found = {
        "format_version": FORMAT_VERSION,
        "outcome": str(verdict.outcome),
        "evidence": list(verdict.evidence),
        "paired": comparison.paired,
        "pairing": {"kind": str(known.pairing), "why": known.why},
        "reference": _record(comparison.reference, metric),
        "candidate": _record(comparison.candidate, metric),
        "findings": [_finding(finding) for finding in verdict.findings],
        "left_out": [_finding(finding) for finding in verdict.left_out],
        "first_divergence": {"unequal_at": parting.unequal_at, "over_limit_at": parting.over_limit_at},
        "hint": {"kind": str(suggested.kind), "iteration": suggested.iteration, "evidence": suggested.evidence},
        "header_differences": [list(row) for row in header_differences(verdict)],
        "audit": None if audit is None else _audit(audit),
        "operators": None if audit is None or audit.operators is None else audit.operators.to_json(),
        "environment": environment,
        "command": command,
    }
    report: dict[str, Any] = strict(found)
    return report


def _audit(audit: "AuditResult") -> dict[str, Any]:
    """Return everything but operators and the thousands of tensors, and the name of the file that has the latter."""
    fields = {name: value for name, value in audit.to_json().items() if name not in ("tensors", "operators")}
    return {**fields, "tensors_in": AUDIT_FILE}


def _record(record: Record, metric: str) -> dict[str, Any]:
    iterations = record.curves[metric].iterations.tolist() if metric in record.curves else []
    return {
        "name": record.name,
        "format": record.format,
        "records": len(iterations),
        "iterations": [iterations[0], iterations[-1]] if len(iterations) else None,
        "metrics": sorted(record.curves),
        "oddities": [oddity.message for oddity in record.oddities],
        "oddity_effects": [str(oddity.effect) for oddity in record.oddities],
        "oddity_kinds": [str(oddity.kind) for oddity in record.oddities],
        "complete": record.complete,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "metric": finding.metric,
        "outcome": str(finding.outcome),
        "observed": finding.observed,
        "limit": finding.limit,
        "unit": finding.unit,
        "iteration": finding.iteration,
        "message": finding.message,
        "would_pass_at": finding.would_pass_at,
        "limited_by": list(finding.limited_by),
        "module": finding.module or None,
    }
