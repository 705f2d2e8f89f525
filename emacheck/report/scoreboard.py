"""The scoreboard as text for a terminal and as Markdown."""

import textwrap
from collections.abc import Sequence

from emacheck.judge.figures import beside
from emacheck.judge.scoreboard import Entry
from emacheck.judge.verdict import Verdict
from emacheck.printable import MESSAGE_LENGTH, printable
from emacheck.report.markdown_text import escaped, table
from emacheck.report.wording import headline

NARROWEST = 40


def scoreboard_text(verdict: Verdict, entries: Sequence[Entry], *, width: int = 100) -> str:
    """Return the scoreboard as lines for a terminal, without a newline at the end.

    Args:
        verdict: Our verdict, shown first.
        entries: What the rules of the field say.
        width: Columns at which sentences are wrapped.

    Returns:
        The text.

    Example:
        >>> from emacheck import Curve, Record, compare, decide, make_rules
        >>> from emacheck.judge.scoreboard import scoreboard
        >>> def record(factor):
        ...     loss = Curve(name="loss", iterations=range(1, 21), values=[4.0 * factor] * 20)
        ...     return Record(name="cpu", format="example", curves={"loss": loss})
        >>> comparison = compare(record(1.0), record(0.6))
        >>> verdict = decide(comparison, make_rules(["mean_relative_error"]))
        >>> print(scoreboard_text(verdict, scoreboard(comparison, verdict)[:1]))
        outcome  rule      observed  limit
        FAIL     emacheck
                 mean_relative_error 0.4 (limit 0.05) at iteration 1
        PASS     modelzoo      -0.4   0.05
                 passes because its errors are signed: unsigned it is 0.4
    """
    width = max(width, NARROWEST)
    rows = [("outcome", "rule", "observed", "limit"), (str(verdict.outcome), "emacheck", "", "")]
    rows += [(str(e.outcome), printable(e.rule), *_figures(e)) for e in entries]
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    margin = " " * (sizes[0] + 2)
    sentences = ["", _ours(verdict), *(e.sentence for e in entries)]
    lines = []
    for (outcome, rule, observed, limit), sentence in zip(rows, sentences, strict=True):
        cells = (outcome.ljust(sizes[0]), rule.ljust(sizes[1]), observed.rjust(sizes[2]), limit.rjust(sizes[3]))
        lines.append("  ".join(cells).rstrip())
        lines += textwrap.wrap(
            printable(sentence, length=MESSAGE_LENGTH),
            width,
            initial_indent=margin,
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def scoreboard_markdown(verdict: Verdict, entries: Sequence[Entry]) -> str:
    """Return the scoreboard as a table in GitHub's Markdown, without a newline at the end.

    Args:
        verdict: Our verdict, shown first.
        entries: What the rules of the field say.

    Returns:
        The table.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> from emacheck.judge.scoreboard import scoreboard
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> comparison = compare(record, record)
        >>> verdict = decide(comparison)
        >>> print(scoreboard_markdown(verdict, scoreboard(comparison, verdict)).splitlines()[-1])
        | bitwise | PASS | 0 | 0 | agrees: all 20 iterations are equal |
    """
    header = ("rule", "outcome", "observed", "limit", "why")
    rows = [
        ("**emacheck**", f"**{verdict.outcome}**", "", "", escaped(_ours(verdict))),
        *((escaped(e.rule), str(e.outcome), *_figures(e), escaped(e.sentence)) for e in entries),
    ]
    return table(header, rows, "llrrl")


def _figures(entry: Entry) -> tuple[str, str]:
    return beside(entry.observed, entry.limit)


def _ours(verdict: Verdict) -> str:
    return headline(verdict).removeprefix(str(verdict.outcome)).lstrip(": ")
