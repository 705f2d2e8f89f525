"""The envelope of repeats: false alarms at the stated rate, small early faults found, no evidence never a PASS."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_runs import LENGTH, REFERENCE, run

from emacheck.errors import UsageError
from emacheck.judge import Outcome
from emacheck.judge.comparison import Comparison, compare
from emacheck.judge.noise.band import benign_scale, excess_limit, fit_band, student_quantile
from emacheck.judge.rules.envelope import Envelope
from emacheck.judge.rules.first_iterations import FirstIterations

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


class Chaos:
    """Runs that part from one reference: growth from rounding, saturation, and noise of several kinds."""

    def __init__(self, rng, kind):
        self.rng, self.kind = rng, kind
        self.rate = math.log(10) * rng.uniform(0.2, 0.6)
        self.start, self.end = 10 ** rng.uniform(-7, -6), 10 ** rng.uniform(-2.5, -1.5)

    def differences(self):
        rng = self.rng
        delay = rng.exponential(2.0) if self.kind == "late" else 0.0
        level = math.exp(rng.normal(0, 0.8 if self.kind == "uneven" else 0.3))
        grown = self.start * level * np.exp(self.rate * (np.arange(LENGTH) - delay))
        noise = rng.standard_t(3, LENGTH) if self.kind == "heavy" else rng.normal(size=LENGTH)
        return grown * self.end / (grown + self.end) * noise * np.exp(0.5 * rng.normal(size=LENGTH))

    def record(self):
        return run(REFERENCE * (1 + self.differences()))


def judge(candidate, repeats, rule=None):
    return (rule or Envelope()).check(compare(run(REFERENCE), candidate, repeats=repeats))[0]


@pytest.mark.parametrize("kind", ["even", "uneven", "late", "heavy"])
@pytest.mark.parametrize("repeats", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (4, 8))])
def test_benign_candidates_fail_no_more_often_than_stated(kind, repeats):
    rng = np.random.default_rng(repeats)
    trials, alarms = 1000, 0
    for _ in range(trials):
        chaos = Chaos(rng, kind)
        finding = judge(chaos.record(), [chaos.record() for _ in range(repeats)])
        assert finding.outcome is not INCONCLUSIVE
        alarms += finding.outcome is FAIL
    # Above 16 of 1000, a rate of 1 % or less is refuted with 97 % confidence (binomial).
    assert alarms <= 16


@pytest.mark.slow
def test_two_metrics_share_the_stated_rate():
    rng = np.random.default_rng(3)
    trials, alarms = 1000, 0
    for _ in range(trials):
        worlds = {"loss": Chaos(rng, "heavy"), "grad_norm": Chaos(rng, "heavy")}
        records = [run({m: REFERENCE * (1 + w.differences()) for m, w in worlds.items()}) for _ in range(6)]
        comparison = compare(run(dict.fromkeys(worlds, REFERENCE)), records[0], repeats=records[1:])
        alarms += any(finding.outcome is FAIL for finding in Envelope().check(comparison))
    assert alarms <= 16


@pytest.mark.parametrize(("repeats", "size", "power"), [(2, 1e-2, 0.8), (4, 1e-3, 0.9), (8, 1e-4, 0.9)])
def test_a_small_fault_from_iteration_2_on_is_found_and_named(repeats, size, power):
    rng = np.random.default_rng(repeats)
    found, trials = 0, 200
    for _ in range(trials):
        chaos = Chaos(rng, "even")
        candidate = run(REFERENCE * (1 + chaos.differences() + size * (np.arange(LENGTH) > 0)))
        finding = judge(candidate, [chaos.record() for _ in range(repeats)])
        found += finding.outcome is FAIL and finding.iteration < 10
    assert found >= power * trials


@pytest.mark.parametrize("repeats", [2, 8])
def test_one_loss_of_exactly_0_does_not_hide_a_fault_at_the_other_iterations(repeats):
    rng = np.random.default_rng(repeats)
    chaos = Chaos(rng, "even")
    batches = np.where(np.arange(LENGTH) == 40, 0.0, REFERENCE)  # as of a batch in which every pixel is ignored
    benign, *others = [run(batches * (1 + chaos.differences())) for _ in range(1 + repeats)]
    wrong = run(batches * (1 + chaos.differences() + 1e-2 * (np.arange(LENGTH) > 0)))
    for candidate, outcome in ((benign, PASS), (wrong, FAIL)):
        finding = Envelope().check(compare(run(batches), candidate, repeats=others))[0]
        assert (finding.outcome, finding.limit < 1000) == (outcome, True)


def test_more_repeats_make_the_limit_sharper():
    rng = np.random.default_rng(0)
    limits = {}
    for repeats in (2, 4, 8):
        worlds = [Chaos(rng, "even") for _ in range(50)]
        limits[repeats] = np.median(
            [excess_limit(np.abs([chaos.differences() for _ in range(repeats)]), 0.01) for chaos in worlds]
        )
    assert limits[2] > 2 * limits[4] > 2 * limits[8]
    assert limits[8] < 40


def test_the_message_names_iteration_difference_and_what_benign_variations_stay_below():
    chaos = Chaos(np.random.default_rng(1), "even")
    values = REFERENCE * (1 + chaos.differences())
    values[2] = REFERENCE[2] + 0.04
    finding = judge(run(values), [chaos.record() for _ in range(8)])
    assert (finding.outcome, finding.iteration) == (FAIL, 3)
    assert finding.message.startswith("iteration 3: difference 0.04 in loss")
    assert "benign variations stay below" in finding.message
    assert finding.observed == finding.would_pass_at > finding.limit


def test_the_limit_that_would_have_passed_passes():
    chaos = Chaos(np.random.default_rng(1), "even")
    repeats = [chaos.record() for _ in range(4)]
    finding = judge(run(REFERENCE * 1.1), repeats)
    assert finding.outcome is FAIL
    assert judge(run(REFERENCE * 1.1), repeats, Envelope(limit=finding.would_pass_at)).outcome is PASS


def some_repeats(count=4, **fields):
    chaos = Chaos(np.random.default_rng(5), "even")
    return [replace(chaos.record(), name=f"repeat {i}", **fields) for i in range(1, count + 1)]


def test_fewer_than_two_distinct_repeats_are_inconclusive_however_often_they_are_given():
    one = some_repeats(1)[0]
    for repeats in ([], [one], [one, one, one], [one, run(REFERENCE)], [one, run({"accuracy": REFERENCE})]):
        finding = judge(run(REFERENCE * 1.000001), repeats)
        assert finding.outcome is INCONCLUSIVE
        assert "needs 2" in finding.message


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "there are 0 repeats of the reference that vary loss, and it needs 3"),
        (1, "there is 1 repeat of the reference that varies loss, and it needs 3"),
        (2, "there are 2 repeats of the reference that vary loss, and it needs 3"),
    ],
)
def test_too_few_repeats_are_counted_in_the_right_number(count, said):
    assert judge(run(REFERENCE), some_repeats(count), Envelope(minimum=3)).message == said


def test_what_no_repeat_varies_passes_only_where_the_candidate_is_the_same_and_finite():
    same = run(REFERENCE)
    passing = judge(same, [same, same])
    assert (passing.outcome, passing.observed) == (PASS, 0.0)
    assert judge(same, [same]).outcome is INCONCLUSIVE
    assert judge(run(REFERENCE * (1 + 1e-7)), [same, same]).outcome is INCONCLUSIVE
    broken = run(np.append(math.nan, REFERENCE[1:]))
    assert Envelope().check(compare(broken, broken, repeats=[broken, broken]))[0].outcome is INCONCLUSIVE


def test_a_repeat_that_is_the_candidate_excuses_nothing():
    bad = REFERENCE * (1 + 0.2 * (-1.0) ** np.arange(LENGTH))
    finding = judge(run(bad), [some_repeats(1)[0], run(bad, name="twin")])
    assert finding.outcome is INCONCLUSIVE
    assert "1 of the candidate's own numbers does not count" in finding.message
    assert judge(run(bad), [*some_repeats(4), run(bad, name="twin")]).outcome is FAIL


@pytest.mark.parametrize(
    ("nonsense", "said"),
    [
        (REFERENCE * 1.1, "in loss at iteration 1, benign variations stay below 0.09 there"),
        (np.full(LENGTH, 4.0), "is 4 at all 60 recorded iterations"),
        (REFERENCE * (1 + 0.01 * np.random.default_rng(3).normal(size=LENGTH)), "do not fluctuate together"),
    ],
)
def test_repeats_that_are_no_benign_variations_make_no_envelope(nonsense, said):
    candidate = run(REFERENCE * (1 + 0.2 * (-1.0) ** np.arange(LENGTH)))
    repeats = [run(nonsense, name="one"), run(nonsense * (1 + 1e-7 * np.arange(LENGTH) % 3), name="other")]
    finding = judge(candidate, [*some_repeats(1), *repeats])
    assert finding.outcome is INCONCLUSIVE
    assert said in finding.message


def test_repeats_that_are_all_off_from_the_start_make_no_envelope_though_the_loss_and_their_difference_fall():
    falling = 0.2 + 4 * np.exp(-np.arange(LENGTH) / 8)
    repeats = [
        run(1.04 * falling * (1 + 0.01 * np.random.default_rng(seed).normal(size=LENGTH) * (np.arange(LENGTH) > 9)))
        for seed in range(4)
    ]
    (finding,) = Envelope().check(compare(run(falling), run(1.0401 * falling), repeats=repeats))
    assert finding.outcome is INCONCLUSIVE
    assert "the repeats differ from the reference by 0.17 in loss at iteration 1" in finding.message


def test_a_repeat_of_another_seed_makes_no_envelope():
    repeats = some_repeats(4, header={"seed": "2"})
    finding = Envelope().check(compare(run(REFERENCE, header={"seed": "1"}), run(REFERENCE), repeats=repeats))[0]
    assert (finding.outcome, "repeat 1 is not paired with the reference: seed 1" in finding.message) == (
        INCONCLUSIVE,
        True,
    )


def test_what_makes_repeats_useless_is_named():
    repeats = some_repeats()
    short = run(repeats[0].curves["loss"].values[:40], name="short")
    finding = judge(run(REFERENCE), [*repeats, short])
    assert (finding.outcome, "short lacks 20 of the 60" in finding.message) == (INCONCLUSIVE, True)
    broken = run(np.where(np.arange(LENGTH) == 7, math.nan, REFERENCE))
    assert judge(run(REFERENCE), [*repeats, broken]).outcome is INCONCLUSIVE
    smooth = run(REFERENCE, window=10)
    assert "windows of 1, 10 iterations" in judge(smooth, repeats).message


def test_other_batches_or_weights_are_inconclusive_unless_the_repeats_vary_the_weights_as_well():
    batches = ("b",) * LENGTH
    reference = run(REFERENCE, initial_state="s", batches=batches)
    same = some_repeats(initial_state="s", batches=batches)
    varied = [replace(repeat, initial_state=repeat.name) for repeat in same]

    def outcome(candidate, repeats):
        return Envelope().check(compare(reference, candidate, repeats=repeats))[0].outcome

    assert outcome(reference, same) is PASS
    assert outcome(replace(reference, batches=("b", "c")), same) is INCONCLUSIVE
    assert outcome(reference, [*same, replace(same[0], batches=("c",))]) is PASS, "its numbers are there already"
    assert outcome(reference, [replace(same[0], batches=("c",)), *same]) is INCONCLUSIVE
    assert outcome(replace(reference, initial_state="t"), same) is INCONCLUSIVE
    assert outcome(replace(reference, initial_state="t"), varied) is PASS


@pytest.mark.parametrize("asked", [{"precision": "bf16"}, {"config": {"optim_wrapper.optimizer.lr": 0.02}}], ids=str)
def test_repeats_that_were_asked_for_something_else_than_the_reference_are_none(asked):
    experiment = {"precision": "fp32", "seed": 0, "config": {"optim_wrapper.optimizer.lr": 0.01}}
    reference = run(REFERENCE, provenance={"experiment": experiment})
    repeats = some_repeats(provenance={"experiment": {"precision": "fp32"}})
    finding = Envelope().check(compare(reference, reference, repeats=repeats))[0]
    assert finding.outcome is PASS
    wrong = replace(repeats[0], provenance={"experiment": {**experiment, **asked}})
    finding = Envelope().check(compare(reference, reference, repeats=[wrong, *repeats[1:]]))[0]
    assert (finding.outcome, "was asked for something else" in finding.message) == (INCONCLUSIVE, True), finding.message


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_candidate_that_is_not_finite_fails_and_a_reference_that_is_not_proves_nothing(poison):
    values = REFERENCE.copy()
    values[11] = poison
    finding = judge(run(values), some_repeats())
    assert (finding.outcome, finding.iteration) == (FAIL, 12)
    assert "not a finite number" in finding.message
    comparison = compare(run(values), run(REFERENCE), repeats=some_repeats())
    assert Envelope().check(comparison)[0].outcome is INCONCLUSIVE


def test_decimals_that_a_log_does_not_print_are_not_held_against_the_candidate():
    repeats = some_repeats(8)
    assert judge(run(REFERENCE + 4e-4), repeats).outcome is FAIL
    assert judge(run(np.round(REFERENCE, 3), quantum=1e-3), repeats).outcome is PASS


def test_metrics_that_all_records_have_are_judged_beside_the_loss():
    both = run({"loss": REFERENCE, "grad_norm": REFERENCE})
    repeats = [run({"loss": REFERENCE * (1 + i * 1e-6), "grad_norm": REFERENCE * (1 + i * 1e-5)}) for i in (1, 2, 3)]
    findings = Envelope().check(compare(both, both, repeats=repeats))
    assert [finding.metric for finding in findings] == ["loss", "grad_norm"]
    asked = compare(both, both, metrics=["loss", "grad_norm"], repeats=repeats)
    assert [finding.metric for finding in Envelope().check(asked)] == ["loss", "grad_norm"]
    fewer = compare(both, both, repeats=[*repeats, run(REFERENCE * 1.00002)])
    assert [finding.metric for finding in Envelope().check(fewer)] == ["loss"]
    assert findings[0].limit > Envelope(also=()).check(compare(both, both, repeats=repeats))[0].limit


@pytest.mark.parametrize("fields", [{"alpha": 0.0}, {"alpha": 1.0}, {"minimum": 1}])
def test_an_envelope_with_a_senseless_field_is_refused(fields):
    with pytest.raises(UsageError, match="rule 'envelope'"):
        Envelope(**fields)


@pytest.mark.parametrize(
    ("tail", "freedom", "expected"),
    [(0.05, 1, 6.3138), (0.005, 2, 9.9248), (0.01, 3, 4.5407), (0.001, 11, 4.0247), (0.025, 60, 2.0003)],
)
def test_students_quantiles_are_those_of_the_tables(tail, freedom, expected):
    assert student_quantile(tail, freedom) == pytest.approx(expected, abs=5e-5)


@given(st.lists(st.lists(st.floats(1e-12, 1e12), min_size=5, max_size=5), min_size=1, max_size=4))
def test_the_scale_never_falls_and_stays_within_the_differences(rows):
    scale = benign_scale(np.array(rows))
    assert np.all(np.diff(scale) >= -1e-9 * scale[1:])
    assert np.min(rows) * (1 - 1e-9) <= scale[0]
    assert scale[-1] <= np.max(rows) * (1 + 1e-9)


@st.composite
def close(draw):
    """Runs that differ in their last digits, but for what may have become of one value: drawn anyhow, none passes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    runs = (1 + rng.random(12)) * (1 + 1e-6 * rng.normal(size=(draw(st.integers(4, 6)), 12)))
    for at in draw(st.sampled_from([(), (0,), (1,), (2,)])):
        runs[at, draw(st.integers(0, 11))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]) | st.floats(width=32))
    return [values.tolist() for values in runs]


def test_whatever_the_numbers_the_paired_rules_answer_and_never_pass_what_is_not_finite():
    seen = set()

    @settings(max_examples=50)
    @given(close() | st.lists(st.lists(st.floats(width=32), min_size=1, max_size=12), min_size=2, max_size=6))
    def check(runs):
        reference, candidate, *repeats = (run(values) for values in runs)
        comparison = compare(reference, candidate, repeats=repeats)
        for rule in (Envelope(), FirstIterations()):
            for finding in rule.check(comparison):
                assert isinstance(finding.outcome, Outcome)
                assert finding.message
        finding = Envelope().check(comparison)[0]
        seen.add(finding.outcome)
        if finding.outcome is PASS:
            assert finding.observed <= finding.limit
            common = min(len(runs[0]), len(runs[1]))
            assert np.all(np.isfinite(runs[1][:common]))

    check()
    assert PASS in seen


def test_no_iteration_in_common_and_no_metric_are_inconclusive():
    repeats = some_repeats()
    for candidate in (run(REFERENCE, first=500), run({"accuracy": REFERENCE})):
        comparison = compare(run(REFERENCE), candidate, repeats=repeats)
        assert [rule.check(comparison)[0].outcome for rule in (Envelope(), FirstIterations())] == [INCONCLUSIVE] * 2
        assert fit_band(comparison, "loss", 0.01) is None


def test_a_comparison_without_repeats_has_none():
    assert Comparison(reference=run(REFERENCE), candidate=run(REFERENCE)).repeats == ()
