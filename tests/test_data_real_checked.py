"""A real Cityscapes is checked by names, sizes and samples."""

import errno
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from cityscapes_roots import write_pair, write_png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from emacheck.data.cityscapes import check_dataset, fingerprint_dataset, image_path, label_path
from emacheck.errors import DataError


def test_a_real_root_is_fine(real: Path) -> None:
    found = check_dataset(real)
    assert (found.kind, found.train_pairs, found.val_pairs, found.decoded) == ("real", 6, 1, 7)
    assert any("not contents" in note for note in found.notes)


def test_the_hash_of_a_real_root_follows_names_and_sizes_only(real: Path, tmp_path: Path) -> None:
    first = fingerprint_dataset(real).data_hash
    moved = shutil.copytree(real, tmp_path / "elsewhere")
    (moved / "gtFine/train/aachen/aachen_000000_000000_gtFine_color.png").write_bytes(b"not used")
    assert fingerprint_dataset(moved).data_hash == first
    label = moved / label_path("train", "aachen/aachen_000000_000000")
    label.write_bytes(label.read_bytes() + b"\0")
    assert fingerprint_dataset(moved).data_hash != first


def test_a_large_real_root_is_sampled_unless_all_is_asked_for(tmp_path: Path) -> None:
    for frame in range(401):
        write_pair(tmp_path, "train", f"aachen/aachen_000000_{frame:06d}")
    write_pair(tmp_path, "val", "frankfurt/frankfurt_000000_000294")
    assert check_dataset(tmp_path).decoded == 134 + 1  # every third of 401
    assert check_dataset(tmp_path, decode_all=True).decoded == 402
    write_pair(tmp_path, "train", "aachen/aachen_000000_000001", label=20)
    assert check_dataset(tmp_path).decoded == 135
    with pytest.raises(DataError, match="label values 20"):
        check_dataset(tmp_path, decode_all=True)


def test_a_missing_directory_an_empty_one_and_a_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, complaint in (("none", "found nothing"), ("empty", "it is empty"), ("file", "found a file")):
        with pytest.raises(DataError, match=complaint):
            check_dataset(tmp_path / name)


def test_a_wrong_level_is_told_by_what_it_holds(real: Path) -> None:
    with pytest.raises(DataError, match=r"leftImg8bit/train, .* missing; it holds 'real'"):
        check_dataset(real.parent)
    shutil.rmtree(real / "gtFine/val")
    with pytest.raises(DataError, match=r"gtFine/val missing; it holds 'gtFine', 'leftImg8bit'"):
        check_dataset(real)


def test_a_split_without_images_is_refused(real: Path) -> None:
    for path in (real / "leftImg8bit/val").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"leftImg8bit/val: no image found"):
        check_dataset(real)


def test_images_without_labels_are_named_and_counted(real: Path) -> None:
    for frame in range(6):
        (real / label_path("train", f"aachen/aachen_000000_{frame:06d}")).unlink()
    with pytest.raises(DataError, match=r"6 images of train have no .*aachen_000000_000004.* and 1 more.*gtFine_tr"):
        check_dataset(real)


def test_labels_without_images_are_named_and_counted(real: Path) -> None:
    (real / image_path("train", "aachen/aachen_000000_000002")).unlink()
    with pytest.raises(DataError, match=r"1 label files of train have no image: 'gtFine/train/aachen/aachen_000000_0"):
        check_dataset(real)


@pytest.mark.parametrize("suffix", ["_gtFine_labelIds.png", "_gtFine_polygons.json"])
def test_label_ids_alone_lead_to_the_tool_that_makes_train_ids(real: Path, suffix: str) -> None:
    for label in (real / "gtFine").rglob("*_labelTrainIds.png"):
        label.rename(str(label).replace("_gtFine_labelTrainIds.png", suffix))
    with pytest.raises(DataError) as caught:
        check_dataset(real)
    assert f"*{suffix} but no labelTrainIds" in str(caught.value)
    assert f"CITYSCAPES_DATASET={real} csCreateTrainIdLabelImgs" in str(caught.value)
    assert "tools/dataset_converters/cityscapes.py" in str(caught.value)


@pytest.mark.parametrize(("value", "guess"), [(26, "look like labelIds"), (100, "create the labelTrainIds again")])
def test_a_wrong_label_value_is_named_with_a_guess(real: Path, value: int, guess: str) -> None:
    write_pair(real, "val", "frankfurt/frankfurt_000000_000294", label=value)
    with pytest.raises(DataError, match=rf"label values {value}; expected only 0 to 18 and 255.*{guess}"):
        check_dataset(real)


def test_labels_of_another_size_are_refused(real: Path) -> None:
    write_png(real / label_path("val", "frankfurt/frankfurt_000000_000294"), np.zeros((8, 8), dtype=np.uint8))
    with pytest.raises(DataError, match=r"labels of 8x8 pixels for an image of 16x8"):
        check_dataset(real)


def test_pixels_of_another_mode_are_refused(real: Path) -> None:
    path = real / label_path("val", "frankfurt/frankfurt_000000_000294")
    write_png(path, np.zeros((8, 16, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"labelTrainIds.png: the pixels are of mode RGB, expected L or P"):
        check_dataset(real)


@pytest.mark.parametrize("kept", [0, 4, 20, 60, 150])
def test_a_truncated_png_is_named(real: Path, kept: int) -> None:
    path = real / image_path("train", "aachen/aachen_000000_000003")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"aachen_000000_000003_leftImg8bit.png: it cannot be decoded"):
        check_dataset(real)


def test_another_format_under_the_name_of_a_png_is_named(real: Path) -> None:
    Image.new("RGB", (16, 8)).save(real / image_path("train", "aachen/aachen_000000_000003"), format="JPEG")
    with pytest.raises(DataError, match="it cannot be decoded"):
        check_dataset(real)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_by_name(real: Path, side: int) -> None:
    path = real / image_path("train", "aachen/aachen_000000_000003")
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"000003_leftImg8bit.png: it cannot be decoded .*decompression bomb"):
        check_dataset(real)


@given(position=st.integers(0, 400), value=st.integers(0, 255))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damaged_png_makes_it_crash(real: Path, position: int, value: int) -> None:
    path = real / image_path("val", "frankfurt/frankfurt_000000_000294")
    write_pair(real, "val", "frankfurt/frankfurt_000000_000294")
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    try:
        check_dataset(real)
    except DataError as error:
        complaint = str(error)
    else:
        complaint = f"none about {path}"
    assert str(path) in complaint


def test_hidden_files_and_directories_named_like_images_are_no_images(real: Path) -> None:
    (real / "leftImg8bit/train/aachen/._aachen_000000_000000_leftImg8bit.png").write_bytes(b"")
    (real / "leftImg8bit/train/aachen/folder_leftImg8bit.png").mkdir()
    assert check_dataset(real).train_pairs == 6


def test_links_are_followed_once(real: Path) -> None:
    """The real data set is often a farm of links, and a link may lead back up."""
    (real / "leftImg8bit").rename(real / "big")
    (real / "leftImg8bit").symlink_to("big")
    (real / "big/train/aachen/loop").symlink_to("..")
    assert check_dataset(real).train_pairs == 6


def test_an_unreadable_directory_is_named(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("aachen"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"aachen: the directory cannot be read \(Permission denied\)"):
        check_dataset(real)


def test_an_unreadable_file_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path_open = Path.open

    def refuse(path: Path, mode: str) -> object:
        if path.name.startswith("mockstadt_000003"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return path_open(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"mockstadt_000003.*the file cannot be read \(Permission denied\)"):
        check_dataset(copy)
