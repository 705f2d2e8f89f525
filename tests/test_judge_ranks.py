"""What the mean over ranks hides: the rule ranks, and NaN of one rank."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emacheck.curve import Curve
from emacheck.judge import Outcome, decide, default_rules, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.rules.ranks import Ranks
from emacheck.logs import read_log
from emacheck.record import Record, hash_of_samples

N = 60
REFERENCE = [1.5 + 2.5 * math.exp(-i / 40) * (1 + 0.03 * math.sin(7.7 * i)) for i in range(N)]


def losses_of(ranks, *, seed=0.0, factors=()):
    """Return the losses of ranks that see other samples, with rounding that grows as between two devices."""
    return {
        rank: [
            v
            * (1 + 0.1 * math.sin(5 * i + rank))
            * (1 + seed * min(1e-7 * 2**i, 0.01) * math.sin(3.3 * i + rank))
            * (factors[rank] if rank < len(factors) else 1)
            for i, v in enumerate(REFERENCE)
        ]
        for rank in ranks
    }


def record_of(losses, *, lacking=None, window=1):
    """Return a record of ranks; ``lacking`` names the iterations that a rank has no record of."""
    curves = {}
    for rank, values in losses.items():
        kept = [(i, v) for i, v in enumerate(values, 1) if i not in (lacking or {}).get(rank, ())]
        curves[rank] = Curve(name="loss", iterations=[i for i, _ in kept], values=[v for _, v in kept], window=window)
    common = sorted(set.intersection(*(set(curve.iterations.tolist()) for curve in curves.values())))
    mean = [math.fsum(values[i - 1] for values in losses.values()) / len(losses) for i in common]
    loss = Curve(name="loss", iterations=common, values=mean, window=window)
    each = {rank: {"loss": curve} for rank, curve in curves.items()} if len(curves) > 1 else {}
    return Record(name="", format="", curves={"loss": loss}, ranks=len(losses), of_ranks=each)


FOUR = range(4)
REFERENCE_OF_FOUR = record_of(losses_of(FOUR))


def finding(verdict, rule="ranks"):
    (found,) = (each for each in verdict.findings if each.rule == rule)
    return found


def test_ranks_that_differ_by_rounding_pass():
    verdict = decide(compare(REFERENCE_OF_FOUR, record_of(losses_of(FOUR, seed=1.0))))
    assert verdict.outcome is Outcome.PASS
    assert finding(verdict).observed < 0.02


def test_equal_ranks_are_called_bit_identical():
    found = finding(decide(compare(REFERENCE_OF_FOUR, REFERENCE_OF_FOUR)))
    assert (found.outcome, found.observed) == (Outcome.PASS, 0.0)
    assert found.message == "of 4 ranks the worst is rank 0: loss is bit-identical in 60 iterations"


@pytest.mark.parametrize(
    ("ranks", "factors", "worst", "observed"),
    [
        (4, [1.4, 0.61], 0, 0.4),
        (64, [1] * 17 + [0.61], 17, 0.39),
        (8, [1, 1, 1, 0.93], 3, 0.07),
    ],
    ids=["two that cancel", "one of 64", "one of 8 by 7 %"],
)
def test_a_wrong_rank_fails_and_is_named_though_the_mean_hides_it(ranks, factors, worst, observed):
    reference, candidate = record_of(losses_of(range(ranks))), record_of(losses_of(range(ranks), factors=factors))
    verdict = decide(compare(reference, candidate))
    found = finding(verdict)
    assert found.outcome is Outcome.FAIL
    assert found.observed == pytest.approx(observed)
    assert found.would_pass_at == pytest.approx(observed)
    assert found.message.startswith(f"of {ranks} ranks the worst is rank {worst}: mean over 60 iterations of loss")
    assert finding(verdict, "mean_relative_error").outcome is Outcome.PASS


@settings(max_examples=25)
@given(factor=st.floats(0.5, 1.5), rank=st.integers(0, 3), limit=st.floats(0.0, 0.4))
def test_it_passes_up_to_its_limit_and_not_beyond(factor, rank, limit):
    candidate = record_of(losses_of(FOUR, factors=[*[1] * rank, factor]))
    (found,) = Ranks(limit=limit, absolute_limit=0.0).check(compare(REFERENCE_OF_FOUR, candidate))
    assert found.observed == pytest.approx(abs(factor - 1))
    assert found.outcome is (Outcome.PASS if found.observed <= limit else Outcome.FAIL)


def test_of_a_rank_either_error_suffices():
    small = record_of({rank: [0.02 * v for v in values] for rank, values in losses_of(FOUR).items()})
    other = record_of({rank: [v + 0.0001 for v in each] for rank, each in _losses(small).items()})
    (found,) = Ranks(limit=0.001).check(compare(small, other))
    assert (found.outcome, found.observed > 0.001) == (Outcome.PASS, True)
    assert "accepted because mean_absolute_error passes" in found.message
    (found,) = Ranks(limit=0.001, absolute_limit=0.00001).check(compare(small, other))
    assert found.outcome is Outcome.FAIL


def _losses(record):
    return {rank: curves["loss"].values.tolist() for rank, curves in record.of_ranks.items()}


def test_each_rank_counts_at_the_iterations_that_it_has():
    wrong = losses_of(FOUR)
    wrong[2] = [v * (3 if i >= 50 else 1) for i, v in enumerate(wrong[2])]
    candidate = record_of(wrong, lacking={3: range(51, 61)})
    (found,) = Ranks().check(compare(REFERENCE_OF_FOUR, candidate))
    assert found.outcome is Outcome.FAIL
    assert "rank 2" in found.message


@pytest.mark.parametrize("ranks", [range(2), range(1, 5), range(1)], ids=["fewer", "others", "one"])
def test_other_ranks_are_not_held_against_each_other(ranks):
    comparison = replace(compare(REFERENCE_OF_FOUR, record_of(losses_of(ranks))), stated=True)
    assert "ranks" not in default_rules(comparison)
    found = finding(decide(comparison, make_rules(["ranks"])))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "the reference 0, 1, 2, 3; the candidate" in found.message


def test_a_rank_that_lacks_the_metric_on_one_side_decides_nothing():
    lacking = {**REFERENCE_OF_FOUR.of_ranks, 2: {}}
    (found,) = Ranks().check(compare(REFERENCE_OF_FOUR, replace(REFERENCE_OF_FOUR, of_ranks=lacking)))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "rank 2: there is nothing to average" in found.message


def test_runs_known_to_be_unpaired_are_not_judged_rank_by_rank():
    comparison = compare(REFERENCE_OF_FOUR, record_of(losses_of(FOUR, seed=1.0)))
    assert "ranks" in default_rules(comparison)
    assert "ranks" not in default_rules(replace(comparison, stated=False))


def other_batches(seed, *, factors=(1.0,) * 16, n=200):
    """Return the settled losses of 16 ranks, as means of windows, of which nothing tells whether they are paired."""
    draw = np.random.default_rng(seed)
    return record_of({rank: (2 + 0.2 * draw.standard_normal(n)) * f for rank, f in enumerate(factors)}, window=10)


def test_what_other_batches_do_to_a_rank_is_inconclusive_unless_the_rule_was_named():
    comparison = compare(other_batches(1), other_batches(2))
    found = finding(decide(comparison))
    assert (found.outcome, "say --paired" in found.message) == (Outcome.INCONCLUSIVE, True)
    assert finding(decide(comparison, make_rules(["ranks"]))).outcome is Outcome.FAIL
    assert finding(decide(replace(comparison, stated=True))).outcome is Outcome.FAIL


def test_other_batches_are_no_excuse_for_a_rank_whose_level_is_wrong():
    for n in (200, 40):  # enough for a level, and too few
        verdict = decide(compare(other_batches(1, n=n), other_batches(2, n=n, factors=[1.39, 0.61, *[1.0] * 14])))
        assert finding(verdict).outcome is Outcome.FAIL
        assert finding(verdict, "bias").outcome is not Outcome.FAIL


# --- standing still --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", [None, False], ids=["paired", "unpaired"])
def test_a_rank_that_stands_still_fails_though_the_mean_of_all_moves(stated):
    losses = losses_of(FOUR, seed=1.0)
    losses[2] = [*losses[2][:-12], *[losses[2][-12]] * 12]
    verdict = decide(replace(compare(REFERENCE_OF_FOUR, record_of(losses)), stated=stated))
    found = finding(verdict, "integrity")
    assert (found.outcome, found.iteration) == (Outcome.FAIL, N - 11)
    assert "loss of rank 2 of the candidate is" in found.message
    still = losses_of(FOUR)
    still[0] = [*still[0][:-12], *[still[0][-12]] * 12]
    beside_another = finding(decide(compare(record_of(still), record_of(losses))), "integrity")
    assert (beside_another.outcome, "rank 2" in beside_another.message) == (Outcome.FAIL, True)
    one_process = compare(record_of(losses_of([0])), record_of(losses))
    assert finding(decide(one_process), "integrity").outcome is Outcome.FAIL
    of_the_reference = finding(decide(compare(record_of(losses), REFERENCE_OF_FOUR)), "integrity")
    assert of_the_reference.outcome is Outcome.INCONCLUSIVE


def test_ranks_that_have_the_same_losses_where_those_of_the_reference_differ_are_said():
    losses = losses_of(FOUR)
    alike = record_of(dict.fromkeys(FOUR, losses[0]))
    found = finding(decide(compare(REFERENCE_OF_FOUR, alike)), "integrity")
    assert "all 4 ranks of the candidate have the same loss, those of the reference do not" in found.message
    for reference, candidate in ((alike, alike), (alike, REFERENCE_OF_FOUR), (record_of(losses_of([0])), alike)):
        assert finding(decide(compare(reference, candidate)), "integrity").limited_by == ()


# --- NaN -------------------------------------------------------------------------------------------------------------


def test_nan_of_a_rank_where_another_has_no_record_fails():
    broken = losses_of(FOUR, seed=1.0)
    broken[2] = [math.nan if i >= 50 else v for i, v in enumerate(broken[2])]
    reference = record_of(losses_of(FOUR), lacking={1: range(51, 61)})
    candidate = record_of(broken, lacking={3: range(51, 61)})
    found = finding(decide(compare(reference, candidate)), "finite")
    assert (found.outcome, found.observed, found.iteration) == (Outcome.FAIL, 10.0, 51)
    assert found.message == "the candidate has 10 NaN or infinite values, the first in loss of rank 2 at iteration 51"


def test_nan_of_a_rank_counts_once_though_it_is_in_the_mean_as_well():
    broken = losses_of(FOUR)
    broken[1][6] = broken[3][6] = math.inf
    found = finding(decide(compare(REFERENCE_OF_FOUR, record_of(broken))), "finite")
    assert (found.observed, found.iteration) == (1.0, 7)
    assert "in loss of rank 1" in found.message


def test_nan_of_a_loss_that_no_two_ranks_have_at_one_iteration_counts():
    odd = {
        rank: {**curves, "aux_loss": Curve(name="aux_loss", iterations=[rank + 1], values=[math.nan])}
        for rank, curves in REFERENCE_OF_FOUR.of_ranks.items()
    }
    found = finding(decide(compare(REFERENCE_OF_FOUR, replace(REFERENCE_OF_FOUR, of_ranks=odd))), "finite")
    assert (found.outcome, found.observed, found.metric) == (Outcome.FAIL, 4.0, "aux_loss")


# --- run directories -------------------------------------------------------------------------------------------------


def run_directory(folder, losses):
    """Write what processes recorded that share the joined batch of two samples."""
    experiment = {"processes": len(losses), "config": {"train_dataloader.batch_size": 2 // len(losses)}}
    samples = [[f"sample {2 * i}", f"sample {2 * i + 1}"] for i in range(N)]
    folder.mkdir()
    header = {"format_version": 1, "complete": True, "initial_state": "ab" * 32, "iterations": N}
    (folder / "run.json").write_text(json.dumps({**header, "provenance": {"experiment": experiment}}))
    for rank, values in losses.items():
        rows = []
        for i, value in enumerate(values):
            its = samples[i][rank :: len(losses)]
            row = {"iteration": i + 1, "batch": hash_of_samples(its), "samples": its, "metrics": {"loss": value}}
            rows.append(json.dumps(row) + "\n")
        (folder / f"iterations{f'.rank{rank}' if rank else ''}.jsonl").write_text("".join(rows))
    return read_log(folder)


def test_run_directories_of_as_many_processes_are_judged_rank_by_rank(tmp_path):
    reference = run_directory(tmp_path / "reference", losses_of(range(2)))
    assert reference.batches
    for name, candidate in (
        ("sound", losses_of(range(2), seed=1.0)),
        ("wrong", losses_of(range(2), factors=[1.2, 0.8])),
    ):
        found = finding(decide(compare(reference, run_directory(tmp_path / name, candidate))))
        assert found.outcome is (Outcome.PASS if name == "sound" else Outcome.FAIL)


def test_a_run_directory_of_one_process_is_not_judged_rank_by_rank_against_two(tmp_path):
    two = run_directory(tmp_path / "two", losses_of(range(2)))
    one = run_directory(tmp_path / "one", {0: two.curves["loss"].values.tolist()})
    for pair in ((one, two), (two, one)):
        comparison = compare(*pair)
        assert comparison.paired
        assert "ranks" not in default_rules(comparison)
        assert decide(comparison).outcome is Outcome.PASS
