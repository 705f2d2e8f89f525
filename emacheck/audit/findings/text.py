"""An audit's result for a terminal: the outcome, the module to blame, and its worst tensors."""

import math

from emacheck.audit.findings.result import (
    ALONE,
    LEVELS,
    PHASES,
    AuditResult,
    ModuleFinding,
    TensorError,
    badness,
)
from emacheck.counted import counted
from emacheck.judge import figures
from emacheck.printable import printable

SHOWN_FINDINGS = 5
SHOWN_TENSORS = 3
RATIO_DIGITS = 3
# What each measure sees: everywhere, in one place, in the size of the whole, and where nothing is relative to a zero.
_MEASURES = {
    "norm": "relative error",
    "peak": "error in one place",
    "slope": "error of scale",
    "absolute": "absolute error",
}
_BOLD, _RED, _GREEN, _YELLOW, _OFF = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
_COLOURS = {"PASS": _GREEN, "FAIL": _RED, "INCONCLUSIVE": _YELLOW}


def text(result: AuditResult, *, command: str, colour: bool = False) -> str:
    """Return what a person reads: findings first, then a table of phases, then one line with the outcome.

    Args:
        result: The audit's result.
        command: The command that reproduces it.
        colour: Use terminal colours.
    """
    lines = [_head(result), ""]
    for finding in result.findings[:SHOWN_FINDINGS]:
        lines += _finding(finding, result, colour=colour)
    if len(result.findings) > SHOWN_FINDINGS:
        lines += [f"  ... and {counted(len(result.findings) - SHOWN_FINDINGS, 'more module')}", ""]
    if result.operators is not None:
        lines += [*(f"  operators: {_safe(line)}" for line in result.operators.lines), ""]
    lines += [*_table(result), ""]
    lines += [f"  note: {_safe(note)}" for note in result.notes] + ([""] if result.notes else [])
    lines.append(last_line(result, command=_safe(command), colour=colour))
    return "\n".join(lines)


def last_line(result: AuditResult, *, command: str, colour: bool = False) -> str:
    """Return the outcome, the worst tensor with its ratio and limit, and the command."""
    worst = result.worst
    outcome = _paint(result.outcome.value, _COLOURS[result.outcome.value], colour=colour)
    if result.findings:
        first = next((f for f in result.findings if f.outcome is result.outcome), result.findings[0])
        observed = f" {ratio_and_limit(first.ratio, first.limit)}" if first.tensor and first.limit else ""
        where = _safe(f"{first.module} {first.tensor}".rstrip())
        return f"{outcome} audit {where}{observed}, first in phase {first.phase} | {command}"
    if worst is None:
        return f"{outcome} audit compared nothing | {command}"
    where = _safe(f"{worst.module} {worst.tensor}")
    return f"{outcome} audit worst {ratio_and_limit(worst.ratio, worst.limit)} {where} | {command}"


def number(value: float) -> str:
    """Return a ratio in few characters.

    Example:
        >>> number(7057.41), number(3.917), number(float("inf"))
        ('7057', '3.92', 'infinite')
    """
    if math.isinf(value):
        return "infinite"
    return figures.number(value, digits=RATIO_DIGITS)


def ratio_beside(ratio: float, limit: float) -> tuple[str, str]:
    """Return a ratio and its limit, with more digits where both would look the same although the ratio is over it.

    Example:
        >>> ratio_beside(7057.41, 30.0), ratio_beside(30.004, 30.0)
        (('7057', '30'), ('30.004', '30'))
    """
    shown, allowed = figures.beside(ratio, limit, digits=RATIO_DIGITS)
    return "infinite" if math.isinf(ratio) else shown, allowed


def ratio_and_limit(ratio: float, limit: float) -> str:
    """Return both in a few words.

    Example:
        >>> ratio_and_limit(30.004, 30.0)
        '30.004 (limit 30)'
    """
    shown, allowed = ratio_beside(ratio, limit)
    return f"{shown} (limit {allowed})"


def _safe(foreign: str) -> str:
    """Return names and what a device said so that no terminal obeys them."""
    return printable(foreign, length=None)


def _paint(word: str, code: str, *, colour: bool) -> str:
    return f"{_BOLD}{code}{word}{_OFF}" if colour else word


def _head(result: AuditResult) -> str:
    batches = len({error.batch for error in result.errors})
    modules = len({error.module for error in result.errors})
    memory = result.peak_memory / 2**30
    return (
        f"Audit {result.where} against float64, accepted precision {result.precision}: "
        f"{counted(len(result.errors), 'tensor')} of {counted(modules, 'module')}, "
        f"{counted(batches, 'batch', 'batches')}, {result.seconds:.1f} s, {memory:.1f} GiB"
    )


def _finding(finding: ModuleFinding, result: AuditResult, *, colour: bool) -> list[str]:
    word = _paint(finding.outcome.value, _COLOURS[finding.outcome.value], colour=colour)
    lines = [f"  {word} {_safe(finding.message)}"]
    levels = () if finding.kind == "processes" else ALONE
    rows = [e for e in result.errors if e.module == finding.module and not e.passes and e.level in levels]
    rows.sort(key=badness, reverse=True)
    lines += [f"       {_row(error)}" for error in rows[:SHOWN_TENSORS]]
    if not rows and finding.tensor and finding.limit:
        lines.append(
            f"       {finding.phase:9} {_safe(finding.tensor):44} {ratio_and_limit(finding.ratio, finding.limit)}"
        )
    return [*lines, ""]


def _row(error: TensorError) -> str:
    ratio, limit = ratio_beside(error.ratio, error.limit)
    return (
        f"{error.phase:9} {_safe(error.tensor):32} {ratio:>9} (limit {limit})  "
        f"{_MEASURES[error.measure]} {error.error:.1e}, accepted {error.accepted:.1e}, batch {error.batch}"
    )


def _table(result: AuditResult) -> list[str]:
    lines = [f"  {'':12} {'phase':9} {'tensors':>8} {'over limit':>10} {'worst':>9} {'limit':>6}  where"]
    for level in LEVELS:
        for phase in PHASES:
            group = [error for error in result.errors if error.level == level and error.phase == phase]
            if not group:
                continue
            worst = max(group, key=badness)
            ratio, limit = ratio_beside(worst.ratio, worst.limit)
            over = sum(not error.passes for error in group)
            lines.append(
                f"  {level:12} {phase:9} {len(group):8} {over:10} {ratio:>9} {limit:>6}  "
                f"{_safe(worst.module)} {_safe(worst.tensor)}"
            )
    return lines
