"""Dropout masks are drawn on the CPU, and those of a checkpoint are drawn again when it repeats its part."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from emacheck.errors import TrainingError
from emacheck.train.paired import dropout


def masked(layer, x, seed=0, iteration=1, rank=0):
    model = nn.Sequential(layer)
    masks = dropout.Masks(seed, rank)
    assert dropout.draw_dropout_on_the_host(model, masks) == 1
    masks.start(iteration)
    return model.train()(x)


def test_a_dropout_layer_of_two_names_is_drawn_on_the_host_under_both():
    layer = torch.nn.Dropout(0.5)
    model = torch.nn.Module()
    model.one, model.two, model.inner = layer, layer, torch.nn.Sequential(layer)
    assert dropout.draw_dropout_on_the_host(model, dropout.Masks(0, 0)) == 1
    assert model.one is model.two is model.inner[0]
    assert isinstance(model.one, dropout.HostDropout)


@pytest.mark.parametrize(
    ("layer", "p"), [(nn.Dropout, 0.25), (nn.Dropout2d, 0.5), (nn.Dropout, 0.0), (nn.Dropout, 1.0)]
)
def test_dropout_zeroes_and_scales_as_torchs_does(layer, p):
    x = torch.rand(64, 32, 4, 4) + 1
    ours, theirs = masked(layer(p), x), layer(p)(x)
    assert ours.unique_consecutive().numel() > 1 or p == 1
    for out in (ours, theirs):
        kept = out != 0
        assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.05)
        torch.testing.assert_close(out[kept], (x / (1 - p))[kept])
    per_channel = (ours != 0).flatten(2).float().mean(2)
    assert (set(per_channel.unique().tolist()) <= {0.0, 1.0}) == (layer is nn.Dropout2d or p in (0, 1))


def test_masks_depend_on_seed_iteration_and_rank_and_on_nothing_else():
    x = torch.ones(4, 16)
    base = masked(nn.Dropout(0.5), x)
    torch.rand(3)
    assert torch.equal(base, masked(nn.Dropout(0.5), x))
    for other in ({"seed": 1}, {"iteration": 2}, {"rank": 1}):
        assert not torch.equal(base, masked(nn.Dropout(0.5), x, **other))


def test_dropout_does_nothing_in_evaluation_and_keeps_the_state():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval()
    names = list(model.state_dict())
    dropout.draw_dropout_on_the_host(model, dropout.Masks(0, 0))
    x = torch.ones(1, 2)
    assert torch.equal(model(x), model[0](x))
    assert list(model.state_dict()) == names


class Checkpointed(nn.Module):
    """Dropout layers that are called several times in one forward pass, in checkpoints, in nested ones and outside.

    Every other layer is called once: the sum of the gradients of two calls would depend on their order.
    """

    def __init__(self, how):
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))
        self.inner = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(16, 16), nn.Sequential(nn.Dropout(0.2), nn.Linear(16, 16))
        )
        self.drop = nn.Dropout(0.3)
        self.how = how

    def twice(self, first, second, value):
        return self.drop(second(self.drop(first(value))))

    def nested(self, value):
        inside = self.how(self.inner, self.drop(value))
        return self.how(partial(self.twice, *self.linear[3:5]), self.drop(inside)).sin()

    def forward(self, value):
        value = self.drop(self.linear[0](value))
        value = self.how(partial(self.twice, *self.linear[1:3]), value)
        return self.drop(self.linear[5](self.how(self.nested, self.drop(value))))


def gradients_with(how, processes=1, rank=0):
    torch.manual_seed(0)
    model = Checkpointed(how).train()
    whole = torch.randn(4, 16)
    masks = dropout.Masks(0, rank, processes)
    assert dropout.draw_dropout_on_the_host(model, masks) == 3
    outputs = []
    for iteration in (1, 2):
        masks.start(iteration)
        outputs.append(model(whole[rank::processes].clone().requires_grad_()))
        outputs[-1].square().sum().backward()
    return [*outputs, *(parameter.grad for parameter in model.parameters())]


CHECKPOINTS = {
    f"reentrant={reentrant}, preserve_rng_state={preserve}": partial(
        checkpoint, use_reentrant=reentrant, preserve_rng_state=preserve
    )
    for reentrant in (True, False)
    for preserve in (True, False)
}


@pytest.mark.parametrize("how", CHECKPOINTS)
def test_what_a_checkpoint_repeats_has_the_masks_of_the_forward_pass(how):
    plain = gradients_with(lambda run, value: run(value))
    repeated = gradients_with(CHECKPOINTS[how])
    assert all(torch.equal(*each) for each in zip(plain, repeated, strict=True))


def test_masks_in_a_checkpoint_belong_to_the_sample_whoever_has_it():
    one = gradients_with(next(iter(CHECKPOINTS.values())))
    two = [gradients_with(next(iter(CHECKPOINTS.values())), processes=2, rank=rank) for rank in (0, 1)]
    torch.testing.assert_close([a + b for a, b in zip(two[0][2:], two[1][2:], strict=True)], one[2:])


@pytest.mark.parametrize("how", CHECKPOINTS)
def test_a_copy_of_a_model_repeats_its_masks_as_well(how):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8)).train()
    dropout.draw_dropout_on_the_host(model, dropout.Masks(0, 0))
    values = [torch.ones(4, 8, requires_grad=True) for _ in range(2)]
    for run, value in zip((copy.deepcopy(model), partial(CHECKPOINTS[how], copy.deepcopy(model))), values, strict=True):
        run(value).square().sum().backward()
    assert torch.equal(values[0].grad, values[1].grad)


def test_a_checkpoint_that_ends_with_an_error_leaves_the_masks_where_they_were():
    masks = dropout.Masks(0, 0)
    position = masks.position()
    expected = [masks.draw((2, 8), 0.5) for _ in range(2)]
    masks.start(1)
    masks.draw((2, 8), 0.5)

    def broken():
        with masks.put_back(position):
            assert torch.equal(masks.draw((2, 8), 0.5), expected[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert torch.equal(masks.draw((2, 8), 0.5), expected[1])


def test_a_dropout_that_something_else_repeats_in_the_backward_pass_is_refused():
    layer = nn.Sequential(nn.Dropout(0.5))
    dropout.draw_dropout_on_the_host(layer, dropout.Masks(0, 0))
    value = torch.ones(2, 8, requires_grad=True)
    value.register_hook(layer)
    with pytest.raises(TrainingError, match=r"by something other than torch\.utils\.checkpoint"):
        (value * 2).sum().backward()


def test_the_masks_are_those_of_earlier_records():
    masks = dropout.Masks(0, 0)
    drawn = [masks.draw((2, 8), 0.5) for _ in range(2)]
    assert (torch.stack(drawn) != 0).int().tolist() == [
        [[1, 0, 1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 1, 1]],
        [[1, 0, 0, 1, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0, 1, 0]],
    ]
