"""An unchanged mmengine on a device that it does not know: training, validation, checkpoints, resuming, precision."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from emacheck.errors import UsageError

PROGRAM = ROOT / "tests" / "simulated_device" / "programs" / "vanilla.py"


@pytest.fixture(scope="module")
def train(simulated_device, tmp_path_factory):
    """Train the tiny network in a process of its own and return what it saw."""
    place = tmp_path_factory.mktemp("vanilla")

    def call(device, precision="fp32", iterations=4, *options, folder=None, faults=()):
        folder = folder or place / f"{device.replace(':', '-')}-{precision}-{len(list(place.iterdir()))}"
        command = [sys.executable, PROGRAM, folder, device, precision, iterations, *options]
        env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **simulated_device(*faults)}
        done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    return call


@pytest.fixture(scope="module")
def on_cpu(train):
    return train("cpu")


@pytest.fixture(scope="module")
def on_device(train):
    return train("sdaa:1")


def test_everything_is_on_the_device_and_every_loss_is_the_cpus(on_cpu, on_device):
    assert (on_cpu["where"], on_device["where"]) == (["cpu"], ["sdaa"])
    assert on_device["losses"] == on_cpu["losses"]
    assert len(set(on_device["losses"])) == 4
    assert on_device["state"] == on_cpu["state"]


@pytest.mark.slow
def test_a_broken_device_is_not_equal_to_the_cpu(train, on_cpu):
    broken = train("sdaa", faults=["scale _log_softmax by=1e-3"])
    assert broken["losses"] != on_cpu["losses"]


def test_the_validation_loop_runs_on_the_device(on_cpu, on_device):
    assert len(on_device["right"]) == 2
    assert on_device["right"] == on_cpu["right"]


def test_workers_hand_over_pinned_memory_where_there_is_a_device(on_cpu, on_device):
    assert (on_cpu["pinned"], on_device["pinned"]) == ([False], [True])


def test_sync_batch_norm_is_reverted_in_one_process(on_device):
    assert on_device["norm"].startswith("_BatchNorm")


@pytest.mark.slow
def test_a_checkpoint_is_resumed_on_the_device_as_if_nothing_had_happened(train, on_device, tmp_path):
    first = train("sdaa:1", "fp32", 2, folder=tmp_path)
    assert first["checkpoints"] == ["iter_2.pth"]
    resumed = train("sdaa:1", "fp32", 4, "RESUME", folder=tmp_path)
    assert resumed["where"] == ["sdaa"]
    assert resumed["checkpoints"] == ["iter_2.pth", "iter_4.pth"]
    assert first["losses"] + resumed["losses"] == on_device["losses"]
    assert resumed["state"] == on_device["state"]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "sdaa"])
def test_fp16_scales_the_loss_with_a_scaler_that_is_enabled(train, device):
    seen = train(device, "fp16")
    assert seen["enabled"] is True
    assert seen["scale"] == [65536.0] * 4
    assert seen["skipped"] == [0, 0, 0, 0]


@pytest.mark.slow
def test_fp16_skips_a_step_whose_gradients_overflow_and_halves_the_scale(train):
    seen = train("sdaa", "fp16", 4, f"optim_wrapper.loss_scale={{'init_scale': {2.0**40}}}")
    assert seen["scale"] == [2.0**40, 2.0**39, 2.0**38, 2.0**37]
    assert seen["skipped"] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_constant_scale_is_counted_as_well(train):
    seen = train("sdaa", "fp16", 2, f"optim_wrapper.loss_scale={2.0**40}")
    assert (seen["scale"], seen["skipped"]) == ([2.0**40] * 2, [1, 2])


@pytest.mark.slow
def test_bf16_differs_from_fp32_and_needs_no_scaling(train, on_device):
    seen = train("sdaa", "bf16")
    assert seen["enabled"] is False
    assert seen["losses"] != on_device["losses"]
    assert seen["losses"] == pytest.approx(on_device["losses"], rel=0.02)


@pytest.mark.parametrize("clip", [None, {"max_norm": 100.0}])
@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_unscaled_in_front_of_the_step_and_one_that_is_not_finite_leaves_it_out(fused, clip):
    import torch

    from emacheck.train.vanilla_mmengine import DeviceAmpOptimWrapper

    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer, seen = torch.optim.SGD([weight], lr=0.5, fused=fused), []
    optimizer.register_step_pre_hook(lambda *_: seen.append(weight.grad.tolist()))
    wrapper = DeviceAmpOptimWrapper(dtype="float16", optimizer=optimizer, clip_grad=clip)
    wrapper.update_params((2 * weight).sum())
    assert (seen, weight.tolist()) == ([[2.0, 2.0]], [2.0, 3.0])
    assert (wrapper.used_scale, wrapper.skipped_steps) == (65536.0, 0)
    wrapper.update_params((float("inf") * weight).sum())
    assert (len(seen), weight.tolist(), wrapper.skipped_steps) == (1, [2.0, 3.0], 1)
    wrapper.update_params((2 * weight).sum())
    assert (seen[1:], weight.tolist(), wrapper.used_scale) == ([[2.0, 2.0]], [1.0, 2.0], 32768.0)


def config(**wrapper):
    from mmengine.config import Config

    return Config({"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}, **wrapper}})


def test_mmengines_own_amp_wrapper_is_replaced_and_keeps_its_settings():
    from emacheck.train.vanilla_mmengine import ask_for_precision

    asked = config(type="AmpOptimWrapper", loss_scale=512.0)
    ask_for_precision(asked, "fp16")
    assert asked.optim_wrapper.type == "DeviceAmpOptimWrapper"
    assert (asked.optim_wrapper.loss_scale, asked.optim_wrapper.dtype) == (512.0, "float16")


@pytest.mark.parametrize(
    ("wrapper", "precision", "said"),
    [("AmpOptimWrapper", "fp32", "Give --precision bf16"), ("ApexOptimWrapper", "fp16", "ApexOptimWrapper, expected")],
)
def test_a_wrapper_that_contradicts_the_precision_is_refused(wrapper, precision, said):
    from emacheck.train.vanilla_mmengine import ask_for_precision

    with pytest.raises(UsageError, match=said):
        ask_for_precision(config(type=wrapper), precision)


def test_a_model_wrapper_of_ones_own_is_left_alone():
    from mmengine.config import Config

    from emacheck.train.devices import parse_device
    from emacheck.train.vanilla_mmengine import adapt

    own, stock = Config({"model_wrapper_cfg": {"type": "MMFullyShardedDataParallel"}}), Config({})
    for each in (own, stock):
        adapt(each, parse_device("sdaa"))
    assert own.model_wrapper_cfg == {"type": "MMFullyShardedDataParallel"}
    assert stock.model_wrapper_cfg.device_ids is None
