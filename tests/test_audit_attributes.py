"""What modules keep as plain attributes: every call starts from the same, and tables and states follow to a device."""

import os
import subprocess
import sys
from collections import deque

import pytest
from conftest import ROOT

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.iteration.attributes import bring, put_back  # noqa: E402


class Annealed(nn.Module):
    """Counts its calls, and divides by less from call to call."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(8, 4), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) / (5.0 - self.calls / 20)


class Remembering(nn.Module):
    """Keeps a state from iteration to iteration."""

    def __init__(self):
        super().__init__()
        self.linear, self.again, self.state = nn.Linear(8, 4), nn.Linear(4, 4), None

    def forward(self, x):
        y = self.linear(x)
        if self.state is not None:
            y = y + self.again(self.state)
        self.state = y.detach().tanh()
        return y.tanh()


class Banked(nn.Module):
    """Keeps the last outputs in a list, and writes to a mean that is no buffer."""

    def __init__(self):
        super().__init__()
        self.linear, self.bank, self.mean = nn.Linear(8, 4), deque(maxlen=3), torch.zeros(4)

    def forward(self, x):
        y = self.linear(x).tanh()
        for other in self.bank:
            y = y - 0.1 * other
        self.bank.append(y.detach().mean(0))
        with torch.no_grad():
            self.mean.mul_(0.9).add_(y.mean(0), alpha=0.1)
        return y - self.mean


class Routed(nn.Module):
    """Leaves a second loss in an attribute, as a mixture of experts does."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts, self.balance = nn.Linear(8, 2), nn.Linear(8, 8), None

    def forward(self, x):
        shares = self.gate(x).softmax(-1)
        self.balance = shares.mean(0).square().sum()
        return (self.experts(x).unflatten(-1, (2, 4)) * shares[..., None]).sum(-2)


class Tabled(nn.Module):
    """Makes a table in its first call, where the input is."""

    def __init__(self):
        super().__init__()
        self.linear, self.table = nn.Linear(8, 4), None

    def forward(self, x):
        if self.table is None:
            self.table = torch.arange(1, 5, device=x.device).to(x.dtype)
        return self.linear(x) * self.table


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def routed_loss(model, batch):
    return {"labels": cross_entropy(model, batch), "balance": 0.1 * model[0].balance}


def trained(network, loss=cross_entropy):
    """Train a network for a few iterations; return what an audit takes, without the device."""
    torch.manual_seed(0)
    model = nn.Sequential(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        batch = torch.randn(16, 8), torch.randint(0, 4, (16,))
        optimizer.zero_grad()
        given = loss(model, batch)
        sum(given.values() if isinstance(given, dict) else [given]).backward()
        optimizer.step()
    return model, optimizer, (torch.randn(16, 8), torch.randint(0, 4, (16,))), loss


def scaled(candidate):
    candidate.model[0].register_forward_hook(lambda _, __, output: output * 1.001)


@pytest.mark.parametrize(
    "made",
    [(Annealed,), (Remembering,), (Banked,), (Routed, routed_loss), (Tabled,)],
    ids=lambda made: made[0].__name__,
)
def test_what_a_module_keeps_is_the_same_on_every_side_so_that_it_passes_and_a_fault_in_it_does_not(made):
    subject = trained(*made)
    healthy = emacheck.audit_step(*subject, "cpu")
    assert (healthy.outcome, healthy.notes) == (emacheck.Outcome.PASS, ()), healthy.findings
    broken = emacheck.audit_step(*subject, "cpu", prepare=scaled)
    assert (str(broken.outcome), broken.module) == ("FAIL", "0")


def test_a_loss_that_is_left_in_an_attribute_is_compared_in_the_whole_iteration():
    def other_balance(candidate):
        def forward(x):
            y = Routed.forward(module, x)
            module.balance = module.balance * 1.001
            return y

        module = candidate.model[0]
        module.forward = forward

    result = emacheck.audit_step(*trained(Routed, routed_loss), "cpu", prepare=other_balance)
    assert (str(result.outcome), result.module) == ("FAIL", "(iteration)")
    assert result.findings[0].tensor.endswith("balance")


def test_attributes_are_put_back_and_new_ones_removed():
    module = Annealed()
    module.state = state = torch.zeros(2)
    module.pair, module.seen = (torch.zeros(1), 3), {"words": [1, 2], "sum": torch.zeros(2)}
    with torch.inference_mode():
        module.table = torch.ones(2)
    with put_back(module.modules()):
        module.calls, module.state, module.linear.left = 7, torch.ones(2), "something"
        module.pair[0].add_(1)
        module.seen["sum"] += 1
        module.seen["words"].append(module.seen)
        module.seen["more"] = 2
    assert module.calls == 0
    assert module.state is state
    assert module.pair[0].item() == 0
    assert (module.seen["words"], module.seen["sum"].tolist(), len(module.seen)) == ([1, 2], [0.0, 0.0], 2)
    assert not hasattr(module.linear, "left")


def test_tensors_among_the_attributes_take_another_type_but_for_weights_and_what_has_gradient_history():
    one, other = nn.LSTM(2, 2), Annealed()
    one.bank = other.bank = [torch.zeros(2), torch.zeros(2, dtype=torch.int64)]
    other.own, other.left = torch.zeros(2, dtype=torch.complex64), torch.ones(1, requires_grad=True) * 2
    before = list(one._flat_weights)
    bring([one, other], dtype=torch.float64)
    assert [each.dtype for each in one.bank] == [torch.float64, torch.int64]
    assert one.bank is other.bank
    assert other.own.dtype is torch.complex128
    assert other.left.dtype is torch.float32
    assert all(now is then for now, then in zip(one._flat_weights, before, strict=True))


ON_A_DEVICE = """
import sys
import torch, torch_sdaa, emacheck
sys.path.insert(0, sys.argv[1])
from test_audit_attributes import Remembering, Tabled, scaled, trained

torch.set_num_threads(1)
for network in (Tabled, Remembering):
    for prepare in (None, scaled):
        subject = trained(network)
        print(emacheck.audit_step(*subject, "sdaa", prepare=prepare).outcome, subject[0][0].linear.weight.device)
"""


@pytest.mark.slow
def test_a_table_and_a_state_follow_to_the_device(simulated_device):
    done = subprocess.run(
        [sys.executable, "-c", ON_A_DEVICE, str(ROOT / "tests")],
        env={**os.environ, **simulated_device()}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["PASS", "cpu", "FAIL", "cpu"] * 2
