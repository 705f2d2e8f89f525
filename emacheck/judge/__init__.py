"""From two records to a verdict: pure numpy, no I/O, no torch."""

import math
import numbers
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from emacheck.errors import UsageError
from emacheck.judge.choice import DEFAULT_RULES, default_rules
from emacheck.judge.comparison import Comparison
from emacheck.judge.excuses.chance import without_blame_for_chance
from emacheck.judge.excuses.data import without_blame_for_data
from emacheck.judge.excuses.numbers import without_blame_for_numbers, without_blame_for_zero
from emacheck.judge.excuses.repeats import without_blame_for_repeats
from emacheck.judge.excuses.windows import without_blame_for_windows
from emacheck.judge.forensics.broken import told_of_steps_left_out, without_steps_left_out
from emacheck.judge.forensics.metric_names import is_gradient_norm
from emacheck.judge.forensics.numbering import both_from_one
from emacheck.judge.required import without_evidence, without_ground
from emacheck.judge.rules.alternatives import either_suffices
from emacheck.judge.rules.coverage import Coverage
from emacheck.judge.rules.envelope import Envelope
from emacheck.judge.rules.equivalence import Equivalence
from emacheck.judge.rules.final_metric import FinalMetric
from emacheck.judge.rules.fingerprints import Fingerprints
from emacheck.judge.rules.finite import Finite
from emacheck.judge.rules.first_iterations import FirstIterations
from emacheck.judge.rules.integrity import Integrity
from emacheck.judge.rules.means import Bias, MeanAbsoluteError, MeanRelativeError
from emacheck.judge.rules.modelzoo import ModelZoo
from emacheck.judge.rules.ranks import Ranks
from emacheck.judge.rules.rule import Rule
from emacheck.judge.rules.schedule import Schedule
from emacheck.judge.rules.smoothing import Smoothing
from emacheck.judge.rules.worst_window import WorstWindow
from emacheck.judge.verdict import Finding, Outcome, Verdict
from emacheck.printable import NAME_LENGTH, shortened

RULES: dict[str, Any] = {
    rule.name: rule
    for rule in (
        Fingerprints,
        Finite,
        Integrity,
        Coverage,
        Smoothing,
        Schedule,
        MeanRelativeError,
        MeanAbsoluteError,
        Bias,
        WorstWindow,
        Ranks,
        Envelope,
        FirstIterations,
        Equivalence,
        FinalMetric,
        ModelZoo,
    )
}


def make_rules(names: Sequence[str] = (), limits: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Rule, ...]:
    """Build rules by name, with their default limits or others.

    Args:
        names: Names of rules; empty means the default ones.
        limits: For each rule's name the fields to set, such as ``{"mean_relative_error": {"limit": 0.01}}``.

    Returns:
        The rules in the order of ``names``.

    Raises:
        UsageError: If a rule or one of its fields does not exist, or a limit is not a number >= 0, or a count no whole
            number. If names is a string, or the limits of a rule are no mapping of fields.

    Example:
        >>> make_rules(["bias"], {"bias": {"limit": 0.01}})
        (Bias(limit=0.01),)
    """
    if isinstance(names, str):
        raise UsageError(f"found the string {names!r} as the names of rules, expected a sequence: [{names!r}].")
    chosen = tuple(dict.fromkeys(names)) or DEFAULT_RULES
    limits = limits or {}
    for name in (*chosen, *limits):
        if name not in RULES:
            raise UsageError(f"there is no rule {name!r}. Rules: {', '.join(RULES)}.")
    for name, set_ in limits.items():
        if not isinstance(set_, Mapping):
            raise UsageError(
                f"found {shortened(repr(set_), NAME_LENGTH)} as the limits of rule {name!r}, expected a mapping of its "
                f'fields: {{"{name}": {{"limit": ...}}}}.'
            )
    for name in limits:
        if name not in chosen:
            raise UsageError(
                f"a limit is set for the rule {name!r}, which is not among the rules in use "
                f"({', '.join(chosen)}). Drop the limit, or name all rules that are to be used, {name} among them."
            )
    return tuple(_with_limits(RULES[name](), limits.get(name, {})) for name in chosen)


def _with_limits(rule: Any, limits: Mapping[str, Any]) -> Rule:
    settable = {field.name: field.type for field in fields(rule) if field.type in (int, float)}
    for name in limits:
        if name not in settable:
            raise UsageError(f"rule {rule.name!r} has no limit {name!r}. It has: {', '.join(settable)}.")
    made: Rule = replace(rule, **{name: _limit(rule.name, name, settable[name], limits[name]) for name in limits})
    return made


def _limit(rule: str, name: str, kind: Any, value: Any) -> int | float:
    """Return a limit as the type that its field has, if it is one."""
    where = f"rule {rule!r}: {name}"
    try:
        limit = math.nan if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
    except OverflowError as error:
        raise UsageError(f"{where} must be a number of float64, found an integer beyond 1.8e308.") from error
    if not limit >= 0:
        raise UsageError(f"{where} must be a number that is not negative, found {shortened(repr(value), NAME_LENGTH)}.")
    if kind is float:
        return limit
    if not limit.is_integer():
        raise UsageError(f"{where} is a count and must be a whole number, found {value!r}.")
    return int(limit)


def decide(
    comparison: Comparison,
    rules: Sequence[Rule] | None = None,
    *,
    named: Collection[str] | None = None,
    required: Sequence[str] = (),
) -> Verdict:
    """Let rules judge a comparison.

    Of ``mean_relative_error`` and ``mean_absolute_error``, when both are in use, either suffices for each metric:
    the one that is over its limit is then a PASS that says so; but not the default absolute limit of a loss that is
    itself as small. Where nobody named the rules, mean errors over their limits are INCONCLUSIVE if other batches
    explain them as well as a wrong device, and so is a bias that the noise of the differences explains. What
    ``finite``, ``integrity`` and ``coverage`` find where they are not among the rules decides nothing, and is kept
    beside the findings.

    Args:
        comparison: What was measured.
        rules: The rules, those of :func:`make_rules` or of your own; those that suit the comparison if None.
        named: The rules that somebody asked for or set a limit of, so that they mean what they say; all of ``rules``
            if None.
        required: Names of rules without which there is no PASS: one that is not in use, or had nothing to compare, is
            INCONCLUSIVE.

    Returns:
        The verdict.

    Raises:
        UsageError: If anything but a comparison and rules is given, or a rule returns anything but findings, or there
            is no rule of a required name.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> loss = Curve(name="loss", iterations=list(range(1, 21)), values=[4 - 0.1 * i for i in range(20)])
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> str(decide(compare(record, record)).outcome)
        'PASS'
    """
    if not isinstance(comparison, Comparison):
        raise UsageError(
            f"found {type(comparison).__name__}, expected a Comparison, which compare(reference, candidate) returns."
        )
    if rules is None:
        rules, named = make_rules(default_rules(comparison)), named or ()
    _require_rules(rules)
    named = {rule.name for rule in rules} if named is None else named
    comparison, everything = _without_steps_left_out(comparison), comparison
    findings = [finding for rule in rules for finding in _found(rule, comparison)]
    findings = without_blame_for_repeats(comparison, findings, named)
    findings = either_suffices(comparison, findings)
    findings = without_blame_for_data(comparison, findings, named)
    findings = without_blame_for_windows(comparison, findings, named)
    findings = without_blame_for_chance(comparison, findings, named)
    findings = without_blame_for_numbers(comparison, findings, named)
    if (from_one := both_from_one(comparison)) is not None:
        findings = without_blame_for_zero(findings, decide(from_one, rules, named=named).findings, named)
    left_out = [
        finding
        for rule in (Finite(), Integrity(), Coverage())
        if rule.name not in {each.name for each in rules}
        for finding in rule.check(comparison)
        if finding.outcome is not Outcome.PASS
    ]
    if required:
        demanded, in_use = make_rules(required), {rule.name for rule in rules}
        findings = without_evidence(comparison, findings, [rule for rule in demanded if rule.name in in_use])
        findings += without_ground(comparison, [rule for rule in demanded if rule.name not in in_use])
    findings = _told_of_steps_left_out(findings, everything, comparison)
    return Verdict(comparison=comparison, findings=tuple(findings), left_out=tuple(left_out))


def _without_steps_left_out(comparison: Comparison) -> Comparison:
    """Return a comparison of the judged gradient norms without the iterations at which a scaler left the step out."""
    for metric in filter(is_gradient_norm, comparison.metrics):
        comparison = without_steps_left_out(comparison, metric)
    return comparison


def _told_of_steps_left_out(findings: list[Finding], comparison: Comparison, judged: Comparison) -> list[Finding]:
    """Let the first finding of each judged gradient norm say at how many iterations none was judged."""
    told = list(findings)
    for metric in filter(is_gradient_norm, comparison.metrics):
        at = next((place for place, each in enumerate(told) if each.metric == metric), None)
        if at is not None:
            told[at] = told_of_steps_left_out(told[at], comparison, judged)
    return told


def _require_rules(rules: Any) -> None:
    for rule in rules if isinstance(rules, Sequence) and not isinstance(rules, str) else [rules]:
        if isinstance(rule, type) or not isinstance(getattr(rule, "name", None), str) or not hasattr(rule, "check"):
            raise UsageError(
                f"found {shortened(repr(rule), NAME_LENGTH)} as a rule, expected an object with a name and a method "
                "check, in a sequence: emacheck.make_rules(names) makes those that there are."
            )
    if not isinstance(rules, Sequence):
        raise UsageError(f"found {type(rules).__name__} as the rules, expected a sequence: [rule].")


def _found(rule: Rule, comparison: Comparison) -> tuple[Finding, ...]:
    findings: Any = rule.check(comparison)
    if not isinstance(findings, tuple | list) or not all(isinstance(each, Finding) for each in findings):
        raise UsageError(
            f"rule {rule.name}: check returned {shortened(repr(findings), NAME_LENGTH)}, expected a tuple of findings."
        )
    return tuple(findings)


__all__ = ["DEFAULT_RULES", "RULES", "Finding", "Outcome", "Rule", "Verdict", "decide", "default_rules", "make_rules"]
