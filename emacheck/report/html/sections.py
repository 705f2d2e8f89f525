"""What the page shows of a verdict, as rows of plain text."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from emacheck.counted import counted
from emacheck.judge.comparison import PairedCurve
from emacheck.judge.figures import number
from emacheck.judge.verdict import AUDIT, Finding, Outcome, Verdict
from emacheck.oddity import Effect, shown
from emacheck.printable import MESSAGE_LENGTH, printable
from emacheck.report.contrast import header_differences
from emacheck.report.records import extent, scalars
from emacheck.report.wording import explained, figures, full_label, metrics_to_look_at, needs, start_sentence

MOST_ROWS = 200
MOST_CURVES = 6
MOST_VALUES = 10
MOST_REMARKS = 100
# What tells runs apart at first sight, in the words of their provenance.
FOREMOST = ("device", "device type", "device name", "precision", "processes", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """One finding; ``lines`` is its message."""

    outcome: str
    rule: str
    metric: str
    observed: str
    limit: str
    needs: str
    iteration: str
    unit: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text, and how many more there are."""

    rows: tuple[tuple[str, ...], ...] = ()
    more: int = 0

    def __bool__(self) -> bool:
        return bool(self.rows)


def finding_rows(verdict: Verdict, *, passed: bool) -> tuple[FindingRow, ...]:
    """Return the findings that passed, or those that did not, FAIL before INCONCLUSIVE."""
    chosen = [finding for finding in verdict.findings if (finding.outcome is Outcome.PASS) is passed]
    return tuple(_finding(finding) for finding in sorted(chosen, key=lambda each: each.outcome is not Outcome.FAIL))


def _finding(finding: Finding) -> FindingRow:
    observed, limit = figures(finding)
    return FindingRow(
        outcome=str(finding.outcome),
        rule=printable(finding.rule),
        metric=printable(finding.metric),
        observed=observed,
        limit=limit,
        needs=needs(finding),
        iteration="" if finding.iteration is None else str(finding.iteration),
        unit=printable(finding.unit),
        lines=message_lines(finding),
    )


def message_lines(finding: Finding) -> tuple[str, ...]:
    """Return a finding's message, line by line."""
    return tuple(printable(line, length=MESSAGE_LENGTH) for line in finding.message.split("\n"))


def deciding_lines(verdict: Verdict) -> tuple[str, ...]:
    """Return the message of the finding that the headline names, unless it is a plain PASS."""
    worst = verdict.worst
    return message_lines(worst) if worst is not None and explained(worst) else ()


def compared(verdict: Verdict) -> Table:
    """Return name, format, extent and what is known first about both records."""
    sides = (verdict.comparison.reference, verdict.comparison.candidate)
    metric = verdict.comparison.metrics[0]
    rows = [
        ("name", *(printable(record.name) for record in sides)),
        ("format", *(printable(record.format) for record in sides)),
        (f"iterations of {printable(metric)}", *(extent(record, metric) for record in sides)),
        ("complete", *("yes" if record.complete else "no" for record in sides)),
    ]
    known = [scalars(record.provenance) for record in sides]
    rows += [(key, *(each.get(key, "") for each in known)) for key in FOREMOST if any(key in each for each in known)]
    return Table(rows=tuple(rows))


def provenance(verdict: Verdict) -> Table:
    """Return everything else that is known about how both records were made."""
    known = [scalars(record.provenance) for record in (verdict.comparison.reference, verdict.comparison.candidate)]
    keys = [key for key in dict.fromkeys([*known[0], *known[1]]) if key not in FOREMOST]
    rows = [(printable(key), *(each.get(key, "") for each in known)) for key in keys]
    return _cut(rows)


def in_common(verdict: Verdict, paired: PairedCurve) -> str:
    """Return how many iterations are compared, and whether the runs are paired."""
    return f"In common: {counted(len(paired.iterations), 'iteration')}; {start_sentence(verdict)}."


def shown_metrics(verdict: Verdict) -> tuple[tuple[str, ...], int]:
    """Return the metrics whose curves are drawn, and how many more there are."""
    metrics = metrics_to_look_at(verdict)
    return metrics[:MOST_CURVES], len(metrics[MOST_CURVES:])


def largest_differences(paired: PairedCurve) -> Table:
    """Return iteration, both values and their relative difference where that is largest, NaN first."""
    import numpy as np

    relative = paired.relative_difference
    size = np.where(np.isnan(relative), np.inf, np.abs(relative))
    order = [int(at) for at in np.argsort(-size, kind="stable")[:MOST_VALUES] if size[at] > 0]
    return Table(
        rows=tuple(
            (
                str(paired.iterations[at]),
                number(float(paired.reference[at]), digits=7),
                number(float(paired.candidate[at]), digits=7),
                number(float(relative[at]), signed=True),
            )
            for at in order
        )
    )


def oddities(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """Return side and message of everything that is odd about the records, what limits the verdict first."""
    sides = verdict.comparison.sides
    found = [(side, oddity) for side, record in sides for oddity in record.oddities]
    found.sort(key=lambda each: each[1].effect is Effect.NOTE)
    said = [(side, "the run ended before its time") for side, record in sides if not record.complete]
    said += _of_rules(verdict, told={f"the {side}: {oddity}" for side, oddity in found})
    said += [(side, shown(oddity, printable(oddity.message, length=MESSAGE_LENGTH))) for side, oddity in found]
    more = len(said) - MOST_REMARKS
    return (*said[:MOST_REMARKS], *([("", f"and {counted(more, 'more oddity', 'more oddities')}")] if more > 0 else []))


def _of_rules(verdict: Verdict, told: Collection[str]) -> list[tuple[str, str]]:
    """Return what limits the findings of curves beyond the oddities of the records, which ``told`` holds."""
    notes = {
        note: full_label(finding)
        for finding in verdict.findings
        for note in finding.limited_by
        if finding.rule != AUDIT and note not in told
    }
    return [(rule, f"{Effect.LIMITS}: {printable(note, length=MESSAGE_LENGTH)}") for note, rule in notes.items()]


def limiting(verdict: Verdict) -> int:
    """Return how many remarks limit what the verdict rests on."""
    return len(dict.fromkeys(note for finding in verdict.findings for note in finding.limited_by))


def differing_headers(verdict: Verdict) -> Table:
    """Return what the logs' headers say differently."""
    return _cut([tuple(printable(cell) for cell in row) for row in header_differences(verdict)])


def machine(environment: Mapping[str, Any]) -> Table:
    """Return what is known about the machine and the software that judged."""
    return _cut([(printable(key), value) for key, value in scalars(environment).items()])


def _cut(rows: list[tuple[str, ...]]) -> Table:
    return Table(rows=tuple(rows[:MOST_ROWS]), more=max(len(rows) - MOST_ROWS, 0))
