"""The page: a pure function of a verdict, or of an audit alone, filled into a template that obeys no data."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from emacheck.judge.verdict import Verdict
from emacheck.printable import printable, shortened
from emacheck.report.contrast import experiment_sentence
from emacheck.report.html import sections
from emacheck.report.html.audited import AuditPart, ExplanationPart, audit_part, operators_part
from emacheck.report.html.chart import chart
from emacheck.report.html.drawing import Drawing
from emacheck.report.html.sections import FindingRow, Table
from emacheck.report.wording import (
    divergence_sentence,
    evidence_sentence,
    first_curve,
    headline,
    hint_sentence,
    left_out_sentences,
    next_sentence,
)

if TYPE_CHECKING:
    from jinja2 import Template

    from emacheck.audit.findings.result import AuditResult

TITLE_LENGTH = 50
AUDIT_ALONE = "an audit of the device alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All that the template fills in; what is empty is left out."""

    outcome: str
    title: str
    headline: str
    names: tuple[str, ...] = ()
    deciding: tuple[str, ...]
    unit: str
    rests_on: str
    next_step: str = ""
    command: str
    limiting: int = 0
    compared: Table | None = None
    in_common: str = ""
    where: str = ""
    hint: str = ""
    experiment: str = ""
    curves: tuple[tuple[str, Drawing, Table], ...] = ()
    more_metrics: int = 0
    failed: tuple[FindingRow, ...] = ()
    passed: tuple[FindingRow, ...] = ()
    left_out: tuple[str, ...] = ()
    audit: AuditPart | None = None
    explanations: tuple[ExplanationPart, ...] = ()
    not_looked_at: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    oddities: tuple[tuple[str, str], ...] = ()
    headers: Table | None = None
    provenance: Table | None = None
    machine: Table | None = None


def html(verdict: Verdict, *, command: str, environment: Mapping[str, Any], audit: "AuditResult | None" = None) -> str:
    """Return the verdict as a page that needs nothing but a browser: no other file, no network and no script.

    Args:
        verdict: What was decided.
        command: The command that reproduces it.
        environment: What is known about the machine and the software that judged.
        audit: The audit of the device, None where there was none.

    Returns:
        The page, with a newline at the end.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> shown = html(decide(compare(record, record)), command="emacheck compare a b", environment={})
        >>> "<title>PASS cpu against cpu - emacheck</title>" in shown
        True
    """
    comparison = verdict.comparison
    metrics, more_metrics = sections.shown_metrics(verdict)
    names = tuple(printable(record.name) for record in (comparison.candidate, comparison.reference))
    outcome = str(verdict.outcome)
    page = Page(
        outcome=outcome,
        title=f"{outcome} {' against '.join(shortened(name, TITLE_LENGTH) for name in names)} - emacheck",
        names=names,
        headline=headline(verdict).removeprefix(outcome).lstrip(": "),
        deciding=sections.deciding_lines(verdict),
        unit=printable(verdict.worst.unit) if verdict.worst is not None else "",
        rests_on=evidence_sentence(verdict),
        next_step=next_sentence(verdict),
        compared=sections.compared(verdict),
        in_common=sections.in_common(verdict, first_curve(verdict)),
        where=divergence_sentence(verdict),
        hint=hint_sentence(verdict),
        experiment=experiment_sentence(verdict),
        curves=tuple(
            (printable(metric), chart(verdict, metric), sections.largest_differences(comparison.curve(metric)))
            for metric in metrics
        ),
        more_metrics=more_metrics,
        failed=sections.finding_rows(verdict, passed=False),
        passed=sections.finding_rows(verdict, passed=True),
        left_out=tuple(left_out_sentences(verdict)),
        limiting=sections.limiting(verdict),
        oddities=sections.oddities(verdict),
        headers=sections.differing_headers(verdict),
        provenance=sections.provenance(verdict),
        **_audited(audit),
        machine=sections.machine(environment),
        command=printable(command, length=None),
    )
    return _filled(page)


def audit_html(audit: "AuditResult", *, command: str) -> str:
    """Return an audit alone as such a page.

    Args:
        audit: What was found.
        command: The command that reproduces it.

    Example:
        >>> from emacheck.audit.findings.result import AuditResult
        >>> shown = audit_html(AuditResult(device="sdaa", precision="fp32", errors=(), findings=()), command="")
        >>> "<title>INCONCLUSIVE audit on sdaa in fp32 - emacheck</title>" in shown
        True
    """
    from emacheck.audit.findings.text import last_line
    from emacheck.audit.findings.verdict import audit_finding

    outcome = str(audit.outcome)
    where = printable(f"{audit.where} in {audit.precision}", length=2 * TITLE_LENGTH)
    page = Page(
        outcome=outcome,
        title=f"{outcome} audit {where} - emacheck",
        headline=printable(last_line(audit, command="").removeprefix(f"{outcome} ").removesuffix(" | "), length=None),
        deciding=sections.message_lines(audit_finding(audit)),
        unit=audit_finding(audit).unit,
        rests_on=AUDIT_ALONE,
        limiting=len(audit.notes),
        **_audited(audit),
        command=printable(command, length=None),
    )
    return _filled(page)


def _audited(audit: "AuditResult | None") -> dict[str, Any]:
    if audit is None:
        return {}
    part = audit_part(audit)
    explanations, not_looked_at = ((), ()) if audit.operators is None else operators_part(audit.operators)
    return {"audit": part, "notes": part.notes, "explanations": explanations, "not_looked_at": not_looked_at}


def _filled(page: Page) -> str:
    style = _part("style.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    values = {name: getattr(page, name) for name in Page.__dataclass_fields__}
    return _template().render(style=style, style_hash=f"sha256-{digest}", **values) + "\n"


@cache
def _template() -> "Template":
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        # Whatever was not made printable before: nothing that a browser would hide or reorder gets through.
        return value if isinstance(value, Markup) else printable(str(value), length=None)

    made = Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["style"] = Markup  # the stylesheet is ours, and nothing else goes through it
    return made.get_template("page.html.jinja")


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
