"""What is looked at after an audit: which failing modules, by which call and on which batch; no torch."""

from collections.abc import Iterable
from dataclasses import dataclass

from emacheck.audit.findings.result import ALONE, ITERATION, AuditResult, ModuleFinding, TensorError, badness
from emacheck.judge.verdict import Outcome

MOST_MODULES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is looked at: a failing module, the optimizer or the whole iteration.

    Attributes:
        name: The module that the audit blames.
        level: The level on which it fails worst.
        batch: The batch on which it does.
        depth: Position of the call that makes the tensor.
        kind: Class of the module that is called there.
    """

    name: str
    level: str
    batch: int
    depth: int = 0
    kind: str = ""


def scopes_of(result: AuditResult) -> tuple[list[Scope], list[str]]:
    """Return what to look at, the module most to blame first, and what is not looked at and why.

    Args:
        result: The audit's result.

    Example:
        >>> scopes_of(AuditResult(device="sdaa", precision="fp32", errors=(), findings=()))
        ([], [])
    """
    scopes: list[Scope] = []
    notes = []
    failing = [each for each in result.findings if each.outcome is Outcome.FAIL]
    for finding in failing:
        if finding.module == ITERATION:
            continue
        worst = _worst(e for e in result.errors if e.module == finding.module and e.level in ALONE and not e.passes)
        if worst is None:
            notes.append(f"operators of {finding.module} were not ranked: {_why_not(finding)}")
        elif len(scopes) < MOST_MODULES:
            scopes.append(
                Scope(name=finding.module, level=worst.level, batch=worst.batch, depth=worst.depth, kind=worst.kind)
            )
    # What is left then is the whole iteration.
    if not scopes and not notes and any(each.tensor for each in failing):
        worst = _worst(e for e in result.errors if e.level == "end to end")
        scopes.append(Scope(name=ITERATION, level="end to end", batch=1 if worst is None else worst.batch))
    return scopes, notes[:MOST_MODULES]


def _why_not(finding: ModuleFinding) -> str:
    if finding.tensor:
        return "what is wrong shows only when several calls or processes are held against each other"
    return f"it does not run to its end ({finding.message})"


def _worst(errors: Iterable[TensorError]) -> TensorError | None:
    return max(errors, key=badness, default=None)
