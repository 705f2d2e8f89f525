"""What is said about operators: the worst call of each, what was not judged, and what was proven; no torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from emacheck.strict_json import decode_value, strict

# A share of the limit that no benign trial comes near.
CLOSE = 1 / 3
# What an explanation ends with.
PROVEN, PARTLY, UNPROVEN, UNTRIED, RIGHT, UNREPEATED, UNRANKED = (
    "proven",
    "partly",
    "not proven",
    "not tried",
    "no operator is wrong",
    "not repeated",
    "not ranked",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A tensor that a call was given.

    Attributes:
        name: The argument, such as ``self`` or ``tensors.0``.
        dtype: Its type.
        shape: Its shape.
        strides: Its strides.
        contiguous: Whether its numbers lie in memory one after the other.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    contiguous: bool

    def __str__(self) -> str:
        lies = "" if self.contiguous else f" strides {self.strides}"
        return f"{self.name} {self.dtype} {self.shape}{lies}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorError:
    """One operator: its worst call, and how many there were.

    Attributes:
        operator: Name and overload, such as ``aten._softmax.default``.
        module: The module that made the worst call; empty where that is not known.
        phase: ``forward``, ``backward`` or ``optimizer``.
        result: Which result is worst: ``result``, ``result.1`` or the argument that was written to.
        ratio: Error over accepted error.
        limit: The largest ratio that passes.
        error: How far the device is from float64.
        accepted: How far the accepted precision is.
        measure: ``norm``, ``peak``, ``slope``, ``absolute``, ``exact`` or ``nan``.
        index: The worst element.
        value: What the device has there.
        truth: What float64 has there.
        inputs: The tensors that the call was given.
        settings: What else it was given, as text.
        calls: Calls that were judged.
        over: Those over the limit.
        only: What sets exactly those apart from the others, such as ``with inputs that are not contiguous``; empty if
            nothing does, or all of them are over.
        repeats: Whether the device gives the same again on the same inputs; None where it was not asked.
    """

    operator: str
    module: str
    phase: str
    result: str
    ratio: float
    limit: float
    error: float
    accepted: float
    measure: str
    index: tuple[int, ...]
    value: float
    truth: float
    inputs: tuple[Input, ...]
    settings: Mapping[str, str]
    calls: int
    over: int
    only: str = ""
    repeats: bool | None = None

    @property
    def passes(self) -> bool:
        """Whether the ratio is within the limit; NaN is not."""
        return self.ratio <= self.limit

    @property
    def badness(self) -> float:
        """How many times its limit the ratio is."""
        return math.inf if math.isnan(self.ratio) else self.ratio / self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjudged:
    """Calls of an operator to which nothing could be held.

    Attributes:
        operator: Name and overload.
        calls: How many.
        why: Why.
    """

    operator: str
    calls: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The failing check, repeated with some operators computed on the CPU.

    Attributes:
        operators: Those; none for the check as it is, once more.
        ratio: The worst ratio of the check; NaN if it could not run.
        limit: Its limit.
        passes: Whether the check passes.
    """

    operators: tuple[str, ...]
    ratio: float
    limit: float
    passes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What the operators of one failing module, of the optimizer or of a whole iteration say.

    Attributes:
        scope: The module; ``(optimizer)`` and ``(iteration)`` stand for themselves.
        level: ``isolated``, ``evaluation`` or ``end to end``.
        batch: Number of the batch.
        conclusion: ``PROVEN``, ``PARTLY``, ``UNPROVEN``, ``UNTRIED``, ``RIGHT``, ``UNREPEATED`` or ``UNRANKED``.
        cause: The operators that are proven to be the cause, empty for none.
        message: One sentence for a person.
        operators: Every operator that was judged, the worst first.
        calls: Calls that were judged.
        unjudged: What was not.
        ratio: The worst ratio of the check as it is; NaN where there is none.
        limit: Its limit.
        trials: The check with operators computed on the CPU.
    """

    scope: str
    level: str
    batch: int
    conclusion: str
    message: str
    cause: tuple[str, ...] = ()
    operators: tuple[OperatorError, ...] = ()
    calls: int = 0
    unjudged: tuple[Unjudged, ...] = ()
    ratio: float = math.nan
    limit: float = math.nan
    trials: tuple[Trial, ...] = ()

    @property
    def wrong(self) -> tuple[OperatorError, ...]:
        """The operators that are over their limit, the worst first."""
        return tuple(each for each in self.operators if not each.passes)

    @property
    def suspects(self) -> tuple[OperatorError, ...]:
        """The operators that may be the cause: those over their limit, or close to it where none is."""
        return self.wrong or tuple(each for each in self.operators if each.badness > CLOSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFindings:
    """What level 3 says: it explains a verdict and never changes one.

    Attributes:
        explanations: One for each failing module that was looked at, and one for a whole iteration.
        notes: What was not looked at, and why.
        seconds: How long it took.
    """

    explanations: tuple[Explanation, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def lines(self) -> tuple[str, ...]:
        """What a person reads."""
        return (*(each.message for each in self.explanations), *self.notes)

    def to_json(self) -> dict[str, Any]:
        """Return all of it in types that strict JSON has."""
        same: dict[str, Any] = strict(asdict(self))
        return same


def read_operators(fields: Mapping[str, Any]) -> OperatorFindings:
    """Return what :meth:`OperatorFindings.to_json` wrote.

    Example:
        >>> findings = OperatorFindings(notes=("the device hung",), seconds=1.5)
        >>> read_operators(findings.to_json()) == findings
        True
    """
    return OperatorFindings(
        explanations=tuple(_explanation(each) for each in fields["explanations"]),
        notes=tuple(fields["notes"]),
        seconds=fields["seconds"],
    )


def _explanation(row: Mapping[str, Any]) -> Explanation:
    return Explanation(
        **{
            **_decoded(row),
            "cause": tuple(row["cause"]),
            "operators": tuple(_operator(each) for each in row["operators"]),
            "unjudged": tuple(Unjudged(**each) for each in row["unjudged"]),
            "trials": tuple(Trial(**{**_decoded(t), "operators": tuple(t["operators"])}) for t in row["trials"]),
        }
    )


def _operator(row: Mapping[str, Any]) -> OperatorError:
    inputs = tuple(
        Input(**{**each, "shape": tuple(each["shape"]), "strides": tuple(each["strides"])}) for each in row["inputs"]
    )
    return OperatorError(**{**_decoded(row), "index": tuple(row["index"]), "inputs": inputs})


def _decoded(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("ratio", "limit", "error", "accepted", "value", "truth")
    return {**row, **{name: decode_value(row[name]) for name in names if name in row}}
