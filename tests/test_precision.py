"""What fp32, tf32, bf16 and fp16 mean on a device, and what keeps them from meaning it."""

import json
import subprocess
import sys

import pytest

from emacheck.errors import TrainingError, UsageError
from emacheck.train.device import precision
from emacheck.train.device.devices import Device, DeviceKind, parse_device


def test_tf32_is_switched_off_for_fp32_and_on_for_tf32():
    import torch

    cuda = parse_device("cuda")
    try:
        assert set(precision.set_float32(cuda, "tf32").values()) == {"on"}
        assert torch.backends.cudnn.allow_tf32
        assert precision.set_float32(cuda, "fp32") == dict.fromkeys(cuda.kind.tf32_switches, "off")
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = True


SWITCHES = """
import json, multiprocessing, sys, torch
from emacheck.train.device.devices import parse_device
from emacheck.train.device.precision import set_float32

def case(asked):
    before, device, precision = asked
    exec(before)
    found = set_float32(parse_device(device), precision)
    backends = torch.backends
    parts = {"matmul": backends.cuda.matmul, "conv": backends.cudnn.conv, "rnn": backends.cudnn.rnn}
    parts |= {"host's matmul": backends.mkldnn.matmul, "host's conv": backends.mkldnn.conv}
    one, two = (torch.randn(64, 64, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    error = float((one @ two - one.double() @ two.double()).abs().max())
    return {"found": found, "parts": {name: part.fp32_precision for name, part in parts.items()}, "error": error}

torch.set_num_threads(1)
with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print(json.dumps([pool.apply(case, (asked,)) for asked in json.loads(sys.argv[1])]))
"""
SET_BEFORE = (
    "",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'bf16' if hasattr(torch.backends, 'fp32_precision') else None",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.cudnn.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True",
)


@pytest.mark.parametrize(("device", "asked"), [("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "tf32")])
def test_float32_means_what_was_asked_for_whatever_was_set_before(device, asked):
    import torch

    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this torch has the older switches alone")
    cases = [(before, device, asked) for before in SET_BEFORE]
    done = subprocess.run(
        [sys.executable, "-c", SWITCHES, json.dumps(cases)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    wanted, word = ("tf32", "on") if asked == "tf32" else ("ieee", "off")
    for (before, *_), said in zip(cases, json.loads(done.stdout), strict=True):
        assert said["found"] == dict.fromkeys(parse_device(device).kind.tf32_switches, word), before
        assert {said["parts"][name] for name in ("host's matmul", "host's conv")} == {"ieee"}, before
        assert device == "cpu" or {said["parts"][name] for name in ("matmul", "conv", "rnn")} == {wanted}, before
        # A product of bfloat16 would be off by 1e-2; what the CPU computes is the reference of everything.
        assert said["error"] < 1e-4, before


def test_tf32_is_refused_where_the_environment_keeps_the_libraries_from_it(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with pytest.raises(UsageError, match="--precision tf32: found NVIDIA_TF32_OVERRIDE=0"):
        precision.set_float32(parse_device("cuda"), "tf32")
    precision.set_float32(parse_device("cuda"), "fp32")


@pytest.mark.parametrize(("device", "asked"), [("cpu", "bf16"), ("cuda", "fp32"), ("cuda", "tf32")])
def test_what_switches_tf32_or_less_on_while_it_trains_is_an_error_that_names_it(device, asked):
    import torch

    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this torch has the older switches alone")
    place = parse_device(device)
    try:
        precision.set_float32(place, asked)
        precision.require_float32_kept(place, asked)
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(
            TrainingError, match=r"^torch\.backends\.mkldnn\.matmul: found switched during the training"
        ):
            precision.require_float32_kept(parse_device("cpu"), asked)
        precision.set_float32(place, asked)
        torch.backends.cudnn.allow_tf32 = asked != "tf32"
        if device == "cuda":
            with pytest.raises(
                TrainingError, match=r"^torch\.backends\.cudnn\.allow_tf32: found .* --precision (fp|tf)32"
            ):
                precision.require_float32_kept(place, asked)
    finally:
        precision.set_float32(place, "fp32")
        torch.backends.cudnn.allow_tf32 = True


def test_a_switch_that_does_not_stay_as_it_was_set_is_refused():
    class Stubborn:
        allow = True

        def __setattr__(self, name, value):
            pass

    sys.modules["stubborn_backend"] = Stubborn()
    try:
        device = Device(kind=DeviceKind(type="tpx", title="TPX", tf32_switches=("stubborn_backend.allow",)))
        with pytest.raises(UsageError, match=r"stubborn_backend\.allow was switched off and is on still"):
            precision.set_float32(device, "fp32")
    finally:
        del sys.modules["stubborn_backend"]


@pytest.mark.parametrize(("device", "asked"), [("cpu", "tf32"), ("mps", "bf16"), ("sdaa", "tf32")])
def test_a_precision_that_the_table_does_not_know_is_refused(device, asked):
    with pytest.raises(UsageError, match=f"--precision {asked}: .* expected one of fp32"):
        precision.check_precision(parse_device(device), asked)


def test_autocast_that_would_not_lower_is_refused_in_place_of_a_training_in_float32(monkeypatch):
    """torch warns that the type is not supported, switches autocast off, and goes on."""
    import torch

    device = parse_device("cpu")
    for each in ("bf16", "fp16", "fp32"):
        precision.check_autocast(device, each)
    monkeypatch.setitem(precision.AUTOCAST, "bf16", "float64")
    with pytest.raises(UsageError, match=r"--precision bf16: autocast on cpu does not lower .*Disabling autocast"):
        precision.check_autocast(device, "bf16")
    assert not torch.is_autocast_enabled("cpu")

    def without_its_function(*arguments, **options):
        raise AssertionError("But the func `get_amp_supported_dtype` is missing.")

    monkeypatch.setattr(torch, "autocast", without_its_function)
    with pytest.raises(UsageError, match=r"does not lower to float16.*`get_amp_supported_dtype` is missing"):
        precision.check_autocast(device, "fp16")
