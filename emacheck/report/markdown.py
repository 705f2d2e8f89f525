"""The verdict as Markdown, for a merge request, a wiki or the summary of a CI job."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from emacheck.counted import counted
from emacheck.judge.verdict import Finding, Outcome, Verdict
from emacheck.oddity import Effect, shown
from emacheck.printable import printable
from emacheck.report.audited import audit_markdown
from emacheck.report.contrast import experiment_sentence, header_differences
from emacheck.report.markdown_text import code_block, escaped, table
from emacheck.report.records import extent, scalars
from emacheck.report.wording import (
    divergence_sentence,
    evidence_sentence,
    explained,
    figures,
    first_curve,
    headline,
    hint_sentence,
    left_out_sentences,
    needs,
    start_sentence,
)

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult

MOST_ROWS = 40
MOST_REMARKS = 100
"""GitHub shows no summary of a job beyond 1 MiB."""


def markdown(
    verdict: Verdict,
    *,
    command: str,
    environment: Mapping[str, Any],
    plot: str | None,
    audit: "AuditResult | None" = None,
    audit_plot: str | None = None,
) -> str:
    """Return the verdict as a document in GitHub's Markdown.

    Args:
        verdict: What was decided.
        command: The command that reproduces it.
        environment: What is known about the machine and the software that judged.
        plot: Name of the picture, relative to where the document will lie; None for no picture.
        audit: The audit of the device, None where there was none.
        audit_plot: Name of the picture of the audit, likewise.

    Returns:
        The document, with a newline at the end.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> shown = markdown(decide(compare(record, record)), command="emacheck compare a b", environment={}, plot=None)
        >>> print(shown.splitlines()[0])
        # emacheck: PASS
    """
    blocks = [
        f"# emacheck: {verdict.outcome}",
        f"{escaped(headline(verdict))}.",
        f"The verdict rests on {evidence_sentence(verdict)}.",
        _findings(verdict),
        _messages(verdict),
        *(escaped(sentence, length=None) for sentence in left_out_sentences(verdict)),
        f"Where they part: {escaped(divergence_sentence(verdict))}",
        escaped(hint_sentence(verdict), length=None),
        escaped(experiment_sentence(verdict), length=None),
        f"![Curves of reference and candidate]({quote(plot)})" if plot else "",
        *(audit_markdown(audit, picture=audit_plot) if audit is not None else ()),
        "## Records",
        _records(verdict),
        "\n".join(_oddities(verdict)),
        _headers(verdict),
        *_environment(environment),
        "## How to read this",
        "Every rule holds an observed number against a limit: PASS is within it, FAIL is not, and INCONCLUSIVE means "
        "that the records do not allow a decision, which is never a PASS. A verdict is FAIL if any rule fails, and "
        "*needs* is the smallest limit with which the rule would have passed.",
        "## Reproduce",
        code_block(printable(command, length=None)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _findings(verdict: Verdict) -> str:
    rows = [_finding(finding) for finding in verdict.findings]
    header = ("outcome", "rule", "metric", "observed", "limit", "needs", "worst iteration")
    return table(header, rows, "lllrrrr") if rows else ""


def _finding(finding: Finding) -> tuple[str, ...]:
    outcome = str(finding.outcome)
    return (
        outcome if finding.outcome is Outcome.PASS else f"**{outcome}**",
        escaped(finding.rule),
        escaped(finding.metric),
        *figures(finding),
        needs(finding),
        "" if finding.iteration is None else str(finding.iteration),
    )


def _messages(verdict: Verdict) -> str:
    lines = []
    for finding in verdict.findings:
        if explained(finding):
            message = "<br>".join(escaped(line) for line in finding.message.split("\n"))
            about = f" of {escaped(finding.metric)}" if finding.metric else ""
            lines.append(f"- {escaped(finding.rule)}{about}: {message}")
    return "\n".join(lines)


def _records(verdict: Verdict) -> str:
    comparison = verdict.comparison
    sides = (comparison.reference, comparison.candidate)
    metric = comparison.metrics[0]
    extents = [extent(record, metric) for record in sides]
    rows = [
        ("name", *(escaped(record.name) for record in sides)),
        ("format", *(escaped(record.format) for record in sides)),
        (f"iterations of {escaped(metric)}", *extents),
        ("complete", *("yes" if record.complete else "**no**" for record in sides)),
    ]
    provenances = [scalars(record.provenance) for record in sides]
    keys = list(dict.fromkeys([*provenances[0], *provenances[1]]))[:MOST_ROWS]
    rows += [(escaped(key), *(escaped(known.get(key, "")) for known in provenances)) for key in keys]
    shown_rows = table(("", "reference", "candidate"), rows, "lll")
    count = len(first_curve(verdict).iterations)
    return f"{shown_rows}\n\nIn common: {counted(count, 'iteration')}; {escaped(start_sentence(verdict))}."


def _headers(verdict: Verdict) -> str:
    differing = header_differences(verdict)
    if not differing:
        return ""
    rows = [tuple(escaped(cell) for cell in row) for row in differing[:MOST_ROWS]]
    more = f"\n\n... and {len(differing) - MOST_ROWS} more." if len(differing) > MOST_ROWS else ""
    return "What the logs' headers say differently:\n\n" + table(("", "reference", "candidate"), rows, "lll") + more


def _oddities(verdict: Verdict) -> Iterator[str]:
    found = [(side, oddity) for side, record in verdict.comparison.sides for oddity in record.oddities]
    if len(found) > MOST_REMARKS:  # what limits the verdict is not among those that are only counted
        found.sort(key=lambda each: each[1].effect is Effect.NOTE)
    for side, oddity in found[:MOST_REMARKS]:
        yield f"- {side}: {shown(oddity, escaped(oddity.message))}"
    if len(found) > MOST_REMARKS:
        yield f"- and {counted(len(found) - MOST_REMARKS, 'more oddity', 'more oddities')}"


def _environment(environment: Mapping[str, Any]) -> tuple[str, ...]:
    rows = [(escaped(key), escaped(value)) for key, value in scalars(environment).items()]
    return ("## Judged with", table(("", ""), rows[:MOST_ROWS], "ll")) if rows else ()
