"""``emacheck doctor``: every line says how good it is and what to do, and a dying device is a line, not the end."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import emacheck_process, wait_until

from emacheck.cli.doctor import _shown, _width
from emacheck.train.doctor import host
from emacheck.train.doctor.line import Line, Status, ok
from emacheck.train.launching.parent import is_stopped

HOST = ["python", "emacheck", "numpy", "torch", "mmengine", "mmcv", "mmseg", "data", "references", "disk", "shm"]
DEVICE = [
    *("device", "driver", "memory", "communication", "fp32", "tf32", "bf16", "fp16"),
    *("training", "repeatability"),
]
ACCELERATOR = [*DEVICE, "autocast", "dropout"]


@pytest.fixture
def doctor(emacheck_cli):
    """Run the doctor and return its exit code and its lines by name."""

    def call(*arguments, env=None):
        done = emacheck_cli("doctor", "--json", *arguments, env=env)
        document = json.loads(done.out)
        lines = {line["name"]: line for line in document["lines"]}
        assert len(lines) == len(document["lines"])
        statuses = [line["status"] for line in lines.values()]
        assert document["errors"] == statuses.count("error")
        assert document["warnings"] == statuses.count("warning")
        assert done.code == (2 if document["errors"] else 0)
        # A line that is not ok says what to do.
        assert all((line["status"] == "ok") == (line["advice"] == "") for line in lines.values())
        return done.code, lines

    return call


@pytest.mark.training
def test_a_healthy_device(doctor, simulated_device):
    code, lines = doctor("--device", "sdaa:1", env=simulated_device())
    assert list(lines) == [*HOST, *ACCELERATOR]
    assert code == 0
    # Containers may have little shared memory.
    assert {line["status"] for name, line in lines.items() if name != "shm"} == {"ok"}, lines
    assert lines["device"]["found"] == "sdaa:1: simulated sdaa (host memory), 2 of them"
    assert "simulated" in lines["driver"]["found"]
    assert "TORCH_SDAA_CONV_USE_FP32 1, " in f"{lines['driver']['found']}, "
    assert lines["communication"]["found"].startswith("cpu:gloo,sdaa:tccl")
    assert "GradScaler enabled" in lines["fp16"]["found"]
    # The simulated device is the CPU: nothing differs, which a comparison with itself would not show below.
    assert "of the loss 0.0e+00" in lines["training"]["found"]
    assert lines["repeatability"]["found"] == "a second iteration from the same state is equal in every bit"


def test_the_text_for_people_has_every_line_and_ends_with_the_command(emacheck_cli):
    done = emacheck_cli("doctor", "--device", "abacus")
    assert done.code == 2, done
    starts = [line.split()[:2] for line in done.out.splitlines() if line and not line.startswith(" ")]
    little = "warning" if ["warning", "shm"] in starts else "ok"  # as in a container that was given no more
    assert starts[:-1] == [
        *([little if name == "shm" else "ok", name] for name in HOST),
        ["error", "device"],
    ]
    warnings = "1 warning" if little == "warning" else "0 warnings"
    assert done.last_line == f"1 error, {warnings} | emacheck doctor --device abacus"


@pytest.mark.training
def test_a_crash_is_one_line_and_what_comes_behind_is_still_tried(doctor, simulated_device):
    code, lines = doctor("--device", "sdaa", env=simulated_device("crash tccl::allreduce", "crash mm"))
    assert list(lines) == [
        *HOST,
        "device",
        "driver",
        "memory",
        "communication",
        "precisions",
        "training",
        "repeatability",
        "autocast",
        "dropout",
    ]
    assert code == 2
    assert lines["precisions"]["status"] == "error"
    assert "simulated sdaa: crash in tccl::allreduce" in lines["communication"]["found"]
    assert "crashed: its process was ended by SIGABRT" in lines["precisions"]["found"]
    assert "simulated sdaa: crash in aten::mm" in lines["precisions"]["found"]
    assert lines["training"]["status"] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("hang _softmax", "hung: no answer for 30 s, so its process was ended."),
        ("missing _softmax", "NotImplementedError: Could not run 'aten::_softmax.out'"),
    ],
)
def test_a_broken_training_is_an_error(doctor, simulated_device, fault, words):
    code, lines = doctor("--device", "sdaa", "--timeout", "30", env=simulated_device(fault))
    assert code == 2
    assert lines["training"]["status"] == "error"
    assert words in lines["training"]["found"]
    assert [name for name, line in lines.items() if line["status"] == "error"] == ["training"]


@pytest.mark.slow
def test_what_only_limits_is_a_warning(doctor, simulated_device):
    faults = (
        *("missing tccl::allreduce", "scale upsample_bilinear2d by=2e-2", "memory limit=1500000000"),
        "scale upsample_bilinear2d_backward by=0.3 call=3",  # in the second iteration only
        "scale bernoulli_.float by=1.1",
    )
    code, lines = doctor("--device", "sdaa", env=simulated_device(*faults))
    warnings = [name for name, line in lines.items() if line["status"] == "warning"]
    assert warnings == ["memory", "communication", "training", "repeatability", "dropout"]
    assert code == 0
    assert "cpu:gloo,sdaa:tccl is registered and failed: NotImplementedError" in lines["communication"]["found"]


@pytest.mark.slow
def test_numbers_that_are_wrong_are_errors(doctor, simulated_device):
    faults = ("scale convolution_overrideable by=3e-4", "scale upsample_bilinear2d by=0.5")
    code, lines = doctor("--device", "sdaa", env=simulated_device(*faults))
    assert code == 2
    assert [name for name, line in lines.items() if line["status"] == "error"] == ["fp32", "training"]
    assert "of the loss" in lines["training"]["found"]
    assert "of a convolution 3.0e-04 (limit 1e-05)" in lines["fp32"]["found"]
    assert lines["bf16"]["status"] == "ok"


@pytest.mark.slow
def test_a_device_that_is_not_there(doctor, simulated_device):
    code, lines = doctor("--device", "sdaa", env=simulated_device(devices=0))
    assert code == 2
    assert list(lines) == [*HOST, "device"]
    assert "sees 0 sdaa devices, expected at least 1" in lines["device"]["found"]


def test_a_device_whose_module_is_not_installed_or_that_is_unknown(doctor):
    code, lines = doctor("--device", "npu")
    assert code == 2
    assert "needs the module torch_npu, which is not installed here" in lines["device"]["found"]
    code, lines = doctor("--device", "abacus")
    assert code == 2
    assert "found no such device" in lines["device"]["found"]


def test_data_that_are_broken_or_not_made_yet(doctor, tmp_path):
    _, lines = doctor("--device", "abacus", "--data-root", tmp_path / "nowhere")
    assert lines["data"]["status"] == "error"
    assert "nowhere" in lines["data"]["found"]
    _, lines = doctor("--device", "abacus", env={"EMACHECK_CACHE": str(tmp_path / "new")})
    assert lines["data"]["status"] == "ok"
    assert "the first training makes it" in lines["data"]["found"]
    assert not (tmp_path / "new").exists()


def test_a_working_directory_that_is_gone_is_an_error_line(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = "import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", script, "-m", "emacheck", "doctor", "--json", "--device", "abacus"]
    done = subprocess.run(command, cwd=gone, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    lines = {line["name"]: line for line in json.loads(done.stdout)["lines"]}
    assert lines["disk"]["status"] == "error"
    assert "No such file or directory" in lines["disk"]["found"]
    assert "Change to a directory that exists" in lines["disk"]["advice"]
    assert lines["device"]["status"] == "error"


def test_a_reference_that_is_damaged(doctor, tmp_path):
    bundle = tmp_path / "references" / "experiment" / "cpu-fp32"
    bundle.mkdir(parents=True)
    (bundle / "bundle.json").write_text("{", encoding="utf-8")
    _, lines = doctor("--device", "abacus")
    assert lines["references"]["status"] == "error"


def test_a_folder_of_references_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("EMACHECK_REFERENCES", "nowhere")
    line = host.reference_line()
    assert (line.status, "EMACHECK_REFERENCES=nowhere: no such directory" in line.found) == (Status.ERROR, True)


def test_a_folder_of_references_that_may_not_be_read(monkeypatch, tmp_path):
    monkeypatch.setenv("EMACHECK_REFERENCES", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    line = host.reference_line()
    assert (line.status, f"EMACHECK_REFERENCES={tmp_path}: may not be read" in line.found) == (Status.ERROR, True)


def test_lines_fit_a_narrow_terminal_as_far_as_they_can(monkeypatch):
    line = Line(name="x", status=Status.ERROR, found="word " * 40, advice="do " * 60)
    assert max(map(len, _shown(line))) > 100
    for columns, width in ((40, 60), (80, 80), (300, 120)):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert _width() == width
        assert max(map(len, _shown(line, width=width))) <= width
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert _width() == 120


def test_nothing_foreign_controls_the_terminal(emacheck_cli):
    done = emacheck_cli("doctor", "--device", "abacus", "--data-root", "bad\x1b[31m")
    assert "\x1b" not in done.out
    assert "bad\\x1b[31m" in done.out
    shown = list(_shown(Line(name="x", status=Status.ERROR, found="a\x1b]0;b\x07", advice="c\u202ed")))
    assert shown == ["error    x              a\\x1b]0;b\\x07", " " * 24 + "-> c\\u202ed"]


def test_which_distribution_supplies_a_module():
    continuation, upstream = "onedl-mmengine", ("mmengine",)
    found = host._supplier("mmengine", continuation, upstream, {"mmengine": ["onedl_mmengine"]})
    assert found.status is Status.OK
    assert found.found.endswith("(the continuation)")
    both = host._supplier("mmengine", continuation, upstream, {"mmengine": ["onedl-mmengine", "click"]})
    assert both.status is Status.WARNING
    assert "at once" in both.found
    assert host._supplier("json", "no-such-a", ("no-such-b",), {}).status is Status.WARNING
    assert host._supplier("no_such_module", "a", (), {}).status is Status.ERROR
    assert ok("a", "b").advice == ""


def test_a_distribution_that_does_not_list_its_modules_is_found_by_its_name(monkeypatch):
    """As on Python 3.10, which knows no supplier of a distribution without top_level.txt."""
    continuation, upstream = "onedl-mmengine", ("mmengine", "mmengine-lite")
    for installed, kind in (("onedl-mmengine", "the continuation"), ("mmengine-lite", "upstream")):

        def version(name, installed=installed):
            if name != installed:
                raise host.PackageNotFoundError(name)
            return "1.2.3"

        monkeypatch.setattr(host, "version", version)
        monkeypatch.setattr(host, "requires", lambda _: None)
        found = host._supplier("mmengine", continuation, upstream, {})
        assert (found.status, found.found) == (Status.OK, f"{installed} 1.2.3 ({kind})")


def test_a_package_without_what_it_imports_is_an_error_that_names_it(monkeypatch):
    asked = [
        "addict",
        "no-such-thing>=2",
        "regex; sys_platform == 'win32'",
        "no-such-extra; extra == 'all'",
        "opencv-python",
    ]
    monkeypatch.setattr(host, "requires", lambda _: asked)
    found = host._supplier("mmengine", "onedl-mmengine", ("mmengine",), {"mmengine": ["onedl_mmengine"]})
    assert found.status is Status.ERROR
    assert found.found.endswith("is there without no-such-thing, which it imports")
    assert found.advice == "Install what is missing: pip install no-such-thing"


def test_a_python_without_distutils_is_an_error_where_mmengine_is(monkeypatch):
    def without(*missing):
        monkeypatch.setattr(host, "find_spec", lambda name: None if name in missing else find_spec(name))
        return {line.name: line for line in host.package_lines()}

    line = without("distutils")["distutils"]
    assert line.status is Status.ERROR
    assert "pip install setuptools" in line.advice
    assert "distutils" not in without("distutils", "mmengine")
    assert "distutils" not in without()


def test_an_old_torch_is_an_error(monkeypatch):
    for text, status in (("2.3.1", Status.ERROR), ("2.4.0a0+git1", Status.OK), ("2.13.0+cpu", Status.OK)):
        monkeypatch.setattr(host, "version", lambda _, text=text: text)
        assert host.torch_line().status is status


@pytest.mark.training
def test_benign_variations_stay_below_the_limits():
    from emacheck.train.device.devices import Device, DeviceKind, parse_device
    from emacheck.train.doctor.iteration import Start, judge, judge_again

    cpu, start = parse_device("cpu"), Start.draw()
    plain = start.train(cpu)
    import torch

    marked = []
    lazy = Device(kind=DeviceKind(type="cpu", title="CPU", mark_step=f"{__name__}.mark_step"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules[__name__], "mark_step", lambda: marked.append(1), raising=False)
        other = start.train(lazy, memory_format=torch.channels_last)
    assert len(marked) == 2
    assert plain.loss > 1
    assert judge(plain, other).status is Status.OK
    again = judge_again(plain, other)
    assert (again.status, "adds in no fixed order" in again.found) == (Status.OK, True)
    assert any(not torch.equal(plain.gradients[name], other.gradients[name]) for name in plain.gradients)


@pytest.mark.skipif(sys.platform != "linux", reason="needs what Linux does when a parent dies")
@pytest.mark.parametrize("stopped", [False, True])
def test_the_device_process_ends_with_the_doctor(simulated_device, tmp_path, stopped):
    env = simulated_device("hang *")
    doctor = emacheck_process("doctor", "--device", "sdaa", cwd=tmp_path, env=env)
    try:
        child = wait_until(lambda: _children(doctor.pid, "emacheck.train.doctor.probe"))
        results = Path(Path(f"/proc/{child[0]}/cmdline").read_text(encoding="utf-8").split("\0")[4])
        assert wait_until(results.exists)
        if stopped:
            os.kill(child[0], signal.SIGSTOP)
            assert wait_until(lambda: is_stopped(child[0]))
        os.kill(doctor.pid, signal.SIGKILL)
        assert wait_until(lambda: not _alive(child[0]))
    finally:
        doctor.kill()
        doctor.communicate()


def _children(process, word):
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
        return [int(c) for c in text.split() if word in Path(f"/proc/{c}/cmdline").read_text(encoding="utf-8")]
    except OSError:
        return []


def _alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").split()[2] != "Z"
    except OSError:
        return False


def test_help_does_not_import_torch():
    lines = "import sys; from emacheck.cli import invoke; invoke(['doctor', '--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_device_that_does_not_say_how_much_memory_it_has_is_no_error(monkeypatch):
    from emacheck.train.doctor import stages

    def refuse(_):
        raise RuntimeError("not supported")

    monkeypatch.setattr(stages, "_memory_line", refuse)
    lines = {line.name: line for line in stages.device_lines("cpu")}
    assert lines["memory"].status is Status.WARNING
    assert "RuntimeError: not supported" in lines["memory"].found
    assert lines["driver"].status is Status.OK


def test_upstream_mmseg_with_an_mmcv_that_was_not_compiled_is_an_error(monkeypatch):
    monkeypatch.setattr(host, "_missing_requirements", lambda _: [])
    monkeypatch.setattr(host, "version", lambda _: "1.2.2")
    upstream = ("onedl-mmsegmentation", ("mmsegmentation",), {"mmseg": ["mmsegmentation"]})
    for compiled, status in ((False, Status.ERROR), (True, Status.OK)):
        monkeypatch.setattr(host, "_has_operators", lambda compiled=compiled: compiled)
        line = host._supplier("mmseg", *upstream)
        assert line.status is status
    monkeypatch.setattr(host, "_has_operators", lambda: False)
    assert "mmcv without the compiled operators" in host._supplier("mmseg", *upstream).found
    continued = host._supplier("mmseg", *upstream[:2], {"mmseg": ["onedl-mmsegmentation"]})
    assert continued.status is Status.OK


def test_a_torch_that_cannot_be_imported_is_an_installation_to_repair(doctor, tmp_path):
    package = tmp_path / "broken" / "torch"
    package.mkdir(parents=True)
    words = "libcudart.so.12: cannot open shared object file: No such file or directory"
    (package / "__init__.py").write_text(f"raise OSError({words!r})\n", encoding="utf-8")
    path = os.pathsep.join([str(package.parent), str(Path(__file__).parent.parent)])
    for device in ("cpu", "auto"):
        code, lines = doctor("--device", device, env={"PYTHONPATH": path})
        assert code == 2
        assert "libcudart.so.12" in lines["device"]["found"]
        assert "cannot be imported: install" in lines["device"]["advice"]
