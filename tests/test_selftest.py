"""The selftest: every rule on every trial, what the command makes of them, and its arithmetic."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402
from segmentor import made_reference  # noqa: E402

from emacheck.audit.faults import catalogue  # noqa: E402
from emacheck.audit.lockstep.end_to_end import Conditions  # noqa: E402
from emacheck.audit.selftest.confidence import clopper_pearson, lower_limit, upper_limit  # noqa: E402
from emacheck.audit.selftest.curve_rules import CURVE_RULES, CurveJudge  # noqa: E402
from emacheck.audit.selftest.curves import Training, train, train_with  # noqa: E402
from emacheck.audit.selftest.picture import draw  # noqa: E402
from emacheck.audit.selftest.text import selftest_text  # noqa: E402
from emacheck.audit.selftest.trials import (  # noqa: E402
    Selftest,
    Trial,
    benign_variations,
    plain_fingerprint,
    repeats,
    try_fault,
)
from emacheck.cli import selftest as command  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402

FAULTS = catalogue()


@pytest.fixture(scope="module")
def reference():
    # As the command does, whatever the environment says: with other threads rounding is seen to cause another
    # difference, by which the smallest fault is found or not.
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield made_reference()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plain(reference):
    return plain_fingerprint(reference)


ITERATIONS = 12


@pytest.fixture(scope="module")
def curves(reference):
    subject, how = reference.subject, Conditions()
    batches = [reference.batch] * ITERATIONS
    plain = train(subject.twin(), batches, how)
    others = [train(subject.twin(), batches, Conditions(variation=each)) for each in repeats()]
    return batches, CurveJudge(reference=plain, repeats=others)


@pytest.mark.slow
def test_trainings_from_one_state_are_paired_whatever_they_compute_on(reference, curves):
    batches, judge = curves
    again = train(reference.subject.twin(), batches, Conditions())
    assert again == judge.reference
    assert len(again.loss) == len(again.grad_norm) == len(again.lr) == ITERATIONS
    assert len(set(again.loss)) == ITERATIONS
    assert all(each != again for each in judge.repeats)
    assert judge.first_seen(again) == {}
    for variation in benign_variations(4):
        assert judge.first_seen(train(reference.subject.twin(), batches, Conditions(variation=variation))) == {}


@pytest.mark.parametrize(
    ("name", "first"),
    [("dead_channel", 1), ("momentum_off@0", 2), ("channels_not_swapped", 1), ("label_shifted", 1)],
)
def test_the_rules_on_curves_see_gross_faults_where_they_begin(reference, curves, name, first):
    batches, judge = curves
    training = train_with(FAULTS[name], reference.subject, batches, Conditions())
    seen = judge.first_seen(training)
    assert seen["first_iterations"] == seen["curves"] == first, seen
    assert set(seen) <= set(CURVE_RULES)


@pytest.mark.slow
def test_the_command_sends_every_trial_through_every_rule(monkeypatch, tmp_path, reference, plain, curves):
    """On the small network in place of EMANet."""
    kept = {"reference": reference, "plain": plain, "faults": FAULTS, "batches": curves[0]}
    monkeypatch.setattr(command, "audited_request", lambda options: None)  # noqa: ARG005
    monkeypatch.setattr(command, "_prepare", lambda *_: None)
    monkeypatch.setattr(command, "_prepared", kept)
    monkeypatch.chdir(tmp_path)
    arguments = ["--only", "momentum_off*", "--benign", "2", "--curves", str(ITERATIONS), "--plot", "a.png", "--json"]
    done = CliRunner().invoke(command.selftest, arguments, standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.return_value == 0, done.output
    result = json.loads(done.stdout)
    assert {name: rule["detected"] for name, rule in result["rules"].items()} == {
        "modelzoo": 0,
        "mean_relative_error": 0,
        "first_iterations": 2,
        "envelope": 3,
        "curves": 3,
        "audit_isolated": 3,
        "audit_end_to_end": 3,
        "audit": 3,
    }
    assert all(rule["trials"] == 2 and rule["false_alarms"] == 0 for rule in result["rules"].values())
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_batch_that_is_handed_out_late_is_for_the_rules_on_curves(reference, plain, curves):
    _, judge = curves
    stale = FAULTS["batch_of_the_previous_iteration"]
    trial = try_fault(reference, stale, plain)
    assert (trial.counts, trial.message) == (False, "shows from iteration 2 on")
    inputs = reference.batch["inputs"]
    batches = [{**reference.batch, "inputs": inputs.roll(at, -1)} for at in range(ITERATIONS)]
    own = CurveJudge(reference=train(reference.subject.twin(), batches, Conditions()), repeats=judge.repeats)
    training = train_with(stale, reference.subject, batches, Conditions())
    assert training.loss[0] == own.reference.loss[0]
    trial = trial.with_curves(training, own)
    assert trial.counts
    assert trial.first_seen["first_iterations"] == 2
    assert "audit" not in trial.detected_by


def test_a_fault_that_goes_on_with_old_weights_has_an_effect_that_the_curves_show(reference, plain, curves):
    batches, judge = curves

    def goes_on_with_old_weights(candidate, severity):
        conv = candidate.model.stem[0]
        old = conv.weight.detach().clone()
        conv.forward = lambda value: conv._conv_forward(value, conv.weight + (old - conv.weight.detach()), conv.bias)
        return "stem.0"

    stale = replace(FAULTS["dead_channel"], name="stale", apply=goes_on_with_old_weights)
    trial = try_fault(reference, stale, plain)
    assert (trial.changed, trial.message) == (False, "")
    trial = trial.with_curves(train_with(stale, reference.subject, batches, Conditions()), judge)
    assert trial.counts
    assert trial.first_seen["curves"] > 1
    assert "audit" not in trial.detected_by
    only = Selftest(faults=(trial,), benign=(Trial(name="v", kind="benign"),), precision="fp32", device="cpu")
    assert only.outcome is Outcome.PASS


def test_a_training_that_raises_is_seen_by_every_rule_where_it_ends(reference, curves):
    batches, judge = curves
    candidate = reference.subject.twin()
    count = iter(range(ITERATIONS))

    def change(batch):
        if next(count) == 3:
            raise ValueError("out of paper\nand more")
        return batch

    candidate.change_batch = change
    training = train(candidate, batches, Conditions())
    assert (training.raised, len(training.loss)) == ("ValueError; out of paper", 3)
    assert judge.first_seen(training) == dict.fromkeys(CURVE_RULES, 4)


def test_the_users_rule_passes_a_loss_that_is_far_too_low():
    def training(factor):
        return Training(loss=tuple(factor * (4 - 0.1 * at) for at in range(20)))

    low = CurveJudge(reference=training(1.0), repeats=()).first_seen(training(0.6))
    assert low == {"mean_relative_error": 1, "first_iterations": 1, "curves": 1}
    assert CurveJudge(reference=training(1.0), repeats=()).first_seen(training(1.4))["modelzoo"] == 1


def test_a_false_alarm_or_a_missed_fault_fails_the_selftest():
    found = Trial(name="a", kind="norm", detected_by=("audit", "audit_isolated"), moved=0.5, module="x", named="x")
    missed = Trial(name="b", kind="norm", moved=0.5, module="x", named="y")
    small = Trial(name="c", kind="norm", moved=1e-5)
    quiet, alarm = Trial(name="v", kind="benign"), Trial(name="w", kind="benign", detected_by=("audit",))

    def outcome(faults, benign):
        return Selftest(faults=faults, benign=benign, precision="fp32", device="cpu").outcome

    assert outcome((found, small), (quiet,)) is Outcome.PASS
    assert outcome((found, missed), (quiet,)) is Outcome.FAIL
    assert outcome((found,), (quiet, alarm)) is Outcome.FAIL
    assert outcome((), (quiet,)) is Outcome.INCONCLUSIVE
    # The rules on curves are counted; the audit decides.
    wrong = Trial(name="x", kind="benign", detected_by=("curves",), first_seen={"curves": 3})
    assert outcome((found,), (wrong,)) is Outcome.PASS
    result = Selftest(faults=(found, missed), benign=(quiet, alarm), precision="fp32", device="cpu")
    fields = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert fields["rules"]["audit"]["detected"] == 1
    assert fields["rules"]["audit"]["false_alarms"] == 1
    assert fields["named"] == {"correctly": 1, "faults": 2}
    assert fields["faults"][0]["class"] == "norm"
    assert list(fields["rules"]) == ["audit_isolated", "audit_end_to_end", "audit"]


def test_all_rules_are_in_the_table_and_in_the_picture():
    found = Trial(
        name="dead_channel",
        kind="kernel",
        isolated=100.0,
        end_to_end=float("inf"),
        detected_by=("envelope", "curves", "audit"),
        first_seen={"envelope": 7, "curves": 7, "audit": 1},
    )
    none = Trial(name="short", kind="kernel", changed=False, message="no fault in bf16")
    result = Selftest(
        faults=(found, none), benign=(Trial(name="v", kind="benign"),), precision="bf16", device="cpu", iterations=20
    )
    rules = result.to_json()["rules"]
    assert list(rules) == [*CURVE_RULES, "audit_isolated", "audit_end_to_end", "audit"]
    assert rules["envelope"] | {"interval": None} == {
        "faults": 1,
        "detected": 1,
        "trials": 1,
        "false_alarms": 0,
        "interval": None,
        "upper_limit": pytest.approx(0.95),
        "median_first_seen": 7,
    }
    lines = selftest_text(result, command="emacheck selftest").splitlines()
    row = next(line.split() for line in lines if line.strip().startswith("dead_channel"))
    assert row[2:8] == [".", ".", ".", "7", "7", "100"]
    assert any(line.split() == ["short", "kernel", "no", "fault", "in", "bf16"] for line in lines)
    assert draw(result).startswith(b"\x89PNG")


def test_confidence_limits_are_those_of_the_tables():
    # Clopper and Pearson, 1934: 95 % limits for 3 of 10.
    assert clopper_pearson(3, 10) == pytest.approx((0.0667, 0.6525), abs=1e-4)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert upper_limit(10, 10) == 1.0
    assert lower_limit(10, 10, 0.025) == pytest.approx(0.6915, abs=1e-4)
    assert upper_limit(0, 200) < 0.015
