"""Where the true value is zero rounding leaves a rest, which says nothing about the rest of the network."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from small_network import audited, trained  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.arithmetic.measure import FAR, Distance, Truth, distance  # noqa: E402
from emacheck.audit.findings.text import text  # noqa: E402
from emacheck.audit.iteration.calls import LOSS  # noqa: E402
from emacheck.audit.judging.pooling import overflowed, pooled_errors  # noqa: E402
from emacheck.audit.judging.reference import Plan, Whole  # noqa: E402
from emacheck.audit.lockstep.parts import Part  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


class HalfSquare(torch.autograd.Function):
    """A square whose gradient lacks the factor of two."""

    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value)
        return value * value

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0]


class Kernels:
    square = staticmethod(torch.square)


def penalised(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1]) + Kernels.square(model[3].weight).sum()


def plain(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def batch_of():
    return torch.randn(16, 6), torch.randint(0, 4, (16,))


def bias_before_a_norm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    return trained(model, batch_of(), penalised)


class Shifted(nn.Module):
    """Its shift has no effect on a softmax, so the shift's gradient is zero."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 8)
        self.out = nn.Linear(8, 4)
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, value):
        return self.out(torch.tanh(self.linear(value))) + self.shift


def shifted(seed):
    torch.manual_seed(seed)
    return Shifted(), None, batch_of(), plain


def whole_iteration(result, module, tensor):
    return next(e for e in result.errors if (e.level, e.module, e.tensor) == ("end to end", module, tensor))


def test_a_gradient_that_is_zero_does_not_hide_a_wrong_one():
    subject = bias_before_a_norm()
    healthy = audited(subject)
    assert healthy.outcome is Outcome.PASS, text(healthy, command="")
    assert whole_iteration(healthy, "0", "gradient bias").measure == "absolute"
    broken = audited(subject, lambda candidate: candidate.patch(Kernels, "square", HalfSquare.apply))
    assert broken.outcome is Outcome.FAIL
    assert not whole_iteration(broken, "3", "gradient weight").passes


@pytest.mark.parametrize("seed", [1, 4])  # of 4 the arbiter's gradient is exactly zero, of 1 it is not
def test_a_gradient_that_is_zero_passes_against_itself_and_is_noted_nowhere(seed):
    result = audited(shifted(seed), evaluation=False)
    assert (result.outcome, result.notes) == (Outcome.PASS, ()), text(result, command="")


@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("alone", [True, False])
def test_a_large_gradient_where_the_true_one_is_zero_is_found(seed, alone):
    def break_it(candidate):
        candidate.model.shift.register_hook(lambda gradient: gradient + 1e-3)

    result = audited(shifted(seed), break_it, evaluation=False, end_to_end=not alone)
    assert (result.outcome, result.phase) == (Outcome.FAIL, "backward")
    over = {(error.level, error.module, error.tensor) for error in result.errors if not error.passes}
    expected = {("isolated", "(model)", "gradient shift"), ("end to end", "(model)", "gradient shift")}
    assert over == {each for each in expected if not alone or each[0] == "isolated"}


def test_a_gradient_that_is_no_number_where_the_true_one_is_zero_is_found():
    def break_it(candidate):
        candidate.before_step = lambda this: this.model.shift.grad.fill_(float("nan"))

    result = audited(shifted(4), break_it, evaluation=False)
    assert result.outcome is Outcome.FAIL
    assert not whole_iteration(result, "(model)", "gradient shift").passes


def test_healthy_losses_near_zero_pass():
    def alike(model, batch):
        value = model(batch[0])
        return (1 - F.cosine_similarity(value, 1.7 * value)).mean() + 0 * plain(model, batch)

    for seed in range(4):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        result = audited((model, None, batch_of(), alike), evaluation=False)
        assert result.outcome is Outcome.PASS, text(result, command="")


def whole_of(*rows):
    """Return a whole iteration of gradients, each a true norm and what one variation is off by, absolutely."""
    truth, accepted = {}, {}
    for at, (norm, off) in enumerate(rows):
        owner = "layer", Part("gradient", str(at))
        truth[owner] = Truth(tensor=torch.tensor([norm], dtype=torch.float64))
        accepted[owner] = distance(torch.tensor([norm + off], dtype=torch.float64), truth[owner])
    return Whole(truth=truth, accepted=(accepted,))


def errors_of(whole, here):
    return pooled_errors(whole, here, plan=Plan(), batch=1, depths={}, level="end to end")


@given(
    clear=st.lists(st.tuples(st.floats(0.1, 10), st.floats(1e-8, 1e-3)), min_size=1, max_size=5),
    vague=st.lists(st.tuples(st.sampled_from([0.0, 1e-17, 1e-9]), st.floats(1e-8, 1e-6)), max_size=5),
)
def test_tensors_without_a_digit_change_no_limit_of_others(clear, vague):
    whole, alone = whole_of(*clear, *vague), whole_of(*clear)
    judged = {error.tensor: error for error in errors_of(whole, whole.accepted[0])}
    for error in errors_of(alone, alone.accepted[0]):
        assert judged[error.tensor] == error
    assert all(error.passes for error in judged.values())


def test_what_overflows_in_the_accepted_precision_is_noted_and_changes_no_limit_of_others():
    whole = whole_of((1.0, 1e-6), (1.0, float("inf")))
    assert overflowed(whole) == ["layer gradient 1 of a whole iteration"]
    errors = errors_of(whole, whole.accepted[0])
    assert [(error.tensor, error.passes) for error in errors] == [
        ("gradient 0", True),
        ("median of all gradients", True),
    ]
    assert errors[0].accepted < 1e-5


def test_what_overflows_in_one_variation_alone_is_left_out_and_noted_as_well():
    first, second = whole_of((1.0, 1e-6), (1.0, 1e-6)), whole_of((1.0, 1e-6), (1.0, float("inf")))
    for variations in ((first, second), (second, first)):
        whole = Whole(truth=first.truth, accepted=tuple(each.accepted[0] for each in variations))
        assert overflowed(whole) == ["layer gradient 1 of a whole iteration"]
        assert [error.tensor for error in errors_of(whole, first.accepted[0])] == [
            "gradient 0",
            "median of all gradients",
        ]


def test_a_tensor_of_the_candidate_alone_is_over_every_limit():
    whole = whole_of((1.0, 1e-6))
    here = {**whole.accepted[0], (LOSS, Part("gradient", "extra")): FAR}
    assert [error.passes for error in errors_of(whole, here) if error.tensor == "gradient extra"] == [False]


def test_where_the_accepted_precision_leaves_no_digit_the_absolute_distance_counts():
    accepted = Distance(norm=float("inf"), peak=float("inf"), absolute=1e-8)
    found = distance(torch.tensor([3e-8]), Truth(tensor=torch.zeros(1)))
    assert found.worst(accepted)[0] == "absolute"
    assert found.over(accepted) == pytest.approx(3.0)
