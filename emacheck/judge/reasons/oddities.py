"""What the records themselves say against them: their oddities, and that a run ended before its time."""

from collections.abc import Iterator

from emacheck.judge.comparison import Comparison
from emacheck.judge.reasons.reason import Reason
from emacheck.judge.verdict import Outcome
from emacheck.oddity import Effect, OddityKind

# Oddities that say already why a record is not complete.
_INCOMPLETE = (OddityKind.ENDED_EARLY, OddityKind.RANKS_MISSING)
_FOLLOWS = {Effect.INCONCLUSIVE: Outcome.INCONCLUSIVE, Effect.LIMITS: None}


def oddities(comparison: Comparison) -> Iterator[Reason]:
    """Repeat the oddities that leave open what a record is, or limit what a verdict on it rests on."""
    for side, record in comparison.sides:
        if not record.complete and not any(o.kind in _INCOMPLETE for o in record.oddities):
            yield Reason(outcome=Outcome.INCONCLUSIVE, message=f"the {side}: the run ended before its time")
        for oddity in record.oddities:
            if oddity.effect in _FOLLOWS:
                yield Reason(outcome=_FOLLOWS[oddity.effect], message=f"the {side}: {oddity}")
