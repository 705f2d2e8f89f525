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
@pytest.mark.parametrize(("device", "first", "skips"), [("cpu", 2**16, 0), ("sdaa", 2**40, 1)])
def test_fp16_scales_the_loss_and_halves_the_scale_with_each_step_whose_gradients_overflow(train, device, first, skips):
    seen = train(device, "fp16", 4, f"optim_wrapper.loss_scale={{'init_scale': {first}}}")
    assert seen["enabled"] is True
    assert seen["scale"] == [first * 0.5 ** (skips * at) for at in range(4)]
    assert seen["skipped"] == [skips * at for at in range(1, 5)]


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

    from emacheck.train.device.vanilla_mmengine import DeviceAmpOptimWrapper

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


def test_the_scale_is_that_of_the_iteration_also_where_gradients_are_accumulated():
    import torch

    from emacheck.train.device.vanilla_mmengine import DeviceAmpOptimWrapper

    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    wrapper, used = DeviceAmpOptimWrapper(dtype="float16", optimizer=optimizer, accumulative_counts=2), []
    wrapper.initialize_count_status(torch.nn.Identity(), 0, 4)
    for factor in (float("inf"), 2.0, 2.0, 2.0):
        wrapper.update_params((factor * weight).sum())
        used.append((wrapper.used_scale, wrapper.skipped_steps))
    assert used == [(65536.0, 0), (65536.0, 1), (32768.0, 1), (32768.0, 1)]


def config(**wrapper):
    from mmengine.config import Config

    return Config({"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}, **wrapper}})


def test_mmengines_own_amp_wrapper_is_replaced_and_keeps_its_settings():
    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    asked = config(type="AmpOptimWrapper", loss_scale=512.0)
    ask_for_precision(asked, "fp16")
    assert asked.optim_wrapper.type == "DeviceAmpOptimWrapper"
    assert (asked.optim_wrapper.loss_scale, asked.optim_wrapper.dtype) == (512.0, "float16")


def wrapper_class(name):
    import mmengine.optim

    from emacheck.train.device.vanilla_mmengine import DeviceAmpOptimWrapper

    own = type("OwnAmpOptimWrapper", (mmengine.optim.AmpOptimWrapper,), {})
    return {"DeviceAmpOptimWrapper": DeviceAmpOptimWrapper, "own": own}.get(name) or getattr(mmengine.optim, name)


MIXED = ("AmpOptimWrapper", "ApexOptimWrapper", "DeviceAmpOptimWrapper")
NAMES = [*MIXED, *(f"mmengine.{name}" for name in MIXED), "mmengine.optim.AmpOptimWrapper", "mmseg.AmpOptimWrapper"]


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("wrapper", [*NAMES, *(f"class {name}" for name in (*MIXED, "own"))])
def test_mixed_precision_is_never_taken_for_float32_however_it_is_asked_for(wrapper, precision):
    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    kind = wrapper_class(wrapper.removeprefix("class ")) if wrapper.startswith("class ") else wrapper
    with pytest.raises(
        UsageError, match=f"which is mixed precision, expected OptimWrapper with --precision {precision}"
    ):
        ask_for_precision(config(type=kind), precision)


@pytest.mark.parametrize("wrapper", MIXED)
def test_an_audit_builds_the_optimizer_of_a_configuration_in_mixed_precision(wrapper):
    from emacheck.train.device.vanilla_mmengine import step_in_float32

    asked = config(type=wrapper, dtype="float16", loss_scale="dynamic", clip_grad={"max_norm": 1.0})
    step_in_float32(asked)
    plain = {"optimizer": {"type": "SGD", "lr": 0.1}, "type": "OptimWrapper", "clip_grad": {"max_norm": 1.0}}
    assert asked.optim_wrapper.to_dict() == plain


def test_shards_of_a_model_are_refused_and_may_be_switched_off():
    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    asked = config(type="AmpOptimWrapper", use_fsdp=False)
    ask_for_precision(asked, "fp16")
    assert "use_fsdp" not in asked.optim_wrapper
    with pytest.raises(UsageError, match=r"^optim_wrapper\.use_fsdp: found True, expected False"):
        ask_for_precision(config(type="AmpOptimWrapper", use_fsdp=True), "bf16")


@pytest.mark.parametrize("wrapper", ["ApexOptimWrapper", "own"])
def test_a_wrapper_without_a_counterpart_is_refused(wrapper):
    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    with pytest.raises(UsageError, match=r"expected OptimWrapper or AmpOptimWrapper.*type=AmpOptimWrapper$"):
        ask_for_precision(config(type=wrapper_class(wrapper)), "fp16")


@pytest.mark.parametrize("wrapper", ["mmengine.AmpOptimWrapper", "DeviceAmpOptimWrapper", "OptimWrapper"])
@pytest.mark.parametrize("named", [True, False])
def test_every_way_to_ask_for_mixed_precision_gets_the_wrapper_for_every_device(wrapper, named):
    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    asked = config(type=wrapper if named else wrapper_class(wrapper.removeprefix("mmengine.")))
    ask_for_precision(asked, "bf16")
    assert (asked.optim_wrapper.type, asked.optim_wrapper.dtype) == ("DeviceAmpOptimWrapper", "bfloat16")


@pytest.mark.parametrize(
    "wrapper", ["Nonsense", "nowhere.Nonsense", "mmengine.Nonsense", "mmengine.optim.Nonsense", ""]
)
def test_a_wrapper_that_nobody_knows_is_refused(wrapper):
    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    with pytest.raises(UsageError, match=f"found {wrapper}, which mmengine does not know"):
        ask_for_precision(config(type=wrapper), "fp32")


def test_a_wrapper_that_is_registered_in_the_default_scope_is_known():
    from mmengine.optim import AmpOptimWrapper
    from mmseg.registry import OPTIM_WRAPPERS

    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    OPTIM_WRAPPERS.register_module(name="Scoped", module=type("Scoped", (AmpOptimWrapper,), {}), force=True)
    asked = config(type="Scoped")
    asked.default_scope = "mmseg"
    with pytest.raises(UsageError, match="found Scoped, which is mixed precision"):
        ask_for_precision(asked, "fp32")


@pytest.mark.parametrize(("precision", "other"), [("bf16", "float16"), ("fp16", "bfloat16"), ("bf16", "float32")])
def test_a_configuration_that_computes_in_another_type_than_the_precision_is_refused(precision, other):
    import torch

    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    for dtype in (other, getattr(torch, other)):
        with pytest.raises(
            UsageError, match=f"optim_wrapper.dtype: found .*{other}, expected .* --precision {precision}"
        ):
            ask_for_precision(config(type="AmpOptimWrapper", dtype=dtype), precision)


def test_a_configuration_that_says_the_same_as_the_precision_is_trained():
    import torch

    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    for dtype in ("bfloat16", torch.bfloat16, None):
        asked = config(type="AmpOptimWrapper", dtype=dtype)
        ask_for_precision(asked, "bf16")
        assert asked.optim_wrapper.dtype == "bfloat16"


@pytest.mark.parametrize(
    "scale", [0.0, -1, float("nan"), float("inf"), True, None, "512", {"init": 2.0}, {"init_scale": 0}, {"enabled": 1}]
)
def test_a_loss_scale_with_which_nothing_is_trained_is_refused(scale):
    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    with pytest.raises(UsageError, match=r"^optim_wrapper\.loss_scale: found .* expected 'dynamic', a number above 0"):
        ask_for_precision(config(type="AmpOptimWrapper", loss_scale=scale), "fp16")


@pytest.mark.parametrize(("scale", "first"), [(512, 512.0), (8.0, 8.0), ({"init_scale": 4}, 4.0), ("dynamic", 65536.0)])
def test_a_loss_scale_may_be_a_whole_number_and_stays_if_it_is_one(scale, first):
    import torch

    from emacheck.train.device.vanilla_mmengine import DeviceAmpOptimWrapper, ask_for_precision

    asked = config(type="AmpOptimWrapper", loss_scale=scale)
    ask_for_precision(asked, "fp16")
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    made = DeviceAmpOptimWrapper(dtype="float16", loss_scale=asked.optim_wrapper.loss_scale, optimizer=optimizer)
    made.update_params((float("inf") * weight).sum())
    assert (made.used_scale, made.skipped_steps) == (first, 1)
    constant = isinstance(scale, int | float)
    assert made.loss_scaler.get_scale() == (first if constant else first / 2)


def test_settings_of_mixed_precision_do_not_keep_a_plain_wrapper_from_being_built():
    from emacheck.train.device.vanilla_mmengine import ask_for_precision

    asked = config(type="OptimWrapper", dtype="float16", loss_scale="dynamic", accumulative_counts=2)
    ask_for_precision(asked, "fp32")
    assert set(asked.optim_wrapper) == {"type", "optimizer", "accumulative_counts"}


def test_a_model_wrapper_of_ones_own_is_left_alone():
    from mmengine.config import Config

    from emacheck.train.device.devices import parse_device
    from emacheck.train.device.vanilla_mmengine import adapt

    own, stock = Config({"model_wrapper_cfg": {"type": "MMFullyShardedDataParallel"}}), Config({})
    for each in (own, stock):
        adapt(each, parse_device("sdaa"))
    assert own.model_wrapper_cfg == {"type": "MMFullyShardedDataParallel"}
    assert stock.model_wrapper_cfg.device_ids is None
