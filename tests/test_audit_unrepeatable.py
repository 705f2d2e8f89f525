"""What an audit cannot repeat is named and the rest audited; what would audit nothing is refused."""

import warnings

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402
from unlike_networks import SGD, plain, scaled, squares, trained  # noqa: E402

import emacheck  # noqa: E402
from emacheck.errors import UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


def weight_scaled(candidate):
    candidate.model[0].weight.data.mul_(1.001)


def test_what_the_cpu_cannot_repeat_is_inconclusive_and_the_rest_is_audited():
    model, optimizer, batch = trained("an optimizer that counts in its group")
    table = torch.ones(1, 1)  # float32, whatever the arbiter computes in

    def loss(model, batch):
        return F.mse_loss(model(batch[0]) @ table, batch[1])

    healthy = emacheck.audit_step(model, optimizer, batch, loss, "cpu")
    assert healthy.outcome is Outcome.INCONCLUSIVE
    assert {finding.module for finding in healthy.findings} == {"(loss)", "(iteration)"}
    assert "float64" in healthy.findings[0].message
    broken = emacheck.audit_step(model, optimizer, batch, loss, "cpu", prepare=weight_scaled)
    assert (broken.outcome, broken.module) == (Outcome.FAIL, "0")


def test_what_would_audit_nothing_is_refused():
    model, _, batch = trained("an optimizer that counts in its group")
    other = plain()
    with pytest.raises(UsageError, match="LBFGS, whose step computes losses by itself"):
        emacheck.audit_step(model, torch.optim.LBFGS(model.parameters()), batch, squares, "cpu")
    with pytest.raises(UsageError, match="SGD without any parameter of the model"):
        emacheck.audit_step(model, SGD(other.parameters(), lr=0.1), batch, squares, "cpu")
    with pytest.raises(UsageError, match="no gradient at any parameter"):
        emacheck.audit_step(model, None, batch, lambda _, batch: squares(other, batch), "cpu")
    with pytest.raises(UsageError, match="each with 6 elements, expected one"):
        emacheck.audit_step(model, None, batch, lambda m, b: {"one": squares(m, b), "each": m(b[0])}, "cpu")


class Viewed(nn.Module):
    """Flattens what a convolution returns by a view, which a layout with the channels last refuses."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 1)

    def forward(self, x):
        x = self.conv(x).relu()
        return self.linear(x.view(len(x), -1))


def test_a_network_that_takes_no_other_memory_layout_is_audited_without_it_and_this_is_noted():
    torch.manual_seed(0)
    model, batch = Viewed(), (torch.randn(4, 3, 4, 4), torch.randn(4, 1))
    optimizer = SGD(model.parameters(), lr=0.1)
    healthy = emacheck.audit_step(model, optimizer, batch, squares, "cpu")
    assert healthy.outcome is Outcome.PASS, healthy.findings
    (note,) = healthy.notes
    assert note.startswith("(model) and 1 more cannot run in a benign variation")
    assert "1 threads, channels last: RuntimeError: view size is not compatible" in note
    broken = emacheck.audit_step(model, optimizer, batch, squares, "cpu", prepare=scaled("conv"))
    assert (broken.outcome, broken.module) == (Outcome.FAIL, "conv")


class Lazy(nn.Module):
    """Registers a table when it is called for the first time."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 1)

    def forward(self, x):
        if not hasattr(self, "table"):
            self.register_buffer("table", torch.arange(8, dtype=x.dtype).cos(), persistent=False)
        return self.linear(x * self.table)


def test_a_buffer_that_the_first_iteration_registers_is_refused_and_passes_once_it_is_there():
    torch.manual_seed(0)
    model, batch = Lazy(), (torch.randn(4, 8), torch.randn(4, 1))
    with pytest.raises(UsageError, match="found buffer table registered by the iteration itself"):
        emacheck.audit_step(model, None, batch, squares, "cpu")
    squares(model, batch)
    healthy = emacheck.audit_step(model, None, batch, squares, "cpu")
    assert (healthy.outcome, healthy.notes) == (Outcome.PASS, ())


class Recursive(nn.Module):
    """Calls itself."""

    def __init__(self):
        super().__init__()
        self.again, self.last = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x, times=2):
        return self(self.again(x).tanh(), times - 1) if times else self.last(x)


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in older models
        return nn.Sequential(torch.jit.script(nn.Linear(8, 8)), nn.Linear(8, 1))


@pytest.mark.parametrize(
    ("build", "module", "words"),
    [(Recursive, "(model)", "a module that calls itself"), (scripted, "0", "the CPU cannot repeat it")],
)
def test_modules_that_cannot_be_repeated_alone_are_named_and_the_user_s_are_left_as_they_were(build, module, words):
    torch.manual_seed(0)
    model, batch = build(), (torch.randn(6, 8), torch.randn(6, 1))
    result = emacheck.audit_step(model, None, batch, squares, "cpu", evaluation=False)
    assert (result.outcome, result.findings[0].module) == (Outcome.INCONCLUSIVE, module)
    assert words in result.findings[0].message
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
