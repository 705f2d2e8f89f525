"""What is drawn in an audit: the same on both sides, or no evidence."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import audited  # noqa: E402
from torch import nn  # noqa: E402
from unlike_networks import SGD, squares  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.iteration.draws import Draws  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


def test_a_reference_that_does_not_repeat_is_inconclusive():
    calls = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, value):
            calls.append(1)
            return self.linear(value) * len(calls)

    model = nn.Sequential(nn.Linear(4, 4), Counting())
    result = emacheck.audit_step(model, None, torch.ones(2, 4), lambda m, b: m(b).sum(), "cpu")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.findings[0].tensor == "1 output"
    assert "does not repeat" in result.findings[0].message


@pytest.mark.parametrize(
    "draw_some",
    [
        lambda like: F.dropout(torch.ones_like(like), 0.5),
        lambda like: F.dropout2d(torch.ones_like(like), 0.5),
        lambda like: torch.rand(like.shape, dtype=like.dtype),
        torch.randn_like,
        lambda like: torch.bernoulli(torch.full_like(like, 0.5)),
        lambda like: torch.empty_like(like).uniform_(),
        lambda like: torch.randperm(7).to(like.dtype) + torch.randint(0, 9, (7,)),
    ],
)
def test_draws_depend_on_seed_and_position_alone(draw_some):
    plain = torch.empty(2, 3, 4, 5)
    others = (plain.double(), plain.contiguous(memory_format=torch.channels_last))

    def drawn(like, seed, position):
        draws = Draws(seed)
        draws.position = position
        with draws:
            return draw_some(like).double()

    first = drawn(plain, 0, 0)
    assert all(torch.equal(drawn(like, 0, 0), first) for like in others)
    assert not torch.equal(drawn(plain, 1, 0), first)
    assert not torch.equal(drawn(plain, 0, 1), first)


def test_what_the_device_draws_itself_is_inconclusive(subject):
    def replaced(candidate):
        candidate.model.blocks[0].relu.forward = lambda value: F.rrelu(value, training=True)

    result = audited(subject, replaced)
    assert (result.outcome, result.findings[0].module) == (Outcome.INCONCLUSIVE, "blocks.0.relu")
    assert "rrelu_with_noise" in result.findings[0].message


def test_an_operator_whose_draws_cannot_be_shared_is_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.RReLU(), nn.Linear(8, 1))
    batch = (torch.randn(6, 8), torch.randn(6, 1))
    result = emacheck.audit_step(model, SGD(model.parameters(), lr=0.1), batch, squares, "cpu")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "draws with rrelu" in result.findings[0].message
