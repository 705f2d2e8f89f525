"""NaN, infinities and numbers as large as a type has: what a healthy network may hold, and what never passes."""

import copy
import math

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import audited  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.arithmetic.measure import Truth, difference, distance  # noqa: E402
from emacheck.audit.findings.text import text  # noqa: E402
from emacheck.audit.judging.invariants import everything_is_finite, variances_are_not_negative  # noqa: E402
from emacheck.audit.judging.watch import Watch  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def change_output(candidate):
    candidate.model[2].register_forward_hook(lambda _, __, out: 1.01 * out)


def everything_ignored(**options):
    return lambda model, batch: F.cross_entropy(model(batch[0]), torch.full_like(batch[1], -100), **options)


def labelled(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def batch():
    torch.manual_seed(1)
    return torch.randn(16, 6), torch.randint(0, 4, (16,))


@pytest.mark.parametrize("end_to_end", [True, False])
def test_a_loss_that_is_nan_is_inconclusive(end_to_end):
    result = audited((small(), None, batch(), everything_ignored()), end_to_end=end_to_end)
    assert (result.outcome, result.errors) == (Outcome.INCONCLUSIVE, ())
    assert "loss loss is not finite in the reference itself" in result.findings[0].message
    assert result.findings[0].outcome is Outcome.INCONCLUSIVE


def test_a_score_that_is_nan_beside_a_loss_that_is_a_number_is_no_reason_to_judge_nothing():
    def scored(model, batch):
        return {"loss": labelled(model, batch), "score of a class that is not there": torch.tensor(math.nan)}

    result = audited((small(), None, batch(), scored))
    assert (result.outcome, result.notes) == (Outcome.PASS, ())


def test_gradients_that_are_all_zero_are_inconclusive():
    result = audited((small(), None, batch(), everything_ignored(reduction="sum")))
    assert (result.outcome, result.errors) == (Outcome.INCONCLUSIVE, ())
    assert "every gradient of the reference is exactly zero" in result.findings[0].message
    assert result.findings[0].outcome is Outcome.INCONCLUSIVE


def test_layers_without_a_gradient_beside_one_that_learns_pass():
    model = small()
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    result = audited((model, None, batch(), labelled))
    assert result.outcome is Outcome.PASS, text(result, command="")


def test_a_gradient_that_is_nan_in_the_reference_though_its_loss_is_a_number_is_inconclusive():
    def with_a_root(model, batch):
        return labelled(model, batch) + (0 * model[2].weight).sqrt().sum()

    result = audited((small(), None, batch(), with_a_root), end_to_end=False)
    assert (result.outcome, result.errors) == (Outcome.INCONCLUSIVE, ())
    assert "gradient of 2.weight is not finite in the reference itself" in result.findings[0].message


def test_one_nan_in_a_weight_of_the_reference_is_inconclusive():
    model = small()
    model.register_parameter("unused", nn.Parameter(torch.tensor([1.0, math.nan])))
    result = audited((model, None, batch(), labelled), end_to_end=False)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "parameter unused" in result.findings[0].message


@pytest.mark.parametrize("end_to_end", [True, False])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_state_of_the_optimizer_that_is_not_finite_is_inconclusive_and_no_fault_of_the_device(number, end_to_end):
    model = small()
    optimizer = torch.optim.Adam(model.parameters())
    labelled(model, batch()).backward()
    optimizer.step()
    optimizer.state[model[2].bias]["exp_avg_sq"][1] = number
    result = audited((model, optimizer, batch(), labelled), end_to_end=end_to_end)
    assert result.outcome is Outcome.INCONCLUSIVE
    (finding,) = result.findings
    assert "exp_avg_sq of 2.bias in the optimizer is not finite in the reference itself" in finding.message


@pytest.mark.parametrize("end_to_end", [True, False])
def test_a_step_that_makes_no_numbers_in_the_reference_itself_is_no_fault_of_the_device(end_to_end):
    model = small()
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    result = audited((model, torch.optim.Adam(model.parameters(), eps=0), batch(), labelled), end_to_end=end_to_end)
    assert {each.outcome for each in result.findings} == {Outcome.INCONCLUSIVE}
    assert "update of 0.weight is not finite in the reference itself" in result.findings[0].message
    assert {each.phase for each in result.findings} == {"optimizer"}
    assert all("settings of the optimizer" in each.message for each in result.findings)
    assert any("after one iteration of the reference itself" in each.message for each in result.findings) == end_to_end


@pytest.mark.parametrize(("change", "outcome"), [(None, Outcome.INCONCLUSIVE), (change_output, Outcome.FAIL)])
def test_a_variance_below_zero_in_the_reference_itself_leaves_other_faults_what_they_are(change, outcome):
    class Negative(nn.BatchNorm1d):
        def forward(self, x):
            out = super().forward(x)
            self.running_var = self.running_var - 9.0
            return out

    model = nn.Sequential(nn.Linear(6, 8), Negative(8), nn.Linear(8, 4))
    result = audited((model, None, batch(), labelled), change, evaluation=False)
    assert result.outcome is outcome
    (finding,) = (each for each in result.findings if "of the reference itself" in each.message)
    assert "buffer 1.running_var is a variance" in finding.message
    assert "look at the state from which it starts" in finding.message
    assert finding.phase == "buffers"


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_running_statistics_that_are_nan_hide_nothing_of_the_evaluation_mode_behind_a_pass(name):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    getattr(model[1], name)[0] = math.nan

    def wrong_in_evaluation(candidate):
        candidate.model[2].register_forward_hook(lambda module, _, out: out if module.training else 2 * out)

    result = audited((model, None, batch(), labelled), wrong_in_evaluation)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert f"buffer 1.{name} is not finite in the reference itself" in result.findings[0].message


class Attention(nn.Module):
    """Attention with a causal mask that it adds from a buffer."""

    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.out = nn.Embedding(20, 16), nn.Linear(16, 48), nn.Linear(16, 20)
        self.register_buffer("mask", torch.full((8, 8), -math.inf).triu(1))

    def mixed(self, ids, query, key, value):  # noqa: ARG002
        return (query @ key.mT / 4 + self.mask).softmax(-1) @ value

    def forward(self, ids):
        start = self.embed(ids)
        return self.out(start + self.mixed(ids, *self.qkv(start).chunk(3, -1)))


class Padded(Attention):
    """Attention over the tokens that are not zero, whose other rows are masked as a whole."""

    def mixed(self, ids, query, key, value):
        keep = ids != 0
        mask = keep[:, None, None, :] & keep[:, None, :, None]
        query, key, value = (each[:, None] for each in (query, key, value))
        drop = 0.1 if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=drop)[:, 0]


class Lowest(Attention):
    """Attention that fills what is masked with the lowest number of its type, in front of a module."""

    def __init__(self):
        super().__init__()
        self.softmax = nn.Softmax(-1)

    def mixed(self, ids, query, key, value):  # noqa: ARG002
        scores = query @ key.mT / 4
        return self.softmax(scores.masked_fill(self.mask != 0, torch.finfo(scores.dtype).min)) @ value


def read(kind):
    torch.manual_seed(0)
    ids = torch.randint(1, 20, (4, 8))
    ids[:, 6:] = 0 if kind is Padded else ids[:, 6:]
    tokens = torch.randint(0, 20, (4, 8))
    return kind(), None, (ids, tokens), lambda m, b: F.cross_entropy(m(b[0]).flatten(0, 1), b[1].flatten())


# Before torch 2.5 a row that is masked as a whole is NaN on every device.
SAFE = pytest.mark.skipif(not hasattr(torch.ops.aten, "_safe_softmax"), reason="this torch has no _safe_softmax")


@pytest.mark.parametrize("kind", [Attention, pytest.param(Padded, marks=SAFE), Lowest])
def test_a_mask_of_infinities_or_of_the_lowest_numbers_passes(kind):
    result = audited(read(kind), evaluation=False)
    assert (result.outcome, result.notes) == (Outcome.PASS, ()), text(result, command="")


def test_a_mask_that_layers_share_passes_on_a_device_that_gives_each_its_own():
    model, optimizer, data, function = read(Attention)
    model.register_module("next", Attention())
    model.next.mask = model.mask
    healthy = audited((model, optimizer, data, function), evaluation=False)
    assert (healthy.outcome, healthy.notes) == (Outcome.PASS, ())
    moved = copy.deepcopy(model).to(torch.float64)
    assert moved.next.mask is not moved.mask
    assert everything_is_finite(moved, model) is None


def test_a_mask_that_becomes_nan_is_found():
    def break_it(candidate):
        candidate.model.register_forward_hook(lambda module, _, __: module.mask.fill_(math.nan) and None)

    assert audited(read(Attention), break_it, evaluation=False).outcome is Outcome.FAIL


def test_a_softmax_that_masks_too_much_is_found_in_front_of_the_lowest_numbers():
    def break_it(candidate):
        candidate.model.mask[3, 2] = -math.inf

    result = audited(read(Lowest), break_it, evaluation=False, end_to_end=False)
    assert result.outcome is Outcome.FAIL


def test_a_buffer_may_hold_only_what_was_not_finite_before():
    layer, before = Attention(), Attention()
    assert everything_is_finite(layer, before) is None
    layer.mask[0, 0] = math.nan
    assert everything_is_finite(layer, before) == "buffer mask is not finite"


@SAFE
def test_a_row_that_is_masked_as_a_whole_must_be_zero():
    scores = torch.randn(4, 8)
    scores[1] = -math.inf
    with Watch() as watch:
        torch.ops.aten._safe_softmax(scores, 1)
    held = watch.drain()[0]
    assert held.error <= held.accepted


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_must_be_the_same(odd):
    truth = Truth(tensor=torch.tensor([1.0, odd]))
    assert distance(torch.tensor([1.0, odd]), truth).norm == 0
    for other in (0.5, 3e38, math.nan, math.inf, -math.inf):
        same = other == odd or (math.isnan(other) and math.isnan(odd))
        assert math.isinf(distance(torch.tensor([1.0, other]), truth).norm) is not same
    assert difference(torch.tensor([odd]), torch.tensor([odd])).isnan().tolist() == [math.isnan(odd)]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_number_of_each_type_is_the_same(sign):
    truth = Truth(tensor=torch.tensor([1.0, sign * torch.finfo(torch.float64).max], dtype=torch.float64))
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        assert distance(torch.tensor([1.0, sign * torch.finfo(kind).max], dtype=kind), truth).norm == 0
        assert math.isinf(distance(torch.tensor([1.0, -sign * torch.finfo(kind).max], dtype=kind), truth).norm)
        assert distance(torch.tensor([2.0, sign * torch.finfo(kind).max], dtype=kind), truth).norm == 1


@pytest.mark.parametrize("exponent", [-1070, -600, 0, 480, 600, 900])
def test_numbers_whose_squares_overflow_are_measured(exponent):
    truth = Truth(tensor=torch.tensor([3.0, 4.0], dtype=torch.float64) * 2.0**exponent)
    found = distance(torch.tensor([3.0, 5.0], dtype=torch.float64) * 2.0**exponent, truth, slope=True)
    assert (found.norm, found.peak, found.slope) == pytest.approx((0.2, 0.25, 0.16))
    assert found.absolute == pytest.approx(2.0**exponent)


def test_a_variance_may_be_zero_and_what_a_buffer_has_become_must_be_finite():
    norm, before = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    norm.running_var.zero_()
    assert variances_are_not_negative(norm, before) is None
    norm.running_var[1] = -1.0
    assert variances_are_not_negative(norm, before) == "buffer running_var is a variance and holds -1"
    norm.register_buffer("mask", torch.full((2,), -math.inf))
    assert everything_is_finite(norm, before) == "buffer mask is not finite"
    before.register_buffer("mask", torch.full((3,), -math.inf))
    assert everything_is_finite(norm, before) == "buffer mask is not finite"
    before.mask = torch.full((2,), -math.inf)
    assert everything_is_finite(norm, before) is None
    norm.register_buffer("seen_first_in_the_iteration", torch.ones(2))
    assert everything_is_finite(norm, before) is None
    assert variances_are_not_negative(nn.BatchNorm1d(0), before) is None


def test_a_variance_that_an_iteration_leaves_below_zero_is_called_so():
    def wrong(candidate):
        candidate.before_step = lambda this: this.model[1].running_var.fill_(-1.0)

    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    result = audited((model, None, batch(), labelled), wrong, evaluation=False)
    assert result.outcome is Outcome.FAIL
    assert any("1.running_var is a variance and holds -1" in each.message for each in result.findings)
