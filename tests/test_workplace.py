"""A directory is made beside its place, and what a killed process has left of it does not stay for ever."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from emacheck.workplace import workplace_for


def test_nothing_is_left_of_what_did_not_become_whole(tmp_path):
    def interrupted():
        with workplace_for(tmp_path / "state") as place:
            (place / "half").write_text("x", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_has_left_is_removed_and_nothing_else(tmp_path):
    killed = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from emacheck.workplace import workplace_for\n"
        "with workplace_for(Path(sys.argv[1])) as place:\n"
        "    (place / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    others = [tmp_path / ".state.mine.partial", tmp_path / ".states.0123456789abcdef.partial", tmp_path / "state"]
    for other in others:
        other.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "state")], env=environment, check=False)
    assert len(list(tmp_path.iterdir())) == len(others) + 1
    with workplace_for(tmp_path / "state"):
        pass
    assert set(tmp_path.iterdir()) == set(others)


def test_two_processes_that_make_the_same_do_not_take_each_other_for_killed(tmp_path):
    with workplace_for(tmp_path / "state") as first, workplace_for(tmp_path / "state") as second:
        (second / "whole").write_text("x", encoding="utf-8")
        second.rename(tmp_path / "state")
        assert first.is_dir()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["whole"]
