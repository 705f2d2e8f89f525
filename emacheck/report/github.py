"""The verdict as annotations of a GitHub workflow run."""

from emacheck.judge.verdict import Finding, Outcome, Verdict
from emacheck.printable import MESSAGE_LENGTH, printable
from emacheck.report.wording import evidence_sentence, figures, full_label, headline

COMMANDS = {Outcome.FAIL: "error", Outcome.INCONCLUSIVE: "warning"}


def annotations(verdict: Verdict) -> list[str]:
    """Return workflow commands, one for each finding that did not pass, the worst first, or one notice for a PASS.

    Print each on a line of its own; append :func:`emacheck.report.markdown.markdown` to ``$GITHUB_STEP_SUMMARY``.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> annotations(decide(compare(record, record)))
        ['::notice title=emacheck::PASS finite 0 (limit 0), bit-identical (rests on curves alone, without an audit)']
    """
    if verdict.outcome is Outcome.PASS:
        said = f"{headline(verdict)} (rests on {evidence_sentence(verdict)})"
        return [_annotation("notice", "emacheck", said)]
    findings = [finding for finding in verdict.findings if finding.outcome is not Outcome.PASS]
    if not findings:
        return [_annotation("warning", "emacheck", headline(verdict))]
    # GitHub shows ten errors and ten warnings of a step: the one that decided comes first.
    worst = verdict.worst
    findings.sort(key=lambda finding: finding is not worst)
    return [_annotation(COMMANDS[f.outcome], f"emacheck {full_label(f)}", _message(f)) for f in findings]


def _message(finding: Finding) -> str:
    observed, limit = figures(finding)
    message = printable(finding.message, newlines=True, length=MESSAGE_LENGTH)
    return f"{finding.outcome}: observed {observed}, limit {limit}. {message}"


def _annotation(command: str, title: str, message: str) -> str:
    title = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{command} title={title}::{_escaped(message)}"


def _escaped(message: str) -> str:
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
