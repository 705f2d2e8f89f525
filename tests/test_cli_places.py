"""Places for output that are written with ``..``, and what is left there if something goes wrong."""

from pathlib import Path

import pytest

from emacheck.audit.findings import picture
from emacheck.audit.findings.result import AuditResult
from emacheck.cli import invoke
from emacheck.cli import run as run_module
from emacheck.cli.audit.command import write_audit
from emacheck.cli.outputs import Directory
from emacheck.train.request import TrainingRequest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a directory that holds something of every command."""
    place = tmp_path / "here"
    place.mkdir()
    for name in ("run.json", "audit.json", "x.xml"):
        (place / name).write_text("precious", encoding="utf-8")
    monkeypatch.chdir(place)
    yield place
    left = {file.name: file.read_text(encoding="utf-8") for file in place.iterdir()}
    assert left == dict.fromkeys(("run.json", "audit.json", "x.xml"), "precious")
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("given", ["out", "./out", "../out", "../../out", "/tmp/out", "..", "a..b/c"])  # noqa: S108
def test_a_directory_stays_as_it_was_given(given):
    assert Directory().convert(given, None, None) == Path(given)


@pytest.mark.parametrize(
    ("given", "leads_to"), [("new/..", ""), ("../here/new/../out", "out"), ("new/../../here/a", "a")]
)
def test_a_directory_behind_a_name_that_is_left_again_is_where_it_leads(here, given, leads_to):
    assert Directory().convert(given, None, None) == here / leads_to


def test_a_link_that_is_left_again_leads_to_where_the_linked_directory_lies(tmp_path):
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "there" / "deep")
    assert Directory().convert(str(tmp_path / "link" / ".." / "out"), None, None) == tmp_path / "there" / "out"


def test_a_run_into_the_working_directory_by_another_name_is_refused(here, monkeypatch, capsys):
    request = TrainingRequest(preset="smoke", config=None)
    monkeypatch.setattr(run_module, "describe_training", lambda *_, **__: request)
    monkeypatch.setattr(run_module, "_choose_bundles", lambda *_: ())
    assert invoke(["run", "--work-dir", "new/.."]) == 2
    assert f"--work-dir {here}: found something there already" in capsys.readouterr().err


def test_an_audit_into_the_working_directory_by_another_name_is_refused(here, capsys):
    assert invoke(["audit", "--output-dir", "new/.."]) == 2
    assert f"--output-dir {here}: found audit.json there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--output-dir", "new/.."), "exists already and was not touched"),
        (("--junit", "new/../x.xml"), "--junit new/../x.xml: exists already and was not touched"),
    ],
)
def test_a_comparison_overwrites_nothing_by_another_name(here, capsys, options, said):
    assert invoke(["compare", "a", "b", *options]) == 2
    assert said in capsys.readouterr().err


def test_data_are_not_made_where_something_is_by_another_name(here, capsys):
    assert invoke(["data", "make", "new/.."]) == 2
    assert f"{here}: found a directory that is not empty, so nothing was written" in capsys.readouterr().err


def test_an_audit_that_cannot_be_drawn_writes_nothing(tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(picture, "draw", fail)
    with pytest.raises(RuntimeError):
        write_audit(AuditResult(device="cpu", precision="fp32", errors=(), findings=()), tmp_path, command="emacheck")
    assert list(tmp_path.iterdir()) == []
