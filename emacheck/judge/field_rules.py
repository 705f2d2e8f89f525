"""The rules that others judge two loss curves with, as published, so that their verdicts can stand beside ours."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from emacheck.counted import counted
from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import EMPTY, Comparison, PairedCurve
from emacheck.judge.figures import beside
from emacheck.judge.verdict import Finding, Outcome

MOST_FAILING = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsignedMean:
    """mean(|c - r| / |r|) <= limit over all common iterations: the model zoo's limit without its signs.

    Attributes:
        limit: Largest allowed mean, a dimensionless ratio.

    Source: the 0.05 of the model zoo's loss script; that the errors are unsigned is what is commonly meant by
    "within 5 %", and no publication of its own.
    """

    limit: float = 0.05
    name: ClassVar[str] = "unsigned 5 %"
    source: ClassVar[str] = "common practice: the model zoo's 0.05 without its signs"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Judge the first judged metric."""
        paired = comparison.curve(comparison.metrics[0])
        if not len(paired.iterations):
            return (_nothing(self.name, self.limit, paired),)
        observed = average(np.abs(paired.relative_difference))
        return (
            Finding(
                rule=self.name,
                outcome=Outcome.PASS if observed <= self.limit else Outcome.FAIL,
                observed=observed,
                limit=self.limit,
                unit="of the reference",
                iteration=None,
                message=f"the mean relative error is {beside(observed, self.limit)[0]}",
                would_pass_at=observed if math.isfinite(observed) else None,
                metric=paired.metric,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MindFormers:
    """The first loss off by < 0.005 or < 0.5 %, and the mean error < 0.01 or < 1 %.

    Attributes:
        first_limit: Bound of |c - r| / |r| at the first common iteration.
        first_absolute_limit: Bound of |c - r| there, in the metric's unit; either suffices.
        limit: Bound of mean(|c - r| / |r|) over all common iterations.
        absolute_limit: Bound of mean(|c - r|), in the metric's unit; either suffices.

    Source: MindSpore Transformers, Large Model Precision Optimization Guide, "Large Model Migration Precision Standard"
    (mindspore-ai/docs, docs/mindformers/docs/source_en/advanced_development/precision_optimization.md, commit
    000074d8bd67943781991f24e607f55b7c1c186f). It asks for the same weights, no randomness and 1000 steps or more, and
    leaves open whether the mean is signed; here it is not.
    """

    first_limit: float = 0.005
    first_absolute_limit: float = 0.005
    limit: float = 0.01
    absolute_limit: float = 0.01
    name: ClassVar[str] = "MindFormers"
    source: ClassVar[str] = "MindSpore Transformers, Large Model Migration Precision Standard"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Judge the first judged metric; the finding shows the criterion that is farther from its limit."""
        paired = comparison.curve(comparison.metrics[0])
        if not len(paired.iterations):
            return (_nothing(self.name, self.limit, paired),)
        relative, absolute = np.abs(paired.relative_difference), np.abs(paired.difference)
        first = float(relative[0]), float(absolute[0])
        mean = average(relative), average(absolute)
        criteria = (
            ("the first loss is off by", self.first_limit, self.first_absolute_limit, *first),
            ("the mean error is", self.limit, self.absolute_limit, *mean),
        )
        passing = [r < limit or a < absolute for _, limit, absolute, r, a in criteria]
        # Where one of the two criteria decides, that one is shown, else the one farther from its limit.
        shown = passing.index(False) if passing.count(False) == 1 else max((0, 1), key=lambda i: _severity(criteria[i]))
        what, limit, _, observed, off = criteria[shown]
        return (
            Finding(
                rule=self.name,
                outcome=Outcome.PASS if all(passing) else Outcome.FAIL,
                observed=observed,
                limit=limit,
                unit="of the reference",
                iteration=int(paired.iterations[0]) if shown == 0 else None,
                message=f"{what} {observed:.4g} of the reference and {off:.4g} absolutely",
                metric=paired.metric,
            ),
        )


def _severity(criterion: tuple[str, float, float, float, float]) -> float:
    _, limit, absolute_limit, relative, absolute = criterion
    severity = min(relative / limit, absolute / absolute_limit)
    return math.inf if math.isnan(severity) else severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Megatron:
    """|c - r| <= 5 % of |r| at every iteration of the reference but for 1 % of them (1 to 50 iterations).

    An iteration that the candidate lacks counts as failing, as it does there, where it is read as infinite.

    Attributes:
        limit: Largest allowed |c - r| / |r| of one iteration.

    Source: Megatron-LM's functional tests, the approximate test of ``lm loss`` with rtol = 0.05
    (tests/functional_tests/python_test_utils/common.py at commit 000a71707977cbffaf4d14d12f0f8d33049e4da3 and
    test_pretraining_regular_pipeline.py at commit 00caa53af30912914981c86f39db123961678bbd). There values are rounded
    to 5 decimals and every fifth step is looked at; here all recorded iterations are.
    """

    limit: float = 0.05
    name: ClassVar[str] = "Megatron-LM"
    source: ClassVar[str] = "Megatron-LM, functional tests, approximate test of lm loss"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Count the iterations of the first judged metric that are off by more than the limit."""
        paired = comparison.curve(comparison.metrics[0])
        total = len(paired.iterations) + len(paired.only_reference)
        if not total:
            return (_nothing(self.name, self.limit, paired),)
        with np.errstate(over="ignore", invalid="ignore"):
            close = np.isclose(paired.candidate, paired.reference, rtol=self.limit, atol=0.0)
        failing = total - int(close.sum())
        missing = " or missing" if len(paired.only_reference) else ""
        allowed = min(max(total // 100, 1), MOST_FAILING) if total > 1 else 0
        return (
            Finding(
                rule=self.name,
                outcome=Outcome.PASS if failing <= allowed else Outcome.FAIL,
                observed=failing / total,
                limit=allowed / total,
                unit="share of iterations off by more than 5 %",
                iteration=None,
                message=(
                    f"{failing} of {counted(total, 'iteration')} {'is' if failing == 1 else 'are'} off by more than "
                    f"{self.limit:.2g}{missing}, {allowed} may be"
                ),
                would_pass_at=failing / total,
                metric=paired.metric,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bitwise:
    """Every value of the reference occurs in the candidate, bit for bit, at the same iteration.

    Printed decimals cannot prove it: equal values of a log with few decimals are INCONCLUSIVE.

    Attributes:
        limit: Allowed share of iterations that differ or are missing.

    Source: torchtitan, scripts/loss_compare.py with --assert-equal (pytorch/torchtitan, commit
    02e5389e976043d2ba4a60947e93b76d5ef669b8); Megatron-LM's deterministic test in the file named at :class:`Megatron`.
    """

    limit: float = 0.0
    name: ClassVar[str] = "bitwise"
    source: ClassVar[str] = "torchtitan, scripts/loss_compare.py --assert-equal; Megatron-LM, deterministic test"

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Count the iterations of the first judged metric that differ at all."""
        paired = comparison.curve(comparison.metrics[0])
        total = len(paired.iterations) + len(paired.only_reference)
        if not total:
            return (_nothing(self.name, self.limit, paired),)
        failing = total - int(np.sum(paired.candidate == paired.reference))
        curves = (record.curves.get(paired.metric, EMPTY) for record in (comparison.reference, comparison.candidate))
        if failing > self.limit * total:
            one = failing == 1
            missing = f" or {'is' if one else 'are'} missing" if len(paired.only_reference) else ""
            differ = f"{failing} of {counted(total, 'iteration')} {'differs' if one else 'differ'}"
            outcome, message = Outcome.FAIL, f"{differ}{missing}"
        elif any(curve.quantum > 0 for curve in curves):
            outcome, message = Outcome.INCONCLUSIVE, "equal in every printed digit, which is not every bit"
        else:
            equal = "the one iteration is equal" if total == 1 else f"all {total} iterations are equal"
            outcome, message = Outcome.PASS, equal
        return (
            Finding(
                rule=self.name,
                outcome=outcome,
                observed=failing / total,
                limit=self.limit,
                unit="share of iterations that differ",
                iteration=None,
                message=message,
                would_pass_at=failing / total,
                metric=paired.metric,
            ),
        )


def _nothing(rule: str, limit: float, paired: PairedCurve) -> Finding:
    return Finding(
        rule=rule,
        outcome=Outcome.INCONCLUSIVE,
        observed=math.nan,
        limit=limit,
        unit="",
        iteration=None,
        message="no iteration is in both records",
        metric=paired.metric,
    )
