"""What must be equal on two devices is drawn on the CPU: weights, samples, dropout masks."""

import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmseg.models.decode_heads.ema_head import EMAModule
from torch import nn

from emacheck.train.paired import batches, draws, dropout
from emacheck.train.paired.fingerprint import batch_hash, sample_hashes, state_hash, tensor_hash

WEIGHTS = """
import torch
from torch import nn
from emacheck.train.paired.draws import OwnDraws
from emacheck.train.paired.fingerprint import state_hash

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
