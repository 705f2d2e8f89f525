"""What cannot be written is said before anything long begins, with the option or variable that names another place."""

import os

import pytest

from emacheck.errors import OutputError
from emacheck.train.doctor import host
from emacheck.train.doctor.line import Status
from emacheck.writable import obstacle


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A directory that may not be written to, whoever runs the tests."""
    place = tmp_path / "closed"
    place.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: str(path) != str(place))
    return place


def test_what_keeps_a_directory_from_being_made_is_named(tmp_path, closed):
    (tmp_path / "file").touch()
    (tmp_path / "loose").symlink_to(tmp_path / "gone")
    assert obstacle(tmp_path) is obstacle(tmp_path / "new" / "deep") is None
    assert obstacle(closed / "new") == f"{closed}, which may not be written to"
    assert obstacle(tmp_path / "file" / "new") == f"{tmp_path / 'file'}, which is no directory"
    assert obstacle(tmp_path / "loose") == f"{tmp_path / 'loose'}, which is no directory"


def test_a_relative_place_is_looked_at_where_it_is(closed, monkeypatch):
    monkeypatch.chdir(closed)
    assert obstacle(closed.relative_to(closed.parent)) == f"{closed}, which may not be written to"


def test_the_doctor_says_that_the_data_cannot_be_made(closed, monkeypatch):
    monkeypatch.setenv("EMACHECK_CACHE", str(closed / "cache"))
    line = host.data_line(None)
    assert line.status is Status.ERROR
    assert f"is not there and cannot be made: found {closed}, which may not be written to" in line.found
    assert "EMACHECK_CACHE" in line.advice


def test_the_doctor_warns_of_a_working_directory_and_of_a_cache_that_may_not_be_written_to(
    closed, tmp_path, monkeypatch
):
    monkeypatch.setattr(host.shutil, "disk_usage", lambda _: host.shutil._ntuple_diskusage(2**40, 0, 2**40))
    monkeypatch.setenv("EMACHECK_CACHE", str(tmp_path))
    assert host.disk_line().status is Status.OK
    monkeypatch.chdir(closed)
    line = host.disk_line()
    assert (line.status, "--work-dir DIR" in line.advice) == (Status.WARNING, True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMACHECK_CACHE", str(closed))
    line = host.disk_line()
    assert (line.status, "EMACHECK_CACHE" in line.advice) == (Status.WARNING, True)


def test_the_doctor_goes_on_where_no_home_is_known(monkeypatch):
    monkeypatch.setenv("EMACHECK_CACHE", "~nobody-of-this-name/cache")
    assert host.data_line(None).status is host.disk_line().status is Status.ERROR
    assert "EMACHECK_CACHE" in host.disk_line().advice


def test_spoilt_data_in_the_cache_need_only_be_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("EMACHECK_CACHE", str(tmp_path))
    (tmp_path / host.DEFAULT_NAME).mkdir()
    assert "The next training makes it again" in host.data_line(None).advice
    assert "Repair it" in host.data_line(tmp_path / host.DEFAULT_NAME).advice


def test_a_state_that_cannot_be_saved_is_refused_before_it_is_made(closed):
    from emacheck.audit.iteration.state import require_place

    with pytest.raises(OutputError, match=r"cannot be saved in the cache .* Set EMACHECK_CACHE"):
        require_place(closed / "audit-states" / "x")
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_state_that_does_not_fit_leaves_nothing_behind(tmp_path, monkeypatch, error):
    import torch

    from emacheck.audit.iteration.state import save_state

    def full(state, place):
        place.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"No space left on device|PytorchStreamWriter failed"):
        save_state(tmp_path / "states" / "x", {})
    assert list((tmp_path / "states").iterdir()) == []


def test_a_state_that_another_process_has_saved_meanwhile_is_left_as_it_is(tmp_path):
    from emacheck.audit.iteration.state import save_state

    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "theirs").touch()
    save_state(tmp_path / "x", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["theirs"]
