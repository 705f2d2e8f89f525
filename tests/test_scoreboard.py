"""The rules of the field beside ours, and why they disagree."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import falling, record

import emacheck
from emacheck.judge import Outcome, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.field_rules import Bitwise, Megatron, MindFormers, UnsignedMean
from emacheck.judge.scoreboard import scoreboard
from emacheck.record import Record
from emacheck.report.scoreboard import scoreboard_markdown, scoreboard_text

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
CORPUS = os.environ.get("EMACHECK_CORPUS", "")
NAMES = ("modelzoo", "unsigned 5 %", "MindFormers", "Megatron-LM", "bitwise")


def board_of(reference, candidate, *rules, **options):
    comparison = compare(reference, candidate)
    entries = scoreboard(comparison, decide(comparison, make_rules(rules)), **options)
    assert tuple(entry.rule for entry in entries) == NAMES
    return {entry.rule: entry for entry in entries}


def outcome_of(rule, reference, candidate):
    (finding,) = rule.check(compare(record(reference), record(candidate)))
    return finding.outcome


def test_identical_runs_pass_every_rule():
    board = board_of(record(falling()), record(falling()))
    assert {entry.outcome for entry in board.values()} == {PASS}
    assert all(entry.sentence.startswith("agrees") for entry in board.values())


def test_a_loss_that_is_39_percent_too_low_passes_only_the_signed_rule_which_says_so():
    board = board_of(record(falling()), record(0.61 * falling()))
    assert [entry.outcome for entry in board.values()] == [PASS, FAIL, FAIL, FAIL, FAIL]
    assert board["modelzoo"].sentence == "passes because its errors are signed: unsigned it is 0.39"
    assert board["modelzoo"].observed == pytest.approx(-0.39)


def test_an_error_just_over_its_limit_is_not_shown_as_equal_to_it():
    comparison = compare(record(falling()), record(1.050001 * falling()))
    verdict = decide(comparison, make_rules(["mean_relative_error"]))
    entries = scoreboard(comparison, verdict)
    for shown in (scoreboard_text(verdict, entries, width=500), scoreboard_markdown(verdict, entries)):
        (row,) = [line for line in shown.splitlines() if "unsigned 5 %" in line]
        assert ("0.050001" in row, "FAIL" in row) == (True, True)
    assert [entry.sentence for entry in entries[:2]] == [
        "agrees: the signed mean relative error of the last 50 is 0.050001",
        "agrees: the mean relative error is 0.050001",
    ]
    assert str(verdict.worst).startswith("FAIL mean_relative_error[loss] 0.050001 (limit 0.05) at iteration ")


def test_rounding_noise_fails_nothing_but_bitwise_equality_which_says_so():
    noise = 1 + 1e-7 * np.random.default_rng(0).normal(size=100)
    board = board_of(record(falling()), record(falling() * noise))
    assert [entry.outcome for entry in board.values()] == [PASS, PASS, PASS, PASS, FAIL]
    assert board["bitwise"].sentence.startswith("fails on rounding noise: no value is off by more than")
    assert "stricter than any two devices" in board["bitwise"].sentence


def test_the_signed_rule_says_when_it_passes_because_it_pairs_by_position():
    rising = 1.0 + 0.01 * np.arange(100)
    board = board_of(record(rising), record(rising[20:] * 1.2, first=11), "mean_relative_error")
    assert board["modelzoo"].outcome is FAIL
    board = board_of(record(rising), record(rising * 1.1, first=11))
    assert board["modelzoo"].outcome is FAIL
    board = board_of(record(falling()), record(np.roll(falling(), 0)[:90], first=11), "mean_relative_error")
    assert board["modelzoo"].outcome is PASS
    assert "because it pairs by position: by iteration it is 0.1" in board["modelzoo"].sentence


def test_the_signed_rule_says_when_the_last_values_hide_the_first():
    board = board_of(record(falling()), record(falling() * np.r_[np.full(50, 1.3), np.full(50, 1.01)]))
    assert board["modelzoo"].outcome is PASS
    assert "looks at the last 50 of 100 values" in board["modelzoo"].sentence
    assert "unsigned, over all, it is 0.155" in board["modelzoo"].sentence


def test_the_signed_rule_says_what_it_cannot_see():
    values = falling()
    values[10:20] = math.nan
    board = board_of(record(falling()), record(values))
    assert board["modelzoo"].outcome is PASS
    assert "because it does not see 10 of the candidate's values" in board["modelzoo"].sentence
    assert [board[name].outcome for name in NAMES[1:]] == [FAIL, FAIL, FAIL, FAIL]


def test_a_run_that_died_early_passes_where_only_common_iterations_are_looked_at():
    board = board_of(record(falling()), record(falling()[:30]))
    assert [entry.outcome for entry in board.values()] == [PASS, PASS, PASS, FAIL, FAIL]
    for name in NAMES[:3]:
        assert board[name].sentence == "passes although the candidate lacks 70 iterations of the reference"
    assert board["bitwise"].sentence == "agrees: 70 of 100 iterations differ or are missing"


def test_too_little_evidence_is_a_pass_elsewhere():
    board = board_of(record(falling(5)), record(falling(5) * 1.001))
    assert board["unsigned 5 %"].outcome is PASS
    assert "emacheck: INCONCLUSIVE, coverage: 5 iterations in common" in board["unsigned 5 %"].sentence


def test_a_fail_that_we_do_not_share_names_its_reason():
    board = board_of(record(falling()), record(falling() * 1.02), "mean_relative_error")
    assert board["MindFormers"].outcome is FAIL
    assert board["MindFormers"].sentence.startswith("fails because the first loss is off by 0.02 of the reference")
    assert "emacheck: PASS, mean_relative_error is 0.02 (limit 0.05)" in board["MindFormers"].sentence


def test_the_model_zoo_is_given_the_records_of_rank_0_where_there_are_some():
    of_mean, rank_0 = compare(record(falling()), record(falling())), compare(record(falling()), record(0.5 * falling()))
    entry = scoreboard(of_mean, decide(of_mean), rank_0=rank_0)[0]
    assert entry.observed == pytest.approx(-0.5)


def test_nothing_in_common_is_inconclusive():
    board = board_of(record(falling(20)), record(falling(20), first=500))
    assert [board[name].outcome for name in NAMES[1:3]] == [INCONCLUSIVE, INCONCLUSIVE]
    assert board["modelzoo"].outcome is PASS
    empty = Record(name="x", format="test", curves={})
    assert board_of(record(falling(20)), empty)["modelzoo"].outcome is INCONCLUSIVE


@pytest.mark.parametrize(
    ("first", "others", "outcome"),
    [
        (1.0, 1.0, PASS),
        (1.0049, 1.0, PASS),
        (1.0051, 1.0, FAIL),
        (0.9949, 1.0, FAIL),
        (1.0, 1.009, PASS),
        (1.0, 1.011, FAIL),
        (1.0, 0.989, FAIL),
        (math.nan, 1.0, FAIL),
    ],
)
def test_mindformers_wants_half_a_percent_at_first_and_one_percent_on_average(first, others, outcome):
    reference = np.full(1000, 3.0)
    assert outcome_of(MindFormers(), reference, reference * np.r_[first, np.full(999, others)]) is outcome


def test_mindformers_accepts_small_absolute_errors_instead():
    reference = np.full(1000, 0.1)
    assert outcome_of(MindFormers(), reference, reference + 0.0049) is PASS
    assert outcome_of(MindFormers(), reference, reference + np.r_[0.0049, np.full(999, 0.0101)]) is FAIL


@pytest.mark.parametrize(
    ("n", "failing", "outcome"),
    [
        (1, 0, PASS),
        (1, 1, FAIL),
        (10, 1, PASS),
        (10, 2, FAIL),
        (199, 1, PASS),
        (199, 2, FAIL),
        (200, 2, PASS),
        (200, 3, FAIL),
        (6000, 50, PASS),
        (6000, 51, FAIL),
    ],
)
def test_megatron_lets_one_percent_of_the_iterations_fail_but_one_at_least_and_fifty_at_most(n, failing, outcome):
    candidate = np.full(n, 1.049)
    candidate[:failing] = 1.06
    assert outcome_of(Megatron(), np.full(n, 1.0), candidate) is outcome


def test_megatron_tolerates_a_few_nans_and_says_so():
    values = falling()
    values[50] = math.nan
    board = board_of(record(falling()), record(values))
    assert board["Megatron-LM"].outcome is PASS
    assert "although 1 value is NaN or infinite" in board["Megatron-LM"].sentence


def test_a_broken_reference_does_not_make_megatron_pass():
    assert outcome_of(Megatron(), np.full(100, math.inf), falling()) is FAIL


def test_unsigned_errors_do_not_cancel():
    reference = np.full(100, 1.0)
    alternating = reference + 0.1 * (-1.0) ** np.arange(100)
    assert outcome_of(UnsignedMean(), reference, alternating) is FAIL


def test_printed_decimals_cannot_prove_equal_bits():
    (finding,) = Bitwise().check(compare(record(falling(), quantum=1e-4), record(falling(), quantum=1e-4)))
    assert finding.outcome is INCONCLUSIVE
    assert "not every bit" in finding.message
    board = board_of(record(falling(), quantum=1e-4), record(falling(), quantum=1e-4))
    assert board["bitwise"].sentence.startswith("cannot tell")


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=40),
    st.lists(st.floats(width=32), max_size=40),
    st.integers(1, 5),
)
def test_whatever_the_numbers_every_rule_has_an_entry_and_both_renderings_hold_it(reference, candidate, first):
    comparison = compare(record(reference), record(candidate, first=first))
    verdict = decide(comparison)
    entries = scoreboard(comparison, verdict)
    assert tuple(entry.rule for entry in entries) == NAMES
    shown, table = scoreboard_text(verdict, entries), scoreboard_markdown(verdict, entries)
    assert all(name in shown for name in NAMES)
    assert len(table.splitlines()) == 3 + len(NAMES)


def test_what_foreign_names_hold_is_shown_and_not_obeyed():
    evil = "\x1b[31m|<b>"
    curve = replace(record(falling()).curves["loss"], name=evil)
    records = [
        Record(name="x", format="test", curves={evil: replace(curve, values=curve.values * factor)})
        for factor in (1, 1.02)
    ]
    comparison = compare(*records, metrics=[evil])
    verdict = decide(comparison)
    entries = [replace(entry, sentence=entry.sentence + evil) for entry in scoreboard(comparison, verdict)]
    shown, table = scoreboard_text(verdict, entries, width=60), scoreboard_markdown(verdict, entries)
    assert "\x1b" not in shown + table
    assert "<b>" not in table
    assert all(line.count("|") == 6 for line in table.splitlines())


@pytest.mark.skipif(not CORPUS, reason="EMACHECK_CORPUS does not name a folder of real logs")
@pytest.mark.parametrize(
    ("reference", "candidate", "signed", "unsigned", "outcomes"),
    [
        ("emanet_cuda.log", "emanet_sdaa.log", -0.043414843661227415, 0.255713817886, (PASS, FAIL, FAIL, FAIL, FAIL)),
        ("demo_cuda.log", "demo_sdaa.log", 0.0, 0.0, (PASS, PASS, PASS, PASS, PASS)),
        ("regnet_cuda.log", "regnet_sdaa.excerpt.log", None, 0.005464744206, (PASS, PASS, PASS, FAIL, FAIL)),
        ("rexnetCifar100Cuda.log", "rexnetCifar100Sdaa.log", None, 0.271476952425, (PASS, FAIL, FAIL, FAIL, FAIL)),
        (
            "fer_cuda_loss.first120.json",
            "fer_sdaa_loss.first120.json",
            None,
            0.085895632004,
            (PASS, FAIL, FAIL, FAIL, FAIL),
        ),
    ],
)
def test_published_pairs_get_these_entries(reference, candidate, signed, unsigned, outcomes):
    paths = [Path(CORPUS) / name for name in (reference, candidate)]
    comparison = compare(*(emacheck.read_log(path) for path in paths))
    rank_0 = None
    if max(comparison.reference.ranks, comparison.candidate.ranks) > 1:
        rank_0 = compare(*(emacheck.read_log(path, rank=0) for path in paths))
    board = {entry.rule: entry for entry in scoreboard(comparison, decide(comparison), rank_0=rank_0)}
    assert tuple(entry.outcome for entry in board.values()) == outcomes
    assert signed in (None, board["modelzoo"].observed)
    assert board["unsigned 5 %"].observed == pytest.approx(unsigned, abs=1e-11)
