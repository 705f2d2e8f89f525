"""Faults of users that are wrong themselves: each is told apart from a miss, and none spoils the trials after it."""

import json

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from click.testing import CliRunner  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.faults import CATALOGUE, load_faults  # noqa: E402
from emacheck.audit.iteration.subject import Subject  # noqa: E402
from emacheck.audit.judging.reference import Plan, Reference  # noqa: E402
from emacheck.audit.lockstep.end_to_end import Conditions  # noqa: E402
from emacheck.audit.lockstep.variations import PLAIN  # noqa: E402
from emacheck.audit.selftest.curves import train_with  # noqa: E402
from emacheck.audit.selftest.text import selftest_text  # noqa: E402
from emacheck.audit.selftest.trials import Selftest, plain_fingerprint, try_fault, try_variation  # noqa: E402
from emacheck.cli import selftest as command  # noqa: E402
from emacheck.errors import UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402

FAULTS = """
import torch
from emacheck.audit.faults import fault

@fault(kind="kernel")
def u_raises(candidate, severity):
    "Divides by zero."
    return 1 / 0

@fault(kind="kernel")
def u_returns_a_module(candidate, severity):
    "Does not say where it sits by name."
    candidate.model[0].weight.data.mul_(1.1)
    return candidate.model[0]

@fault(kind="kernel")
def u_misspells(candidate, severity):
    "Names a module that there is not."
    candidate.model[0].weight.data.mul_(1.1)
    return "zero"

@fault(kind="kernel")
def u_leaks(candidate, severity):
    "Replaces a function for good."
    own = torch.nn.functional.mse_loss
    torch.nn.functional.mse_loss = lambda *args: 1.1 * own(*args)

@fault(kind="kernel")
def u_is_a_fault(candidate, severity):
    "Scales a weight."
    candidate.model[0].weight.data.mul_(1.1)
    return "0"
"""


def loss(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    subject = Subject(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), loss=loss)
    return Reference(subject=subject, batch=(torch.randn(6, 8), torch.randn(6, 1)), plan=Plan(), keep=True)


@pytest.fixture
def faults(tmp_path):
    (tmp_path / "mine.py").write_text(FAULTS)
    found = load_faults(tmp_path / "mine.py")
    yield found
    for name in found:
        CATALOGUE.pop(name)


def test_a_fault_whose_code_is_wrong_is_told_and_the_others_are_tried(reference, faults):
    plain = plain_fingerprint(reference)
    trials = {name: try_fault(reference, fault, plain) for name, fault in faults.items()}
    assert "raises ZeroDivisionError" in trials["u_raises"].message
    for name in ("u_returns_a_module", "u_misspells"):
        assert "expected the name of a module or None" in trials[name].message
    assert trials["u_is_a_fault"].named == "0"
    result = Selftest(faults=tuple(trials.values()), benign=(), precision="fp32", device="cpu")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.rules()["audit"]["faults"] == 2
    assert "BROKEN: its function raises ZeroDivisionError: division by zero" in selftest_text(result, command="x")
    json.dumps(result.to_json(), allow_nan=False)


def test_what_a_fault_replaces_for_good_is_put_back_before_the_next_trial(reference, faults):
    plain, before = plain_fingerprint(reference), F.mse_loss
    try:
        trial = try_fault(reference, faults["u_leaks"], plain)
        assert F.mse_loss is before
        assert (trial.put_back, trial.named) == (("torch.nn.functional.mse_loss",), "(loss)")
        assert not try_variation(reference, PLAIN).detected_by
        train_with(faults["u_leaks"], reference.subject, [reference.batch], Conditions())
        assert F.mse_loss is before
    finally:
        F.mse_loss = before


def test_a_fault_that_raises_has_no_training(reference, faults):
    assert train_with(faults["u_raises"], reference.subject, [reference.batch], Conditions()) is None


def test_the_command_names_what_was_put_back_and_what_is_broken(monkeypatch, tmp_path, reference, faults):
    assert faults
    made = {"reference": reference, "plain": plain_fingerprint(reference), "faults": dict(CATALOGUE), "batches": []}
    monkeypatch.setattr(command, "_prepare", lambda *args: command._prepared.update(made))  # noqa: ARG005
    arguments = ["--faults", str(tmp_path / "mine.py"), "--only", "u_*", "--benign", "1", "--curves", "0"]
    run = CliRunner().invoke(command.selftest, arguments, standalone_mode=False)
    assert run.return_value == 3, run.output
    assert "left torch.nn.functional.mse_loss replaced, which was put back: use candidate.patch" in run.stderr
    assert "u_raises: BROKEN: its function raises ZeroDivisionError" in run.stderr
    assert "INCONCLUSIVE selftest detected 2 of 2, false alarms 0 of 1" in run.stdout


def test_a_file_of_faults_that_ends_the_program_is_refused(tmp_path):
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(UsageError, match="cannot be run: SystemExit"):
        load_faults(tmp_path / "ends.py")
