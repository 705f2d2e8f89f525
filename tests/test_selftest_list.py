"""``emacheck selftest --list``: what it takes to list the faults."""

import subprocess
import sys

import pytest


def listed_without(*packages, cwd):
    """List some faults where packages are not installed."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
        "from emacheck.cli import invoke\n"
        "sys.exit(invoke(['selftest', '--list', '--only', 'epsilon_of_one_norm@0.001']))"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


def test_without_torch_a_list_of_faults_says_what_it_needs(tmp_path):
    done = listed_without("torch", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    said = "emacheck: a list of the faults, which are functions on tensors, needs torch: not installed here. Install"
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_without_what_only_training_needs_the_faults_are_listed(tmp_path):
    pytest.importorskip("torch")
    done = listed_without("mmengine", "mmcv", "mmseg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["epsilon_of_one_norm@0.001"]
