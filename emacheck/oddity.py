"""An oddity: something that a reader of a record should know, and what follows from it for a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Effect(str, Enum):
    """What an oddity means for a verdict on the record."""

    NOTE = "NOTE"
    """Harmless, or judged by a rule of its own: only said."""
    LIMITS = "LIMITS"
    """Limits what a verdict rests on: said beside the verdict, even if that is a PASS."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """As long as it stands, nothing can be decided."""

    def __str__(self) -> str:
        return self.value


class OddityKind(str, Enum):
    """What an oddity is about; its message says it in words."""

    VALIDATION_APART = "validation_apart"
    INTERVAL = "interval"
    AVERAGED = "averaged"
    EPOCHS = "epochs"
    BY_EPOCH = "by_epoch"
    COUNTED = "counted"
    RANKS = "ranks"
    RANKS_LACKING = "ranks_lacking"
    RANKS_MISSING = "ranks_missing"
    ARRAYS = "arrays"
    NAMELESS = "nameless"
    LEFT_OUT = "left_out"
    SKIPPED = "skipped"
    TORN = "torn"
    DAMAGED = "damaged"
    ENDED_EARLY = "ended_early"
    GAP = "gap"
    REPEATED = "repeated"
    REPLACED = "replaced"
    REPLACED_NOT_FINITE = "replaced_not_finite"
    MIXED = "mixed"
    RESUMED = "resumed"
    SEVERAL_RUNS = "several_runs"
    SHORT_LAST_RUN = "short_last_run"
    NOT_FINITE = "not_finite"
    UNREADABLE = "unreadable"
    MISSING_LOSS = "missing_loss"
    NO_LOSS = "no_loss"
    RENUMBERED = "renumbered"
    CONFIGURATION = "configuration"
    ON_CPU = "on_cpu"
    OTHER = "other"

    def __str__(self) -> str:
        return self.value


_LIMITING = (
    OddityKind.COUNTED,
    OddityKind.RANKS_LACKING,
    OddityKind.DAMAGED,
    OddityKind.GAP,
    OddityKind.REPLACED,
    OddityKind.RESUMED,
    OddityKind.SEVERAL_RUNS,
    OddityKind.ON_CPU,
)
_FORBIDDING = (
    OddityKind.ENDED_EARLY,
    OddityKind.RANKS_MISSING,
    OddityKind.REPLACED_NOT_FINITE,
    OddityKind.MIXED,
    OddityKind.SHORT_LAST_RUN,
)
EFFECTS: Mapping[OddityKind, Effect] = MappingProxyType(
    {kind: Effect.LIMITS if kind in _LIMITING else Effect.NOTE for kind in OddityKind}
    | dict.fromkeys(_FORBIDDING, Effect.INCONCLUSIVE)
)
"""What each kind of oddity means for a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """Something that a reader of a record should know; as a string it is its message.

    Attributes:
        kind: What it is about.
        message: One sentence for a person, with the line if that is known.
        effect: What it means for a verdict.
        line: The line of the log that it is about, the first of several; None if no single line is.

    Example:
        >>> gap = oddity(OddityKind.GAP, "line 5: records are missing between the iterations 3 and 6", line=5)
        >>> str(gap), str(gap.effect), gap.line
        ('line 5: records are missing between the iterations 3 and 6', 'LIMITS', 5)
    """

    kind: OddityKind
    message: str
    effect: Effect
    line: int | None = None

    def __str__(self) -> str:
        return self.message


def oddity(kind: OddityKind, message: str, *, line: int | None = None) -> Oddity:
    """Return an oddity with the effect that its kind has."""
    return Oddity(kind=kind, message=message, effect=EFFECTS[kind], line=line)


def shown(found: Oddity, message: str | None = None) -> str:
    """Return the message, or what a report makes of it, behind the effect unless the oddity is a mere note.

    Example:
        >>> shown(oddity(OddityKind.RESUMED, "line 9: the iteration goes back from 50 to 41, as after a resume"))
        'LIMITS: line 9: the iteration goes back from 50 to 41, as after a resume'
    """
    message = found.message if message is None else message
    return message if found.effect is Effect.NOTE else f"{found.effect}: {message}"
