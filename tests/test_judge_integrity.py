"""Whether two records can be held against each other: fingerprints, what was asked for, runs that ended early."""

from dataclasses import replace

import numpy as np
import pytest
from losses import falling, outcome_of, record, verdict_on

from emacheck import Curve
from emacheck.judge import DEFAULT_RULES, Outcome, decide
from emacheck.judge.comparison import Comparison, compare
from emacheck.oddity import OddityKind, oddity
from emacheck.report.wording import headline

INCONCLUSIVE = Outcome.INCONCLUSIVE


def test_different_weights_or_batches_are_inconclusive_however_close_the_losses_are():
    reference = record(falling(), initial_state="aa", batches=("1",) * 100)
    for other in ({"initial_state": "bb"}, {"batches": (*("1",) * 41, "2", *("1",) * 58)}):
        candidate = replace(reference, **other)
        verdict = decide(compare(reference, candidate))
        assert verdict.outcome is INCONCLUSIVE
        assert verdict.comparison.paired is False
    assert verdict.findings[0].iteration == 42


def test_fingerprints_that_are_missing_although_asked_for_are_inconclusive():
    assert verdict_on(record(falling()), record(falling()), "fingerprints").outcome is INCONCLUSIVE


def test_a_comparison_knows_whether_its_records_are_paired():
    bare = record(falling())
    printed = record(falling(), initial_state="aa", batches=("1",) * 100)
    assert compare(bare, printed).paired is None
    assert compare(printed, printed).paired is True
    assert isinstance(compare(bare, bare), Comparison)


EXPERIMENT = {"name": "emanet", "seed": 0, "precision": "fp32", "processes": 1, "config": {"model.dropout_ratio": 0.1}}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"precision": "bf16"}, "precision: reference 'fp32', candidate 'bf16'"),
        ({"config": {"model.dropout_ratio": 0.2}}, "model.dropout_ratio: reference 0.1, candidate 0.2"),
        ({"seed": 1}, "seed: reference 0, candidate 1"),
    ],
)
def test_runs_that_were_asked_for_different_things_are_inconclusive_unless_that_is_accepted(asked, said):
    fingerprints = {"initial_state": "aa", "batches": ("bb",) * 100}
    reference = record(falling(), provenance={"experiment": EXPERIMENT}, **fingerprints)
    candidate = record(falling(), provenance={"experiment": {**EXPERIMENT, **asked}}, **fingerprints)
    verdict = verdict_on(reference, candidate)
    assert (verdict.outcome, verdict.worst.rule) == (Outcome.INCONCLUSIVE, "integrity")
    assert f"the two were asked for different things: {said} (accept with --limit integrity=1)" in verdict.worst.message
    accepted = verdict_on(reference, candidate, *DEFAULT_RULES, integrity={"limit": 1})
    assert accepted.outcome is Outcome.PASS
    assert said in next(finding.message for finding in accepted.findings if finding.rule == "integrity")


@pytest.mark.parametrize("counted_one", ["reference", "candidate"])
@pytest.mark.parametrize(
    ("kind", "factor"), [(OddityKind.COUNTED, 1), (OddityKind.COUNTED, 3), (OddityKind.BY_EPOCH, 1)]
)
def test_records_that_were_counted_are_not_held_against_numbers_of_another_kind(counted_one, kind, factor):
    named = record(factor * falling(), first=10, every=10)
    counted = replace(record(falling()), oddities=(oddity(kind, "counted from 1"),))
    comparison = compare(*((counted, named) if counted_one == "reference" else (named, counted)))
    verdict = decide(comparison)
    assert verdict.outcome is INCONCLUSIVE
    assert not [finding for finding in verdict.findings if finding.outcome is Outcome.FAIL]
    (integrity,) = [finding for finding in verdict.findings if finding.rule == "integrity"]
    assert integrity.outcome is INCONCLUSIVE
    assert f"the {counted_one} has records 1 to 100, for its log names" in integrity.message
    assert decide(comparison, named=("integrity",)).outcome is Outcome.FAIL


@pytest.mark.parametrize("kind", [OddityKind.SHORT_LAST_RUN, OddityKind.MIXED])
def test_where_it_is_open_which_records_are_meant_nothing_fails_by_them(kind):
    short = replace(record(2 * falling()[:20]), oddities=(oddity(kind, "which of them is meant?"),))
    assert decide(compare(record(falling()), short)).outcome is INCONCLUSIVE
    broken = replace(short, curves=record([np.nan] * 20).curves)
    assert decide(compare(record(falling()), broken)).outcome is Outcome.FAIL


def test_records_that_were_counted_are_held_against_the_same_numbers():
    remark = (oddity(OddityKind.COUNTED, "counted from 1"),)
    counted, wrong = (replace(record(losses), oddities=remark) for losses in (falling(), 2 * falling()))
    assert decide(compare(record(falling()), counted)).outcome is Outcome.PASS
    assert decide(compare(record(falling()), wrong)).outcome is Outcome.FAIL


def test_what_may_differ_between_two_runs_of_one_experiment_is_no_reason():
    fingerprints = {"initial_state": "aa", "batches": ("bb",) * 100}
    reference = record(falling(), provenance={"experiment": EXPERIMENT}, **fingerprints)
    for asked in ({"name": "mine"}, {"data_hash": "ab"}):
        candidate = record(falling(), provenance={"experiment": {**EXPERIMENT, **asked}}, **fingerprints)
        assert verdict_on(reference, candidate).outcome is Outcome.PASS
    unpaired = [
        record(falling(), initial_state=str(seed), provenance={"experiment": {**EXPERIMENT, "seed": seed}})
        for seed in (0, 1)
    ]
    assert outcome_of(verdict_on(*unpaired), "integrity") is Outcome.PASS


@pytest.mark.parametrize("early", ["reference", "candidate"])
def test_a_run_that_ended_before_its_time_never_passes_though_both_hold_the_same_iterations(early):
    sides = {side: record(falling(), complete=side != early) for side in ("reference", "candidate")}
    verdict = decide(compare(sides["reference"], sides["candidate"]))
    assert (verdict.outcome, verdict.worst.rule) == (INCONCLUSIVE, "integrity")
    assert f"the {early}: the run ended before its time (accept with --limit integrity=1)" in verdict.worst.message


def test_a_run_that_says_why_it_is_incomplete_counts_once():
    ended = oddity(OddityKind.ENDED_EARLY, "run.json counts 200 iterations, iterations.jsonl holds 100")
    candidate = record(falling(), complete=False, oddities=(ended,))
    verdict = verdict_on(record(falling()), candidate, "integrity")
    assert (verdict.outcome, verdict.worst.observed) == (INCONCLUSIVE, 1)
    assert str(ended) in verdict.worst.message


def timed(losses, times):
    bare = record(losses)
    time = Curve(name="time", iterations=bare.curves["loss"].iterations, values=times)
    return replace(bare, curves={**bare.curves, "time": time})


TIMES = 0.5 + 0.01 * np.random.default_rng(7).normal(size=100)


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_records_with_the_same_times_are_said_to_be_of_one_run_whatever_their_losses(factor):
    verdict = decide(compare(timed(falling(), TIMES), timed(falling() * factor, TIMES)))
    assert headline(verdict).endswith(", logs of one run")
    (integrity,) = [finding for finding in verdict.findings if finding.rule == "integrity"]
    assert integrity.limited_by[0].startswith("every measured time (time) is the same in both at all 100 common")
    assert integrity.outcome is Outcome.PASS


@pytest.mark.parametrize("times", [np.where(np.arange(100) == 50, 0.6, TIMES), np.full(100, 0.5), np.full(100, np.nan)])
def test_times_that_differ_once_or_never_move_prove_nothing(times):
    reference = timed(falling(), TIMES if times[0] == TIMES[0] else times)
    assert "one run" not in headline(decide(compare(reference, timed(falling(), times))))


def test_a_loss_that_is_stuck_between_two_records_of_the_reference_fails():
    reference, candidate = falling(200), falling(200)
    candidate[62:77] = candidate[62]
    verdict = verdict_on(record(reference[19::20], first=20, every=20), record(candidate), "integrity")
    assert verdict.outcome is Outcome.FAIL


@pytest.mark.parametrize(("quantum", "enough"), [(0.0, 3), (1e-4, 10)])
def test_a_constant_loss_is_no_chance_from_so_many_values_on(quantum, enough):
    for count in (enough - 1, enough):
        still = verdict_on(record(falling(count), quantum=quantum), record([0.5] * count, quantum=quantum), "integrity")
        assert still.findings[0].outcome is (Outcome.FAIL if count == enough else Outcome.PASS)


@pytest.mark.parametrize(("value", "expected"), [(3.0, INCONCLUSIVE), (3.0123, Outcome.FAIL)])
def test_a_constant_loss_in_the_middle_of_the_references_noise_never_passes(value, expected):
    noisy = 3 + 0.1 * np.random.default_rng(0).standard_normal(100)
    verdict = verdict_on(record(noisy), record([value] * 100))
    assert (verdict.outcome, verdict.worst.rule) == (expected, "integrity")


@pytest.mark.parametrize(("zeros", "expected"), [(4, INCONCLUSIVE), (5, Outcome.FAIL)])
def test_zeros_in_a_row_are_no_death_where_the_reference_has_half_as_many(zeros, expected):
    reference, candidate = falling(30), falling(30)
    reference[[7, 20, 21]] = candidate[-zeros:] = 0
    for known, outcome in ((reference, expected), (falling(30), Outcome.FAIL)):
        (finding,) = verdict_on(record(known), record(candidate), "integrity").findings
        assert finding.outcome is outcome
