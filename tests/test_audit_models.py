"""The audit of networks that are unlike EMANet: healthy ones pass, and a fault is found where it sits."""

import warnings
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.nested import converted  # noqa: E402
from emacheck.errors import UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


@dataclass(frozen=True)
class Features:
    now: torch.Tensor
    all: list
    name: str = "features"


class Box:
    """Moves itself."""

    def __init__(self, tensor):
        self.tensor = tensor

    def to(self, device):
        return Box(self.tensor.to(device))


class Backbone(nn.Module):
    """Returns what ``make`` makes of two feature maps."""

    def __init__(self, make):
        super().__init__()
        self.linear, self.make = nn.Linear(8, 8), make

    def forward(self, x):
        y = self.linear(x).tanh()
        return self.make(y, [x, 2 * y])


class Network(nn.Module):
    """Two modules that hand over a structure."""

    def __init__(self, make, take):
        super().__init__()
        self.backbone, self.head, self.take = Backbone(make), nn.Linear(8, 1), take

    def forward(self, x):
        return self.head(self.take(self.backbone(x)))


class Spectrum(nn.Module):
    """Scales a spectrum; weights, buffer and output are complex."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 9, dtype=torch.complex64))
        self.register_buffer("mean", torch.zeros(9, dtype=torch.complex64))

    def forward(self, x):
        y = torch.fft.rfft(x) * self.weight
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * y.detach().mean((0, 1))
        return y


class Magnitude(nn.Module):
    """Makes complex numbers real."""

    def forward(self, x):
        return x.abs().flatten(1)


class Causal(nn.Module):
    """Attention with a mask, for which torch runs a fused kernel that may draw, and here does not."""

    def __init__(self):
        super().__init__()
        self.attend, self.out = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 1)

    def forward(self, x):
        mask = torch.full((x.shape[1],) * 2, float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        return self.out(self.attend(x, x, x, attn_mask=mask, need_weights=False)[0]).mean(1)


class Teacher(nn.Module):
    """Its forward pass writes to the weights of a mean teacher."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher, self.head = nn.Linear(8, 8), nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 1)

    def forward(self, x):
        with torch.no_grad():
            for mine, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.mul_(0.9).add_(other, alpha=0.1)
        return self.head(self.student(x) - self.teacher(x))


class Counting(torch.optim.Optimizer):
    """Keeps the number of its step in the group, as fused optimizers do."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1, "step": 1})

    @torch.no_grad()
    def step(self, closure=None):  # noqa: ARG002
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-group["lr"] / group["step"])
            group["step"] += 1


def squares(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


def normed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in every older model
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 1))


def volume():
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 1))


def plain():
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def scaled(name):
    """Return a fault: what a module returns is 1 % too large."""

    def prepare(candidate):
        candidate.model.get_submodule(name).register_forward_hook(lambda _, __, output: output * 1.01)

    return prepare


def weight_scaled(candidate):
    candidate.model[0].weight.data.mul_(1.001)


def turned(candidate):
    """Only the imaginary part is wrong."""

    def turn(_, __, output):
        return torch.complex(output.real, output.imag * 1.01)

    candidate.model[0].register_forward_hook(turn)


def second_feature_scaled(candidate):
    def scale(_, __, output):
        return Features(output.now, [output.all[0], output.all[1] * 1.01])

    candidate.model.backbone.register_forward_hook(scale)


def rate(candidate):
    candidate.optimizer.param_groups[0]["lr"] *= 1.01


SGD = torch.optim.SGD
# Network, its input's shape, optimizer, fault and the module in which the fault sits.
CASES = {
    "sparse gradients": (
        lambda: nn.Sequential(nn.Embedding(40, 8, sparse=True), nn.Flatten(), nn.Linear(24, 1)),
        None,
        SGD,
        rate,
        "(optimizer)",
    ),
    "complex numbers": (
        lambda: nn.Sequential(Spectrum(), Magnitude(), nn.Linear(36, 1)),
        (6, 4, 16),
        torch.optim.Adam,
        turned,
        "0",
    ),
    "a dataclass": (
        lambda: Network(Features, lambda f: f.now + f.all[1]),
        (6, 8),
        SGD,
        second_feature_scaled,
        "backbone",
    ),
    "an object": (
        lambda: Network(lambda y, _: SimpleNamespace(y=y), lambda f: f.y),
        (6, 8),
        SGD,
        scaled("backbone.linear"),
        "backbone.linear",
    ),
    "an object that moves itself": (
        lambda: Network(lambda y, _: Box(y), lambda box: box.tensor),
        (6, 8),
        SGD,
        scaled("backbone.linear"),
        "backbone.linear",
    ),
    "an object with a list": (
        lambda: Network(lambda _, both: SimpleNamespace(both=both), lambda f: f.both[0] + f.both[1]),
        (6, 8),
        SGD,
        scaled("backbone.linear"),
        "backbone.linear",
    ),
    "a deque": (
        lambda: Network(lambda _, both: deque(both, 2), lambda both: both[1]),
        (6, 8),
        SGD,
        scaled("backbone.linear"),
        "backbone.linear",
    ),
    "weights normed by a hook": (normed, (6, 8), SGD, scaled("2"), "2"),
    "convolutions of volumes": (volume, (2, 2, 4, 4, 8), SGD, scaled("1"), "1"),
    "fused attention": (Causal, (3, 5, 16), torch.optim.AdamW, scaled("out"), "out"),
    "weights written in the forward pass": (Teacher, (6, 8), SGD, scaled("teacher"), "teacher"),
    "an optimizer that counts in its group": (plain, (6, 8), Counting, rate, "(optimizer)"),
}


def trained(name):
    """Return a live model, its optimizer and a batch."""
    torch.manual_seed(0)
    build, shape, optimize, *_ = CASES[name]
    model = build()
    optimizer = optimize(model.parameters()) if optimize is Counting else optimize(model.parameters(), lr=0.01)
    inputs = torch.randint(0, 40, (6, 3)) if shape is None else torch.randn(shape)
    batch = (inputs, torch.randn(len(inputs), 1))
    for _ in range(2):
        optimizer.zero_grad()
        squares(model, batch).backward()
        optimizer.step()
    return model, optimizer, batch


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


def test_an_operator_whose_draws_cannot_be_shared_is_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.RReLU(), nn.Linear(8, 1))
    batch = (torch.randn(6, 8), torch.randn(6, 1))
    result = emacheck.audit_step(model, SGD(model.parameters(), lr=0.1), batch, squares, "cpu")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "draws with rrelu" in result.findings[0].message


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
    moved = converted(packed, device=torch.device("meta"))
    assert (moved.data.device.type, moved.batch_sizes.device.type) == ("meta", "cpu")
    assert moved.batch_sizes.equal(packed.batch_sizes)


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
    assert "1 threads, channels last: view size is not compatible" in note
    broken = emacheck.audit_step(model, optimizer, batch, squares, "cpu", prepare=scaled("conv"))
    assert (broken.outcome, broken.module) == (Outcome.FAIL, "conv")


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
