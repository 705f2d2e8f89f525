"""Rules on means over all iterations: unsigned and relative, unsigned, and the bias, which is signed."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from emacheck.counted import counted
from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import Comparison
from emacheck.judge.near_zero import near_zero, scaled_difference
from emacheck.judge.verdict import Finding, Limiting, Outcome


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
