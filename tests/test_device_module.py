"""The module that a device needs: looked for, without importing it, before anything is announced or written."""

import os
import subprocess
import sys

import pytest
from simulated_device import PACKAGE

from emacheck.cli import invoke
from emacheck.errors import UsageError
from emacheck.train.device.devices import KINDS, Device, DeviceKind, parse_device, require_module

TWO = ("--nproc-per-node", "2")
REFUSED = (
    "emacheck: --device sdaa: Tecorigin SDAA needs the module torch_sdaa, which is not installed here. Run on the "
    "vendor's image, which brings it with the torch that it was built for, and install emacheck there without torch: "
    "docs/devices.md\n"
)


@pytest.mark.parametrize(
    "command",
    [
        ("run",),
        ("run", "--no-audit"),
        ("run", *TWO),
        ("run", "--device", "sdaa:1", "--reference-device", "cpu"),
        ("audit",),
        ("audit", *TWO),
        ("reference", "make"),
    ],
)
def test_without_its_module_a_device_is_refused_before_anything_is_announced(monkeypatch, tmp_path, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert invoke([*command, *(() if "--device" in command else ("--device", "sdaa"))]) == 2
    assert (capsys.readouterr(), list(tmp_path.iterdir())) == (("", REFUSED), [])


def test_an_audit_of_the_device_that_is_found_asks_its_processes_for_that_one(monkeypatch):
    """Each of them would look for one by itself."""
    from emacheck.cli.audit import command
    from emacheck.train.device import devices
    from emacheck.train.request import TrainingRequest

    def audited(job, **options):
        raise UsageError(f"asked for {job.device}")

    monkeypatch.setattr(devices, "_detect", lambda option: "cpu")  # noqa: ARG005
    monkeypatch.setattr(command, "audited_request", lambda options: TrainingRequest(preset="smoke", config=None))  # noqa: ARG005
    monkeypatch.setattr(command, "audit_in_worker", audited)
    with pytest.raises(UsageError, match=r"^asked for cpu$"):
        command.audit.main(["--device", "auto"], standalone_mode=False)


def test_a_device_that_needs_no_module_is_not_looked_for():
    for name, kind in KINDS.items():
        if kind.module is None:
            require_module(parse_device(name))


def test_a_module_is_found_where_the_processes_find_it_and_is_not_imported(tmp_path):
    code = (
        "import sys; from emacheck.train.device.devices import *\n"
        "sys.path[0] = '/'  # that of a script, of which its processes know nothing\n"
        "require_module(parse_device('sdaa')); print({'torch', 'torch_sdaa'} & {*sys.modules})"
    )
    for where, path in (("/", str(PACKAGE)), (PACKAGE, "")):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, [path, os.environ.get("PYTHONPATH")])])}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=where, env=env, capture_output=True, text=True, check=False
        )
        assert done.stdout == "set()\n", done.stderr


def test_of_a_module_within_a_package_the_package_is_looked_for(monkeypatch, tmp_path):
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "__init__.py").write_text("raise OSError('imported')\n", encoding="utf-8")
    device = Device(kind=DeviceKind(type="hpu", title="Intel Gaudi", module="vendor.torch"))
    with pytest.raises(UsageError, match=r"needs the module vendor\.torch, which is not installed here"):
        require_module(device)
    monkeypatch.syspath_prepend(tmp_path)
    require_module(device)
