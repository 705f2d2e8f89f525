"""The audit's probes: invariants inside of modules, NaN that vanishes, the CPU in place of a missing operator."""

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import audited, hook, trained  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.arithmetic.measure import Truth, distance  # noqa: E402
from emacheck.audit.faults.places import ReplacedOperator, replace_operator  # noqa: E402
from emacheck.audit.iteration.calls import Call  # noqa: E402
from emacheck.audit.iteration.draws import Draws  # noqa: E402
from emacheck.audit.judging.watch import Watch  # noqa: E402
from emacheck.audit.lockstep.poison import nan_masks, poisoned  # noqa: E402
from emacheck.audit.lockstep.replay import replay  # noqa: E402
from emacheck.audit.lockstep.side import Side  # noqa: E402
from emacheck.audit.lockstep.variations import Variation  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


class Attention(nn.Module):
    def forward(self, value):
        return torch.softmax(value @ value.transpose(1, 2), dim=2) @ value


def attending():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), Attention(), nn.Linear(8, 5))
    labels = torch.randint(0, 5, (2, 16))
    labels[:, 3] = -100
    batch = {"image": torch.randn(2, 16, 8), "label": labels}
    return trained(model, batch, lambda model, batch: F.cross_entropy(model(batch["image"]).mT, batch["label"]))


def rows(result, words):
    return [error for error in result.errors if error.tensor.startswith(words)]


def test_softmax_rows_and_ignored_labels_are_looked_at_and_hold_on_the_cpu():
    result = audited(attending())
    assert result.outcome is Outcome.PASS
    assert {(error.module, error.level) for error in rows(result, "sum of the rows")} == {
        ("1", "isolated"),
        ("1", "evaluation"),
    }
    assert rows(result, "gradient of ignored labels")[0].error == 0


def test_softmax_rows_that_do_not_sum_to_one_are_a_finding_of_their_module():
    def wrong(candidate):
        replace_operator(candidate, ("_softmax",), lambda func, args, kwargs: func(*args, **kwargs) * 1.0001)

    result = audited(attending(), wrong)
    assert result.module == "1"
    assert any(not error.passes for error in rows(result, "sum of the rows"))


def test_a_gradient_of_an_ignored_label_is_a_finding_of_the_loss():
    def leak(func, args, kwargs):
        gradient = func(*args, **kwargs)
        return torch.where((args[2] == args[5]).unsqueeze(1), 1e-4 * gradient.abs().max(), gradient)

    result = audited(attending(), lambda candidate: replace_operator(candidate, ("nll_loss2d_backward",), leak))
    leaking = [error for error in rows(result, "gradient of ignored labels") if not error.passes]
    assert [(error.module, error.phase) for error in leaking] == [("(loss)", "backward")]


def watched(run, name="none", change=None):
    """Return what a watch held against what runs with one operator replaced."""
    with ReplacedOperator((name,), change), Watch() as watch:
        run()
    return watch.drain()


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_of_several_softmaxes_the_worst_is_shown_whichever_comes_first(wrong):
    numbers = iter(range(3))

    def change(func, args, kwargs):
        return func(*args, **kwargs) * (1.01 if next(numbers) == wrong else 1.0)

    scores = torch.randn(4, 8)
    (held,) = watched(lambda: [scores.softmax(1) for _ in range(3)], "_softmax", change)
    assert held.error == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("row", [0.9, 1.1])
def test_one_row_of_a_softmax_that_sums_to_less_or_more_than_one_is_seen_among_right_ones(row):
    def change(func, args, kwargs):
        made = func(*args, **kwargs)
        made[1] *= row
        return made

    (held,) = watched(lambda: torch.zeros(3, 4).softmax(1), "_softmax", change)
    assert held.error == pytest.approx(0.1)


def test_a_softmax_without_scores_and_one_whose_rows_are_all_nan_hold_nothing_wrong():
    assert watched(lambda: torch.empty(3, 0).softmax(1)) == []
    (held,) = watched(lambda: torch.full((2, 3), -float("inf")).softmax(1))
    assert held.error == 0.0


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ((5,), torch.tensor(-100)),
        ((4, 5), torch.tensor([1, -100, 2, -100])),
        ((2, 5, 3), torch.tensor([[1, -100, 2], [-100, 0, 0]])),
        ((1, 5, 2, 2), torch.tensor([[[1, -100], [3, 0]]])),
    ],
)
def test_the_gradient_of_an_ignored_label_is_looked_at_in_any_shape_of_a_loss(scores, labels):
    def leak(func, args, kwargs):
        made = func(*args, **kwargs)
        of_each = made.movedim(1, -1) if made.dim() > 1 else made
        of_each[args[2] == args[5]] += 0.01
        return made

    def run():
        value = torch.randn(scores, generator=torch.Generator().manual_seed(0), requires_grad=True)
        F.cross_entropy(value, labels, reduction="sum").backward()

    def of_labels(*broken):
        return next(held for held in watched(run, *broken) if held.tensor == "gradient of ignored labels")

    assert of_labels().error == 0.0
    name = "nll_loss2d_backward" if len(scores) > 2 else "nll_loss_backward"
    # All gradients but those are 1, or 0.
    assert of_labels(name, leak).error == pytest.approx(1.0 if len(scores) == 1 else 0.01)


@pytest.mark.parametrize("place", ["blocks.0.relu", "stem", "blocks.1.bn"])
def test_nan_that_becomes_a_number_is_found_though_every_number_is_right(subject, place):
    result = audited(subject, hook(place, torch.nan_to_num))
    assert (result.outcome, result.module, result.phase) == (Outcome.FAIL, place, "forward")
    assert all(error.tensor.startswith("NaN") for error in result.errors if not error.passes)


def test_more_nans_than_the_arbiters_are_no_finding(subject):
    def spread(output):
        return torch.where(torch.isnan(output).any(), torch.full_like(output, float("nan")), output)

    assert audited(subject, hook("stem", spread)).outcome is Outcome.PASS


def test_a_call_without_a_floating_point_input_cannot_be_poisoned():
    assert poisoned(Call(name="embedding", index=0, kind="Embedding", args=(torch.tensor([1, 2]),))) is None


def test_the_last_bits_of_two_benign_trials_differ_while_a_module_runs_alone():
    value = torch.rand(1000)
    with Draws(0):
        one, two = (Variation(last_bit=seed).nudged(value, seed=1) for seed in (1, 2))
    assert not torch.equal(one, two)
    assert torch.equal(one, Variation(last_bit=1).nudged(value, seed=1))
    assert torch.equal(value.bfloat16(), Variation(last_bit=1).nudged(value.bfloat16(), seed=1))


@pytest.mark.parametrize("size", [0, 1, 1 << 17, (1 << 17) + 3])
def test_distances_by_pieces_are_those_of_the_whole_tensor(size):
    generator = torch.Generator().manual_seed(size)
    truth = torch.rand(size, generator=generator, dtype=torch.float64) + 1
    found = truth.float()
    expected = (found.double() - truth).norm() / truth.norm() if size else torch.zeros(())
    measured = distance(found, Truth(tensor=truth))
    assert measured.norm == pytest.approx(float(expected), rel=1e-12)
    if size:
        assert measured.peak == float((found.double() - truth).abs().max() / truth.max())
        found[-1] = float("nan")
        assert not distance(found, Truth(tensor=truth)).finite


FALLBACK = """
import torch, torch_sdaa, emacheck
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(),
                            torch.nn.Linear(4 * 36, 5))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
batch = torch.randn(4, 3, 8, 8), torch.randint(0, 5, (4,))
loss = lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1])
for allowed in (False, True):
    result = emacheck.audit_step(model, optimizer, batch, loss, "sdaa", cpu_fallback=allowed)
    print(result.outcome, *result.notes, *(finding.message for finding in result.findings))
"""


@pytest.mark.parametrize(
    ("operator", "asked"),
    [
        ("threshold_backward", "threshold_backward"),
        *(
            pytest.param(*names, marks=pytest.mark.slow)
            for names in (
                ("convolution_overrideable", "convolution"),
                ("convolution_backward_overrideable", "convolution_backward"),
                ("native_batch_norm", "native_batch_norm"),
            )
        ),
    ],
)
def test_the_cpu_runs_what_a_device_lacks_only_if_that_is_allowed(simulated_device, operator, asked):
    done = subprocess.run(
        [sys.executable, "-c", FALLBACK],
        env={**os.environ, **simulated_device(f"missing {operator}")},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["INCONCLUSIVE", "PASS"], (done.stdout, done.stderr)
    assert f"lacks aten::{asked}; they ran on the CPU" in lines[-1]
    # What the simulated device has no kernel for, and does not miss, its own fallback runs on the CPU.
    by_fallback = lines[-1].partition(
        "ran through the fallback of sdaa, as a rule on the CPU, and say nothing about it: "
    )
    assert "aten::_log_softmax" in by_fallback[2]
    assert "to which the program itself brought" not in done.stdout
    assert "--cpu-fallback" in lines[-2]


class Weighted(nn.Module):
    def forward(self, value):
        return (value * torch.tensor([0.0, 1.0]).to(value)).sum(-1)


class LeavesZeroWeightsOut(Weighted):
    """Does not multiply what counts for nothing, where the reference gets NaN from it."""

    def forward(self, value):
        return value[..., 1].clone()


def test_a_nan_that_the_arbiter_multiplies_by_zero_need_not_arrive():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (4, 2)), Weighted(), nn.Linear(4, 5))
    batch = {"image": torch.randn(4, 3), "label": torch.randint(0, 5, (4,))}

    def leave_out(candidate):
        candidate.model[2] = LeavesZeroWeightsOut()

    assert audited(trained(model, batch), leave_out).outcome is Outcome.PASS
    # The NaN in the middle of this input stands where the weight is zero.
    call = Call(name="0", index=0, kind="Weighted", args=(torch.ones(4, 4, 2),))
    side = Side(model=nn.Sequential(Weighted()), loss=None, dtype=torch.float64)
    truth = {part: Truth(tensor=tensor) for part, tensor in replay(call, side).items()}
    assert not nan_masks(call, side, truth).parts


class Causal(nn.Module):
    """Every word attends to itself and to the words before it."""

    def forward(self, query, key):
        mask = torch.full((key.shape[1],) * 2, float("-inf"), dtype=key.dtype, device=key.device).triu(1)
        return torch.softmax(query @ key.transpose(1, 2) + mask, dim=2) @ key


class Sentences(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.attention, self.last = nn.Linear(8, 8), Causal(), nn.Linear(8, 5)

    def forward(self, words):
        values = self.first(words)
        return self.last(self.attention(values, values))


def test_a_nan_that_vanishes_in_a_causal_attention_is_found_though_the_first_word_attends_to_itself_alone():
    torch.manual_seed(0)
    # The middle of two sentences is the first word of the second one.
    batch = {"image": torch.randn(2, 16, 8), "label": torch.randint(0, 5, (2, 16))}
    subject = trained(
        Sentences(), batch, lambda model, batch: F.cross_entropy(model(batch["image"]).mT, batch["label"])
    )
    assert audited(subject).outcome is Outcome.PASS
    result = audited(subject, hook("attention", torch.nan_to_num))
    assert result.module == "attention"
    vanished = rows(result, "NaN that became a number")
    assert {error.module for error in vanished if error.ratio > 0} == {"attention"}


def test_a_nan_that_vanishes_in_a_loss_is_found_though_the_first_place_of_the_probe_has_no_label():
    torch.manual_seed(0)
    # A third of these logits ends with the first sample, and the first word of none has a label.
    batch = {"image": torch.randn(3, 16, 8), "label": torch.randint(0, 5, (3, 16))}
    batch["label"][:, 0] = -100
    model = nn.Sequential(nn.Linear(8, 8), Attention(), nn.Linear(8, 5))
    subject = trained(model, batch, lambda model, batch: F.cross_entropy(model(batch["image"]).mT, batch["label"]))
    real = F.cross_entropy

    def swallow(candidate):
        candidate.patch(F, "cross_entropy", lambda *args: real(*args).nan_to_num())

    assert audited(subject).outcome is Outcome.PASS
    assert audited(subject, swallow).module == "(loss)"


class FewWords(nn.Module):
    """The CPU's own kernel of attention makes numbers of a NaN in a query in float32, where there are so few words."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(8, 24)

    def forward(self, value):
        return F.scaled_dot_product_attention(*self.projection(value).chunk(3, -1))


class SwallowsAsFloat32(nn.Module):
    """What float32 makes a number and float64 does not."""

    def forward(self, value):
        return value if value.dtype is torch.float64 else value.nan_to_num()


@pytest.mark.parametrize("module", [FewWords, SwallowsAsFloat32])
def test_a_nan_of_which_the_reference_makes_a_number_as_well_is_no_finding(module):
    torch.manual_seed(0)
    batch = {"image": torch.randn(2, 9, 8), "label": torch.randint(0, 5, (2, 9))}
    model = nn.Sequential(nn.Linear(8, 8), module(), nn.Linear(8, 5))
    subject = trained(model, batch, lambda model, batch: F.cross_entropy(model(batch["image"]).mT, batch["label"]))
    assert audited(subject).outcome is Outcome.PASS
    assert audited(subject, hook("0", torch.nan_to_num)).module == "0"
