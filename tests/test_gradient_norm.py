"""The gradient norm of the record is that of the gradients, and not of the order in which a device adds squares."""

import json
import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

pytest.importorskip("mmengine")

from emacheck.train.recorder import RecorderHook, sum_of_squares  # noqa: E402


def tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = [(512, 512, 3, 3), (2048, 512), (19, 7), (1000,), (64,), (256,), (), (0, 3)]
    return [torch.randn(shape, generator=generator) * 10.0 ** -(at % 3) for at, shape in enumerate(shapes)]


def test_the_squares_of_millions_of_gradients_are_summed_to_eight_digits():
    exact = math.fsum(float(tensor.double().square().sum()) for tensor in tensors())
    assert sum_of_squares(tensors()) == pytest.approx(exact, rel=1e-8)


def test_gradients_in_another_memory_format_have_the_same_sum_of_squares():
    laid_out = [each.to(memory_format=torch.channels_last) if each.dim() == 4 else each for each in tensors()]
    halves = [each[::2] for each in tensors() if each.dim()]
    assert sum_of_squares(laid_out) == pytest.approx(sum_of_squares(tensors()), rel=1e-12)
    whole = [each.contiguous() for each in halves]
    assert sum_of_squares(halves) == pytest.approx(sum_of_squares(whole), rel=1e-9)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_one_gradient_that_is_not_finite_is_not_hidden(value):
    spoilt = tensors()
    spoilt[0][1, 2, 0, 1] = value
    assert not math.isfinite(sum_of_squares(spoilt))


@pytest.mark.parametrize("clip", [None, {"max_norm": 1.0}, {"type": "value", "clip_value": 0.5}])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_recorded_norm_is_that_before_clipping_and_unscaled_as_mmengine_logs_it(clip, precision, tmp_path):
    from mmengine.optim import OptimWrapper

    from emacheck.train.device.vanilla_mmengine import DeviceAmpOptimWrapper

    model = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = {"optimizer": optimizer, "clip_grad": clip and dict(clip), "accumulative_counts": 2}
    made = OptimWrapper(**settings) if precision == "fp32" else DeviceAmpOptimWrapper(dtype="float16", **settings)
    made.initialize_count_status(model, 0, 5)
    runner = SimpleNamespace(model=model, optim_wrapper=made, max_iters=5, cfg=SimpleNamespace(draws=2))
    recorder = RecorderHook(tmp_path, 5)
    recorder.before_train(runner)
    for factor in (1.0, 1.0, 1.0, math.inf if precision == "fp16" else 1.0, 2.0):
        recorder.before_train_iter(runner, 0, {"inputs": [torch.ones(1)]})
        made.update_params((model.weight * torch.tensor([3.0, 4.0])).sum() * factor)
        recorder.after_train_iter(runner, 0)
    recorder.close()
    rows = [json.loads(line)["metrics"] for line in (tmp_path / "iterations.jsonl").read_text().splitlines()]
    assert [row.get("grad_norm") for row in rows] == [None, 5.0, None, None if precision == "fp16" else 5.0, 10.0]
    assert [row.get("lr") for row in rows] == [None, 0.1, None, None if precision == "fp16" else 0.1, 0.1]


def test_a_rate_that_is_wrong_in_any_parameter_group_moves_a_recorded_rate(tmp_path):
    from mmengine.optim import OptimWrapper

    from emacheck.judge.forensics.metric_names import is_rate

    def recorded(directory, *rates):
        directory.mkdir()
        groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates]
        model = torch.nn.ParameterList([group["params"][0] for group in groups])
        made = OptimWrapper(torch.optim.SGD(groups, lr=1.0))
        runner = SimpleNamespace(model=model, optim_wrapper=made, max_iters=1, cfg=SimpleNamespace(draws=2))
        recorder = RecorderHook(directory, 1)
        recorder.before_train(runner)
        recorder.before_train_iter(runner, 0, {"inputs": [torch.ones(1)]})
        made.update_params(sum(weight.sum() for weight in model))
        recorder.after_train_iter(runner, 0)
        recorder.close()
        metrics = json.loads((directory / "iterations.jsonl").read_text())["metrics"]
        return {name: value for name, value in metrics.items() if is_rate(name)}

    assert recorded(tmp_path / "right", 0.25, 0.5, 1.5) == {"lr": 0.25, "lr_mean": 0.75}
    assert recorded(tmp_path / "wrong", 0.25, 0.5, 1.2) == {"lr": 0.25, "lr_mean": 0.65}
    assert recorded(tmp_path / "one", 0.25) == {"lr": 0.25}
