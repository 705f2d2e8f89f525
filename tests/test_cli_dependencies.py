"""An installation that lacks one of its own dependencies, as behind ``pip install --no-deps``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emacheck.cli import DEPENDENCIES

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("module", "package"), [("PIL", "pillow"), ("jinja2", "jinja2"), ("numpy", "numpy")])
def test_a_dependency_that_is_not_installed_is_named_and_no_bug(logs, tmp_path, module, package):
    lacking = tmp_path / "lacking" / module
    lacking.mkdir(parents=True)
    (lacking / "__init__.py").write_text(f"raise ModuleNotFoundError('No module named {module}', name='{module}.x')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(lacking.parent), str(ROOT)])}
    command = [sys.executable, "-m", "emacheck", "compare", "reference.json", "good.json", "--output-dir", "report"]
    if package == "pillow":
        command[3:] = ["doctor"]
    done = subprocess.run(command, cwd=logs, env=environment, capture_output=True, text=True, check=False)
    said = f"emacheck: {package} is not installed, and emacheck needs it: pip install {package}\n"
    assert (done.returncode, done.stderr) == (2, said)
    assert not (logs / "report").exists()


def test_what_the_installation_asks_for_is_what_is_known_to_be_a_dependency():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    asked = project.partition("\ndependencies = [")[2].partition("]")[0].split('"')[1::2]
    names = {each.partition(">")[0] for each in asked}
    assert names == {*DEPENDENCIES, "pillow", "click"}
