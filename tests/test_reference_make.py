"""``emacheck reference make``: what a reference is called, and what is left of a training that comes to nothing."""

import re
import shutil
import tempfile

import pytest
from conftest import SHIPPED, SMOKE

from emacheck.cli.reference import _default_name
from emacheck.errors import BundleError, TrainingError, UsageError
from emacheck.reference import making
from emacheck.reference.making import _lock, claim_name
from emacheck.train.launching.processes import Processes
from emacheck.train.request import TrainingRequest


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Call ``emacheck reference make`` with a training that writes something and then ends with an error."""

    def call(*errors, meanwhile=lambda: None):
        from emacheck.cli import invoke
        from emacheck.cli import reference as command

        left = iter(errors)

        def train(request, run, **_):
            shutil.copytree(SHIPPED / SMOKE, run, dirs_exist_ok=True)
            meanwhile()
            error = next(left)
            if error is not None:
                raise error(f"the record is in {run}")

        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
        monkeypatch.setattr(command, "train_and_read", train)
        (tmp_path / "scratch").mkdir(exist_ok=True)
        code = invoke(["reference", "make", "--into", str(tmp_path / "store"), "--repeats", str(len(errors) - 1)])
        return code, list((tmp_path / "scratch").iterdir())

    return call


def test_a_reference_is_named_after_what_is_not_the_default():
    def name(processes=1, **fields):
        request = TrainingRequest(**{"preset": "smoke", "config": None, "data_hash": "0" * 64, **fields})
        return _default_name(request, Processes(launched=True, nproc_per_node=processes)).removeprefix(
            "emanet_r50-d8_smoke/"
        )

    assert name() == name(iterations=3) == name(threads=1) == "cpu-fp32"
    assert name(seed=5, precision="bf16") == "cpu-bf16-seed5"
    assert name(processes=2, seed=5) == "cpu-fp32-2-processes-seed5"
    others = [{"cfg_options": ("a=1",)}, {"cfg_options": ("a=2",)}, {"data_root": "/data"}]
    names = [name(**fields) for fields in others]
    assert len({*names, "cpu-fp32"}) == 4
    assert all(re.fullmatch(r"cpu-fp32-[0-9a-f]{8}", each) for each in names)
    assert name(cfg_options=("a=1", "b=2")) == name(cfg_options=("b=2", "a=1", "work_dir=x"))
    assert name(cfg_options=("a=1", "a=2")) != name(cfg_options=("a=2", "a=1"))


@pytest.mark.parametrize("errors", [[TrainingError], [None, TrainingError], [KeyboardInterrupt]])
def test_what_a_failed_training_of_a_reference_has_written_is_where_the_message_says(make, capsys, errors):
    code, (kept,) = make(*errors)
    assert code == 2
    for run in ("run", "repeat-1")[: len(errors)]:
        assert (kept / run / "run.json").is_file()
    if KeyboardInterrupt not in errors:
        assert f"the record is in {kept}" in capsys.readouterr().err


@pytest.mark.parametrize(("errors", "expected"), [([None, None], 0), ([UsageError], 2)])
def test_a_reference_that_is_stored_or_refused_leaves_nothing_behind(make, errors, expected):
    assert make(*errors) == (expected, [])


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_trained(make, tmp_path, capsys):
    (tmp_path / "store").touch()
    assert make(TrainingError) == (2, [])
    assert "cannot be written (Not a directory). Choose another place with --into." in capsys.readouterr().err


def test_a_name_that_is_taken_is_refused_before_anything_is_trained(make, tmp_path, capsys):
    name = "emanet_r50-d8_smoke/cpu-fp32"
    with claim_name(tmp_path / "store", name):
        assert make(TrainingError) == (2, [])
        assert "another emacheck is making this reference" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
    assert make(None) == (0, [])
    assert [path.name for path in (tmp_path / "store" / name).parent.iterdir()] == ["cpu-fp32"]
    assert make(TrainingError) == (2, [])
    assert "exists already" in capsys.readouterr().err


def test_a_name_that_is_let_go_of_while_it_is_claimed_is_claimed_by_one_only(tmp_path, monkeypatch):
    claim = tmp_path / "x" / ".cpu-fp32.claim"
    locked = []

    def lock(file, target):
        if not locked:
            claim.unlink()  # by whoever held it until now
        locked.append(file)
        _lock(file, target)

    monkeypatch.setattr(making, "_lock", lock)
    with claim_name(tmp_path, "x/cpu-fp32"):
        monkeypatch.undo()
        with pytest.raises(BundleError, match="just now"), claim_name(tmp_path, "x/cpu-fp32"):
            pass
    assert len(locked) == 2


def test_without_locks_a_name_is_claimed_and_a_bundle_that_exists_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "fcntl", None)
    with claim_name(tmp_path, "x/cpu-fp32"):
        assert not (tmp_path / "x" / "cpu-fp32").exists()
    (tmp_path / "x" / "cpu-fp32").mkdir(parents=True)
    with pytest.raises(BundleError, match="exists already"), claim_name(tmp_path, "x/cpu-fp32"):
        pass


def test_a_claim_that_a_killed_process_has_left_is_none(make, tmp_path):
    left = tmp_path / "store" / "emanet_r50-d8_smoke" / ".cpu-fp32.claim"
    left.parent.mkdir(parents=True)
    left.touch()
    assert make(None) == (0, [])


def test_a_reference_of_another_in_the_meantime_is_not_replaced_and_nothing_is_lost(make, tmp_path, capsys):
    target = tmp_path / "store" / "emanet_r50-d8_smoke" / "cpu-fp32"
    code, (kept,) = make(None, meanwhile=target.mkdir)
    assert code == 2
    assert list(target.iterdir()) == []
    assert (kept / "run" / "run.json").is_file()
    assert f"What was trained is kept in {kept}" in capsys.readouterr().err


def test_a_reference_that_cannot_be_stored_is_not_lost(make, tmp_path, capsys):
    def spoil():
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "store").touch()

    code, (kept,) = make(None, meanwhile=spoil)
    assert code == 2
    assert (kept / "run" / "run.json").is_file()
    assert f"What was trained is kept in {kept}" in capsys.readouterr().err
