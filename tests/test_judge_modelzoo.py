"""The rule modelzoo: what its script computes and cannot see, and what its signs let through."""

import math

import numpy as np
from losses import falling, record, verdict_on

from emacheck.judge import Outcome
from emacheck.judge.rules.modelzoo import ModelZoo, seen_by_script

PASS, INCONCLUSIVE = Outcome.PASS, Outcome.INCONCLUSIVE


def test_the_modelzoo_rule_is_signed_and_says_when_only_the_signs_let_it_pass():
    verdict = verdict_on(record(falling()), record(falling() * 0.61), "modelzoo")
    message = verdict.findings[0].message
    assert verdict.outcome is PASS
    assert "passes only because the errors are signed" in message
    assert message.splitlines()[0].startswith("MeanRelativeError: -0.39")
    assert message.splitlines()[3].startswith("pass mean_relative_error=-0.39")


def test_the_modelzoo_rule_cuts_to_the_shorter_then_keeps_the_last_50_by_position():
    reference, candidate = falling(120), falling(112) * 1.01
    finding = verdict_on(record(reference, first=0), record(candidate, first=7), "modelzoo").findings[0]
    expected = ((candidate[62:112] - reference[62:112]) / reference[62:112]).mean()
    assert finding.observed == expected
    assert finding.message.splitlines()[0] == f"MeanRelativeError: {expected}"


def test_the_modelzoo_rule_cannot_see_what_its_expression_cannot_match():
    assert seen_by_script(np.array([math.nan, math.inf, 1.0, 1e20])).tolist() == [1.0]
    assert verdict_on(record([math.nan] * 20), record(falling(20)), "modelzoo").outcome is INCONCLUSIVE


def test_the_modelzoo_rule_names_the_smaller_of_its_two_errors():
    lines = ModelZoo().lines(0.5, 0.1, passed=False)
    assert lines[2] == "Rule,mean_absolute_error 0.1"
    assert lines[3] == "fail mean_relative_error=0.5 <= 0.05 or mean_absolute_error=0.1 <= 0.0002"
