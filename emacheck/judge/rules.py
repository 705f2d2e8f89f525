"""The rules: each turns a comparison into findings and holds its limits as fields."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from emacheck.counted import counted
from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.near_zero import near_zero, scaled_difference
from emacheck.judge.unjudged import broken_metrics, broken_validation
from emacheck.judge.verdict import Finding, Limiting, Outcome
from emacheck.record import Record


class Rule(Protocol):
    """Anything with a name that turns a comparison into one finding per judged metric."""

    name: ClassVar[str]

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Return what the rule finds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finite:
    """No NaN and no infinity: the number of non-finite values must be <= limit.

    Looks at every judged metric and every loss component, over all iterations of each record, and of each of its
    ranks, and not only the common ones. Non-finite values of the candidate are FAIL; of the reference alone
    INCONCLUSIVE, because a broken reference proves nothing. So are those of losses and scores in validations, each in a
    finding of its own. Any other metric of the candidate that is not finite where the reference's is, such as a
    gradient norm, is INCONCLUSIVE; steps that a scaler of fp16 left out are not, see
    :func:`emacheck.judge.unjudged.broken_metrics`.

    Attributes:
        limit: Allowed number of non-finite values.
    """

    limit: float = 0.0
    name: ClassVar[str] = "finite"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Count non-finite values in both records."""
        broken: dict[str, tuple[int, int | None, str, int | None]] = {}
        for side, record in (("candidate", comparison.candidate), ("reference", comparison.reference)):
            total, first, where, whose = 0, None, "", None
            for metric in comparison.losses:
                count, at, rank = _not_finite(record, metric)
                total += count
                if at is not None and (first is None or at < first):
                    first, where, whose = at, metric, rank
            broken[side] = (total, first, where, whose)
        side = "candidate" if not broken["candidate"][0] <= self.limit else "reference"
        count, first, where, whose = broken[side]
        if count <= self.limit:
            outcome, message = Outcome.PASS, "every loss value is a finite number"
        else:
            outcome = Outcome.FAIL if side == "candidate" else Outcome.INCONCLUSIVE
            also = "; so has the reference" if side == "candidate" and broken["reference"][0] else ""
            of = "" if whose is None else f" of rank {whose}"
            message = (
                f"the {side} has {count} NaN or infinite values, the first in {where}{of} at iteration {first}{also}"
            )
        return (
            Finding(
                rule=self.name,
                outcome=outcome,
                observed=float(count),
                limit=self.limit,
                unit="values",
                iteration=first,
                message=message,
                would_pass_at=float(max(total for total, *_ in broken.values())),
                metric=where or comparison.metrics[0],
            ),
            *self._unjudged(comparison),
        )

    def _unjudged(self, comparison: Comparison) -> Iterator[Finding]:
        """Find what is broken in validations, and in metrics beside the losses."""
        fatal = {"candidate": Outcome.FAIL, "reference": Outcome.INCONCLUSIVE}
        broken = [(each, fatal[each.side]) for each in broken_validation(comparison)]
        broken += [(each, Outcome.INCONCLUSIVE) for each in broken_metrics(comparison)]
        for each, outcome in broken:
            if not each.count <= self.limit:
                yield Finding(
                    rule=self.name,
                    outcome=outcome,
                    observed=float(each.count),
                    limit=self.limit,
                    unit="values",
                    iteration=each.iteration,
                    message=each.message,
                    would_pass_at=float(each.count),
                    metric=each.metric,
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """Same initial state and same batches: the number of differing fingerprints must be <= limit.

    Without this the two runs are different experiments and no difference between them says anything about the
    device, so a difference is INCONCLUSIVE.

    Attributes:
        limit: Allowed number of differing fingerprints.
    """

    limit: float = 0.0
    name: ClassVar[str] = "fingerprints"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Compare the recorded hashes of the initial state and of every batch."""
        reference, candidate = comparison.reference, comparison.candidate
        iteration = None
        if comparison.paired is None:
            observed, outcome = math.nan, Outcome.INCONCLUSIVE
            message = "not both records carry fingerprints: nothing proves that they start alike"
        else:
            state = reference.initial_state != candidate.initial_state
            pairs = zip(reference.batches, candidate.batches, strict=False)
            differing = [i for i, (r, c) in enumerate(pairs, 1) if r != c]
            observed = float(state + len(differing))
            outcome = Outcome.PASS if observed <= self.limit else Outcome.INCONCLUSIVE
            iteration = 1 if state else (differing[0] if differing else None)
            if outcome is Outcome.PASS:
                message = "initial state and every batch are identical"
            elif state:
                message = "the runs start from different weights: they are different experiments"
            else:
                message = f"the runs see different batches from iteration {iteration} on"
        return (
            Finding(
                rule=self.name,
                outcome=outcome,
                observed=observed,
                limit=self.limit,
                unit="differing hashes",
                iteration=iteration,
                message=message,
                would_pass_at=None,
                metric=comparison.metrics[0],
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanRelativeError:
    """mean(|candidate - reference| / |reference|) must be <= limit.

    Over it, but not relative to the reference's mean size, is INCONCLUSIVE where the reference comes close to zero.

    Attributes:
        limit: Largest allowed mean, a dimensionless ratio.
    """

    limit: float = 0.05
    name: ClassVar[str] = "mean_relative_error"
    unit: ClassVar[str] = "of the reference"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Average the unsigned relative differences of each judged metric."""
        return _mean_findings(self, comparison)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanAbsoluteError:
    """mean(|candidate - reference|) must be <= limit.

    Attributes:
        limit: Largest allowed mean, in the metric's unit.
    """

    limit: float = 0.0002
    name: ClassVar[str] = "mean_absolute_error"
    unit: ClassVar[str] = "in the metric's unit"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Average the unsigned differences of each judged metric."""
        return _mean_findings(self, comparison, relative=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """|mean((candidate - reference) / reference)| must be <= limit: two-sided, too low counts like too high.

    Over it, but not relative to the reference's mean size, is INCONCLUSIVE where the reference comes close to zero.

    Attributes:
        limit: Largest allowed |mean|, a dimensionless ratio.
    """

    limit: float = 0.01
    name: ClassVar[str] = "bias"
    unit: ClassVar[str] = "of the reference, signed"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Average the signed relative differences of each judged metric."""
        return _mean_findings(self, comparison, signed=True)


def _not_finite(record: Record, metric: str) -> tuple[int, int | None, int | None]:
    """Count the iterations at which a metric is not finite, in the mean or in any rank; with the first and its rank."""
    found = []
    for rank, curves in (*record.of_ranks.items(), (None, record.curves)):
        curve = curves.get(metric, EMPTY)
        bad = curve.iterations[~np.isfinite(curve.values)]
        if len(bad):
            found.append((bad, rank))
    if not found:
        return 0, None, None
    first, whose = min(((int(bad[0]), rank) for bad, rank in found), key=lambda each: each[0])
    return len(np.unique(np.concatenate([bad for bad, _ in found]))), first, whose


def _mean_findings(
    rule: Limiting, comparison: Comparison, *, relative: bool = True, signed: bool = False
) -> tuple[Finding, ...]:
    findings = []
    for metric in comparison.metrics:
        paired = comparison.curve(metric)
        differences = paired.relative_difference if relative else paired.difference
        if not signed:
            differences = np.abs(differences)
        observed = average(differences)
        iteration = None
        if not differences.size:
            outcome, message = Outcome.INCONCLUSIVE, "there is nothing to average"
        elif not np.all(np.isfinite(paired.reference)) and np.all(np.isfinite(paired.candidate)):
            outcome, message = Outcome.INCONCLUSIVE, "the reference has values that are NaN or infinite"
        else:
            outcome = Outcome.PASS if abs(observed) <= rule.limit else Outcome.FAIL
            # argmax returns the first NaN if there is one, which is the worst iteration indeed.
            worst = int(np.argmax(np.abs(differences)))
            if paired.first_unequal() is None:
                printed = any(r.curves[metric].quantum for r in (comparison.reference, comparison.candidate))
                equal = "identical in every printed digit" if printed else "bit-identical"
                message = f"{metric} is {equal} in {counted(differences.size, 'iteration')}"
            else:
                iteration = int(paired.iterations[worst])
                message = (
                    f"mean over {counted(differences.size, 'iteration')} of {metric}; the worst is iteration "
                    f"{iteration} with {differences[worst]:.4g} "
                    f"({paired.candidate[worst]:.6g} against {paired.reference[worst]:.6g})"
                )
        if outcome is Outcome.FAIL and relative:
            scaled = scaled_difference(paired)
            size = math.nan if scaled is None else abs(average(scaled if signed else np.abs(scaled)))
            if size <= rule.limit:
                outcome, message = Outcome.INCONCLUSIVE, f"{near_zero(metric, size)}; {message}"
        findings.append(Finding.of(rule, metric, outcome, message, observed=observed, iteration=iteration))
    return tuple(findings)
