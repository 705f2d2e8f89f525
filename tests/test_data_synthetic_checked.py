"""A synthetic Cityscapes is checked against its manifest."""

import json
import os
from pathlib import Path

import pytest
from cityscapes_roots import FIRST_IMAGE, SEED_0_HASH
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emacheck.data.cityscapes import DatasetSummary, check_dataset, fingerprint_dataset, image_path, label_path
from emacheck.data.manifest import Manifest, is_synthetic, read_manifest
from emacheck.data.synthetic import ensure_dataset, make_dataset
from emacheck.errors import DataError, OutputError


def test_a_fresh_synthetic_data_set_is_fine_and_wholly_decoded(made: DatasetSummary) -> None:
    found = check_dataset(made.root)
    assert (found.kind, found.data_hash, found.decoded) == ("synthetic", SEED_0_HASH, 72)
    assert fingerprint_dataset(made.root).decoded == 0


def test_changed_missing_and_extra_files_are_named_and_counted(copy: Path) -> None:
    content = bytearray((copy / FIRST_IMAGE).read_bytes())
    content[5000] ^= 1
    (copy / FIRST_IMAGE).write_bytes(content)
    for path in (copy / "gtFine/val/mockstadt").iterdir():
        path.unlink()
    (copy / "leftImg8bit/train/noiseheim/new_leftImg8bit.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        ensure_dataset(copy)
    text = str(caught.value)
    assert f"1 changed: '{FIRST_IMAGE}'" in text
    assert "8 missing: 'gtFine/val/mockstadt/mockstadt_000000_000019" in text
    assert "and 3 more" in text
    assert "1 extra: 'leftImg8bit/train/noiseheim/new_leftImg8bit.png'" in text
    assert f"Fix: delete the directory and run: emacheck data make {copy} --seed 0" in text
    assert "remove the extra" not in text


def test_files_too_many_need_only_be_removed(copy: Path) -> None:
    (copy / "notes.txt").touch()
    with pytest.raises(DataError, match=r"1 extra: 'notes\.txt'.*Fix: remove the extra files\.$"):
        check_dataset(copy)


def test_a_spoilt_data_set_is_not_made_over_and_the_way_out_is_said_once(copy: Path) -> None:
    (copy / FIRST_IMAGE).write_bytes((copy / FIRST_IMAGE).read_bytes()[:100])
    with pytest.raises(OutputError) as caught:
        make_dataset(copy)
    assert "nothing was written" in str(caught.value)
    assert str(caught.value).count("Fix:") == 1
    assert f"Fix: delete the directory and run: emacheck data make {copy} --seed 0" in str(caught.value)


def test_a_link_in_place_of_a_file_counts_as_changed(copy: Path) -> None:
    (copy / FIRST_IMAGE).unlink()
    (copy / FIRST_IMAGE).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="1 changed"):
        check_dataset(copy)


def test_a_linked_directory_counts_as_extra(copy: Path) -> None:
    (copy / "leftImg8bit/train/more").symlink_to(copy / "leftImg8bit/val", target_is_directory=True)
    with pytest.raises(DataError, match="1 extra: 'leftImg8bit/train/more'"):
        check_dataset(copy)


def test_files_changed_together_with_the_manifest_do_not_pass_for_seed_0(copy: Path) -> None:
    stem = "noiseheim/noiseheim_000000_000019"
    gone = {image_path("train", stem), label_path("train", stem)}
    for path in gone:
        (copy / path).unlink()
    files = {path: digest for path, digest in read_manifest(copy).files.items() if path not in gone}
    forged = Manifest(seed=0, generator_version=1, width=512, height=256, files=files)
    (copy / "manifest.json").write_text(forged.to_json())
    with pytest.raises(DataError, match=f"expected {SEED_0_HASH} as on every machine"):
        check_dataset(copy)


@pytest.mark.parametrize("path", ["../outside.png", "/etc/passwd", "a/../b", "a//b", "", ".", "a\\b", "./a"])
def test_a_manifest_that_points_elsewhere_is_refused(copy: Path, path: str) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    content["files"][path] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"'files' names .*expected plain relative paths"):
        check_dataset(copy)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "does not hold a JSON object"),
        ("[" * 200_000, "nested too deeply|not JSON"),
        ('{"a":' * 100_000, "nested too deeply|not JSON"),
        ("\x00", "not JSON"),
        (" " * 5_000_000, "longer than"),
        ('{"generator": {"name": "other"}}', "'generator' does not name"),
        ('{"seed": ' + "9" * 10_000 + "}", "not JSON|'generator'"),
    ],
)
def test_a_corrupt_manifest_is_refused(real: Path, text: str, complaint: str) -> None:
    (real / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=complaint):
        check_dataset(real)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("format_version", 2, "'format_version' is 2, this emacheck reads 1"),
        ("seed", -1, "'seed' is -1"),
        ("seed", True, "'seed' is True"),
        ("seed", "0", "'seed' is '0'"),
        ("image_size", None, "'image_size' is not an object"),
        ("image_size", {"width": 512}, "'height' is None"),
        ("files", [], "'files' is not an object"),
        ("files", {"a": "xyz"}, "expected 64 hexadecimal digits"),
        ("files", {"a": 3}, "expected 64 hexadecimal digits"),
        ("data_hash", "0", "'data_hash' is '0', its list of files gives"),
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused(copy: Path, key: str, value: object, complaint: str) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    content[key] = value
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=complaint):
        check_dataset(copy)


def test_a_pipe_in_the_place_of_a_manifest_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    assert not is_synthetic(tmp_path)
    with pytest.raises(DataError, match="not a regular file"):
        check_dataset(tmp_path)


def test_a_manifest_that_is_a_directory_or_a_broken_link_is_refused(real: Path) -> None:
    (real / "manifest.json").symlink_to("nowhere")
    with pytest.raises(DataError, match="not a regular file"):
        check_dataset(real)
    (real / "manifest.json").unlink()
    (real / "manifest.json").mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        check_dataset(real)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    content=st.fixed_dictionaries(
        {},
        optional={
            "format_version": st.just(1) | json_values,
            "generator": st.just({"name": "emacheck synthetic Cityscapes", "version": 1}) | json_values,
            "seed": st.just(0) | json_values,
            "image_size": st.just({"width": 1, "height": 1}) | json_values,
            "files": st.dictionaries(st.text(max_size=5), st.just("0" * 64), max_size=3) | json_values,
            "data_hash": json_values,
        },
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_manifest_makes_it_crash(tmp_path: Path, content: object) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError):
        read_manifest(tmp_path)


def test_a_synthetic_data_set_without_its_manifest_is_not_taken_for_a_real_one(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"synthetic data set, but its manifest.json is missing"):
        check_dataset(copy)
