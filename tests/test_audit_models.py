"""The audit of networks that are unlike EMANet: healthy ones pass, and a fault is found where it sits."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402
from unlike_networks import CASES, SGD, squares, trained  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.iteration.nested import snapshot  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


@pytest.mark.parametrize("name", CASES)
def test_a_healthy_network_passes_and_a_fault_is_found_where_it_sits(name):
    model, optimizer, batch = trained(name)
    *_, prepare, module = CASES[name]
    healthy = emacheck.audit_step(model, optimizer, batch, squares, "cpu")
    assert healthy.outcome is Outcome.PASS, healthy.findings
    assert {error.level for error in healthy.errors} == {"isolated", "evaluation", "end to end"}
    broken = emacheck.audit_step(model, optimizer, batch, squares, "cpu", prepare=prepare)
    assert (broken.outcome, broken.module) == (Outcome.FAIL, module), broken.findings


def test_a_whole_iteration_starts_from_the_same_count_of_steps_each_time():
    model, optimizer, batch = trained("an optimizer that counts in its group")
    result = emacheck.audit_step(model, optimizer, batch, squares, "cpu")
    updates = [e for e in result.errors if e.level == "end to end" and e.tensor.startswith("update")]
    # Held against iterations with other counts, a count that is wrong would be accepted.
    assert max(error.accepted for error in updates) < 1e-5


def test_modules_that_share_a_buffer_share_it_on_every_side():
    model, optimizer, batch = trained("a buffer that two modules share")
    result = emacheck.audit_step(model, optimizer, batch, squares, "cpu")
    buffers = {e.module: e for e in result.errors if e.level == "end to end" and e.tensor == "buffer mean"}
    # Where the arbiter's modules each write to one of their own, a mean may be anything.
    assert set(buffers) == {"0", "3"}
    assert max(each.accepted for each in buffers.values()) < 1e-5


def test_a_whole_complex_tensor_is_compared_not_its_real_part():
    model, optimizer, batch = trained("complex numbers")

    def mean_turned(candidate):
        def turn(module, _, __):
            module.mean = torch.complex(module.mean.real, module.mean.imag * 1.01)

        candidate.model[0].register_forward_hook(turn)

    result = emacheck.audit_step(model, optimizer, batch, squares, "cpu", prepare=mean_turned)
    assert (result.outcome, result.module, result.phase) == (Outcome.FAIL, "0", "buffers")


def test_a_gradient_that_should_not_flow_is_found_where_it_starts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8).requires_grad_(False), nn.Tanh(), nn.Linear(8, 1))
    optimizer = SGD(model[2].parameters(), lr=0.1)

    def thawed(candidate):
        candidate.model[0].weight.requires_grad_(True)

    batch = (torch.randn(6, 8), torch.randn(6, 1))
    result = emacheck.audit_step(model, optimizer, batch, squares, "cpu", prepare=thawed)
    assert (result.module, result.phase) == ("0", "backward")
    assert "gradient history" in result.findings[0].tensor


def test_a_buffer_that_arrives_wrong_is_found_though_nothing_reads_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    model[1].num_batches_tracked += 30

    def reset(candidate):
        candidate.model[1].num_batches_tracked.zero_()

    batch = (torch.randn(6, 8), torch.randn(6, 1))
    result = emacheck.audit_step(model, SGD(model.parameters(), lr=0.1), batch, squares, "cpu", prepare=reset)
    assert (result.module, result.findings[0].tensor) == ("1", "start of buffer num_batches_tracked")


def test_a_container_that_turns_nan_into_a_number_is_found():
    model, optimizer, batch = trained("an object")

    def clean(candidate):
        own = candidate.model.backbone.forward
        candidate.model.backbone.forward = lambda x: SimpleNamespace(y=torch.nan_to_num(own(x).y))

    result = emacheck.audit_step(model, optimizer, batch, squares, "cpu", prepare=clean)
    assert (result.outcome, result.module) == (Outcome.FAIL, "backbone")
    assert "NaN that became a number" in result.findings[0].tensor


class Scored(nn.Module):
    """Returns an accuracy beside its loss."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 5)

    def forward(self, x, label):
        scores = self.linear(x)
        return {"loss": F.cross_entropy(scores, label), "accuracy": (scores.argmax(1) == label).double().mean()}


@pytest.mark.parametrize(("key", "outcome"), [("accuracy", Outcome.PASS), ("loss", Outcome.FAIL)])
def test_an_accuracy_beside_a_loss_is_not_judged_in_evaluation_mode_either(key, outcome):
    torch.manual_seed(0)
    model = Scored()
    batch = (torch.randn(20, 8), torch.randint(0, 5, (20,)))

    def flip(candidate):
        # One sample of twenty, as a last bit may flip.
        def change(module, _, output):
            return output if module.training else {**output, key: output[key] + 0.05}

        candidate.model.register_forward_hook(change)

    def loss(model, batch):
        return model(*batch)["loss"]

    result = emacheck.audit_step(model, SGD(model.parameters(), lr=0.1), batch, loss, "cpu", prepare=flip)
    assert result.outcome is outcome, result.findings


def test_the_lengths_of_packed_sequences_stay_on_the_cpu():
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(2, 3, 4), torch.tensor([3, 2]), batch_first=True)
    moved = snapshot(packed, device=torch.device("meta"))
    assert (moved.data.device.type, moved.batch_sizes.device.type) == ("meta", "cpu")
    assert moved.batch_sizes.equal(packed.batch_sizes)


class Scaling(nn.Module):
    """Scales its input in place and returns nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x):
        x.mul_(self.weight)


class ScaledInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.scaling, self.last = nn.Linear(8, 8), Scaling(), nn.Linear(8, 1)

    def forward(self, x):
        y = self.first(x)
        self.scaling(y)
        return self.last(y.tanh())


def test_what_a_module_does_to_its_input_in_place_is_compared():
    torch.manual_seed(0)
    model, batch = ScaledInPlace(), (torch.randn(6, 8), torch.randn(6, 1))

    def wrong(candidate):
        scaling = candidate.model.scaling
        scaling.forward = lambda x: (x.mul_(scaling.weight * 1.00001), None)[1]

    healthy = emacheck.audit_step(model, None, batch, squares, "cpu")
    assert healthy.outcome is Outcome.PASS, healthy.findings
    broken = emacheck.audit_step(model, None, batch, squares, "cpu", prepare=wrong, end_to_end=False)
    assert (broken.outcome, broken.module, broken.findings[0].tensor) == (
        Outcome.FAIL,
        "scaling",
        "input after the call 0.0",
    )
