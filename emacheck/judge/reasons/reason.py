"""A reason: one thing that speaks against two records."""

from collections.abc import Sequence
from dataclasses import dataclass

from emacheck.judge.verdict import Outcome

SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that speaks against two records.

    Attributes:
        message: What it is, as a clause.
        outcome: What follows from it, FAIL or INCONCLUSIVE; None if it only limits what a verdict rests on.
        iteration: Where it begins, None where no iteration is to blame.
        metric: The metric that it is about, None for the records as a whole.
    """

    message: str
    outcome: Outcome | None = None
    iteration: int | None = None
    metric: str | None = None


def listed(clauses: Sequence[str]) -> str:
    """Return the first clauses, and how many more there are.

    Example:
        >>> listed(["a", "b"])
        'a; b'
    """
    more = f"; and {len(clauses) - SHOWN} more" if len(clauses) > SHOWN else ""
    return "; ".join(clauses[:SHOWN]) + more
