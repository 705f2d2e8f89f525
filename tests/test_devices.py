"""The table of devices, entry points, and what a user is told when a device is not there."""

import os
import platform
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from emacheck.errors import UsageError
from emacheck.module_path import own_process
from emacheck.train.device import accelerator, devices
from emacheck.train.device.devices import KINDS, Device, DeviceKind, device_names, parse_device, probe

ROOT = Path(__file__).parent.parent


def test_every_row_is_in_the_documentation_as_it_stands_in_the_code():
    rows = {
        cells[1].strip(" `"): [cell.strip() for cell in cells[2:-1]]
        for line in (ROOT / "docs" / "devices.md").read_text(encoding="utf-8").splitlines()
        if len(cells := line.split("|")) == 8 and cells[1].strip().startswith("`") and cells[1].strip(" `") in KINDS
    }
    assert list(rows) == list(KINDS)
    for name, (_, module, backend, precisions, switches) in rows.items():
        kind = KINDS[name]
        assert module.strip("`") == (kind.module or "")
        assert backend.split(":")[0] == (kind.backend or "none")
        assert precisions == ", ".join(f"**{p}**" if p == kind.amp else p for p in kind.precisions)
        assert [each.strip(" `") for each in switches.split(",") if "`" in each] == list(kind.tf32_switches)


@pytest.mark.parametrize(
    "text",
    [
        "gpu",
        "cpu:",
        "cpu:0",
        "sdaa:x",
        "sdaa:-1",
        "cuda:1:2",
        "cuda:\u0663",
        "cuda:\u00b2",
        ":1",
        "",
        "auto:1",
        "auto:",
        pytest.param("cuda:" + "9" * 5000, id="more digits than Python converts"),
    ],
)
def test_what_is_no_device_is_refused_with_what_is(text):
    with pytest.raises(UsageError, match=r"expected (NAME|one of)"):
        parse_device(text)


def test_a_number_with_auto_is_said_to_be_wrong():
    with pytest.raises(UsageError, match=r"--device auto:1: expected NAME or NAME:NUMBER.*cpu and auto take no number"):
        parse_device("auto:1")


@pytest.mark.parametrize(("text", "said"), [("tf32", "found no such device"), ("cpu:0", "expected NAME")])
def test_the_option_that_names_a_device_is_the_one_that_was_given(text, said):
    with pytest.raises(UsageError, match=f"^--reference-device {text}: {said}"):
        parse_device(text, "--reference-device")


def test_a_reference_device_that_is_not_there_is_not_called_the_device():
    device = parse_device("xpu:1", "--reference-device")
    assert device == parse_device("xpu:1")
    for look in (accelerator.open_device, probe):
        with pytest.raises(UsageError, match=r"^--reference-device xpu:1: torch .* sees 0 xpu devices"):
            look(device)
    with pytest.raises(UsageError, match=r"^--reference-device mlu: Cambricon MLU needs the module torch_mlu"):
        accelerator.open_device(parse_device("mlu", "--reference-device"))


def test_a_device_knows_its_number_and_its_backends():
    device = parse_device("sdaa:1")
    assert (str(device), device.type, device.index, device.communication) == ("sdaa:1", "sdaa", 1, "cpu:gloo,sdaa:tccl")
    assert str(parse_device("sdaa").for_rank(3)) == "sdaa:3"
    # One process that torch's launcher starts, and that was told which: of several, a number is refused.
    assert str(device.for_rank(0)) == "sdaa:1"
    assert str(parse_device("cpu").for_rank(3)) == "cpu"
    assert parse_device("cpu").communication == "gloo"
    with pytest.raises(UsageError, match="--nproc-per-node 1"):
        _ = parse_device("mps").communication


def test_a_row_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="fp64"):
        DeviceKind(type="hpu", title="x", precisions=("fp64",))
    with pytest.raises(ValueError, match="one of them"):
        DeviceKind(type="hpu", title="x", precisions=("fp32",), amp="bf16")


def test_a_module_that_is_not_installed_is_named_with_what_to_do():
    with pytest.raises(UsageError, match=r"torch_mlu, which is not installed here.*docs/devices\.md"):
        accelerator.open_device(parse_device("mlu"))


def test_a_module_that_breaks_on_import_is_named_with_its_error(tmp_path, monkeypatch):
    (tmp_path / "torch_musa.py").write_text("raise OSError('libmusart.so.1: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"torch_musa, which cannot be imported \(OSError: libmusart\.so\.1"):
        accelerator.open_device(parse_device("musa"))


def test_a_device_that_torch_does_not_see_is_refused_with_the_number_that_it_sees():
    with pytest.raises(UsageError, match=r"sees 0 xpu devices, expected at least 2"):
        accelerator.open_device(parse_device("xpu:1"))


def raising(*arguments):
    raise RuntimeError("driver and library do not fit")


def has_module(monkeypatch, **attributes):
    monkeypatch.setattr(accelerator, "device_module", lambda _: SimpleNamespace(**attributes))


ONE = {"is_available": lambda: True, "device_count": lambda: 2}


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        ({**ONE, "is_available": raising}, "xpu", "does not say how many devices there are (RuntimeError: driver"),
        ({**ONE, "device_count": raising}, "xpu:1", "does not say how many devices there are (RuntimeError: driver"),
        (
            {**ONE, "set_device": raising},
            "xpu",
            "--device xpu: it cannot be selected (RuntimeError: dr",
        ),
        (ONE, "xpu:1", "--device xpu:1: it cannot be selected ("),
        (
            {**ONE, "set_device": lambda index: None, "current_device": lambda: 0},  # noqa: ARG005
            "xpu:1",
            "it was selected, and device 0 is selected still",
        ),
        ({}, "xpu:1", "sees 1 xpu device, expected at least 2"),
    ],
)
def test_a_device_whose_module_cannot_do_what_is_needed_is_refused(monkeypatch, module, name, said):
    has_module(monkeypatch, **module)
    with pytest.raises(UsageError) as refused:
        accelerator.open_device(parse_device(name))
    assert said in str(refused.value)
    assert "Check the driver" in str(refused.value)


def test_the_first_device_needs_no_selecting(monkeypatch):
    for module in ({}, ONE):
        has_module(monkeypatch, **module)
        accelerator.open_device(parse_device("xpu"))
        accelerator.open_device(parse_device("xpu:0"))


def test_what_a_lazy_device_computes_with_must_be_there(monkeypatch):
    has_module(monkeypatch)
    kind = DeviceKind(type="hpu", title="A lazy device", mark_step="os.getpid")
    accelerator.open_device(Device(kind=kind))
    assert accelerator.step_marker(Device(kind=kind)) is os.getpid
    assert accelerator.step_marker(parse_device("sdaa")) is None
    for name, found in (("no_vendor.mark_step", "not there"), ("os.sep", "'/'")):
        with pytest.raises(UsageError, match=rf"--device hpu: {name}, by .* is {found}, expected a function"):
            accelerator.open_device(Device(kind=replace(kind, mark_step=name)))


def test_a_device_that_the_environment_lets_compute_with_fewer_bits_is_refused(monkeypatch):
    has_module(monkeypatch)
    device = Device(kind=DeviceKind(type="hpu", title="A device", lowering_variables=("HPU_BF16",)))
    for off in ("", "0"):
        monkeypatch.setenv("HPU_BF16", off)
        accelerator.open_device(device)
    monkeypatch.setenv("HPU_BF16", "1")
    with pytest.raises(UsageError, match=r"^--device hpu: found HPU_BF16=1 in the environment, with which A device"):
        accelerator.open_device(device)


PROBING = """
import subprocess, sys, time
if sys.argv[1:]:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print("sdaa")
    {}
"""


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("time.sleep(60)", "no answer for 0.5 s, and the process that asked was ended"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "(what asked was ended by SIGSEGV: no output)"),
        ("raise OSError('no such ioctl')", "(what asked ended with exit code 1: OSError: no such ioctl)"),
        ("", None),
    ],
)
def test_opening_a_device_ends_in_time_with_all_that_it_started(monkeypatch, tmp_path, then, said):
    (tmp_path / "probing.py").write_text(PROBING.format(then), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(devices, "PROBE", "probing")
    monkeypatch.setattr(devices, "PROBE_SECONDS", 0.5 if "sleep" in then else 30)
    started = time.monotonic()
    if said is None:
        probe(parse_device("sdaa"))
    else:
        with pytest.raises(UsageError) as refused:
            probe(parse_device("sdaa"))
        assert str(refused.value).startswith("--device sdaa: it could not be opened (")
        assert said in str(refused.value)
    assert time.monotonic() - started < 10


def test_the_cpu_is_there_and_describes_itself():
    device = parse_device("cpu")
    accelerator.open_device(device)
    facts = accelerator.describe_device(device)
    assert facts["type"] == "cpu"
    assert facts["name"]
    assert accelerator.peak_memory(device) is None
    accelerator.seed_device(device, 1)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is of Python 3.11")
def test_a_file_of_the_working_directory_is_no_module_of_our_processes_unless_none_has_its_name(tmp_path, monkeypatch):
    for name in ("torch", "random", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not mine')", encoding="utf-8")
    (tmp_path / "beside_a_configuration.py").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert str(parse_device("auto")) == "cpu"
    code = "import emacheck.module_path as p; p.with_working_directory_last(); import beside_a_configuration, random"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **own_process()}, check=True)


def test_auto_is_the_cpu_where_torch_finds_no_accelerator():
    assert str(parse_device("auto")) == "cpu"


def test_auto_is_not_the_cpu_where_torch_cannot_use_a_device_that_is_there(monkeypatch):
    def too_old():
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old", UserWarning, stacklevel=1)
        return False

    has_module(monkeypatch, is_available=too_old)
    torch = pytest.importorskip("torch")
    if hasattr(torch, "accelerator"):
        monkeypatch.setattr(torch.accelerator, "is_available", too_old)
    with pytest.raises(UsageError, match=r"^--device auto: torch .* sees no device \(torch says: CUDA .* too old\)\."):
        accelerator.detect()


@pytest.fixture
def package(tmp_path):
    """Write an installed package that describes devices, and return how to ask emacheck about them."""
    (tmp_path / "vendor.py").write_text(
        "from emacheck.train.device.devices import DeviceKind\n"
        "KIND = DeviceKind(type='hpu', title='A device of the future', module='torch_hpu', backend='xxcl')\n",
        encoding="utf-8",
    )
    metadata = tmp_path / "vendor-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(
        "[emacheck.devices]\nhpu = vendor:KIND\nwrong = vendor:KIND\nbroken = vendor:NOTHING\n", encoding="utf-8"
    )

    def ask(code):
        code = f"import sys\nfrom emacheck.train.device.devices import *\n{code}"
        path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return ask


def test_an_entry_point_brings_a_device_of_its_own(package):
    done = package("print(parse_device('hpu:1').communication, 'hpu' in device_names())")
    assert done.stdout == "cpu:gloo,hpu:xxcl True\n", done.stderr


ILL_BEHAVED = """
import atexit, os, signal
os.write(1, b"loading ...")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
atexit.register(os._exit, 0)
"""


@pytest.mark.parametrize("before", ["", "import torch\n"], ids=["the command", "a program with torch"])
def test_what_the_package_of_an_entry_point_does_is_not_done_to_whoever_asks(package, tmp_path, before):
    described = (tmp_path / "vendor.py").read_text(encoding="utf-8")
    (tmp_path / "vendor.py").write_text(f"{ILL_BEHAVED}{described}", encoding="utf-8")
    asked = "import signal\nprint(parse_device('hpu:1'), signal.getsignal(signal.SIGTERM).name)\nsys.exit(1)"
    done = package(f"{before}{asked}")
    assert (done.returncode, done.stdout) == (1, "hpu:1 SIG_DFL\n"), done.stderr


def test_a_process_of_our_own_loads_an_entry_point_itself(package):
    own = "import os\nfrom emacheck.module_path import own_process\nos.environ.update(own_process())\n"
    done = package(f"{own}print(parse_device('hpu'), *{{'torch', 'vendor'}} & {{*sys.modules}})")
    assert done.stdout == "hpu vendor\n", done.stderr


def test_a_device_is_found_though_its_module_crashes_at_exit(package, tmp_path):
    (tmp_path / "torch_hpu.py").write_text(
        "import atexit, os, sys, types, torch\n"
        "torch.hpu = types.SimpleNamespace(device_count=lambda: 1)\n"
        "torch.get_device_module = lambda device: torch.hpu\n"
        "atexit.register(os.abort)\n",
        encoding="utf-8",
    )
    done = package("probe(parse_device('hpu'))\nprint('found')")
    assert done.stdout == "found\n", done.stderr


OUTSIDE = """
from types import ModuleType
from emacheck.errors import UsageError
from emacheck.train.device import accelerator
accelerator.device_names = lambda: [*KINDS, "hpu"]
for count in (None, 0, 1):
    if count is not None:
        torch.hpu = ModuleType("torch.hpu")
        torch.hpu.device_count = lambda: count
    for ask in (accelerator.detect, lambda: accelerator.open_device(parse_device("hpu"))):
        try:
            print(ask())
        except UsageError as error:
            print(error)
"""


def test_a_device_outside_of_torch_is_found_by_its_own_module_and_never_taken_for_the_cpu(package, tmp_path):
    (tmp_path / "torch_hpu.py").write_text("", encoding="utf-8")
    done = package(f"import torch{OUTSIDE}")
    without, hint, nothing, refused, found, opened = done.stdout.splitlines() or [done.stderr] * 6
    assert without.startswith("--device auto: torch_hpu is installed here, and torch ")
    assert "with torch_hpu imported has no module torch.hpu. Install a torch and a torch_hpu that were made for" in hint
    assert hint.endswith("one of yours can: docs/devices.md#the-vendor-registers-no-module-with-torch")
    assert nothing == without
    assert "sees 0 hpu devices, expected at least 1" in refused
    assert (found, opened) == ("hpu", "None")


@pytest.mark.parametrize(("name", "said"), [("wrong", "expected a DeviceKind"), ("broken", "cannot be loaded")])
def test_an_entry_point_that_is_wrong_is_named(package, name, said):
    done = package(f"parse_device({name!r})")
    assert said in done.stderr
    assert f"vendor:{'KIND' if name == 'wrong' else 'NOTHING'}" in done.stderr


def test_what_only_describes_a_device_may_raise_anything(monkeypatch):
    def no_driver():
        raise OSError("no such ioctl")

    has_module(monkeypatch, **ONE, get_device_name=no_driver, max_memory_allocated=no_driver, get_rng_state=no_driver)
    device = parse_device("xpu")
    assert accelerator.describe_device(device)["name"] == "Intel XPU"
    assert accelerator.peak_memory(device) is None
    assert accelerator.generator_state(device) is None


def test_why_torch_sees_no_device_is_said_as_torch_says_it(monkeypatch):
    def too_old():
        warnings.warn("CUDA initialization: The NVIDIA driver on your system\nis too old", UserWarning, stacklevel=1)
        return False

    has_module(monkeypatch, is_available=too_old, device_count=lambda: 0)
    with pytest.raises(UsageError, match=r"least 1 \(torch says: CUDA .* driver on your system is too old\)\. Check"):
        accelerator.open_device(parse_device("xpu"))


def test_a_version_of_a_library_may_be_what_a_function_says(monkeypatch):
    versions = ("platform.python_version", "platform.libc_ver.nothing", "json.loads", "sys.byteorder")
    has_module(monkeypatch, **ONE)
    facts = accelerator.describe_device(Device(kind=replace(KINDS["xpu"], versions=versions)))
    said = {name: facts[name] for name in versions if name in facts}
    assert said == {"platform.python_version": platform.python_version(), "sys.byteorder": sys.byteorder}


def test_names_start_with_the_table():
    assert device_names()[: len(KINDS)] == list(KINDS)
