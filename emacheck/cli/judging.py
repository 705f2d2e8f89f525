"""The options by which a verdict is reached and shown, shared by the commands that reach one."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from emacheck.cli.command_line import given_command
from emacheck.cli.limits_file import Limits, read_limits
from emacheck.cli.output_format import format_option
from emacheck.errors import OutputError, UsageError

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult
    from emacheck.judge import Outcome, Verdict
    from emacheck.judge.comparison import Comparison

Command = TypeVar("Command", bound=Callable[..., Any])
REPORTS = ("report.json", "report.md", "report.png", "report.html", "card.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """What the user asked for: rules, limits, and how the verdict is shown."""

    rule: tuple[str, ...]
    limit: tuple[str, ...]
    limits: Path | None
    require: tuple[str, ...]
    metric: tuple[str, ...]
    output_format: str
    junit: Path | None
    github: bool
    plot: Path | None
    html: Path | None
    card: Path | None

    @property
    def files(self) -> dict[str, Path | None]:
        """The files that the user asked for, by option."""
        return {"--junit": self.junit, "--plot": self.plot, "--html": self.html, "--card": self.card}


OPTIONS = (
    click.option("--metric", multiple=True, metavar="NAME", help="Metric to judge (repeatable).  [default: loss]"),
    click.option(
        "--rule",
        multiple=True,
        metavar="NAME",
        help="Rule to use, such as bias (repeatable).  [default: those that suit the logs]",
    ),
    click.option(
        "--limit",
        multiple=True,
        metavar="RULE[.FIELD]=VALUE",
        help="Set a rule's limit, such as bias=0.02 (repeatable).",
    ),
    click.option(
        "--limits",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        help="Set limits of the rules in use from a TOML file.",
    ),
    click.option(
        "--require",
        multiple=True,
        metavar="RULE",
        help="No PASS without this rule, such as fingerprints (repeatable).",
    ),
    format_option("text", "json", "markdown"),
    click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML."),
    click.option("--github", is_flag=True, help="Write GitHub annotations and the job summary."),
    click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the curves."),
    click.option(
        "--html",
        type=click.Path(path_type=Path),
        metavar="FILE.html",
        help="Write the report as one page for a browser.",
    ),
    click.option(
        "--card", type=click.Path(path_type=Path), metavar="FILE.md", help="Write a dozen lines for a pull request."
    ),
)


def judging_options(command: Command) -> Command:
    """Add the judging options to a command; it receives them as one ``judging`` argument."""

    def gathered(**values: Any) -> Any:
        fields = {name: values.pop(name) for name in Judging.__dataclass_fields__}
        return command(judging=Judging(**fields), **values)

    gathered.__doc__, gathered.__name__ = command.__doc__, command.__name__
    wrapped: Any = gathered
    wrapped.__click_params__ = list(getattr(command, "__click_params__", []))
    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def check_rules(judging: Judging) -> None:
    """Refuse, before anything is trained, rules and limits that there are not.

    Raises:
        UsageError: If there are none of that name, or the value is none.
    """
    from emacheck.judge import make_rules

    if judging.limits:
        read_limits(judging.limits)
    make_rules(judging.require)
    limits: Limits = {}
    for text in judging.limit:
        rule, field, value = _parse_limit(text)
        limits.setdefault(rule, {})[field] = value
    make_rules((*judging.rule, *judging.require) if judging.rule else tuple(limits), limits)


def reach_verdict(comparison: "Comparison", judging: Judging) -> "Verdict":
    """Apply the rules and limits that the user asked for."""
    from emacheck.judge import RULES, decide, default_rules, make_rules

    suitable = default_rules(comparison)
    from_file, in_file = read_limits(judging.limits) if judging.limits else ({}, ())
    required = (*judging.require, *in_file)
    names = judging.rule or suitable
    names = (*names, *(name for name in required if name in suitable and name not in names))
    limits = {name: fields for name, fields in from_file.items() if name in names}
    for text in judging.limit:
        rule, field, value = _parse_limit(text)
        limits.setdefault(rule, {})[field] = value
        if rule in RULES and rule not in names and not judging.rule:
            raise UsageError(f"--limit {text}: {_why_not_used(rule, comparison)}")
    return decide(comparison, make_rules(names, limits), named=(*judging.rule, *limits), required=required)


def _why_not_used(rule: str, comparison: "Comparison") -> str:
    """Say why a rule that a limit was set for is not among those that suit the logs, and what to do."""
    from emacheck.judge import RULES
    from emacheck.judge.required import why_not_judged

    why = why_not_judged(comparison, RULES[rule]())[0].message.rstrip(".")
    return (
        f"the rule {rule} is not used here: {why}. A limit that you set requires its rule, so there is no verdict. "
        f"Give logs that have what it needs (emacheck explain {rule}), name all rules to use (--rule {rule} ...), or "
        "drop the limit to judge without the rule."
    )


def with_audit(verdict: "Verdict", audit: "AuditResult | None") -> "Verdict":
    """Return a verdict that rests on an audit of the device as well."""
    from emacheck.audit.findings.verdict import audit_finding

    if audit is None:
        return verdict
    said = [remark for finding in verdict.findings for remark in finding.limited_by]
    return replace(verdict, findings=(audit_finding(audit, said=said), *verdict.findings))


def _parse_limit(text: str) -> tuple[str, str, float]:
    key, separator, value = text.partition("=")
    rule, _, field = key.partition(".")
    try:
        if separator:
            return rule, field or "limit", float(value)
    except ValueError:
        pass
    raise UsageError(f"--limit {text}: expected RULE=NUMBER or RULE.FIELD=NUMBER, such as mean_relative_error=0.01")


def deliver(
    verdict: "Verdict",
    judging: Judging,
    *,
    directory: Path | None = None,
    new_directory: Path | None = None,
    scoreboard: bool = False,
    audit: "AuditResult | None" = None,
    logs: tuple[str, str] | None = None,
) -> int:
    """Write and print everything the user asked for.

    Args:
        verdict: What to show.
        judging: How to show it.
        scoreboard: Show beside it what the rules that others use say.
        directory: Where the files of :data:`REPORTS` go, or None for no reports.
        new_directory: The same, of a directory that is not there yet and is made with them in it.
        audit: The audit that the verdict rests on; its own files are in the directory already.
        logs: The logs of reference and candidate, as they were named.

    Returns:
        The exit code of the outcome.
    """
    from emacheck.report.write import write_together

    command = given_command()
    files = _files(verdict, judging, command, audit=audit, directory=directory or new_directory, logs=logs)
    write_together(files, new=new_directory)
    if judging.github:
        _tell_github(verdict, command, audit, to_stderr=judging.output_format != "text")
    if judging.output_format == "json":
        click.echo(_json(verdict, command, audit), nl=False)
    elif judging.output_format == "markdown":
        click.echo(_markdown(verdict, command, audit), nl=False)
        if scoreboard:
            from emacheck.report.scoreboard import scoreboard_markdown

            click.echo(scoreboard_markdown(verdict, _scores(verdict)))
    else:
        if scoreboard:
            from emacheck.report.scoreboard import scoreboard_text

            click.echo(scoreboard_text(verdict, _scores(verdict)) + "\n")
        _print_text(verdict, command, directory or new_directory)
    return exit_code(verdict.outcome)


def _files(
    verdict: "Verdict",
    judging: Judging,
    command: str,
    *,
    audit: "AuditResult | None",
    directory: Path | None,
    logs: tuple[str, str] | None,
) -> dict[Path, str | bytes]:
    files: dict[Path, str | bytes] = {}
    page = _html(verdict, command, audit) if directory or judging.html else ""
    card = _card(verdict, command, logs) if directory or judging.card else ""
    picture = b""
    if directory or judging.plot:
        from emacheck.report.plot import draw

        picture = draw(verdict)
    if directory is not None:
        markdown = _markdown(verdict, command, audit, pictures=True)
        contents: tuple[str | bytes, ...] = (_json(verdict, command, audit), markdown, picture, page, card)
        files |= {directory / name: content for name, content in zip(REPORTS, contents, strict=True)}
    asked: tuple[tuple[Path | None, str | bytes], ...] = (
        (judging.plot, picture),
        (judging.html, page),
        (judging.card, card),
    )
    files |= {path: content for path, content in asked if path is not None}
    if judging.junit is not None:
        from emacheck.report.junit import junit

        files[judging.junit] = junit(verdict, command=command)
    return files


def exit_code(outcome: "Outcome") -> int:
    """Return the documented exit code of an outcome."""
    return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[outcome.value]


def _scores(verdict: "Verdict") -> Any:
    from emacheck.judge.scoreboard import scoreboard

    return scoreboard(verdict.comparison, verdict, rank_0=verdict.comparison.rank_0)


def _json(verdict: "Verdict", command: str, audit: "AuditResult | None") -> str:
    from emacheck.report.document import document
    from emacheck.strict_json import to_json

    return to_json(document(verdict, command=command, environment=_environment(), audit=audit))


def _markdown(verdict: "Verdict", command: str, audit: "AuditResult | None", *, pictures: bool = False) -> str:
    from emacheck.report.markdown import markdown

    plot, audit_plot = ("report.png", "audit.png") if pictures else (None, None)
    return markdown(verdict, command=command, environment=_environment(), plot=plot, audit=audit, audit_plot=audit_plot)


def _html(verdict: "Verdict", command: str, audit: "AuditResult | None") -> str:
    from emacheck.report.html.page import html

    return html(verdict, command=command, environment=_environment(), audit=audit)


def _card(verdict: "Verdict", command: str, logs: tuple[str, str] | None) -> str:
    from emacheck.logs.reading import hash_of_file
    from emacheck.report.card import card

    hashes = (None, None) if logs is None else (hash_of_file(logs[0]), hash_of_file(logs[1]))
    return card(verdict, command=command, environment=_environment(), hashes=hashes)


def _print_text(verdict: "Verdict", command: str, directory: Path | None) -> None:
    import shutil

    from emacheck.report.text import text

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if directory is not None:
        audited = ", audit.html, audit.txt, audit.json, audit.png" if "audit" in verdict.evidence else ""
        beside = f"report.md, report.json, report.png, card.md{audited} beside it"
        click.echo(f"Report: {directory / 'report.html'}  ({beside})")
    click.echo(text(verdict, command=command, colour=colour, width=shutil.get_terminal_size((100, 24)).columns))


def _tell_github(verdict: "Verdict", command: str, audit: "AuditResult | None", *, to_stderr: bool) -> None:
    from emacheck.report.github import annotations
    from emacheck.report.write import append

    # GitHub reads workflow commands from both streams, so standard output can stay pure JSON.
    for line in annotations(verdict):
        click.echo(line, err=to_stderr)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            append(Path(summary), _markdown(verdict, command, audit))
        except OSError as error:
            raise OutputError(f"$GITHUB_STEP_SUMMARY {summary}: cannot be written ({error.strerror}).") from error


def _environment() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    from emacheck import __version__

    return {
        "emacheck": __version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "system": platform.system(),
        "machine": platform.machine(),
    }
