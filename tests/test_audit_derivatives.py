"""Gradients that a forward pass computes itself: a penalty, an equation, transforms of torch.func."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.faults.places import replace_operator  # noqa: E402


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))


def penalty(model, batch):
    points = batch.clone().requires_grad_(True)
    slope = torch.autograd.grad(model(points).sum(), points, create_graph=True)[0]
    return {"value": model(batch).square().mean(), "penalty": (slope.norm(dim=1) - 1).square().mean()}


def equation(model, batch):
    points = batch.clone().requires_grad_(True)
    value = model(points)
    slope = torch.autograd.grad(value.sum(), points, create_graph=True)[0]
    curvature = torch.autograd.grad(slope[:, 0].sum(), points, create_graph=True)[0][:, 0]
    return (slope[:, 1] - 0.1 * curvature).square().mean() + (value - points.prod(1, keepdim=True)).square().mean()


def second_derivative_scaled(candidate):
    # What the second derivative of tanh is made of; its first one is an operator of its own.
    replace_operator(candidate, ("mul",), lambda func, args, kwargs: func(*args, **kwargs) * 1.001)


def output_scaled(candidate):
    candidate.model[1].register_forward_hook(lambda _, __, output: output * 1.001)


@pytest.mark.parametrize("loss", [penalty, equation])
def test_gradients_within_the_forward_pass_are_audited_in_the_whole_iteration_and_a_note_says_so(loss):
    subject = network(), None, torch.rand(20, 2), loss, "cpu"
    healthy = emacheck.audit_step(*subject, evaluation=False)
    assert healthy.outcome is emacheck.Outcome.PASS, healthy.findings
    (note,) = healthy.notes
    assert note.startswith("computes gradients in the forward pass, through modules that it calls: (loss); ")
    broken = emacheck.audit_step(*subject, evaluation=False, prepare=output_scaled)
    assert (str(broken.outcome), broken.module) == ("FAIL", "1")
    broken = emacheck.audit_step(*subject, evaluation=False, prepare=second_derivative_scaled)
    assert str(broken.outcome) == "FAIL"


def test_without_a_whole_iteration_a_loss_that_cannot_be_played_back_is_inconclusive():
    result = emacheck.audit_step(network(), None, torch.rand(20, 2), equation, "cpu", end_to_end=False)
    assert result.outcome is emacheck.Outcome.INCONCLUSIVE
    assert {finding.module for finding in result.findings} == {"(loss)"}


class Force(nn.Module):
    """Returns an energy and, through a transform of torch.func, what it slopes by."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x), torch.func.vmap(torch.func.grad(lambda point: self.net(point).squeeze()))(x)


def forces(model, batch):
    energy, force = model(batch)
    return F.mse_loss(energy, batch.prod(1, keepdim=True)) + F.mse_loss(force, batch.flip(1))


def test_a_module_in_a_transform_of_torch_func_is_its_callers_own_code():
    subject = Force(), None, torch.rand(20, 2), forces, "cpu"
    healthy = emacheck.audit_step(*subject)
    assert (healthy.outcome, healthy.notes) == (emacheck.Outcome.PASS, ()), healthy.findings

    def prepare(candidate):
        candidate.model.net[1].register_forward_hook(lambda _, __, output: output * 1.001)

    broken = emacheck.audit_step(*subject, prepare=prepare)
    assert str(broken.outcome) == "FAIL"
    assert {"net.1", "(model)"} <= {finding.module for finding in broken.findings}
