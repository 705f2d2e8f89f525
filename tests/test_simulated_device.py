"""The simulated device sdaa: a whole device in PyTorch's eyes, equal to the CPU bit by bit, and broken as asked."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, wait_until
from simulated_device import PACKAGE

pytestmark = pytest.mark.usefixtures("simulated_device")
PROGRAMS = ROOT / "tests" / "simulated_device" / "programs"
SMALL_LIBRARY = """
#include <Python.h>
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "simulated_sdaa"};
PyMODINIT_FUNC PyInit_simulated_sdaa() { return PyModule_Create(&module); }
"""
START = "import torch, torch_sdaa\nfrom torch_sdaa import faults\ntorch.set_num_threads(1)\n"


@pytest.fixture
def python(simulated_device, tmp_path):
    """Run Python in a process of its own that finds the simulated device."""

    def call(*arguments, faults=(), timeout=240, env=None, **options):
        variables = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **simulated_device(*faults, **options), **(env or {})}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return call


@pytest.fixture
def script(python):
    """Run lines of Python that find torch and the simulated device; they must end well unless said otherwise."""

    def call(lines, *, code=0, **options):
        done = python("-c", START + lines, **options)
        assert done.returncode == code, done.stderr
        return done

    return call


def trained(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.training
@pytest.mark.parametrize("threads", [1, 2])
def test_emanet_trains_bitwise_as_on_the_cpu_with_dropout(python, threads):
    both = trained(python(PROGRAMS / "emanet.py", 2, threads))
    assert both["sdaa"] == both["cpu"]
    assert both["operators"] > 30


@pytest.mark.slow
@pytest.mark.training
def test_a_slightly_broken_softmax_changes_the_training(python):
    both = trained(python(PROGRAMS / "emanet.py", 1, 1, faults=["scale _softmax by=1e-3"]))
    (broken,), (healthy,) = both["sdaa"], both["cpu"]
    # EMA's own normalisation and the batch normalisation behind it take the factor out of the loss again.
    assert broken["loss"] == pytest.approx(healthy["loss"], rel=1e-6)
    assert broken["gradients"] != healthy["gradients"]


def test_torch_sees_a_device_with_its_usual_interface(script):
    script(
        """
import time
from torch_sdaa import sdaa
assert torch.sdaa is sdaa is torch.get_device_module("sdaa")
assert torch.sdaa.is_available() and torch.sdaa.device_count() == 3
assert "simulated" in torch.sdaa.get_device_name(), torch.sdaa.get_device_name()
properties = torch.sdaa.get_device_properties(1)
assert "simulated" in properties.driver_version and properties.total_memory == torch.sdaa.mem_get_info()[1]
assert torch.sdaa.is_bf16_supported() and torch.bfloat16 in torch.sdaa.get_amp_supported_dtype()

torch.sdaa.set_device("sdaa:2")
assert torch.ones(1, device="sdaa").device == torch.device("sdaa", 2) and torch.sdaa.current_device() == 2
with torch.sdaa.device(1):
    assert torch.ones(1).sdaa().device.index == 1
assert torch.sdaa.current_device() == 2
for wrong in ("torch.ones(1, device='sdaa:3')", "torch.sdaa.set_device(3)", "torch.sdaa.memory_allocated(7)"):
    try:
        eval(wrong)
    except RuntimeError as error:
        assert "invalid device ordinal" in str(error) and "simulated" in str(error), error
    else:
        raise AssertionError("a device that is not there was found")
try:
    torch.ones(2, device="sdaa:0") + torch.ones(2, device="sdaa:1")
except RuntimeError as error:
    assert "same device" in str(error)
else:
    raise AssertionError("two devices took part in one operator")

if hasattr(torch, "accelerator"):
    assert torch.accelerator.is_available() and torch.accelerator.current_accelerator().type == "sdaa"
    assert torch.accelerator.device_count() == 3
    torch.accelerator.synchronize()
torch.sdaa.synchronize("sdaa:1")

start, end = torch.sdaa.Event(enable_timing=True), torch.sdaa.Event(enable_timing=True)
start.record(); time.sleep(0.02); end.record()
assert 15 < start.elapsed_time(end) < 5000
pinned = torch.ones(3).pin_memory("sdaa")  # before torch 2.6 CUDA is meant where no device is named
assert pinned.is_pinned("sdaa") and not torch.ones(3).is_pinned("sdaa")
assert torch.equal(pinned.to("sdaa", non_blocking=True).cpu(), pinned)
pinning = dict(pin_memory=True, pin_memory_device="sdaa")
loader = torch.utils.data.DataLoader(torch.arange(6), batch_size=3, num_workers=1, **pinning)
assert [batch.to("sdaa").sum().item() for batch in loader] == [3, 12]
""",
        devices=3,
    )


def test_memory_is_counted_and_ends_at_the_limit(script):
    script(
        """
torch.sdaa.reset_peak_memory_stats()
kept = torch.zeros(1000, device="sdaa")
assert torch.sdaa.memory_allocated() == 4000
dropped = kept + 1
del dropped
assert torch.sdaa.memory_allocated() == 4000 and torch.sdaa.max_memory_allocated() == 8000
assert torch.sdaa.mem_get_info() == (96_000, 100_000), torch.sdaa.mem_get_info()
try:
    kept.repeat(30)
except torch.OutOfMemoryError as error:
    assert "out of memory" in str(error) and "Simulated" in str(error), error
else:
    raise AssertionError("120 kB found room in 100 kB")
kept.repeat(20)
""",
        faults=["memory limit=100000"],
    )


def test_generators_are_the_devices_own_or_the_cpus(script):
    lines = """
def drawn(device):
    return torch.nn.functional.dropout(torch.ones(64, device=device)).cpu()
torch.manual_seed(5); a = drawn("cpu")
torch.manual_seed(5); torch.rand(3); b = drawn("sdaa")
torch.manual_seed(5); torch.rand(3); c = drawn("cpu")
print(torch.equal(a, b), torch.equal(b, c))
torch.sdaa.manual_seed_all(7); state = torch.sdaa.get_rng_state("sdaa:1")
own = torch.Generator("sdaa").manual_seed(3)
one = torch.rand(4, device="sdaa", generator=own)
assert torch.equal(one, torch.rand(4, device="sdaa", generator=own.manual_seed(3)))
torch.sdaa.set_rng_state(state, "sdaa:1")
"""
    # The device's own generator does not move when the CPU draws; in the mode "cpu" there is one generator only.
    assert script(lines, rng="device").stdout == "True False\n"
    assert script(lines, rng="cpu").stdout == "False True\n"


def test_autocast_lowers_and_the_scaler_is_enabled_and_skips(script):
    script(
        """
for dtype in (torch.bfloat16, torch.float16):
    with torch.autocast("sdaa", dtype=dtype):
        x = torch.randn(4, 4, device="sdaa")
        assert (x @ x).dtype == dtype and (x @ x).softmax(0).dtype == torch.float32
        image = torch.ones(1, 1, 3, 3, device="sdaa")
        assert torch.nn.functional.conv2d(image, image).dtype == dtype
    assert (x @ x).dtype == torch.float32
layer = torch.nn.Linear(4, 4).to("sdaa")
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("sdaa", init_scale=1024.0)
assert scaler.is_enabled()
before = layer.weight.detach().clone()
with torch.autocast("sdaa", dtype=torch.float16):
    loss = layer(x).square().mean()
scaler.scale(loss).backward(); scaler.step(optimizer); scaler.update()
moved = layer.weight.detach().clone()
assert not torch.equal(before, moved) and scaler.get_scale() == 1024.0
layer.weight.grad[0, 0] = float("inf")
scaler.scale(torch.zeros(1, device="sdaa"))
scaler.step(optimizer); scaler.update()
assert torch.equal(moved, layer.weight) and scaler.get_scale() == 512.0
"""
    )


@pytest.mark.slow
def test_two_processes_are_one_process_with_the_joined_batch(python):
    done = python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", PROGRAMS / "two_processes.py")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert float(lines["worst"]) < 1e-6
    assert lines["from"] == "rank 1"
    assert int(lines["synchronised"]) == 1
    assert int(lines["allreduce"]) >= 1


@pytest.mark.slow
def test_a_rank_that_crashes_ends_both(python):
    program = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", PROGRAMS / "two_processes.py")
    done = python(*program, faults=["crash tccl::allreduce rank=1 signal=KILL"])
    assert done.returncode == 1
    assert done.stderr.count("simulated sdaa: crash in tccl::allreduce (call 1)") == 1
    assert "SIGKILL" in done.stderr


def test_each_operator_can_be_scaled(script):
    script(
        """
import torch.nn.functional as F

def results(device):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 20, 20, generator=g).to(device).requires_grad_()
    w = torch.randn(4, 4, 3, 3, generator=g).to(device).requires_grad_()
    y = F.conv2d(x, w)
    z = F.batch_norm(y, None, None, training=True)
    u = F.interpolate(z, scale_factor=2, mode="bilinear")
    s = u.softmax(1)
    s.square().sum().backward()
    return {name: tensor.detach().cpu() for name, tensor in dict(y=y, z=z, u=u, s=s, gx=x.grad, gw=w.grad).items()}

healthy, cpu = results("sdaa"), results("cpu")
assert all(torch.equal(healthy[name], cpu[name]) for name in cpu)
first = {  # operator: what it makes, what lies before it
    "convolution_overrideable": ("y", ""),
    "native_batch_norm": ("z", "y"),
    "upsample_bilinear2d": ("u", "yz"),
    "_softmax": ("s", "yzu"),
    "convolution_backward_overrideable": ("gw", "yzus"),
}
for op, (made, before) in first.items():
    with faults.injected(f"scale {op} by=1e-3") as fault:
        broken = results("sdaa")
        assert fault.done >= 1, op
    torch.testing.assert_close(broken[made], healthy[made] * 1.001, rtol=1e-6, atol=1e-6)
    assert not torch.equal(broken[made], healthy[made])
    assert all(torch.equal(broken[name], healthy[name]) for name in before), op
for op in ("native_batch_norm_backward", "upsample_bilinear2d_backward", "_softmax_backward_data"):
    with faults.injected(f"scale {op} by=-0.5"):
        broken = results("sdaa")
    torch.testing.assert_close(broken["gx"], healthy["gx"] / 2, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(broken[name], healthy[name]) for name in "yzus"), op
assert all(torch.equal(results("sdaa")[name], cpu[name]) for name in cpu)
"""
    )


def test_a_fault_in_one_tile_in_strided_inputs_or_at_one_call(script):
    script(
        """
x = torch.randn(2, 3, 40, 24)
healthy = x.softmax(-1)
with faults.injected("scale _softmax by=0.5 where=tile"):
    changed = (x.sdaa().softmax(-1).cpu() != healthy).nonzero()
assert len(changed) == 16 * 16
assert changed.min(0).values.tolist() == [0, 0, 24, 8] and changed.max(0).values.tolist() == [0, 0, 39, 23]

with faults.injected("scale mul.out by=0.5 where=strided") as fault:
    y = torch.ones(3, 4, device="sdaa")
    assert (y * 2).sum() == 24 and fault.done == 0
    assert (y.t() * 2).sum() == 36 and fault.done == 1

with faults.injected("scale mul by=0.5 call=2"):
    assert [(y * 2).sum().item() for _ in range(3)] == [24, 36, 24]
"""
    )


def test_a_missing_operator_is_refused_as_pytorch_words_it(script):
    done = script("torch.ones(2, device='sdaa').softmax(0)", code=1, faults=["missing _softmax"])
    assert (
        "NotImplementedError: Could not run 'aten::_softmax.out' with arguments from the 'PrivateUse1' backend."
        in done.stderr
    )


@pytest.mark.parametrize(
    ("name", "number"), [("ABRT", signal.SIGABRT), ("KILL", signal.SIGKILL), ("SEGV", signal.SIGSEGV)]
)
def test_a_crash_at_the_asked_call(script, name, number):
    lines = "for n in range(1, 5):\n    print(n, flush=True)\n    torch.ones(2, device='sdaa').softmax(0)"
    done = script(lines, code=-number, faults=[f"crash _softmax call=3 signal={name}"])
    assert done.stdout == "1\n2\n3\n"
    assert "simulated sdaa: crash in aten::_softmax.out (call 3)" in done.stderr


def test_a_hang_never_returns(simulated_device):
    lines = START + "torch.ones(2, device='sdaa').softmax(0)"
    env = {**os.environ, **simulated_device("hang _softmax")}
    with subprocess.Popen([sys.executable, "-c", lines], env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "simulated sdaa: hang in aten::_softmax.out (call 1)\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.kill()


def test_a_fault_breaks_the_rank_that_it_names_only(script):
    lines = "print((torch.ones(2, device='sdaa') * 2).sum().item())"
    fault = ["scale mul by=1 rank=1"]
    assert script(lines, faults=fault, env={"RANK": "1"}).stdout == "8.0\n"
    assert script(lines, faults=fault, env={"RANK": "0"}).stdout == "4.0\n"
    assert script(lines, faults=fault).stdout == "4.0\n"


def test_what_is_no_fault_is_refused(script):
    script(
        """
for text, words in {
    "scale _sotfmax by=1": "no operator _sotfmax",
    "scale * by=1": "no operator *",
    "scale tccl::broadcast by=1": "no operator tccl::broadcast",
    "scale _softmax": "needs by=",
    "explode _softmax": "found kind 'explode'",
    "crash": "expected an operator",
    "hang _softmax by=1": "does not take by",
    "crash _softmax call=0": "counted from 1",
    "memory": "needs limit=",
}.items():
    try:
        faults.inject(text)
    except ValueError as error:
        assert words in str(error), error
    else:
        raise AssertionError(text)
assert (torch.ones(2, device="sdaa") * 2).sum() == 4
"""
    )


def test_without_a_compiler_the_reason_is_said(python, tmp_path):
    done = python(
        "-c", "import torch_sdaa", env={"SDAA_SIMULATED_CACHE": str(tmp_path / "new"), "CXX": "no-such-compiler"}
    )
    assert done.returncode == 1
    assert "ToolsMissingError: the simulated device is built with no-such-compiler and ninja" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_where_it_cannot_be_built_tests_are_skipped_visibly_or_fail(tmp_path, required, outcome):
    lacking = {"SDAA_SIMULATED_CACHE": str(tmp_path), "CXX": "no-such-compiler"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"{__file__}::test_a_hang_never_returns"],
        env={**os.environ, **lacking, "EMACHECK_REQUIRE_SIMULATED_DEVICE": required},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome in done.stdout.splitlines()[-1], done.stdout
    assert "not found here: no-such-compiler" in done.stdout
    assert (done.returncode == 0) == (not required)


@pytest.mark.training
def test_of_two_processes_that_build_at_once_one_compiles_although_an_earlier_build_was_killed(tmp_path):
    # The same build of a smaller library: the simulated device itself takes a minute to compile.
    shutil.copy(PACKAGE / "torch_sdaa" / "_build.py", tmp_path)
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "simulated_sdaa.cpp").write_text(SMALL_LIBRARY)
    compiler, compiled, cache = tmp_path / "c++", tmp_path / "compiled", tmp_path / "cache"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *" -c "*) echo >> {compiled};; esac\nexec c++ "$@"\n')
    compiler.chmod(0o755)
    start = functools.partial(
        subprocess.Popen,
        [sys.executable, "-c", "import _build; print(_build.load().__name__)"],
        cwd=tmp_path,
        env={**os.environ, "CXX": str(compiler), "SDAA_SIMULATED_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
    )
    killed = start(start_new_session=True)
    assert wait_until(lambda: list(cache.glob(".build-*")))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    left = set(cache.glob(".build-*"))
    before = compiled.read_text() if compiled.exists() else ""
    both = [start() for _ in range(2)]
    assert [process.communicate(timeout=600)[0] for process in both] == ["simulated_sdaa\n"] * 2
    assert compiled.read_text() == before + "\n"
    assert len(list(cache.glob("*/simulated_sdaa.so"))) == 1
    assert left
    assert set(cache.glob(".build-*")) == left
