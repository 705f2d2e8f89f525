"""The rule about what the records are: whether they can carry a verdict, and what limits it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from emacheck.judge.advice import option
from emacheck.judge.comparison import Comparison
from emacheck.judge.reasons.alike import equal_ranks, one_device, one_run
from emacheck.judge.reasons.ends import parting_ends
from emacheck.judge.reasons.experiments import other_experiments
from emacheck.judge.reasons.far_off import far_off_components, far_off_others, far_off_validation
from emacheck.judge.reasons.lacking import lacking_components, lacking_in_part, lacking_others
from emacheck.judge.reasons.numbers import other_numbers
from emacheck.judge.reasons.oddities import oddities
from emacheck.judge.reasons.reason import Reason, listed
from emacheck.judge.reasons.standing_still import beside_standing_still, standing_still
from emacheck.judge.verdict import Finding, Outcome

# All that is looked for, in the order in which it is said.
REASONS: tuple[Callable[[Comparison], Iterator[Reason]], ...] = (
    one_run,
    standing_still,
    oddities,
    other_experiments,
    parting_ends,
    other_numbers,
    far_off_others,
    beside_standing_still,
    lacking_in_part,
    lacking_others,
    equal_ranks,
    one_device,
    lacking_components,
    far_off_components,
    far_off_validation,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrity:
    """Both records are evidence of a training: the number of reasons against that must be <= limit.

    A judged metric of the candidate, or of one of its ranks, that stands still (constant, stuck, or collapsed to
    exactly zero) while that of the reference moves is FAIL. INCONCLUSIVE is a reference that stands still, for there is
    nothing to hold against; a run that is known to have ended before its time or to be still going on; an oddity that
    leaves open what the record is; records of which one was counted and the other is numbered otherwise; two runs that
    were asked for different things, such as another precision, for they say nothing about a device; a component of the
    loss that the candidate lacks, in a log of the reference's format; one that is far off between paired runs; a loss
    of the validation that is far off between runs that may be paired; and the last values of runs that are not paired,
    where these are far apart.
    Whatever else limits what a verdict rests on is said in the message, also of a PASS.

    Attributes:
        limit: Allowed number of reasons.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def record(values):
        ...     loss = Curve(name="loss", iterations=range(20), values=values)
        ...     return Record(name="", format="", curves={"loss": loss})
        >>> falling = [4.0 - 0.013 * at for at in range(20)]
        >>> (finding,) = Integrity().check(compare(record(falling), record([0.0] * 20)))
        >>> str(finding.outcome), finding.message
        ('FAIL', 'loss of the candidate is exactly 0 at all 20 recorded iterations, from iteration 0 to 19')
    """

    limit: float = 0.0
    name: ClassVar[str] = "integrity"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Take together what stands still, what the oddities of the records forbid or limit, and all other reasons."""
        found = [reason for look in REASONS for reason in look(comparison)]
        reasons = sorted((r for r in found if r.outcome is not None), key=lambda r: r.outcome is not Outcome.FAIL)
        limits = tuple(reason.message for reason in found if reason.outcome is None)
        count = float(len(reasons))
        first = reasons[0] if reasons else Reason(message="")
        outcome = Outcome.PASS if first.outcome is None or count <= self.limit else first.outcome
        return (
            Finding(
                rule=self.name,
                outcome=outcome,
                observed=count,
                limit=self.limit,
                unit="reasons against the records",
                iteration=first.iteration,
                message=self._message(reasons, limits, outcome),
                would_pass_at=count,
                metric=first.metric or comparison.metrics[0],
                limited_by=limits,
            ),
        )

    def _message(self, reasons: Sequence[Reason], limits: Sequence[str], outcome: Outcome) -> str:
        said = "; ".join(reason.message for reason in reasons)
        if not reasons:
            said = "nothing speaks against the records"
        elif outcome is Outcome.PASS:
            said = f"accepted, because the limit allows it: {said}"
        elif outcome is Outcome.INCONCLUSIVE:
            said = f"{said} (accept with {option(self.name, len(reasons))})"
        if limits:
            said = f"{said}; limited by: {listed(limits)}"
        return said
