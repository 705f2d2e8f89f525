"""The synthetic Cityscapes on disk: always the same bytes, and nothing half-written."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cityscapes_roots import FIRST_IMAGE, FIRST_LABEL, SEED_0_HASH, files_below, names_in
from numpy.typing import NDArray

from emacheck.data import synthetic
from emacheck.data.cityscapes import DatasetSummary
from emacheck.data.manifest import Manifest, read_manifest
from emacheck.data.scene import draw_scene
from emacheck.data.synthetic import ensure_dataset, make_dataset
from emacheck.errors import DataError, OutputError, UsageError


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Seed 0 as two other processes made it in the same place at the same time, and what each of them said."""
    root = tmp_path_factory.mktemp("race") / "raced"
    code = (
        "import pathlib, sys\n"
        "from emacheck.data.synthetic import ensure_dataset\n"
        "print(ensure_dataset(pathlib.Path(sys.argv[1])).data_hash)"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(root)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": str(number)},
        )
        for number in (1, 2)
    ]
    return root, [child.communicate()[0].strip() for child in children]


def test_data_hash_of_seed_0_never_changes(made: DatasetSummary) -> None:
    assert made.data_hash == SEED_0_HASH


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(made: DatasetSummary, raced: tuple[Path, list[str]]) -> None:
    ours, theirs = files_below(made.root), files_below(raced[0])
    assert len(ours) == 2 * 72 + 1
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if ours[path] != theirs[path]] == []


@pytest.mark.slow
def test_two_processes_at_once_agree_and_leave_no_rubbish(raced: tuple[Path, list[str]]) -> None:
    root, said = raced
    assert said == [SEED_0_HASH, SEED_0_HASH]
    assert names_in(root.parent) == ["raced"]


def test_names_are_those_of_cityscapes(made: DatasetSummary) -> None:
    assert (made.root / FIRST_IMAGE).is_file()
    assert (made.root / FIRST_LABEL).is_file()
    assert (made.root / "leftImg8bit/train/synthetia").is_dir()
    assert (made.kind, made.train_pairs, made.val_pairs) == ("synthetic", 64, 8)


def test_data_set_stays_under_60_megabytes(made: DatasetSummary) -> None:
    assert sum(map(len, files_below(made.root).values())) < 60e6


def test_manifest_lists_every_file_and_the_total_hash(made: DatasetSummary) -> None:
    content = json.loads((made.root / "manifest.json").read_text())
    assert content["format_version"] == 1
    assert content["generator"] == {"name": "emacheck synthetic Cityscapes", "version": 1}
    assert (content["seed"], content["image_size"]) == (0, {"width": 512, "height": 256})
    assert content["data_hash"] == SEED_0_HASH
    assert list(content["files"]) == sorted(files_below(made.root).keys() - {"manifest.json"})


def test_making_it_again_verifies_and_succeeds(made: DatasetSummary) -> None:
    before = (made.root / "manifest.json").stat().st_mtime_ns
    assert make_dataset(made.root).data_hash == made.data_hash
    assert "already there" in make_dataset(made.root).notes[-1]
    assert (made.root / "manifest.json").stat().st_mtime_ns == before


def test_making_it_in_an_empty_directory_or_through_a_link_to_one_works(
    tmp_path: Path, made: DatasetSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "_write", copier(made.root))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert make_dataset(tmp_path / "link").data_hash == SEED_0_HASH
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path) == ["empty", "link"]


def copier(source: Path) -> Callable[[Path, int], Manifest]:
    def write(workplace: Path, seed: int) -> Manifest:
        shutil.copytree(source, workplace, dirs_exist_ok=True)
        return read_manifest(workplace)

    return write


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"not empty.*nothing was written\. Fix: name another directory\.$"):
        make_dataset(tmp_path)
    assert files_below(tmp_path) == {"thesis.txt": b"precious"}


def test_a_real_data_set_is_left_alone_and_nobody_is_told_to_delete_it(real: Path) -> None:
    for make in (make_dataset, ensure_dataset):
        with pytest.raises((OutputError, DataError), match="Fix: name another directory") as caught:
            make(real)
        assert "delete" not in str(caught.value)


def test_another_seed_in_the_same_place_is_refused(made: DatasetSummary) -> None:
    with pytest.raises(OutputError, match=r"found seed 0.*expected the synthetic data set of seed 1"):
        make_dataset(made.root, seed=1)
    with pytest.raises(DataError, match=r"found seed 0.*emacheck data make .* --seed 1"):
        ensure_dataset(made.root, seed=1)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(UsageError, match="expected a whole number from 0"):
        make_dataset(tmp_path / "new", seed=seed)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"found a file"):
        make_dataset(tmp_path / "file")
    with pytest.raises(OutputError, match=r"cannot be written"):
        make_dataset(tmp_path / "file" / "below")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a place that nobody can write")
def test_a_place_that_cannot_be_written_is_an_output_error() -> None:
    with pytest.raises(OutputError, match=r"cannot be written.*Fix: name another directory"):
        make_dataset(Path("/proc/emacheck/data"))
    with pytest.raises(OutputError, match=r"set EMACHECK_CACHE to such a directory \(the cache is /proc/emacheck\)"):
        ensure_dataset(Path("/proc/emacheck/data"))


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(workplace: Path, seed: int) -> Manifest:
        (workplace / "half").write_text("")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(synthetic, "_write", full)
    with pytest.raises(OutputError, match="No space left on device"):
        make_dataset(tmp_path / "new")
    assert names_in(tmp_path) == []


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted(*key: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        calls.append(key)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw_scene(*key)

    monkeypatch.setattr(synthetic, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path / "new" / "deep" / "root")
    assert names_in(tmp_path) == []


def test_who_loses_the_race_verifies_the_winner(
    tmp_path: Path, made: DatasetSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(workplace: Path, seed: int) -> Manifest:
        shutil.copytree(made.root, tmp_path / "root")
        return copier(made.root)(workplace, seed)

    monkeypatch.setattr(synthetic, "_write", overtaken)
    assert ensure_dataset(tmp_path / "root").data_hash == SEED_0_HASH
    assert names_in(tmp_path) == ["root"]


def test_who_loses_the_race_to_something_broken_says_so(
    tmp_path: Path, made: DatasetSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(workplace: Path, seed: int) -> Manifest:
        shutil.copytree(made.root, tmp_path / "root")
        (tmp_path / "root" / FIRST_LABEL).unlink()
        return copier(made.root)(workplace, seed)

    monkeypatch.setattr(synthetic, "_write", overtaken)
    with pytest.raises(DataError, match="1 missing"):
        ensure_dataset(tmp_path / "root")


def test_a_machine_that_draws_other_pixels_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(workplace: Path, seed: int) -> Manifest:
        return Manifest(seed=0, generator_version=1, width=512, height=256, files={"a": "0" * 64})

    monkeypatch.setattr(synthetic, "_write", wrong)
    with pytest.raises(DataError, match=f"expected {SEED_0_HASH} as on every machine"):
        make_dataset(tmp_path / "new")
    assert names_in(tmp_path) == []
