"""An audit inside a report in Markdown: the outcome, the modules to blame, the worst tensors, the picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from emacheck.audit.findings.result import ALONE, badness
from emacheck.counted import counted
from emacheck.judge.figures import beside
from emacheck.report.markdown_text import escaped, table

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult, TensorError

MOST_FINDINGS = 10
MOST_TENSORS = 8


def audit_markdown(audit: "AuditResult", *, picture: str | None) -> list[str]:
    """Return the section about an audit, block by block.

    Args:
        audit: What was found.
        picture: Name of the picture, relative to where the document will lie; None for no picture.

    Example:
        >>> from emacheck.audit.findings.result import AuditResult
        >>> empty = AuditResult(device="sdaa", precision="fp32", errors=(), findings=())
        >>> audit_markdown(empty, picture=None)[1].splitlines()[0]
        '**INCONCLUSIVE** on sdaa in fp32: 0 tensors of 0 modules, 0 batches, against float64 on the CPU; 0 s, 0.0 GiB.'
    """
    findings = [f"- {each.outcome}: {escaped(each.message)}" for each in audit.findings[:MOST_FINDINGS]]
    if len(audit.findings) > MOST_FINDINGS:
        findings.append(f"- ... and {counted(len(audit.findings) - MOST_FINDINGS, 'more module')}")
    if audit.operators is not None:
        findings += [f"- operators: {escaped(line)}" for line in audit.operators.lines]
    notes = [f"- limited by: {escaped(note)}" for note in audit.notes]
    blocks = [
        "## Audit",
        _summary(audit),
        "\n".join(findings + notes),
        _worst(audit.errors),
        f"![Error ratio of every tensor along the depth of the network]({quote(picture)})" if picture else "",
    ]
    return [block for block in blocks if block]


def audit_sentence(audit: "AuditResult") -> str:
    """Return what was audited and how that ended, as what follows the outcome."""
    blame = f", module {audit.module}, first in phase {audit.phase or ''}" if audit.module else ""
    modules, batches = (len({getattr(error, name) for error in audit.errors}) for name in ("module", "batch"))
    return (
        f"{audit.where} in {audit.precision}{blame}: "
        f"{counted(len(audit.errors), 'tensor')} of {counted(modules, 'module')}, "
        f"{counted(batches, 'batch', 'batches')}, against float64 on the CPU; {audit.seconds:.0f} s, "
        f"{audit.peak_memory / 2**30:.1f} GiB."
    )


def _summary(audit: "AuditResult") -> str:
    outcome = str(audit.outcome) if audit.outcome.value == "PASS" else f"**{audit.outcome}**"
    return f"{outcome} {escaped(audit_sentence(audit))}"


def worst_tensors(errors: "Sequence[TensorError]", most: int = MOST_TENSORS) -> "list[TensorError]":
    """Return the tensors over their limit, or the closest to it; what modules introduce comes first."""
    found: dict[tuple[str, str], TensorError] = {}
    failing = [error for error in errors if not error.passes]
    for error in sorted(failing or errors, key=worst_first):
        found.setdefault((error.module, error.tensor), error)
        if len(found) == most:
            break
    return list(found.values())


def worst_first(error: "TensorError") -> tuple[bool, float]:
    """Sort by how much is wrong, and what a module introduces before what it may have inherited."""
    return error.level not in ALONE, -badness(error)


def _worst(errors: "Sequence[TensorError]") -> str:
    rows = [
        (
            "PASS" if error.passes else "**FAIL**",
            escaped(error.module),
            escaped(error.tensor),
            escaped(error.phase),
            escaped(error.level),
            *beside(error.ratio, error.limit),
            f"{error.error:.1e}",
        )
        for error in worst_tensors(errors)
    ]
    header = ("outcome", "module", "tensor", "phase", "level", "x accepted error", "limit", "relative error")
    return table(header, rows, "lllllrrr") if rows else ""
