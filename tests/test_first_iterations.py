"""The rule about the first iterations: what rounding explains passes, and ten times more fails where it is."""

import math
from dataclasses import replace

import numpy as np
import pytest
from paired_runs import LENGTH, REFERENCE, run

from emacheck import Curve, Record
from emacheck.errors import UsageError
from emacheck.judge import Outcome, decide, default_rules
from emacheck.judge.comparison import compare
from emacheck.judge.noise.rounding import AMPLIFICATION, ROUNDOFF, STOCK_AMPLIFICATION, rounding
from emacheck.judge.rules.first_iterations import FirstIterations

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def first(reference, candidate, **fields):
    return FirstIterations(**fields).check(compare(reference, candidate))[0]


def test_differences_of_rounding_pass_and_ten_times_more_fail_where_they_are():
    allowed = rounding("loss", np.arange(1, 4))
    values = REFERENCE.copy()
    values[:3] *= 1 + allowed * 9
    values[3:] *= 2
    finding = first(run(REFERENCE), run(values))
    assert (finding.outcome, round(finding.observed)) == (PASS, 9)
    values[1] = REFERENCE[1] * (1 + allowed[1] * 12)
    finding = first(run(REFERENCE), run(values))
    assert (finding.outcome, finding.iteration) == (FAIL, 2)
    assert finding.message.startswith("iteration 2: relative difference 4.6e-05 in loss")
    assert first(run(REFERENCE), run(values), limit=finding.would_pass_at).outcome is PASS


@pytest.mark.parametrize("off", [1e-5, 1e-3, 0.019, 0.05, 0.5])
def test_the_limit_that_is_needed_passes_when_it_is_set_and_none_is_named_where_none_would(off):
    values = REFERENCE * (1 + np.where(np.arange(len(REFERENCE)) == 0, off, 0.0))
    finding = first(run(REFERENCE), run(values))
    assert (finding.outcome, finding.iteration) == (FAIL, 1)
    assert (finding.would_pass_at is not None) is (off < 0.02)
    accepted = first(run(REFERENCE), run(values), limit=finding.would_pass_at or finding.observed * 1.001).outcome
    assert accepted is (PASS if finding.would_pass_at else INCONCLUSIVE)


def test_eight_repeats_show_what_rounding_does_from_their_own_start_and_seven_do_not():
    def repeats(count, size):
        return [run(REFERENCE * (1 + size * (1 + seed / 100))) for seed in range(count)]

    def observed(candidate, others):
        finding = FirstIterations().check(compare(run(REFERENCE), candidate, repeats=others))[0]
        return finding.outcome, finding.iteration

    shifted = REFERENCE.copy()
    # Twelve times what iteration 2 shows from the stock initialisation, less than one time what it may be.
    shifted[1] *= 1 + 12 * 2.0**-24 * STOCK_AMPLIFICATION["loss"][1]
    candidate = run(shifted)
    assert observed(candidate, repeats(7, 1e-7)) == (PASS, 2)
    assert observed(candidate, repeats(8, 1e-7)) == (FAIL, 2)
    # Repeats that vary more allow more, up to what any starting point was seen to do.
    assert observed(candidate, repeats(8, 1e-6)) == (PASS, 2)
    far = run(REFERENCE * (1 + 11 * 2.0**-24 * AMPLIFICATION["loss"][2]))
    assert observed(far, repeats(8, 1e-3))[0] is FAIL


def test_repeats_in_another_precision_do_not_show_what_rounding_does_in_the_candidates():
    repeats = [run(REFERENCE * (1 + 1e-7 * (1 + seed / 100))) for seed in range(8)]
    shifted = REFERENCE.copy()
    shifted[1] *= 1 + 12 * 2.0**-11 * STOCK_AMPLIFICATION["loss"][1] / 10
    comparison = compare(run(REFERENCE), run(shifted), repeats=repeats)
    assert FirstIterations(precision="tf32", limit=1).check(comparison)[0].outcome is PASS
    assert FirstIterations(limit=1).check(comparison)[0].outcome is FAIL


def test_a_log_that_counts_from_0_has_its_first_iteration_at_0():
    assert rounding("loss", np.array([0, 1, 2, 3])).tolist()[:3] == rounding("loss", np.array([1, 2, 3])).tolist()
    shifted = run(REFERENCE * np.where(np.arange(LENGTH) == 0, 1.001, 1), first=0)
    assert first(run(REFERENCE, first=0), shifted).iteration == 0


def test_gradients_may_differ_by_more_than_losses():
    assert AMPLIFICATION["grad_norm"] > AMPLIFICATION["loss"]
    reference = run({"loss": REFERENCE, "grad_norm": REFERENCE})
    candidate = run({"loss": REFERENCE, "grad_norm": REFERENCE * (1 + 5e-5)})
    findings = FirstIterations().check(compare(reference, candidate))
    assert [(finding.metric, finding.outcome) for finding in findings] == [("loss", PASS), ("grad_norm", PASS)]
    assert first(run(REFERENCE), run(REFERENCE * (1 + 5e-5))).outcome is FAIL


@pytest.mark.parametrize("precision", ROUNDOFF)
def test_a_healthy_pair_passes_in_every_precision_and_what_rounding_drowns_is_said(precision):
    said = {"experiment": {"precision": precision, "seed": 0}}
    curves = {name: Curve(name=name, iterations=range(1, 41), values=REFERENCE[:40]) for name in ("loss", "grad_norm")}
    batches = tuple(f"{at:02}" for at in range(40))
    record = Record(name="", format="", curves=curves, provenance=said, initial_state="00", batches=batches)
    verdict = decide(compare(record, record))
    assert verdict.outcome is PASS
    early = [finding for finding in verdict.findings if finding.rule == "first_iterations"]
    assert [finding.metric for finding in early] == {"fp32": ["loss", "grad_norm"], "bf16": []}.get(precision, ["loss"])
    assert any("grad_norm: in" in note for finding in early for note in finding.limited_by) is (
        precision in ("tf32", "fp16")
    )
    asked = compare(record, record, metrics=("loss", "grad_norm"))
    assert decide(asked, (FirstIterations(),)).outcome is (PASS if precision == "fp32" else INCONCLUSIVE)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_precision_that_only_the_candidate_speaks_of_turns_no_fail_into_a_pass(precision):
    said = {"experiment": {"precision": precision}}
    candidate = replace(run(REFERENCE * 1.003), provenance=said)
    finding = first(run(REFERENCE), candidate)
    assert finding.outcome is INCONCLUSIVE
    assert f"computed in {precision} only the candidate says" in finding.message
    assert "first_iterations" in default_rules(replace(compare(run(REFERENCE), candidate), stated=True))
    assert first(run(REFERENCE), replace(run(REFERENCE), provenance=said)).outcome is PASS
    assert first(replace(run(REFERENCE), provenance=said), candidate).outcome is (
        PASS if precision == "tf32" else INCONCLUSIVE
    )


def test_lower_precision_allows_more_until_it_can_tell_nothing():
    candidate = run(REFERENCE * 1.01)
    assert first(run(REFERENCE), candidate).outcome is FAIL
    assert first(run(REFERENCE), candidate, precision="tf32").outcome is PASS
    assert first(run(REFERENCE), run(REFERENCE * 1.03), precision="tf32").outcome is FAIL
    assert first(run(REFERENCE), candidate, precision="bf16").outcome is INCONCLUSIVE


def test_printed_decimals_are_not_held_against_a_candidate_and_too_few_of_them_tell_nothing():
    printed = run(np.round(REFERENCE, 4) + 1e-4, quantum=1e-4)
    assert first(run(np.round(REFERENCE, 4), quantum=1e-4), printed).outcome is PASS
    assert first(run(np.round(REFERENCE, 4)), printed).outcome is FAIL
    assert first(run(np.round(REFERENCE, 0), quantum=1), run(REFERENCE)).outcome is INCONCLUSIVE


def test_means_later_beginnings_and_other_experiments_are_inconclusive():
    for window in (0, 10):
        assert "which hide the first ones" in first(run(REFERENCE, window=window), run(REFERENCE)).message
    assert "chaos has grown by then" in first(run(REFERENCE, first=4), run(REFERENCE, first=4)).message
    reference = run(REFERENCE, initial_state="s", batches=("b",))
    assert first(reference, replace(reference, initial_state="t")).outcome is INCONCLUSIVE


@pytest.mark.parametrize(
    ("kept", "lacking"), [(slice(1, None), [1]), (slice(2, None), [1, 2]), (slice(2, None, 3), [1, 2])]
)
def test_a_candidate_that_leaves_out_a_first_iteration_that_the_reference_has_does_not_pass(kept, lacking):
    off = Curve(name="loss", iterations=np.arange(1, LENGTH + 1)[kept], values=REFERENCE[kept] * (1 + 2e-5))
    candidate = Record(name="", format="", curves={"loss": off})
    assert first(run(REFERENCE), run(REFERENCE * (1 + 2e-5))).outcome is FAIL
    finding = first(run(REFERENCE), candidate)
    assert (finding.outcome, finding.iteration) == (INCONCLUSIVE, 1)
    assert f"{' and '.join(map(str, lacking))}, which the reference has" in finding.message
    assert first(candidate, candidate).outcome is PASS
    assert first(candidate, run(REFERENCE * (1 + 2e-5))).outcome is PASS
    wrong = replace(off, values=off.values * 1.01)
    assert first(run(REFERENCE), replace(candidate, curves={"loss": wrong})).outcome is FAIL
    # In tf32 only iteration 1 can tell rounding from a fault, so that one alone is missed.
    healthy = Record(
        name="", format="", curves={"loss": Curve(name="loss", iterations=[1, 4, 5], values=REFERENCE[[0, 3, 4]])}
    )
    assert first(run(REFERENCE), healthy, precision="tf32").outcome is PASS


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_first_iterations_that_are_not_finite_never_pass(poison):
    broken = run([REFERENCE[0], poison, *REFERENCE[2:]])
    finding = first(run(REFERENCE), broken)
    assert (finding.outcome, finding.iteration) == (FAIL, 2)
    assert first(broken, run(REFERENCE)).outcome is INCONCLUSIVE
    assert first(run(np.zeros(LENGTH)), run(np.zeros(LENGTH))).outcome is PASS
    assert first(run(np.zeros(LENGTH)), run(np.full(LENGTH, 1e-9))).outcome is FAIL


@pytest.mark.parametrize("fields", [{"precision": "fp12"}, {"count": 0}, {"count": 4}])
def test_first_iterations_with_a_senseless_field_are_refused(fields):
    with pytest.raises(UsageError, match="rule 'first_iterations'"):
        FirstIterations(**fields)
