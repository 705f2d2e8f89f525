"""Rules about the records themselves: smoothing and schedule."""

import math
from dataclasses import replace

import numpy as np
import pytest

from emacheck.curve import Curve
from emacheck.judge import Outcome, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.rules.schedule import Schedule
from emacheck.logs import read_log
from emacheck.record import Record

ITERATIONS = np.arange(1, 41)
LOSSES = 4 - 0.05 * ITERATIONS


def record(*, window=1, rates=None, quantum=0.0, **fields):
    curves = {"loss": Curve(name="loss", iterations=ITERATIONS, values=LOSSES, window=window)}
    if rates is not None:
        curves["lr"] = Curve(name="lr", iterations=ITERATIONS, values=rates, quantum=quantum)
    return Record(name="cpu", format="test", curves=curves, **fields)


def outcome(reference, candidate, rule):
    return decide(compare(reference, candidate), make_rules([rule])).outcome


@pytest.mark.parametrize(("ours", "theirs"), [(1, 10), (0, 1), (10, 50)])
def test_means_are_not_compared_with_other_means_or_raw_values(ours, theirs):
    verdict = decide(compare(record(window=ours), record(window=theirs)))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "average differently" in next(f.message for f in verdict.findings if f.rule == "smoothing")


@pytest.mark.parametrize("window", [0, 1, 10])
def test_equal_windows_are_compared(window):
    assert outcome(record(window=window), record(window=window), "smoothing") is Outcome.PASS


def test_another_schedule_fails_the_same_experiment_and_makes_another_one_inconclusive():
    rates = np.linspace(0.01, 0.001, 40)
    late = np.concatenate([rates[:20], rates[19:39]])
    reference, candidate = record(rates=rates), record(rates=late)
    assert outcome(reference, candidate, "schedule") is Outcome.INCONCLUSIVE
    (open_,) = decide(compare(reference, candidate), make_rules(["schedule"])).findings
    assert "no fingerprints prove that both were to train alike" in open_.message
    accepted = float(open_.message.rpartition("--limit schedule=")[2].rstrip(")"))
    limits = {"schedule": {"limit": accepted}}
    assert decide(compare(reference, candidate), make_rules(["schedule"], limits)).outcome is Outcome.PASS
    proven = {"initial_state": "aa", "batches": ("1",) * 40}
    verdict = decide(compare(replace(reference, **proven), replace(candidate, **proven)), make_rules(["schedule"]))
    assert verdict.outcome is Outcome.FAIL
    assert verdict.findings[0].iteration == 21
    assert "no fingerprints" not in verdict.findings[0].message
    assert verdict.findings[0].observed == pytest.approx(rates[38] / rates[39] - 1)


def test_a_rate_that_is_not_a_number_does_not_pass():
    rates = np.full(40, 0.01)
    broken = rates.copy()
    broken[7] = np.nan
    (finding,) = Schedule().check(compare(record(rates=rates), record(rates=broken)))
    assert (finding.outcome, finding.iteration) == (Outcome.INCONCLUSIVE, 8)
    assert "accept with" not in finding.message


def test_rates_that_are_equal_pass_a_limit_of_0_and_those_at_other_iterations_are_said_not_to_be_compared():
    rates = record(rates=np.full(40, 0.1))
    shifted = replace(rates, curves={**rates.curves, "lr": replace(rates.curves["lr"], iterations=ITERATIONS + 50)})
    (same,), (apart,) = (Schedule(limit=0).check(compare(rates, each)) for each in (rates, shifted))
    assert (same.outcome, same.observed, same.message) == (Outcome.PASS, 0, "lr is the same in 40 iterations")
    assert (apart.outcome, apart.message) == (Outcome.PASS, "lr: no iteration is in both")


def test_printed_decimals_of_a_rate_are_not_a_difference():
    rates = np.linspace(0.01, 0.001, 40)
    printed = np.round(rates, 6)
    assert outcome(record(rates=rates), record(rates=printed, quantum=1e-6), "schedule") is Outcome.PASS
    assert outcome(record(rates=rates), record(rates=printed), "schedule") is Outcome.INCONCLUSIVE


def test_without_rates_the_schedule_is_passed_over_and_says_so():
    verdict = decide(compare(record(), record(rates=np.full(40, 0.1))), make_rules(["schedule"]))
    assert (verdict.outcome, verdict.findings[0].message) == (
        Outcome.PASS,
        "no learning rates on both sides to compare",
    )


def with_rates(**rates):
    curves = {name: Curve(name=name, iterations=ITERATIONS, values=np.full(40, rate)) for name, rate in rates.items()}
    return replace(record(), curves={**record().curves, **curves})


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome_expected", "named"),
    [
        ({"lr": 0.1}, {"learning_rate": 0.1}, Outcome.PASS, "lr (learning_rate of the candidate) is the same"),
        ({"lr": 0.1}, {"learning_rate": 0.2}, Outcome.INCONCLUSIVE, "lr (learning_rate of the candidate) differs"),
        ({"base_lr": 0.1}, {"lr": 0.2}, Outcome.INCONCLUSIVE, "base_lr (lr of the candidate) differs"),
        ({"lr": 0.1, "base_lr": 0.1}, {"lr": 0.1}, Outcome.PASS, "lr is the same"),
        ({"lr": 0.1, "base_lr": 0.2}, {"base_lr": 0.2}, Outcome.PASS, "base_lr is the same"),
        (
            {"lr": 0.1, "lr_backbone": 0.01},
            {"lr": 0.1, "lr_backbone": 0.05},
            Outcome.INCONCLUSIVE,
            "lr_backbone differs",
        ),
        ({"lr": 0.1, "lr_backbone": 0.01}, {"lr": 0.1, "lr_backbone": math.nan}, Outcome.INCONCLUSIVE, "lr_backbone"),
        (
            {"lr": 0.1, "lr_backbone": 0.01},
            {"lr": 0.1, "lr_backbone": 0.01},
            Outcome.PASS,
            "lr, lr_backbone are the same",
        ),
    ],
)
def test_every_learning_rate_is_compared_under_whatever_name_it_has(ours, theirs, outcome_expected, named):
    (finding,) = Schedule().check(compare(with_rates(**ours), with_rates(**theirs)))
    assert finding.outcome is outcome_expected
    assert named in finding.message


@pytest.mark.parametrize("printed", [".4e", ".3e", ".6f"])
@pytest.mark.parametrize("candidate", [(1e-2, 1e-3, 1e-3), (2e-2, 2e-3, 2e-4), (1e-2, 1e-2, 1e-3)])
def test_a_rate_that_rests_at_round_numbers_hides_no_other_schedule(tmp_path, printed, candidate):
    def log(name, rates):
        lines = [
            f"2031/02/03 04:05:06 - mmengine - INFO - Iter(train) [{at:3d}/60]  lr: {rates[(at - 1) // 20]:{printed}}  "
            f"eta: 0:01:00  time: 0.5  loss: {4 - 0.0123 * at:.4f}\n"
            for at in range(1, 61)
        ]
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
        return read_log(tmp_path / name)

    reference = log("reference.log", (1e-2, 1e-3, 1e-4))
    assert outcome(reference, reference, "schedule") is Outcome.PASS
    assert outcome(reference, log("candidate.log", candidate), "schedule") is Outcome.INCONCLUSIVE
