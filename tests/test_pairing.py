"""Whether two runs are paired, which rules that calls for, and what is not blamed on a device if nobody knows."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import SHIPPED, SMOKE, falling, write_scalars

from emacheck import Curve, Record
from emacheck.judge import Outcome, decide, default_rules, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.rules.coverage import Coverage
from emacheck.judge.rules.envelope import Envelope

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def noisy(seed, *, n=200, off=0.0, spread=0.05):
    """A falling loss with noise of its own."""
    noise = np.random.default_rng(seed).normal(0, spread, n)
    return (2.0 * np.exp(-np.arange(n) / 100) + 2.0) * (1 + noise) * (1 + off)


def run(values, *, iterations=None, window=1, scores=None, **fields):
    iterations = range(1, len(values) + 1) if iterations is None else iterations
    loss = Curve(name="loss", iterations=iterations, values=values, window=window)
    validation = {n: Curve(name=n, iterations=[len(values)], values=[v]) for n, v in (scores or {}).items()}
    return Record(name="run", format="test", curves={"loss": loss}, validation=validation, **fields)


def test_fingerprints_count_before_everything_else():
    same = {"initial_state": "a", "batches": ("b",) * 200}
    ours, theirs = run(noisy(1), header={"seed": "1"}, **same), run(noisy(2), header={"seed": "2"}, **same)
    assert pairing_of(compare(ours, theirs)).pairing is Pairing.PAIRED


@pytest.mark.parametrize(
    "other",
    [
        {"initial_state": None, "batches": ("b",) * 199 + ("c",)},
        {"initial_state": "a", "batches": (None,) * 199 + ("c",)},
        {"initial_state": "x", "batches": ()},
    ],
    ids=["no state", "no other batch", "no batches"],
)
def test_one_hash_that_differs_is_enough_to_tell_that_runs_are_not_paired(other):
    comparison = compare(run(noisy(1), initial_state="a", batches=("b",) * 200), run(noisy(1), **other))
    assert comparison.paired is False
    finding = decide(comparison).findings[0]
    assert (finding.rule, finding.outcome, finding.observed) == ("fingerprints", INCONCLUSIVE, 1)


@pytest.mark.parametrize("batches", [("b",), ("b",) * 199, ("b",) * 199 + (None,), ("",) * 200], ids=str)
def test_runs_are_proven_to_be_paired_by_the_hashes_of_all_batches_only(batches):
    one = run(noisy(1), initial_state="a", batches=batches)
    assert compare(one, one).paired is None
    stated = compare(one, run(noisy(1), initial_state="", batches=("b",) * 200))
    assert stated.paired is None


def test_what_is_drawn_on_a_device_is_not_blamed_on_it_by_the_first_iterations():
    same = {"initial_state": "a", "batches": ("b",) * 200}
    drawn = {**same, "provenance": {"draws_on_device": True}}
    other = compare(run(noisy(1), **same), run(noisy(1) * (1 + 1e-3), **drawn))
    assert (pairing_of(other).pairing, other.paired) == (Pairing.UNKNOWN, True)
    assert decide(other).outcome is PASS
    repeats = [run(noisy(1) * (1 + 1e-3 * noisy(seed)), **same) for seed in (2, 3, 4)]
    assert {each.outcome for each in Envelope().check(replace(other, repeats=tuple(repeats)))} == {INCONCLUSIVE}
    assert [pairing_of(replace(other, stated=said)).pairing for said in (True, False)] == [*Pairing][:2]
    assert decide(replace(other, candidate=run(noisy(1) * (1 + 1e-3), **same))).outcome is FAIL
    assert pairing_of(compare(run(noisy(1), **drawn), run(noisy(1), **drawn))).pairing is Pairing.PAIRED


@pytest.mark.parametrize(
    ("one", "other", "agreeing"),
    [
        ({"header": {"seed": "1"}}, {"header": {"seed": "2"}}, Pairing.UNPAIRED),
        ({"header": {"dataset_type": "A"}}, {"header": {"dataset_type": "B"}}, Pairing.UNPAIRED),
        ({"provenance": {"experiment": {"seed": 0}}}, {"provenance": {"experiment": {"seed": 1}}}, Pairing.UNPAIRED),
        ({"ranks": 1}, {"ranks": 4}, Pairing.PAIRED),
        ({"header": {"world_size": "1"}}, {"header": {"world_size": "4"}}, Pairing.PAIRED),
        ({"header": {"dataset": "/a/city"}}, {"header": {"dataset": "/b/city"}}, Pairing.PAIRED),
        ({"header": {"deterministic": "True"}}, {"header": {"deterministic": "False"}}, Pairing.PAIRED),
    ],
)
def test_agreeing_first_iterations_overrule_how_data_is_divided_but_no_stated_seed_or_data(one, other, agreeing):
    comparison = compare(run(noisy(1), **one), run(noisy(1, off=0.001), **other))
    assert pairing_of(comparison).pairing is Pairing.UNPAIRED
    assert decide(comparison).outcome is PASS
    same = compare(run(noisy(1), **one), run(noisy(1) * (1 + 1e-8), **other))
    assert pairing_of(same).pairing is agreeing


@pytest.mark.parametrize("decimals", [4, 15])
@pytest.mark.parametrize("stated", [False, True])
def test_a_head_that_starts_at_zero_does_not_make_runs_of_other_seeds_paired(decimals, stated):
    def run_of(seed):
        noise = np.random.default_rng(seed).normal(0, 0.12, 300)
        falling_away = 1 - np.linspace(0, 0.5, 300) * (1 + noise)
        values = np.log(1000) * np.where(np.arange(300) < 3, 1 - 1e-6 * np.arange(300), falling_away)
        return run(values.round(decimals), header={"seed": str(seed)} if stated else {})

    comparison = compare(run_of(1), run_of(2))
    assert pairing_of(comparison).pairing is (Pairing.UNPAIRED if stated else Pairing.UNKNOWN)
    assert decide(comparison).outcome is not FAIL


@pytest.mark.parametrize(("draws", "pairing"), [(2, Pairing.UNKNOWN), (1, Pairing.UNPAIRED)])
def test_another_number_of_workers_proves_that_runs_are_not_paired_only_if_it_decided_their_samples(draws, pairing):
    ours, theirs = (
        {"experiment": {"draws": draws, "seed": 0, "config": {"train_dataloader.num_workers": workers}}}
        for workers in (0, 4)
    )
    comparison = compare(run(noisy(1), provenance=ours), run(noisy(1, off=0.001), provenance=theirs))
    assert pairing_of(comparison).pairing is pairing


def test_unpaired_runs_are_judged_by_their_levels_and_scores():
    comparison = compare(run(noisy(1), header={"seed": "1"}), run(noisy(2), header={"seed": "2"}))
    assert default_rules(comparison) == ("finite", "integrity", "coverage", "schedule", "equivalence")
    assert decide(comparison).outcome is PASS
    assert decide(compare(run(noisy(1)), run(noisy(2, off=-0.39)))).outcome is FAIL
    scored = compare(
        run(noisy(1), header={"seed": "1"}, scores={"mIoU": 70.0}),
        run(noisy(2), header={"seed": "2"}, scores={"mIoU": 40.0}),
    )
    assert default_rules(scored)[-1] == "final_metric"
    assert decide(scored).outcome is FAIL


def test_runs_that_claim_to_be_one_experiment_must_prove_it():
    ours = run(noisy(1), initial_state="a", batches=("b",))
    theirs = run(noisy(1), initial_state="x", batches=("b",))
    verdict = decide(compare(ours, theirs))
    assert (verdict.outcome, verdict.findings[0].rule) == (INCONCLUSIVE, "fingerprints")


def test_runs_that_say_that_they_are_of_other_seeds_need_not_prove_that_they_are_one():
    ours, theirs = (
        run(noisy(seed), initial_state=str(seed), batches=("b",), provenance={"experiment": {"seed": seed}})
        for seed in (1, 2)
    )
    verdict = decide(compare(ours, theirs))
    assert (verdict.outcome, verdict.findings[0].rule) == (PASS, "finite")


def test_paired_runs_without_repeats_are_held_against_rounding():
    same = {"initial_state": "a", "batches": ("b",) * 200}
    late = np.where(np.arange(200) < 1, 1.0, 1.0001)
    verdict = decide(compare(run(noisy(1), **same), run(noisy(1) * late, **same)))
    assert (verdict.outcome, verdict.worst.rule, verdict.worst.iteration) == (FAIL, "first_iterations", 2)
    smoothed = compare(run(noisy(1), window=10, **same), run(noisy(1), window=10, **same))
    assert "first_iterations" not in default_rules(smoothed)


def test_means_that_other_batches_explain_as_well_are_inconclusive_until_somebody_says_more():
    comparison = compare(run(noisy(1, spread=0.1), window=0), run(noisy(2, spread=0.1), window=0))
    assert pairing_of(comparison).pairing is Pairing.UNKNOWN
    verdict = decide(comparison)
    assert verdict.outcome is INCONCLUSIVE
    assert "--paired" in verdict.worst.message
    assert "--unpaired" in verdict.worst.message
    assert decide(comparison, make_rules(["mean_relative_error"])).outcome is FAIL
    rules = make_rules(default_rules(comparison))
    assert decide(comparison, rules, named=["mean_relative_error"]).outcome is FAIL


@pytest.mark.parametrize("off", [-0.39, 0.39])
def test_a_level_that_is_far_off_fails_whether_the_runs_are_paired_or_not(off):
    for candidate in (noisy(1, off=off), noisy(2, off=off), falling(200, off=off)):
        for window in (0, 1, 10):
            assert decide(compare(run(noisy(1), window=window), run(candidate, window=window))).outcome is FAIL


@pytest.mark.parametrize("n", [10, 40])
def test_means_that_the_scatter_of_the_reference_explains_are_inconclusive_though_the_log_is_too_short_for_levels(n):
    healthy = [compare(*(run(noisy(s, n=n, spread=0.1), window=10) for s in (seed, seed + 1))) for seed in range(20)]
    verdicts = [decide(comparison) for comparison in healthy]
    assert sum(verdict.outcome is FAIL for verdict in verdicts) <= 2
    said = next(verdict.worst.message for verdict in verdicts if verdict.outcome is INCONCLUSIVE)
    assert "(say --paired)" in said
    assert "the reference itself scatters by" in said


@pytest.mark.parametrize("n", [10, 40])
@pytest.mark.parametrize(
    ("wrong", "other"),
    [
        (lambda loss: 0.61 * loss, 2),
        (lambda loss: 1.39 * loss, 2),
        (lambda loss: 0.93 * loss, 1),
        (lambda loss: np.append(loss[:-5], 3 * loss[-5:]), 2),
        (lambda loss: loss * (1 + 0.9 * (-1.0) ** np.arange(len(loss))), 2),
        (lambda loss: -loss, 2),
    ],
    ids=["too low", "too high", "the same batches", "an end that parts", "oscillation", "another sign"],
)
def test_no_scatter_of_the_reference_explains_a_gross_fault_of_a_short_log(n, wrong, other):
    candidate = wrong(noisy(other, n=n, spread=0.1))
    assert decide(compare(run(noisy(1, n=n, spread=0.1), window=10), run(candidate, window=10))).outcome is FAIL


@pytest.mark.parametrize("n", [40, 200])
def test_no_scatter_of_the_reference_explains_three_times_as_much_of_the_candidate(n):
    reference, noisier = (run(noisy(1, n=n, spread=0.1), window=10), run(noisy(2, n=n, spread=0.3), window=10))
    assert decide(compare(reference, noisier)).outcome is FAIL


@pytest.mark.parametrize("shift", [0, 3, 6], ids=["above zero", "through zero", "below zero"])
def test_ends_of_unpaired_runs_that_are_apart_by_noise_or_cross_zero_are_no_reason(shift):
    ours, theirs = (noisy(seed, spread=0.1) - shift for seed in (1, 2))
    theirs[-10:] *= 1.15
    comparison = compare(run(ours, header={"seed": "1"}), run(theirs, header={"seed": "2"}))
    (integrity,) = (each for each in decide(comparison).findings if each.rule == "integrity")
    assert integrity.outcome is PASS


@pytest.mark.parametrize("n", [1000, 2000])
def test_unpaired_runs_that_part_in_their_last_iterations_are_inconclusive_though_their_levels_are_the_same(n):
    def verdict(last):
        candidate = np.append(noisy(2, n=n)[:-5], last * noisy(2, n=n)[-5:])
        return decide(compare(run(noisy(1, n=n), header={"seed": "1"}), run(candidate, header={"seed": "2"})))

    assert verdict(1.0).outcome is PASS
    parted = verdict(1.8)
    assert (parted.outcome, parted.worst.rule, parted.worst.iteration) == (INCONCLUSIVE, "integrity", n - 9)
    assert "the last 10 values of loss are +" in parted.worst.message
    assert {f.outcome for f in parted.findings if f.rule == "equivalence"} == {PASS}


def test_the_user_can_say_whether_runs_are_paired(emacheck_here, tmp_path):
    for name, seed in (("a.json", 1), ("b.json", 2)):
        write_scalars(tmp_path / name, noisy(seed).round(3).tolist())
    paired = emacheck_here("compare", "a.json", "b.json", "--paired")
    unpaired = emacheck_here("compare", "a.json", "b.json", "--unpaired")
    assert (paired.code, unpaired.code) == (1, 0), (paired, unpaired)
    assert ", not paired | emacheck compare" in unpaired.last_line
    report = json.loads(emacheck_here("compare", "a.json", "b.json", "--unpaired", "--format", "json").out)
    assert report["pairing"] == {"kind": "unpaired", "why": "as stated; no fingerprints prove it"}


def test_a_rule_that_the_user_names_on_the_command_line_means_what_it_says(emacheck_here, tmp_path):
    for name, seed in (("a.csv", 1), ("b.csv", 2)):
        rows = "".join(f"{i},{loss:.4f}\n" for i, loss in enumerate(noisy(seed, spread=0.1), 50))
        (tmp_path / name).write_text(f"iteration,loss\n{rows}", encoding="utf-8")
    codes = [emacheck_here("compare", "a.csv", "b.csv", *how).code for how in ((), ("--rule", "mean_relative_error"))]
    assert codes == [3, 1]


def test_what_fingerprints_prove_cannot_be_denied(emacheck_here):
    done = emacheck_here("compare", SHIPPED / SMOKE, SHIPPED / SMOKE, "--unpaired")
    assert done.code == 2
    assert "the fingerprints in both records prove that they are paired" in done.err


def test_a_larger_logging_interval_is_no_gap_and_is_said():
    values = noisy(1, n=200)
    fine, coarse = run(values), run(values[9::10], iterations=range(10, 201, 10))
    (finding,) = Coverage().check(compare(fine, coarse))
    assert finding.outcome is PASS
    assert finding.limited_by == (
        "the candidate logs every 10 iterations, the reference every iteration: only common ones were compared",
    )
    (finding,) = Coverage().check(compare(coarse, fine))
    assert (finding.outcome, len(finding.limited_by)) == (PASS, 1)


def test_a_coarser_log_that_ends_early_or_has_gaps_still_lacks_iterations():
    values = noisy(1, n=200)
    ended = run(values[9:150:10], iterations=range(10, 151, 10))
    (finding,) = Coverage().check(compare(run(values), ended))
    assert (finding.outcome, finding.iteration) == (FAIL, 160)
    holes = [i for i in range(10, 201, 10) if i not in (50, 60)]
    (finding,) = Coverage().check(compare(run(values), run(values[:18], iterations=holes)))
    assert (finding.outcome, finding.iteration) == (FAIL, 50)
