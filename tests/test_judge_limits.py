"""The limits of rules: what is refused, what a limit decides, and which one a finding needs to pass."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import falling, record, verdict_on

from emacheck.errors import UsageError
from emacheck.judge import DEFAULT_RULES, RULES, Outcome, decide, make_rules
from emacheck.judge.comparison import compare

PASS, FAIL = Outcome.PASS, Outcome.FAIL


def test_a_finding_says_what_limit_would_have_passed_and_that_limit_passes():
    reference, candidate = record(falling()), record(falling() * 1.1)
    finding = verdict_on(reference, candidate, "mean_relative_error").findings[0]
    limit = {"limit": finding.would_pass_at}
    assert verdict_on(reference, candidate, "mean_relative_error", mean_relative_error=limit).outcome is PASS


@pytest.mark.parametrize(
    ("names", "limits", "message"),
    [
        (["nonsense"], {}, "there is no rule 'nonsense'"),
        (["bias"], {"finite": {"limit": 1}}, "not among the rules in use"),
        (["bias"], {"bias": {"nonsense": 1}}, "has no limit 'nonsense'"),
        (["bias"], {"bias": {"limit": -1}}, "not negative"),
        (["bias"], {"bias": {"limit": math.nan}}, "not negative"),
        (["bias"], {"bias": {"limit": "high"}}, "must be a number"),
        (["bias"], {"bias": {"limit": True}}, "must be a number"),
        (["bias"], {"bias": {"limit": 10**400}}, "bias': limit must be a number of float64"),
        (["bias"], {"bias": {"limit": 16**5000}}, "bias': limit must be a number of float64"),
        (["coverage"], {"coverage": {"minimum": math.inf}}, "coverage': minimum is a count .* whole number, found inf"),
        (["coverage"], {"coverage": {"minimum": 1.9}}, "minimum is a count and must be a whole number, found 1.9"),
        (["first_iterations"], {"first_iterations": {"count": 1.5}}, "count is a count .* found 1.5"),
        (["envelope"], {"envelope": {"also": 1}}, "no limit 'also'. It has: alpha, limit, minimum"),
        (["first_iterations"], {"first_iterations": {"precision": 1}}, "no limit 'precision'. It has: limit, count"),
    ],
)
def test_wrong_rules_and_limits_are_refused_by_name(names, limits, message):
    with pytest.raises(UsageError, match=message):
        make_rules(names, limits)


@pytest.mark.parametrize(
    "name",
    [
        "mean_relative_error",
        "mean_absolute_error",
        "bias",
        "worst_window",
        "equivalence",
        "first_iterations",
        "envelope",
    ],
)
def test_no_rule_passes_on_no_common_iteration_or_a_reference_that_is_not_finite(name):
    values = falling()
    values[1] = math.nan
    repeats = [record(falling() * (1 + 1e-7 * np.sin(np.arange(100) + at))) for at in range(3)]
    for comparison in (
        compare(record(falling()), record(falling(), first=200), repeats=repeats),
        compare(record(values), record(falling()), repeats=repeats),
    ):
        (finding,) = decide(comparison, make_rules([name])).findings
        assert finding.outcome is Outcome.INCONCLUSIVE


def test_a_count_may_be_written_with_a_decimal_point_and_a_limit_be_infinite():
    (coverage,) = make_rules(["coverage"], {"coverage": {"minimum": 5.0, "limit": math.inf}})
    assert (coverage.minimum, type(coverage.minimum), coverage.limit) == (5, int, math.inf)


@pytest.mark.parametrize("value", [0, 1e-300, 0.5, 1.0, 3, 1e308, math.inf])
@pytest.mark.parametrize("name", RULES)
def test_whatever_a_limit_is_set_to_it_is_refused_or_decides(name, value):
    repeats = tuple(record(falling(40) * (1 + 1e-7 * np.sin(np.arange(40) + at))) for at in range(3))
    comparison = compare(record(falling(40)), record(falling(40) * 1.001), repeats=repeats)
    for field in fields(RULES[name]):
        try:
            rules = make_rules([name], {name: {field.name: value}})
        except UsageError:
            continue
        assert decide(comparison, rules).outcome in Outcome


@given(
    st.integers(0, 12), st.integers(0, 12), st.sets(st.integers(1, 20), max_size=3), st.sets(st.integers(1, 20)),
    st.sampled_from(["finite", "coverage", "mean_relative_error", "mean_absolute_error", "bias"]),
)  # fmt: skip
def test_the_limit_that_a_finding_needs_lets_it_pass(lost, lacking, broken_here, broken_there, name):
    reference, candidate = falling(20), falling(20) * 1.07
    reference[[at - 1 for at in broken_here]] = math.nan
    candidate[[at - 1 for at in broken_there]] = math.inf
    comparison = compare(record(reference[lost:], first=lost + 1), record(candidate[: 20 - lacking]))
    (finding,) = decide(comparison, make_rules([name])).findings
    if finding.would_pass_at is not None:
        field = "minimum" if finding.unit == "common iterations needed" else "limit"
        (again,) = decide(comparison, make_rules([name], {name: {field: finding.would_pass_at}})).findings
        assert again.outcome is PASS


def test_too_few_common_iterations_beside_missing_ones_are_passed_by_no_limit_alone():
    verdict = verdict_on(record(falling(11)), record(falling(9)), "coverage")
    (finding,) = verdict.findings
    assert (finding.outcome, finding.would_pass_at) == (FAIL, None)
    assert "--limit coverage=0.1819 --limit coverage.minimum=9" in finding.message
    accepted = verdict_on(record(falling(11)), record(falling(9)), "coverage", coverage={"limit": 0.1819, "minimum": 9})
    assert accepted.outcome is PASS


def test_every_rule_is_frozen_and_known_by_its_own_name():
    for name, rule in RULES.items():
        made = rule()
        assert made.name == name
        with pytest.raises(AttributeError):
            made.limit = 1
    assert set(DEFAULT_RULES) < set(RULES)


@pytest.mark.parametrize("stated", [None, True, False])
@pytest.mark.parametrize("name", RULES)
def test_a_pair_passes_with_a_required_rule_only_if_that_rule_says_pass(name, stated):
    pair = replace(compare(record(falling()), record(falling())), stated=stated)
    assert decide(pair).outcome is PASS
    required = decide(pair, required=[name])
    said = {finding.outcome for finding in required.findings if finding.rule == name}
    assert said in ({PASS}, {Outcome.INCONCLUSIVE})
    assert required.outcome is said.pop()


@pytest.mark.parametrize(("rates", "outcome"), [((0.01, 0.01), PASS), ((0.01, None), Outcome.INCONCLUSIVE)])
def test_a_required_schedule_needs_learning_rates_on_both_sides(rates, outcome):
    def with_rate(rate):
        run = record(falling())
        lr = (
            {} if rate is None else {"lr": replace(run.curves["loss"], name="lr", values=np.full(len(falling()), rate))}
        )
        return replace(run, curves={**run.curves, **lr})

    pair = compare(*map(with_rate, rates))
    verdict = decide(pair, required=["schedule"])
    assert verdict.outcome is outcome
    assert [finding.outcome for finding in verdict.findings if finding.rule == "schedule"] == [outcome]
    assert decide(pair).outcome is PASS


def test_a_required_rule_that_others_were_chosen_over_is_inconclusive():
    pair = compare(record(falling()), record(falling()))
    verdict = decide(pair, make_rules(["finite"]), required=["bias"])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "not among the rules in use" in verdict.findings[-1].message
