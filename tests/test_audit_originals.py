"""What an audit leaves behind: nothing of the user's is changed, and what cannot be kept apart is refused or noted."""

import random

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402
from unlike_networks import squares, trained  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.iteration.state import state_digest  # noqa: E402
from emacheck.errors import UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402

BATCH = (torch.linspace(-1, 1, 48).reshape(6, 8), torch.linspace(0, 1, 6).reshape(6, 1))


class Weighting(nn.Module):
    """Learns the weight of a loss."""

    def __init__(self):
        super().__init__()
        self.logvar = nn.Parameter(torch.zeros(()))

    def forward(self, loss):
        return loss * torch.exp(-self.logvar) + self.logvar


class Scaled(nn.Module):
    """Holds a function around itself, which a copy of it shares."""

    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(8, 1), nn.Parameter(torch.ones(()))
        self.act = lambda x: x * self.scale

    def forward(self, x):
        return self.act(self.linear(x))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def test_parameters_of_the_loss_are_refused_and_keep_their_gradient():
    model, weighting = network(), Weighting()
    optimizer = torch.optim.AdamW([*model.parameters(), *weighting.parameters()], lr=1e-3)
    weighting.logvar.grad = torch.tensor(3.0)
    before = weighting.logvar.grad
    with pytest.raises(UsageError, match="the gradient of parameter 0 of the optimizer of the original changed"):
        emacheck.audit_step(model, optimizer, BATCH, lambda m, b: weighting(squares(m, b)), "cpu")
    assert weighting.logvar.grad is before
    assert float(before) == 3.0


def test_other_parameters_of_the_optimizer_are_noted():
    model, weighting = network(), Weighting()
    optimizer = torch.optim.AdamW([*model.parameters(), *weighting.parameters()], lr=1e-3)
    result = emacheck.audit_step(model, optimizer, BATCH, squares, "cpu", evaluation=False)
    assert result.outcome is Outcome.PASS
    assert result.notes == ("1 parameters of the optimizer are not the model's, and were not audited",)


@pytest.mark.parametrize("taken_over", [True, False])
def test_a_port_with_parameters_that_the_optimizer_does_not_hold_is_told_from_one_that_took_them_over(taken_over):
    def port(candidate):
        old, new = candidate.model[0], torch.nn.Linear(6, 8)
        new.load_state_dict(old.state_dict())
        if taken_over:
            new.weight, new.bias = old.weight, old.bias
        candidate.model[0] = new

    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batch = torch.randn(16, 6)
    result = emacheck.audit_step(
        model, optimizer, batch, lambda m, b: m(b).square().mean(), "cpu", prepare=port, evaluation=False
    )
    assert (result.outcome, result.module) == ((Outcome.PASS, None) if taken_over else (Outcome.FAIL, "(optimizer)"))
    assert any("does not hold 0.weight and 1 more of its model" in note for note in result.notes) is not taken_over


def test_a_function_around_the_original_is_refused():
    model = Scaled()
    with pytest.raises(UsageError, match="the gradient of parameter scale of the original changed"):
        emacheck.audit_step(model, None, BATCH, squares, "cpu")
    assert model.scale.grad is None


def test_a_loss_that_ignores_the_model_it_is_given_leaves_the_other_one_as_it_was():
    model = network()
    before = state_digest(dict(model.state_dict()))
    with pytest.raises(UsageError, match="no gradient at any parameter"):
        emacheck.audit_step(model, None, BATCH, lambda _, batch: squares(model, batch), "cpu")
    assert state_digest(dict(model.state_dict())) == before
    assert all(weight.grad is None for weight in model.parameters())


def test_the_generators_of_python_numpy_and_torch_go_on_as_if_there_had_been_no_audit():
    def drawn():
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002, S311

    def seed():
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    model = network()
    seed()
    expected = drawn()
    seed()
    emacheck.audit_step(model, None, BATCH, squares, "cpu", evaluation=False)
    assert drawn() == expected


def test_a_function_that_prepare_replaces_for_all_sides_is_put_back_and_refused():
    model, optimizer, batch = trained("an optimizer that counts in its group")
    before = F.mse_loss

    def prepare(candidate):
        F.mse_loss = lambda *args: 1.01 * before(*args)

    try:
        with pytest.raises(UsageError, match=r"torch\.nn\.functional\.mse_loss replaced by prepare.*candidate\.patch"):
            emacheck.audit_step(model, optimizer, batch, squares, "cpu", prepare=prepare)
        assert F.mse_loss is before
    finally:
        F.mse_loss = before
