"""What the page shows of an audit and of operators, as rows of plain text."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emacheck.audit.findings.processes import LEVEL
from emacheck.audit.findings.result import ALONE, ITERATION, LEVELS, PHASES, badness, persistent
from emacheck.counted import counted
from emacheck.judge.figures import beside, number
from emacheck.printable import MESSAGE_LENGTH, printable
from emacheck.report.audited import audit_sentence, worst_first, worst_tensors
from emacheck.report.html.drawing import Drawing
from emacheck.report.html.scatter import scatter
from emacheck.report.html.sections import Table

if TYPE_CHECKING:
    from emacheck.audit.findings.operators import Explanation, OperatorError, OperatorFindings
    from emacheck.audit.findings.result import AuditResult, ModuleFinding, TensorError

MOST_FINDINGS = 30
MOST_MODULES = 400
MOST_TENSORS = 12
MOST_OPERATORS = 12
MOST_UNJUDGED = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRow:
    """One tensor, or the worst one of a module."""

    outcome: str
    module: str
    kind: str
    tensor: str
    phase: str
    level: str
    ratio: str
    limit: str
    error: str
    batch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRow:
    """What the audit says about one module, and its worst tensors."""

    outcome: str
    message: str
    tensors: tuple[TensorRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPart:
    """An audit as the page shows it.

    Attributes:
        outcome: Its outcome.
        sentence: What was audited, and how that ended.
        findings: What is wrong, the module most to blame first.
        more_findings: How many more there are, in words.
        worst: The worst tensors of all.
        levels: Level, phase, tensors, over limit, worst ratio, limit and where, for each level and phase.
        modules: Every module with its worst tensor, the worst first.
        more_modules: How many more there are, in words.
        drawing: The ratio of every tensor.
        notes: What limits what the outcome rests on.
        hashes: Name and value of the fingerprints of what both sides started from.
    """

    outcome: str
    sentence: str
    findings: tuple[ModuleRow, ...]
    more_findings: str
    worst: tuple[TensorRow, ...]
    levels: Table
    modules: tuple[TensorRow, ...]
    more_modules: str
    drawing: Drawing
    notes: tuple[str, ...]
    hashes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationPart:
    """What the operators of one scope say.

    Attributes:
        message: In one sentence.
        conclusion: In a word or three.
        trials: Operators computed on the CPU, ratio, limit and outcome of the check.
        operators: The operators, the worst first.
        more: How many more there are, in words.
        unjudged: Operator, calls and why.
        calls: How many were judged, in words.
    """

    message: str
    conclusion: str
    trials: tuple[tuple[str, str, str, str], ...]
    operators: tuple["OperatorRow", ...]
    more: str
    unjudged: Table
    calls: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """One operator; ``details`` are the name and the value of what else is known about its worst call."""

    outcome: str
    operator: str
    module: str
    phase: str
    ratio: str
    limit: str
    calls: str
    details: tuple[tuple[str, str], ...]


def audit_part(audit: "AuditResult") -> AuditPart:
    """Return an audit as the page shows it."""
    modules: dict[str, TensorError] = {}
    for error in sorted(audit.errors, key=lambda each: (each.passes, *worst_first(each))):
        modules.setdefault(error.module, error)
    hashes = [("shared state", audit.state_hash), *((f"batch {n}", h) for n, h in enumerate(audit.batch_hashes, 1))]
    return AuditPart(
        outcome=str(audit.outcome),
        sentence=printable(audit_sentence(audit), length=MESSAGE_LENGTH),
        findings=tuple(_module(finding, audit) for finding in audit.findings[:MOST_FINDINGS]),
        more_findings=_more(len(audit.findings) - MOST_FINDINGS, "module"),
        worst=tuple(map(_tensor, worst_tensors(audit.errors, MOST_TENSORS))),
        levels=_levels(audit),
        modules=tuple(map(_tensor, list(modules.values())[:MOST_MODULES])),
        more_modules=_more(len(modules) - MOST_MODULES, "module"),
        drawing=scatter(audit),
        notes=tuple(printable(note, length=MESSAGE_LENGTH) for note in audit.notes),
        hashes=tuple((name, printable(value)) for name, value in hashes if value),
    )


def _more(count: int, word: str) -> str:
    return f"and {counted(count, f'more {word}')}" if count > 0 else ""


def _module(finding: "ModuleFinding", audit: "AuditResult") -> ModuleRow:
    return ModuleRow(
        outcome=str(finding.outcome),
        message=printable(finding.message, length=MESSAGE_LENGTH),
        tensors=tuple(map(_tensor, worst_tensors(_over(finding, audit), MOST_TENSORS))),
    )


def _over(finding: "ModuleFinding", audit: "AuditResult") -> "list[TensorError]":
    """Return the tensors that a finding rests on; a difference that no rounding explains has no ratio and none."""
    if finding.kind == LEVEL:
        found = [error for error in audit.errors if error.level == LEVEL and error.phase == finding.phase]
        inside = [error for error in found if error.module == finding.module]
        return persistent(inside or found) if finding.limit else []
    if finding.module == ITERATION:
        return persistent([error for error in audit.errors if error.level == "end to end"])
    return [each for each in audit.errors if each.module == finding.module and each.level in ALONE and not each.passes]


def _tensor(error: "TensorError") -> TensorRow:
    ratio, limit = beside(error.ratio, error.limit)
    return TensorRow(
        outcome="PASS" if error.passes else "FAIL",
        module=printable(error.module),
        kind=printable(error.kind),
        tensor=printable(error.tensor),
        phase=printable(error.phase),
        level=printable(error.level),
        ratio=ratio,
        limit=limit,
        error=f"{error.error:.1e}",
        batch=str(error.batch),
    )


def _levels(audit: "AuditResult") -> Table:
    groups: dict[tuple[str, str], list[TensorError]] = {}
    for error in audit.errors:
        groups.setdefault((error.level, error.phase), []).append(error)
    rows = []
    for level in LEVELS:
        for phase in PHASES:
            if group := groups.get((level, phase)):
                worst = max(group, key=badness)
                over = sum(not error.passes for error in group)
                where = printable(f"{worst.module} {worst.tensor}")
                rows.append((level, phase, str(len(group)), str(over), *beside(worst.ratio, worst.limit), where))
    return Table(rows=tuple(rows))


def operators_part(found: "OperatorFindings") -> tuple[tuple[ExplanationPart, ...], tuple[str, ...]]:
    """Return the explanations as the page shows them, and what was not looked at."""
    notes = tuple(printable(note, length=MESSAGE_LENGTH) for note in found.notes)
    return tuple(_explanation(each) for each in found.explanations), notes


def _explanation(found: "Explanation") -> ExplanationPart:
    unjudged = [(printable(each.operator), str(each.calls), printable(each.why)) for each in found.unjudged]
    calls = f"{counted(found.calls, 'call')} of {counted(len(found.operators), 'operator')}"
    return ExplanationPart(
        message=printable(found.message, length=MESSAGE_LENGTH),
        conclusion=printable(found.conclusion),
        trials=tuple(_trials(found)),
        operators=tuple(map(_operator, found.operators[:MOST_OPERATORS])),
        more=_more(len(found.operators) - MOST_OPERATORS, "operator"),
        unjudged=Table(rows=tuple(unjudged[:MOST_UNJUDGED]), more=max(len(unjudged) - MOST_UNJUDGED, 0)),
        calls=calls,
    )


def _trials(found: "Explanation") -> list[tuple[str, str, str, str]]:
    rows = []
    if not math.isnan(found.ratio):
        rows.append(("none", *beside(found.ratio, found.limit), _outcome(passes=found.ratio <= found.limit)))
    for trial in found.trials:
        replaced = printable(", ".join(trial.operators), length=MESSAGE_LENGTH) or "none, once more"
        rows.append((replaced, *beside(trial.ratio, trial.limit), _outcome(passes=trial.passes)))
    return rows


def _outcome(*, passes: bool) -> str:
    return "PASS" if passes else "FAIL"


def _operator(row: "OperatorError") -> OperatorRow:
    ratio, limit = beside(row.ratio, row.limit)
    at = f" at {list(row.index)}" if row.index else ""
    details = [
        ("worst element", f"{row.result}{at}: {number(row.value, digits=7)}, right is {number(row.truth, digits=7)}"),
        ("error", f"{row.error:.1e}, accepted {row.accepted:.1e} ({row.measure})"),
        ("only", row.only),
        ("repeats", {True: "yes", False: "no", None: ""}[row.repeats]),
        *(("input", str(each)) for each in row.inputs),
        *(("setting", f"{name} {value}") for name, value in row.settings.items()),
    ]
    return OperatorRow(
        outcome=_outcome(passes=row.passes),
        operator=printable(row.operator),
        module=printable(row.module),
        phase=printable(row.phase),
        ratio=ratio,
        limit=limit,
        calls=f"{row.over} of {counted(row.calls, 'call')}",
        details=tuple((name, printable(value)) for name, value in details if value),
    )
