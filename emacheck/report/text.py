"""The verdict for a terminal: to be understood in five seconds, greppable, without any control over the terminal.

Plain string formatting on purpose: ``emacheck compare`` must start quickly, so only click is imported, and only for
colour.
"""

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

from emacheck.counted import counted
from emacheck.judge import RULES
from emacheck.judge.verdict import AUDIT, Finding, Outcome, Verdict
from emacheck.oddity import Effect, shown
from emacheck.printable import MESSAGE_LENGTH, printable
from emacheck.record import Record
from emacheck.report.contrast import experiment_sentence
from emacheck.report.wording import (
    divergence_sentence,
    evidence_sentence,
    explained,
    figures,
    first_curve,
    headline,
    hint_sentence,
    label,
    left_out_sentences,
    needs,
    start_sentence,
)

NARROWEST = 40
MARGIN = " " * 11
MOST_ODDITIES = 8
COLOURS = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.INCONCLUSIVE: "yellow"}


def text(verdict: Verdict, *, command: str, colour: bool, width: int = 100) -> str:
    """Return the verdict as lines for a terminal, without a newline at the end.

    The last line is never wrapped: outcome, rule, observed, limit and iteration, then `` | `` and the command.

    Args:
        verdict: What was decided.
        command: The command that reproduces it.
        colour: Colour the outcomes; the words say the same.
        width: Columns at which sentences are wrapped.

    Returns:
        The text.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> shown = text(decide(compare(record, record)), command="emacheck compare a b", colour=False)
        >>> shown.splitlines()[-1]
        'PASS finite 0 (limit 0), bit-identical | emacheck compare a b'
    """
    width = max(width, NARROWEST)
    last = f"{headline(verdict)} | {printable(command, length=None)}"
    outcome = str(verdict.outcome)
    lines = [
        *_records(verdict, width),
        "",
        *_table(verdict, colour=colour),
        *_messages(verdict, width),
        *(line for sentence in left_out_sentences(verdict) for line in _wrapped(sentence, width)),
        *_wrapped(divergence_sentence(verdict), width),
        *_wrapped(hint_sentence(verdict), width),
        *_wrapped(experiment_sentence(verdict), width),
        *_explanation(verdict),
        "",
        _painted(outcome, verdict.outcome, colour=colour) + last[len(outcome) :],
    ]
    return "\n".join(lines)


def _records(verdict: Verdict, width: int) -> Iterator[str]:
    comparison = verdict.comparison
    metric = comparison.metrics[0]
    names = [printable(record.name) for _, record in comparison.sides]
    extents = [f"{printable(record.format)}, {_extent(record, metric)}" for _, record in comparison.sides]
    column = max(map(_cells, names))
    fits = len(MARGIN) + column + 2 + max(map(_cells, extents)) <= width
    for (side, record), name, extent in zip(comparison.sides, names, extents, strict=True):
        if fits:
            yield f"{side}  {name}{' ' * (column - _cells(name))}  {extent}"
        else:
            yield f"{side}  {name}"
            yield from _wrapped(MARGIN + extent, width, MARGIN)
        yield from _oddities(record, width)
    count = len(first_curve(verdict).iterations)
    yield from _wrapped(f"in common  {counted(count, 'iteration')}; {start_sentence(verdict)}", width, MARGIN)
    yield from _wrapped(f"rests on   {evidence_sentence(verdict)}", width, MARGIN)


def _oddities(record: Record, width: int) -> Iterator[str]:
    if not record.complete:
        yield f"{MARGIN}! the run ended before its time"
    # What limits the verdict comes first, so that it is not among those that are only counted.
    ordered = sorted(record.oddities, key=lambda oddity: oddity.effect is Effect.NOTE)
    for oddity in ordered[:MOST_ODDITIES]:
        message = f"{shown(oddity, printable(oddity.message, length=MESSAGE_LENGTH))} [{oddity.kind}]"
        yield from _wrapped(f"{MARGIN}! {message}", width, f"{MARGIN}  ")
    if len(record.oddities) > MOST_ODDITIES:
        yield f"{MARGIN}! and {counted(len(record.oddities) - MOST_ODDITIES, 'more oddity', 'more oddities')}"


def _extent(record: Record, metric: str) -> str:
    curve = record.curves.get(metric)
    if curve is None or not len(curve):
        return f"no values of {printable(metric)}"
    return f"{counted(len(curve), 'iteration')} of {printable(metric)}, {curve.iterations[0]} to {curve.iterations[-1]}"


def _table(verdict: Verdict, *, colour: bool) -> Iterator[str]:
    if not verdict.findings:
        return
    rows = [("outcome", "rule", "observed", "limit", "needs"), *(_row(verdict, f) for f in verdict.findings)]
    widths = [max(map(_cells, column)) for column in zip(*rows, strict=True)]
    for i, row in enumerate(rows):
        outcome, rule, *numbers = _padded(row, widths)
        shown = _painted(outcome, verdict.findings[i - 1].outcome, colour=colour) if i else outcome
        yield "  ".join((shown, rule, *numbers)).rstrip()
    yield ""


def _row(verdict: Verdict, finding: Finding) -> tuple[str, str, str, str, str]:
    return (str(finding.outcome), label(verdict, finding), *figures(finding), needs(finding))


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Pad words to the left and numbers to the right edge of their columns."""
    gaps = [" " * (width - _cells(cell)) for cell, width in zip(row, widths, strict=True)]
    return [cell + gap if i < 2 else gap + cell for i, (cell, gap) in enumerate(zip(row, gaps, strict=True))]


def _cells(shown: str) -> int:
    """Return how many columns of a terminal ``shown`` takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in shown)


def _messages(verdict: Verdict, width: int) -> Iterator[str]:
    for finding in verdict.findings:
        if finding.rule == "modelzoo":
            # Scripts look for these lines as the model zoo's own script prints them: flush left, never wrapped.
            yield from printable(finding.message, newlines=True, length=None).split("\n")
        elif explained(finding):
            message = printable(finding.message, newlines=True, length=MESSAGE_LENGTH)
            for line in f"{label(verdict, finding)}: {message}".split("\n"):
                yield from _wrapped(line, width, "  ")


def _explanation(verdict: Verdict) -> Iterator[str]:
    """Say how to have the rule explained that the last line names, unless it passes or is the user's own."""
    worst = verdict.worst
    if worst is not None and worst.outcome is not Outcome.PASS and worst.rule in (*RULES, AUDIT):
        yield f"What {worst.rule} asks, and what to do: emacheck explain {worst.rule}"


def _wrapped(line: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _painted(word: str, outcome: Outcome, *, colour: bool) -> str:
    if not colour:
        return word
    import click

    return click.style(word, fg=COLOURS[outcome], bold=True)
