"""Integers are right or wrong, whatever their size; only where rounding decides one it is not judged."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import audited, hook  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.arithmetic.measure import Truth, distance  # noqa: E402
from emacheck.audit.findings.text import text  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


class Router(nn.Module):
    def forward(self, value):
        return value.softmax(-1).topk(1, -1)


class Routed(nn.Module):
    """Weighs its output by the largest of some scores, and keeps the index of it to itself."""

    def __init__(self):
        super().__init__()
        self.gate, self.expert, self.router = nn.Linear(6, 4), nn.Linear(6, 4), Router()

    def forward(self, value):
        weight, _ = self.router(self.gate(value))
        return self.expert(value) * weight


class Repeated(Routed):
    """Chooses among scores of which each is there twice."""

    def forward(self, value):
        scores = self.gate(value)
        weight, _ = self.router(torch.cat([scores, scores], -1))
        return self.expert(value) * weight


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(1_000_003, 2), nn.Linear(2, 4)

    def forward(self, ids):
        return self.out(self.embed(ids + 1))


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def routed(kind=Routed):
    torch.manual_seed(0)
    return kind(), None, (torch.randn(16, 6), torch.randint(0, 4, (16,))), loss


@pytest.mark.parametrize("level", ["isolated", "evaluation"])
def test_indices_beside_an_output_with_a_gradient_are_judged(level):
    healthy = audited(routed())
    assert (healthy.outcome, healthy.notes) == (Outcome.PASS, ()), text(healthy, command="")
    result = audited(routed(), hook("router", lambda output: (output[0], (output[1] + 1) % 4)))
    assert (result.outcome, result.module) == (Outcome.FAIL, "router")
    assert (level, "output 1") in {(error.level, error.tensor) for error in result.errors if not error.passes}


def test_a_choice_among_equals_is_noted_as_not_judged():
    def other(candidate):
        candidate.model.router.register_forward_hook(lambda _, __, output: (output[0], (output[1] + 4) % 8))

    result = audited(routed(Repeated), other)
    assert result.outcome is Outcome.PASS, text(result, command="")
    assert "the last bits of its numbers decide an integer; the first is router output 1" in result.notes[0]


class Alike(Routed):
    """Routes a thousand tokens, for one of which two experts are all but equal."""

    def forward(self, value):
        scores = self.gate(value)
        near = scores[:1, :1].expand(1, 4) * (1 + torch.tensor([0.0, 1.0, 0.0, 0.0], device=scores.device) * 2.0**-24)
        weight, _ = self.router(torch.cat([near, scores[1:]]))
        return self.expert(value) * weight


def choosing(change):
    def prepare(candidate):
        candidate.model.router.register_forward_hook(lambda _, __, output: (output[0], change(output[1].clone())))

    return prepare


@pytest.mark.parametrize(
    ("first", "others", "outcome"),
    [(0, 0, "PASS"), (1, 0, "PASS"), (2, 0, "PASS"), (0, 1, "FAIL")],
)
def test_integers_beside_one_that_last_bits_decide_are_judged(first, others, outcome):
    def change(indices):
        indices[0], indices[1:] = (indices[0] + first) % 4, (indices[1:] + others) % 4
        return indices

    torch.manual_seed(0)
    subject = Alike(), None, (torch.randn(1000, 6), torch.randint(0, 4, (1000,))), loss
    result = audited(subject, choosing(change), evaluation=False, end_to_end=False)
    assert str(result.outcome) == outcome, text(result, command="")
    assert not any("decide an integer" in note for note in result.notes)
    (index,) = [error for error in result.errors if error.tensor == "output 1"]
    assert index.accepted == pytest.approx(1e-3)


def test_an_index_of_a_million_that_is_off_by_one_is_found():
    torch.manual_seed(0)
    ids, labels = torch.full((4,), 1_000_000), torch.randint(0, 4, (4,))

    def shift(candidate):
        candidate.model.embed.register_forward_pre_hook(lambda _, inputs: (inputs[0] - 1,))
        candidate.model.forward = lambda ids: candidate.model.out(candidate.model.embed(ids + 2))

    result = audited((Table(), None, (ids, labels), loss), shift, evaluation=False, end_to_end=False)
    assert "input of embed 0.0" in {error.tensor for error in result.errors if not error.passes}


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_integers_and_booleans_are_equal_or_infinitely_far_off(kind):
    one, other = torch.tensor([1, 1, 0]).to(kind), torch.tensor([1, 0, 0]).to(kind)
    truth = Truth(tensor=one)
    assert distance(one, truth).norm == 0
    assert distance(other, truth).norm == float("inf")
