"""The same pair judged by the rules that others use, beside our verdict, with a sentence on each disagreement."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from emacheck.counted import counted
from emacheck.curve import Floats
from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.field_rules import Bitwise, Megatron, MindFormers, UnsignedMean
from emacheck.judge.figures import beside
from emacheck.judge.rules.modelzoo import LAST, ModelZoo, seen_by_script
from emacheck.judge.verdict import Finding, Outcome, Verdict

ROUNDING_NOISE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one rule of the field says about a comparison.

    Attributes:
        rule: The rule's name.
        source: Where it is published.
        outcome: What it says.
        observed: The number that it measured, NaN where there was nothing to measure.
        limit: The number it held that against.
        sentence: What it found, and where it disagrees with our verdict, why.
    """

    rule: str
    source: str
    outcome: Outcome
    observed: float
    limit: float
    sentence: str


MODELZOO_SOURCE = "Tecorigin ModelZoo, run_scripts/loss.py"


def scoreboard(comparison: Comparison, verdict: Verdict, *, rank_0: Comparison | None = None) -> tuple[Entry, ...]:
    """Judge a comparison by the rules that others use.

    They judge the first judged metric. Where each came from and how it was verified is written down beside each rule
    and in docs/scoreboard.md.

    Args:
        comparison: What was measured.
        verdict: Our verdict on it.
        rank_0: The same comparison of the records of rank 0, which the model zoo's script looks at, if ``comparison``
            is of anything else, such as the mean of all ranks.

    Returns:
        One entry per rule: the model zoo's, the unsigned 5 %, MindFormers', Megatron-LM's, bitwise equality.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> def record(factor):
        ...     loss = Curve(name="loss", iterations=range(1, 21), values=[4.0 * factor] * 20)
        ...     return Record(name="cpu", format="example", curves={"loss": loss})
        >>> comparison = compare(record(1.0), record(0.6))
        >>> for entry in scoreboard(comparison, decide(comparison))[:2]:
        ...     print(entry.outcome, entry.rule, "-", entry.sentence)
        PASS modelzoo - passes because its errors are signed: unsigned it is 0.4
        FAIL unsigned 5 % - agrees: the mean relative error is 0.4
    """
    rules = (ModelZoo(), UnsignedMean(), MindFormers(), Megatron(), Bitwise())
    entries = []
    for rule in rules:
        seen = rank_0 if rank_0 is not None and isinstance(rule, ModelZoo) else comparison
        finding = rule.check(seen)[0]
        entries.append(
            Entry(
                rule=rule.name,
                source=MODELZOO_SOURCE if isinstance(rule, ModelZoo) else rule.source,
                outcome=finding.outcome,
                observed=finding.observed,
                limit=finding.limit,
                sentence=_sentence(finding, seen, verdict),
            )
        )
    return tuple(entries)


def _sentence(finding: Finding, comparison: Comparison, verdict: Verdict) -> str:
    found = _found(finding)
    if finding.outcome is verdict.outcome:
        return f"agrees: {found}"
    if finding.outcome is Outcome.PASS:
        return f"passes {_why_it_passes(finding, comparison, verdict)}"
    if finding.outcome is Outcome.FAIL:
        return f"fails {_why_it_fails(finding, comparison, verdict)}"
    return f"cannot tell: {found}; emacheck: {_deciding(verdict)}"


def _found(finding: Finding) -> str:
    if finding.rule == ModelZoo.name and finding.outcome is not Outcome.INCONCLUSIVE:
        observed, _ = beside(finding.observed, finding.limit)
        return f"the signed mean relative error of the last {LAST} is {observed}"
    return finding.message


def _deciding(verdict: Verdict) -> str:
    """Say in a few words what decided our verdict."""
    worst = verdict.worst
    if worst is None:
        return f"{verdict.outcome}, no rule was applied"
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return f"INCONCLUSIVE, {worst.rule}: {worst.message}".split("\n", maxsplit=1)[0]
    observed, limit = beside(worst.observed, worst.limit)
    return f"{verdict.outcome}, {worst.rule} is {observed} (limit {limit})"


def _why_it_passes(finding: Finding, comparison: Comparison, verdict: Verdict) -> str:
    paired = comparison.curve(finding.metric)
    reasons = list(_blind_spots(comparison)) if finding.rule == ModelZoo.name else []
    broken = int(np.sum(~np.isfinite(paired.candidate)))
    if broken and finding.rule == Megatron.name:
        values = counted(broken, "value is", "values are")
        reasons.append(f"although {values} NaN or infinite: 1 % of the iterations may hold anything")
    if len(paired.only_reference) and finding.rule != Bitwise.name:
        reasons.append(
            f"although the candidate lacks {counted(len(paired.only_reference), 'iteration')} of the reference"
        )
    if not reasons:
        reasons.append(
            f"because {_found(finding)} and its limit is {finding.limit:.4g}; emacheck: {_deciding(verdict)}"
        )
    return " and ".join(reasons)


def _blind_spots(comparison: Comparison) -> Iterator[str]:
    """Name each property of the model zoo's rule without which it would not have passed."""
    metric, rule = comparison.metrics[0], ModelZoo()
    whole = [r.curves.get(metric, EMPTY).values for r in (comparison.reference, comparison.candidate)]
    reference, candidate = (seen_by_script(values) for values in whole)
    unseen = len(whole[1]) - len(candidate)
    if unseen:
        yield f"because it does not see {unseen} of the candidate's values (NaN, infinite, negative)"
    length = min(len(reference), len(candidate))
    by_position = _means(reference[:length][-LAST:], candidate[:length][-LAST:])
    over_all = _means(reference[:length], candidate[:length])
    if not (by_position.unsigned_relative <= rule.limit or by_position.unsigned_absolute <= rule.absolute_limit):
        yield f"because its errors are signed: unsigned it is {by_position.unsigned_relative:.4g}"
    elif not (over_all.unsigned_relative <= rule.limit or over_all.unsigned_absolute <= rule.absolute_limit):
        yield (
            f"because it looks at the last {LAST} of {length} values and signs its errors: unsigned, over all, it is "
            f"{over_all.unsigned_relative:.4g}"
        )
    paired = comparison.curve(metric)
    by_iteration = _means(paired.reference[-LAST:], paired.candidate[-LAST:])
    if len(paired.iterations) and not (
        by_iteration.relative <= rule.limit or by_iteration.absolute <= rule.absolute_limit
    ):
        yield f"because it pairs by position: by iteration it is {by_iteration.relative:.4g}"


class _Means(NamedTuple):
    relative: float
    absolute: float
    unsigned_relative: float
    unsigned_absolute: float


def _means(reference: Floats, candidate: Floats) -> _Means:
    if not len(reference):
        return _Means(math.nan, math.nan, math.nan, math.nan)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        absolute = candidate - reference
        relative = np.where(absolute == 0, 0.0, absolute / reference)
        return _Means(*(float(np.mean(x)) for x in (relative, absolute, np.abs(relative), np.abs(absolute))))


def _why_it_fails(finding: Finding, comparison: Comparison, verdict: Verdict) -> str:
    paired = comparison.curve(finding.metric)
    relative = np.abs(paired.relative_difference)
    if finding.rule == Bitwise.name and len(relative) and not len(paired.only_reference):
        largest = float(np.max(relative))
        if largest <= ROUNDING_NOISE:
            return (
                f"on rounding noise: no value is off by more than {largest:.2g} of the reference, and bitwise "
                "equality is stricter than any two devices"
            )
        return (
            f"because {finding.message}, by up to {largest:.2g} of the reference; bitwise equality is stricter than "
            f"any two devices; emacheck: {_deciding(verdict)}"
        )
    if finding.rule == Megatron.name and len(relative):
        return f"because {finding.message}; their mean is {average(relative):.4g}; emacheck: {_deciding(verdict)}"
    return f"because {_found(finding)} (limit {finding.limit:.4g}); emacheck: {_deciding(verdict)}"
