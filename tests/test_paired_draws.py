"""What must be equal on two devices is drawn on the CPU: weights, samples, dropout masks."""

import copy
import os
import pickle
import random
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmseg.models.decode_heads.ema_head import EMAModule
from torch import nn
from torch.utils.checkpoint import checkpoint

from emacheck.errors import TrainingError
from emacheck.train.paired import batches, draws, dropout
from emacheck.train.paired.fingerprint import batch_hash, sample_hashes, state_hash, tensor_hash

WEIGHTS = """
import torch
from torch import nn
from emacheck.train.paired.draws import OwnDraws
from emacheck.train.paired.fingerprint import state_hash

def test_where_parameters_come_from_elsewhere_buffers_are_drawn_as_for_a_training():
    class Features(nn.Linear):
        def __init__(self):
            super().__init__(4, 2)
            self.register_buffer("directions", torch.empty(4, 4).normal_(), persistent=False)

    built = []
    for how in (draws.OwnDraws, draws.DrawsOfBuffers):
        with how(3) as own:
            built.append(Features())
        own.redraw(built[-1])
    drawn, spared = built
    assert torch.equal(drawn.directions, spared.directions)
    assert drawn.weight.abs().min() > 0
    assert not spared.weight.any()


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 40))

with OwnDraws(0) as own:
    model = network()
    nn.init.kaiming_normal_(model[0].weight)
    nn.init.trunc_normal_(model[2].weight)
own.redraw(model)
torch.manual_seed(0)
print(torch.backends.cpu.get_cpu_capability(), state_hash(model), state_hash(network()))
"""


@pytest.mark.slow
def test_weights_do_not_depend_on_the_vector_instructions_of_the_cpu_as_torchs_own_do():
    seen = []
    for capability in ("default", "avx2"):
        env = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
        done = subprocess.run([sys.executable, "-c", WEIGHTS], env=env, capture_output=True, text=True, check=True)
        seen.append(done.stdout.rsplit(maxsplit=2))
    if seen[0][0] == seen[1][0]:
        pytest.skip(f"this CPU has one set of vector instructions only: {seen[0][0]}")
    (_, ours, torchs), (_, ours_too, torchs_too) = seen
    assert ours == ours_too
    assert torchs != torchs_too


def network(*, before=0):
    """Return the same network, whatever else was drawn before it and in whatever order its layers are made."""
    with draws.OwnDraws(3) as own:
        for _ in range(before):
            nn.Linear(2, 2)
        layers = {"a": nn.Conv2d(3, 8, 3), "b": nn.Linear(8, 4)}
        if before:
            layers = {"b": nn.Linear(8, 4), "a": nn.Conv2d(3, 8, 3)}
            layers = {name: layers[name] for name in "ab"}
        nn.init.kaiming_normal_(layers["a"].weight, mode="fan_out")
        nn.init.constant_(layers["b"].bias, 0.5)
        model = nn.ModuleDict(layers)
        model.register_buffer("bases", nn.functional.normalize(torch.zeros(1, 6, 5).normal_(0, 2), dim=1))
    own.redraw(model)
    return model


def test_weights_do_not_depend_on_what_else_was_drawn_nor_on_the_order_of_building():
    assert state_hash(network()) == state_hash(network(before=3))


def test_weights_have_the_distribution_that_was_asked_for_and_constants_stay():
    with draws.OwnDraws(0) as own:
        model = nn.Linear(300, 400)
        nn.init.normal_(model.weight, 1.0, 0.25)
        nn.init.uniform_(model.bias, -2.0, 3.0)
        constant = nn.BatchNorm2d(4)
    own.redraw(model)
    own.redraw(constant)
    assert model.weight.mean().item() == pytest.approx(1.0, abs=0.005)
    assert model.weight.std().item() == pytest.approx(0.25, rel=0.01)
    assert -2 <= model.bias.min() < -1.9 < 2.9 < model.bias.max() < 3
    assert constant.weight.eq(1).all()


def test_the_numbers_themselves_never_change():
    """Another numpy or host that fails here would make other weights than the references were made with."""
    assert draws.stream(0, "conv1.weight").random_raw(2).tolist() == [12662103089672243770, 2327551784735828559]
    assert draws.normal(draws.stream(0), 2).tolist() == [1.1314911345200767, 1.2025433806378274]
    assert draws.uniform(draws.stream(0), 2).tolist() == [0.854988248730165, 0.1266201045069597]


def test_the_bases_that_emanet_starts_with_never_change():
    """Each torch adds the squares of a norm in an order of its own."""
    with draws.OwnDraws(0):
        bases = EMAModule(channels=512, num_bases=64, num_stages=3, momentum=0.1).bases
    assert tensor_hash(bases) == "7cf78e3f5e16487fbbc0eedb9a96e4dbcad7f610fe3b4083473a78489bd1d477"


@pytest.mark.parametrize("ask", [{"dim": (0, 1)}, {"dim": 0, "ord": 1}, {"dim": 1, "dtype": torch.float64}, {}])
def test_other_norms_are_left_to_torch(ask):
    values = torch.arange(6.0).reshape(2, 3)
    expected = torch.linalg.vector_norm(values, **ask)
    with draws.OwnDraws(0):
        assert torch.equal(torch.linalg.vector_norm(values, **ask), expected)


@pytest.mark.parametrize(("keepdim", "shape"), [(False, (2, 4)), (True, (2, 1, 4))])
def test_a_norm_has_the_shape_that_was_asked_for(keepdim, shape):
    with draws.OwnDraws(0):
        found = torch.linalg.vector_norm(torch.full((2, 9, 4), 2.0), dim=1, keepdim=keepdim)
    assert found.shape == shape
    assert found.eq(6).all()


def test_an_index_keeps_its_position_on_the_way_to_a_worker():
    index = pickle.loads(pickle.dumps(batches.PlacedIndex(5, 17)))  # noqa: S301 - made one line above
    assert (index, index.position, [10, 11, 12, 13, 14, 15][index]) == (5, 17, 15)


@DATASETS.register_module()
class Noisy(torch.utils.data.Dataset):
    """Draws from all three generators of the host, as augmentations do."""

    metainfo = {"name": "noisy"}  # noqa: RUF012

    def __len__(self):
        return 10

    def __getitem__(self, index):
        noise = [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: S311, NPY002
        return {"inputs": torch.tensor([float(index), *noise])}


def hashes(workers, *, paired=True, sampler="DefaultSampler", epochs=3, batch=4):
    """Return the hash of every batch of some epochs."""
    config = {
        "dataset": {"type": "Noisy"},
        "sampler": {"type": sampler, "shuffle": True},
        "batch_size": batch,
        "num_workers": workers,
    }
    if paired:
        config = batches.independent_of_workers(config, 7)
    loader = Runner.build_dataloader(config, seed=7)
    seen = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for at, data in enumerate(loader):
            seen.append(batch_hash(data))
            if at == 2:
                break
    return seen


def test_batches_are_the_same_with_no_worker_with_two_and_with_three_and_not_without_the_pairing():
    none = hashes(0)
    assert none == hashes(2) == hashes(3)
    assert len(set(none)) == len(none) == 9
    assert hashes(0, paired=False) != hashes(2, paired=False)


def test_a_sampler_without_end_goes_on_counting():
    assert len(set(hashes(0, sampler="InfiniteSampler", epochs=1, batch=3))) == 3
    sampler = batches.PlacingSampler({"type": "InfiniteSampler", "shuffle": False}, Noisy(), 0)
    ahead = iter(sampler)
    first = [next(ahead).position for _ in range(3)]
    sampler.set_epoch(0)  # mmengine does so after the workers were fed
    assert first + [next(ahead).position for _ in range(9)] == list(range(12))


def test_an_interrupted_training_goes_on_with_the_samples_that_come_next():
    whole = batches.PlacingSampler({"type": "InfiniteSampler"}, Noisy(), 5)
    expected = [(int(index), index.position) for index, _ in zip(whole, range(9), strict=False)]
    resumed = batches.PlacingSampler({"type": "InfiniteSampler"}, Noisy(), 5)
    resumed.skip(6)
    assert [(int(index), index.position) for index, _ in zip(resumed, range(3), strict=False)] == expected[6:]


def test_a_sampler_that_cannot_skip_does_not_say_that_it_can():
    assert hasattr(batches.PlacingSampler({"type": "InfiniteSampler"}, Noisy(), 5), "skip")
    default = batches.PlacingSampler({"type": "DefaultSampler"}, Noisy(), 5)
    assert hasattr(default, "skip") == hasattr(default._sampler, "skip")


def test_two_processes_together_see_the_samples_of_one(monkeypatch):
    def positions(rank, processes, count):
        monkeypatch.setattr(batches, "get_dist_info", lambda: (rank, processes))
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda: (rank, processes))
        sampler = batches.PlacingSampler({"type": "InfiniteSampler"}, Noisy(), 5)
        return {(int(index), index.position) for index, _ in zip(sampler, range(count), strict=False)}

    assert positions(0, 2, 6) | positions(1, 2, 6) == positions(0, 1, 12)


def test_loading_a_sample_leaves_the_generators_of_the_process_alone():
    samples = batches.SeededSamples({"type": "Noisy"}, 0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    one, two = samples[batches.PlacedIndex(1, 0)], samples[batches.PlacedIndex(1, 1)]
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after
    assert one["inputs"].tolist() != two["inputs"].tolist()
    assert samples.metainfo == {"name": "noisy"}


def test_a_batch_is_as_many_samples_as_each_of_its_parts_has_items():
    ones = torch.ones(3, 2)
    for batch, count in (
        ({"inputs": ones}, 3),
        ({"inputs": ones, "labels": [1, 2, 3]}, 3),
        ({"inputs": ones, "labels": [1, 2]}, 1),
        ({"inputs": ones[:1], "scale": 2}, 1),
        ({"inputs": []}, 1),
        (ones, 1),
    ):
        assert len(sample_hashes(batch)) == count


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


@pytest.mark.parametrize(
    ("step", "unpaired"), [(lambda: nn.functional.dropout(torch.ones(8)), True), (lambda: None, False)]
)
def test_what_is_still_drawn_on_the_device_is_noticed(step, unpaired):
    from emacheck.train.device.devices import parse_device
    from emacheck.train.runner import PairingHook

    class Training:
        iter = 0
        masks = dropout.Masks(0, 0)

    hook = PairingHook(0, parse_device("cpu"))
    hook.before_train(Training)
    hook.before_train_iter(Training, 0)
    step()
    hook.after_train_iter(Training, 0)
    assert hook.unpaired is unpaired
