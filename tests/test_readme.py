"""Every command that the README shows is run as it stands."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import falling

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ emacheck (.*)$", README, re.MULTILINE)


def tcap(losses):
    return "".join(
        f"TCAPPDLL 2031-01-01 00:00:00.000001 - Epoch: 0 Iteration: {i}  rank : 0  train.loss : {loss}  \n"
        for i, loss in enumerate(losses)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("readme")
    (place / "cuda.log").write_text(tcap(falling()), encoding="utf-8")
    (place / "sdaa.log").write_text(tcap(falling(off=-0.3313)), encoding="utf-8")
    return place


@pytest.mark.training
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_reaches_a_verdict_or_succeeds(emacheck_cli, place, command):
    done = emacheck_cli(*shlex.split(command), cwd=place, timeout=600)
    assert done.code in ({0, 1} if command.startswith("compare") else {0}), done


def test_the_readme_shows_every_command_there_is():
    from emacheck.cli import COMMANDS as KNOWN

    assert {command.split()[0] for command in COMMANDS} == set(KNOWN)


def test_every_link_of_the_readme_leads_to_a_file():
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (root / target).exists(), target
