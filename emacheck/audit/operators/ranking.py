"""Gather the calls of each operator: the worst of them, how many are wrong, and what sets these apart; no torch."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from emacheck.audit.findings.operators import OperatorError, Unjudged


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a call has in common with others.

    Attributes:
        phase: Its phase.
        contiguous: Whether all its inputs are contiguous.
        dtype: The type of its first input.
    """

    phase: str
    contiguous: bool
    dtype: str


@dataclass(slots=True, kw_only=True)
class Ranking:
    """The calls of every operator, without their tensors.

    Attributes:
        worst: The worst call of each operator.
        chose: Operators that chose others of equal values than the CPU, in the order in which they were called.

    Example:
        >>> ranking = Ranking()
        >>> ranking.skip("aten.nonzero_static.default", "the CPU lacks it")
        >>> ranking.unjudged()
        (Unjudged(operator='aten.nonzero_static.default', calls=1, why='the CPU lacks it'),)
    """

    worst: dict[str, OperatorError] = field(default_factory=dict)
    chose: dict[str, None] = field(default_factory=dict)
    _calls: dict[str, Counter[tuple[bool, Traits]]] = field(default_factory=dict)
    _skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    _probed: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """How many calls were judged."""
        return sum(count.total() for count in self._calls.values())

    def add(self, operator: str, traits: Traits, *, over: bool) -> None:
        """Count a call."""
        self._calls.setdefault(operator, Counter())[over, traits] += 1

    def skip(self, operator: str, why: str) -> None:
        """Count a call that was not judged."""
        self._skipped[operator, why] += 1

    def skip_probe(self, operator: str, why: str) -> None:
        """Count a call that was not judged and need not be, if there is another one that is."""
        self._probed[operator, why] += 1

    def ranked(self) -> tuple[OperatorError, ...]:
        """Return the worst call of every operator, the worst first; of equal ones the one that was called first."""
        found = [replace(row, **self._counts(name)) for name, row in self.worst.items()]
        return tuple(sorted(found, key=lambda row: -row.badness))

    def unjudged(self) -> tuple[Unjudged, ...]:
        """Return what was not judged."""
        probed = {key: n for key, n in self._probed.items() if key[0] not in self._calls}
        return tuple(
            Unjudged(operator=name, calls=n, why=why) for (name, why), n in (self._skipped + Counter(probed)).items()
        )

    def _counts(self, operator: str) -> dict[str, Any]:
        counted = self._calls[operator]
        over = [traits for (wrong, traits) in counted if wrong]
        right = [traits for (wrong, traits) in counted if not wrong]
        return {
            "calls": counted.total(),
            "over": sum(n for (wrong, _), n in counted.items() if wrong),
            "only": apart(over, right),
        }


def apart(over: list[Traits], right: list[Traits]) -> str:
    """Return what all calls over the limit have and no other has, in words; empty if there is no such thing.

    Example:
        >>> strided, plain = (Traits(phase="forward", contiguous=each, dtype="float32") for each in (False, True))
        >>> apart([strided], [plain]), apart([strided, plain], [plain])
        ('with inputs that are not contiguous', '')
    """
    if not right:
        return ""
    words: tuple[tuple[Callable[[Traits], object], Callable[[Traits], str]], ...] = (
        (
            lambda each: each.contiguous,
            lambda each: f"with inputs that are {'all' if each.contiguous else 'not'} contiguous",
        ),
        (lambda each: each.phase, lambda each: f"in phase {each.phase}"),
        (lambda each: each.dtype, lambda each: f"of {each.dtype}"),
    )
    for trait, said in words:
        values = {trait(each) for each in over}
        if len(values) == 1 and values.isdisjoint(trait(each) for each in right):
            return said(over[0])
    return ""
