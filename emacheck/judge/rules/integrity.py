"""The rule about what the records are: whether they can carry a verdict, and what limits it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from emacheck.curve import Curve
from emacheck.experiment import differences
from emacheck.judge.advice import option
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.forensics.metric_names import is_rate
from emacheck.judge.forensics.numbering import numbered_otherwise
from emacheck.judge.forensics.one_run import of_one_run
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.forensics.standstill import Standstill, Still, standstill
from emacheck.judge.forensics.unjudged import (
    gross_components,
    gross_others,
    gross_validation,
    lacking_components,
    lacking_in_part,
    lacking_others,
    must_move,
)
from emacheck.judge.noise.scatter import scatter
from emacheck.judge.verdict import Finding, Outcome
from emacheck.oddity import Effect, OddityKind
from emacheck.record import Record

SHOWN = 6
END, SHORTEST = 10, 30
"""Values at the end that are looked at by themselves, and fewest of all."""
APART, ERRORS = 0.1, 3.0
"""How far such an end may be off, as in `worst_window`, and standard errors of its mean beside that."""
# Oddities that say already why a record is not complete.
_INCOMPLETE = (OddityKind.ENDED_EARLY, OddityKind.RANKS_MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reason:
    """One reason against the records."""

    outcome: Outcome
    message: str
    iteration: int | None = None
    metric: str | None = None


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
        >>> from emacheck import Record, compare
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
        """Look for what stands still, and for what the oddities of the records forbid or limit."""
        reasons = [*_standing_still(comparison), *_forbidding(comparison), *_different_experiments(comparison)]
        reasons += _parting_ends(comparison)
        if unlike := numbered_otherwise(comparison):
            reasons.append(_Reason(outcome=Outcome.INCONCLUSIVE, message=unlike))
        same = of_one_run(comparison)
        limits = [*([same] if same else []), *_limiting(comparison), *gross_others(comparison)]
        limits += [*_still_beside(comparison), *lacking_in_part(comparison), *lacking_others(comparison)]
        limits += [*_ranks_alike(comparison), *_of_one_device(comparison)]
        for decisive, message in _components(comparison):
            if decisive:
                reasons.append(_Reason(outcome=Outcome.INCONCLUSIVE, message=message))
            else:
                limits.append(message)
        failing = [reason for reason in reasons if reason.outcome is Outcome.FAIL]
        first = next(iter(failing or reasons), None)
        count = float(len(reasons))
        outcome = first.outcome if first is not None and not count <= self.limit else Outcome.PASS
        return (
            Finding(
                rule=self.name,
                outcome=outcome,
                observed=count,
                limit=self.limit,
                unit="reasons against the records",
                iteration=None if first is None else first.iteration,
                message=self._message([*failing, *(r for r in reasons if r not in failing)], tuple(limits), outcome),
                would_pass_at=count,
                metric=(first.metric if first is not None else None) or comparison.metrics[0],
                limited_by=tuple(limits),
            ),
        )

    def _message(self, reasons: list[_Reason], limits: tuple[str, ...], outcome: Outcome) -> str:
        said = "; ".join(reason.message for reason in reasons)
        if not reasons:
            said = "nothing speaks against the records"
        elif outcome is Outcome.PASS:
            said = f"accepted, because the limit allows it: {said}"
        elif outcome is Outcome.INCONCLUSIVE:
            said = f"{said} (accept with {option(self.name, len(reasons))})"
        if limits:
            more = f"; and {len(limits) - SHOWN} more" if len(limits) > SHOWN else ""
            said = f"{said}; limited by: {'; '.join(limits[:SHOWN])}{more}"
        return said


def _standing_still(comparison: Comparison) -> Iterator[_Reason]:
    """Find judged metrics that stand still, in the mean of the ranks or else in single ones, which the mean hides."""
    for metric in comparison.metrics:
        if is_rate(metric):
            continue
        reference, candidate = (side.curves.get(metric, EMPTY) for _, side in _sides(comparison))
        reason = _still(metric, reference, candidate) or _rank_still(comparison, metric)
        if reason is not None:
            yield reason


def _still(metric: str, reference: Curve, candidate: Curve, of: str = "") -> _Reason | None:
    """Return the reason that a curve stands still where the other moves, if one does."""
    # An accuracy may well be 100 % for a while; only a loss has to move all the time.
    stretches = "loss" in metric.lower()
    ours, theirs = (standstill(curve, stretches=stretches) for curve in (reference, candidate))
    if ours is not None:
        both = f"; that of the candidate {theirs}" if theirs is not None else ""
        message = f"{metric} of {of}the reference {ours}{both}: there is nothing to hold against"
        return _Reason(outcome=Outcome.INCONCLUSIVE, message=message, iteration=ours.first, metric=metric)
    if theirs is not None and _moves(reference, theirs):
        message = f"{metric} of {of}the candidate {theirs}"
        return _Reason(outcome=Outcome.FAIL, message=message, iteration=theirs.first, metric=metric)
    if theirs is not None and theirs.kind is Still.CONSTANT and stretches:
        message = f"{metric} of {of}the candidate {theirs}, in digits too few to tell how the reference moves"
        return _Reason(outcome=Outcome.INCONCLUSIVE, message=message, iteration=theirs.first, metric=metric)
    return None


def _rank_still(comparison: Comparison, metric: str) -> _Reason | None:
    """Return the reason that a rank of the candidate stands still; the mean of all ranks hides it."""
    reference, candidate = comparison.reference, comparison.candidate
    found = (
        _still(
            metric,
            reference.of_ranks.get(rank, reference.curves).get(metric, EMPTY),
            curves[metric],
            f"rank {rank} of ",
        )
        for rank, curves in sorted(candidate.of_ranks.items())
        if metric in curves
    )
    reasons = [reason for reason in found if reason is not None]
    return next((reason for reason in reasons if reason.outcome is Outcome.FAIL), next(iter(reasons), None))


def _ranks_alike(comparison: Comparison) -> Iterator[str]:
    """Say that all ranks of the candidate have the same losses while those of the reference differ."""
    for metric in comparison.metrics:
        ours, theirs = (
            {each[metric].values.tobytes() for each in side.of_ranks.values() if metric in each}
            for _, side in _sides(comparison)
        )
        count = sum(metric in each for each in comparison.candidate.of_ranks.values())
        if count > 1 and len(theirs) == 1 and len(ours) > 1:
            yield (
                f"all {count} ranks of the candidate have the same {metric}, those of the reference do not: they see "
                "the same samples, or print their mean"
            )


def _still_beside(comparison: Comparison) -> Iterator[str]:
    """Say which gradient norms and components of the candidate stand still where those of the reference move."""
    for metric in must_move(comparison):
        reference, candidate = (side.curves.get(metric, EMPTY) for _, side in _sides(comparison))
        still = standstill(candidate)
        if still is not None and standstill(reference) is None and _moves(reference, still):
            yield f"{metric} of the candidate {still}"


def _moves(reference: Curve, still: Standstill) -> bool:
    """Tell whether the reference moves, beyond printed digits, where the candidate stands still; True if unknown."""
    there = (reference.iterations >= still.first) & (reference.iterations <= still.last)
    values = reference.values[there & np.isfinite(reference.values)]
    if not len(values):
        return True
    with np.errstate(over="ignore"):
        return bool(np.max(np.abs(values - still.value)) > reference.quantum + still.unit)


def _forbidding(comparison: Comparison) -> Iterator[_Reason]:
    for side, record in _sides(comparison):
        if not record.complete and not any(o.kind in _INCOMPLETE for o in record.oddities):
            yield _Reason(outcome=Outcome.INCONCLUSIVE, message=f"the {side}: the run ended before its time")
        for oddity in record.oddities:
            if oddity.effect is Effect.INCONCLUSIVE:
                yield _Reason(outcome=Outcome.INCONCLUSIVE, message=f"the {side}: {oddity}")


def _limiting(comparison: Comparison) -> Iterator[str]:
    for side, record in _sides(comparison):
        for oddity in record.oddities:
            if oddity.effect is Effect.LIMITS:
                yield f"the {side}: {oddity}"


def _parting_ends(comparison: Comparison) -> Iterator[_Reason]:
    """Say where runs that are not paired end apart: their level is a mean that hardly shows the last iterations."""
    if pairing_of(comparison).pairing is not Pairing.UNPAIRED:
        return
    for metric in comparison.metrics:
        paired = comparison.curve(metric)
        values = np.array([paired.reference, paired.candidate])
        if values.shape[1] < SHORTEST or not (
            np.all(np.isfinite(values)) and (np.all(values > 0) or np.all(values < 0))
        ):
            continue
        reference, candidate = np.mean(values[:, -END:], axis=1)
        off = float(candidate / reference) - 1
        if abs(off) > APART + ERRORS * scatter(paired.reference) * math.sqrt(2 / END):
            message = f"the last {END} values of {metric} are {off:+.0%} off those of the reference on average"
            yield _Reason(
                outcome=Outcome.INCONCLUSIVE, message=message, iteration=int(paired.iterations[-END]), metric=metric
            )


def _of_one_device(comparison: Comparison) -> Iterator[str]:
    """Say that a device is held against itself; the CPU is what is trusted, and may be."""
    devices = [record.provenance.get("device") for _, record in _sides(comparison)]
    facts = [(each.get("type"), each.get("name")) for each in devices if isinstance(each, Mapping)]
    if len(facts) == 2 and facts[0] == facts[1] and facts[0][0] not in (None, "cpu"):
        yield f"both were trained on {facts[0][0]} ({facts[0][1]}), and what it does wrong in both does not show"


def _components(comparison: Comparison) -> Iterator[tuple[bool, str]]:
    """Say what is the matter with components of the loss, and whether it forbids a decision or limits it."""
    lacking = lacking_components(comparison)
    if lacking:
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        message = f"the candidate lacks {', '.join(lacking[:SHOWN])}{more}, which the reference has"
        # Another format may have no place for it.
        yield comparison.reference.format == comparison.candidate.format, message
    pairing = pairing_of(comparison).pairing
    for message in gross_components(comparison):
        yield pairing is Pairing.PAIRED, message
    for message in gross_validation(comparison):
        yield pairing is not Pairing.UNPAIRED, message


def _different_experiments(comparison: Comparison) -> Iterator[_Reason]:
    """Name what the two were asked for differently, as far as both say it and it may not differ."""
    reference, candidate = (dict(record.provenance.get("experiment") or {}) for _, record in _sides(comparison))
    # Equal batches are proof enough of equal data; runs of other seeds are compared as such.
    free = {"name", "data_hash" if comparison.paired else "seed"}
    stated = (reference.keys() & candidate.keys()) - free
    found = differences({key: reference[key] for key in stated}, {key: candidate[key] for key in stated})
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        message = f"the two were asked for different things: {'; '.join(found[:SHOWN])}{more}"
        yield _Reason(outcome=Outcome.INCONCLUSIVE, message=message)


def _sides(comparison: Comparison) -> tuple[tuple[str, Record], ...]:
    return (("reference", comparison.reference), ("candidate", comparison.candidate))
