"""Findings and the verdict they add up to."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NoReturn, Protocol

from emacheck.errors import UsageError
from emacheck.judge.comparison import Comparison
from emacheck.judge.figures import beside
from emacheck.printable import printable

# For each metric, either of these two rules suffices.
ALTERNATIVES = frozenset({"mean_relative_error", "mean_absolute_error"})
# The one finding that does not come from curves but from tensors of the device.
AUDIT = "audit"


def no_truth(of: str) -> NoReturn:
    """Refuse to be taken for true or false, as every object otherwise is true, one that says FAIL as well."""
    raise UsageError(
        f"{of} is neither true nor false, for it may be PASS, FAIL or INCONCLUSIVE. Ask for the outcome that you mean, "
        "as in verdict.outcome is emacheck.Outcome.PASS."
    )


class Outcome(str, Enum):
    """What a finding or a verdict says: PASS, FAIL or INCONCLUSIVE; a string, but neither true nor false.

    Example:
        >>> Outcome.PASS == "PASS", Outcome("FAIL") is Outcome.FAIL, f"{Outcome.INCONCLUSIVE}"
        (True, True, 'INCONCLUSIVE')
    """

    PASS = "PASS"  # noqa: S105 - an outcome, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - it refuses to be either
        no_truth("an outcome")

    def __str__(self) -> str:
        return self.value


class Limiting(Protocol):
    """What a finding takes from its rule: the name, the limit, and what the limit counts."""

    name: ClassVar[str]
    unit: ClassVar[str]

    @property
    def limit(self) -> float:
        """The number that is observed must not exceed it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one rule says about one comparison.

    Attributes:
        rule: The rule's name.
        outcome: PASS, FAIL or INCONCLUSIVE.
        observed: The measured number, NaN when nothing could be measured.
        limit: The number it was held against.
        unit: What both numbers count.
        iteration: Where it is worst, None when no single iteration is to blame.
        message: One sentence (or a few lines) for a person.
        would_pass_at: The smallest limit that would have passed, None when no limit would.
        metric: The metric it is about; empty for the audit, which is about tensors.
        limited_by: What limits what the verdict rests on, whatever the outcome.
        module: The module to blame, where one is.
        too_few: Whether there are too few iterations for anything to rest on: then a reader must know that first.

    Raises:
        UsageError: If the outcome is none of the three.

    Example:
        >>> print(Finding(rule="no_spike", outcome=Outcome.FAIL, observed=9.5, limit=2.0, unit="times the median",
        ...               iteration=17, message="the largest loss is far above the median"))
        FAIL no_spike[loss] 9.5 (limit 2) at iteration 17: the largest loss is far above the median
    """

    rule: str
    outcome: Outcome
    observed: float
    limit: float
    unit: str
    iteration: int | None
    message: str
    would_pass_at: float | None = None
    metric: str = "loss"
    limited_by: tuple[str, ...] = ()
    module: str = ""
    too_few: bool = False

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "outcome", Outcome(self.outcome))
        except ValueError as error:
            raise UsageError(
                f"finding of {self.rule}: found outcome {self.outcome!r}, expected one of {', '.join(Outcome)}."
            ) from error

    @classmethod
    def of(
        cls,
        rule: Limiting,
        metric: str,
        outcome: Outcome,
        message: str,
        *,
        observed: float = math.nan,
        iteration: int | None = None,
    ) -> "Finding":
        """Return what a rule says that holds the size of an observed number against its limit."""
        return cls(
            rule=rule.name,
            outcome=outcome,
            observed=observed,
            limit=rule.limit,
            unit=rule.unit,
            iteration=iteration,
            message=message,
            would_pass_at=abs(observed) if math.isfinite(observed) else None,
            metric=metric,
        )

    def __str__(self) -> str:
        """Say it in one line."""
        metric = f"[{self.metric}]" if self.metric else ""
        where = "" if self.iteration is None else f" at iteration {self.iteration}"
        observed, limit = beside(self.observed, self.limit, signed="signed" in self.unit)
        said = f"{self.outcome} {self.rule}{metric} {observed} (limit {limit}){where}: {self.message}"
        return printable(said, newlines=True, length=None)

    @property
    def severity(self) -> float:
        """|observed| / limit: how far the finding is from its limit; infinite where that has no value.

        A share that is missing, where none may, counts as 1 / (1 - share): a run of which one iteration in ten is there
        is as bad as what is ten times over its limit.
        """
        if math.isnan(self.observed) or self.too_few:
            return math.inf
        if self.limit == 0:
            share = abs(self.observed)
            return 1 / (1 - share) if 0 < share < 1 else math.inf if share else 0.0
        return abs(self.observed) / self.limit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Verdict:
    """A comparison and what the rules found in it; :func:`emacheck.decide` makes it.

    It is neither true nor false: ask for its ``outcome``. ``print`` shows every finding in a line.

    Attributes:
        comparison: What was compared.
        findings: One or more per rule, in the order of the rules.
        left_out: What speaks against the records, found by rules that nobody asked for: it decides nothing.
    """

    comparison: Comparison
    findings: tuple[Finding, ...]
    left_out: tuple[Finding, ...] = ()

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - it refuses to be either
        no_truth("a verdict")

    def __repr__(self) -> str:
        """Say what decided, in one line."""
        return f"<Verdict {self.outcome if self.worst is None else self.worst}>"

    def __str__(self) -> str:
        """Say in lines what was found; the comparison holds the numbers."""
        return "\n".join((str(self.outcome), *map(str, self.findings)))

    @property
    def outcome(self) -> Outcome:
        """FAIL beats INCONCLUSIVE beats PASS; no findings is INCONCLUSIVE."""
        outcomes = {finding.outcome for finding in self.findings}
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS):
            if outcome in outcomes:
                return outcome
        return Outcome.INCONCLUSIVE

    @property
    def evidence(self) -> tuple[str, ...]:
        """The levels of evidence that the verdict rests on: ``curve``, ``audit``."""
        audited = [finding.rule == AUDIT for finding in self.findings]
        levels = (("curve", not all(audited)), (AUDIT, any(audited)))
        return tuple(level for level, there in levels if there)

    @property
    def worst(self) -> Finding | None:
        """The finding that decided the outcome and is farthest from its limit; None without findings.

        Of two alternatives the one closer to its limit counts, because it would have sufficed.
        """
        outcome, sufficient = self.outcome, dict[str, float]()
        deciding = [finding for finding in self.findings if finding.outcome is outcome]
        for finding in deciding:
            if finding.rule in ALTERNATIVES:
                known = sufficient.get(finding.metric, math.inf)
                sufficient[finding.metric] = min(known, finding.severity)
        counted = [
            finding
            for finding in deciding
            if finding.rule not in ALTERNATIVES or finding.severity == sufficient[finding.metric]
        ]
        return max(counted, key=lambda finding: finding.severity, default=None)
