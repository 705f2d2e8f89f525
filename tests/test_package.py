"""What a user installs: a wheel, without torch, in a new environment."""

import email
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import falling, write_scalars

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def core_install(tmp_path_factory):
    """A new environment that holds the wheel, made from the source distribution, and its core dependencies only."""
    place = tmp_path_factory.mktemp("core")
    subprocess.run([sys.executable, "-m", "build", "--outdir", place, ROOT], check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv", with_pip=True)
    pip = [place / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", wheel], check=True)
    return place


def call(place, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    program = place / "venv" / "bin" / "emacheck"
    return subprocess.run(
        [program, *arguments], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_says_what_it_is(core_install):
    (wheel,) = core_install.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        assert name.replace("METADATA", "licenses/LICENSE") in archive.namelist()
        assert "emacheck/py.typed" in archive.namelist()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert {"mmsegmentation", "accelerator"} <= set(metadata["Keywords"].split(","))
    assert "Programming Language :: Python :: 3 :: Only" in metadata.get_all("Classifier")
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# emacheck")
    assert metadata.get_all("Project-URL") is None


def test_the_core_install_holds_no_torch_and_judges_logs(core_install):
    assert not list(core_install.glob("venv/lib/*/site-packages/torch"))
    write_scalars(core_install / "a.json", falling())
    write_scalars(core_install / "b.json", falling(off=-0.39))
    assert call(core_install, "compare", "a.json", "a.json", "--output-dir", "report").returncode == 0
    assert call(core_install, "compare", "a.json", "b.json").returncode == 1
    assert (core_install / "report" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_core_install_explains_rules_and_shows_the_pages_that_its_messages_name(core_install):
    assert call(core_install, "explain", "bias").stdout.startswith("bias, rule\n")
    assert "Adding a device" in call(core_install, "explain", "docs/devices.md").stdout


def test_the_core_install_makes_and_checks_data(core_install):
    assert call(core_install, "data", "make", "city").returncode == 0
    assert call(core_install, "data", "check", "city").returncode == 0


def test_the_core_install_says_which_extra_training_needs(core_install):
    done = call(core_install, "run", "--device", "cpu")
    assert done.returncode == 2
    assert "pip install 'emacheck[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_of_a_core_install_says_that_torch_is_missing(core_install):
    done = call(core_install, "doctor")
    assert done.returncode == 2
    assert "error    torch          not installed\n" in done.stdout
    assert "pip install 'emacheck[train]'" in done.stdout
    assert "4 errors, 0 warnings" in done.stdout
    assert done.stderr == ""


def test_the_stored_references_come_with_the_wheel(core_install):
    done = call(core_install, "reference", "verify")
    assert done.returncode == 0
    assert done.stdout.strip() == "emanet_r50-d8_smoke/cpu-fp32: verified, 100 iterations, 8 repeats"
