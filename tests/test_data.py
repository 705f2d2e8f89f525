"""The data room: the synthetic Cityscapes, and the checks of any Cityscapes."""

import errno
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from emacheck.cli.data import data
from emacheck.data import synthetic
from emacheck.data.cityscapes import DatasetSummary, check_dataset, fingerprint_dataset, image_path, label_path
from emacheck.data.manifest import Manifest, first_few, read_manifest
from emacheck.data.png import encode_png
from emacheck.data.scene import draw_scene
from emacheck.data.scene.splitmix import SplitMix64
from emacheck.data.synthetic import cache_root, ensure_dataset, make_dataset
from emacheck.errors import DataError, OutputError, UsageError

SEED_0_HASH = "9b335918d618e2bd0763ca0417ae24e97931d1ee4631b4070a81b8478172d65b"
FORBIDDEN = ["torch", "mmengine", "mmseg", "mmcv", "cv2", "matplotlib"]
FIRST_IMAGE = "leftImg8bit/train/noiseheim/noiseheim_000000_000019_leftImg8bit.png"
FIRST_LABEL = "gtFine/train/noiseheim/noiseheim_000000_000019_gtFine_labelTrainIds.png"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> DatasetSummary:
    """Seed 0, shared by every test; nobody may write into it."""
    return make_dataset(tmp_path_factory.mktemp("data") / "made")


@pytest.fixture
def copy(made: DatasetSummary, tmp_path: Path) -> Path:
    """A copy of seed 0 to spoil."""
    return Path(shutil.copytree(made.root, tmp_path / "copy"))


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


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))


def write_pair(root: Path, split: str, stem: str, label: int = 0) -> None:
    write_png(root / image_path(split, stem), np.full((8, 16, 3), 90, dtype=np.uint8))
    write_png(root / label_path(split, stem), np.full((8, 16), label, dtype=np.uint8))


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A tiny root with the names of the real Cityscapes."""
    root = tmp_path / "real"
    for frame in range(6):
        write_pair(root, "train", f"aachen/aachen_000000_{frame:06d}", label=frame)
    write_pair(root, "val", "frankfurt/frankfurt_000000_000294", label=255)
    return root


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files_below(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# --- what is drawn -------------------------------------------------------------------------------------------------


def test_splitmix_gives_the_published_numbers() -> None:
    random = SplitMix64(1234567)
    assert [random.word() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(state=st.integers(0, 2**64 - 1), count=st.integers(0, 40))
def test_octets_are_the_words_in_order(state: int, count: int) -> None:
    vectorised, scalar = SplitMix64(state), SplitMix64(state)
    words = b"".join(struct.pack("<Q", scalar.word()) for _ in range(-(-count // 8)))
    assert vectorised.octets(count).tobytes() == words[:count]
    assert vectorised.word() == scalar.word()


@given(state=st.integers(0, 2**64 - 1), low=st.integers(-50, 50), span=st.integers(0, 60))
def test_between_stays_between(state: int, low: int, span: int) -> None:
    assert low <= SplitMix64(state).between(low, low + span) <= low + span


@given(
    pixels=hnp.arrays(
        np.uint8,
        st.one_of(
            st.tuples(st.integers(1, 300), st.integers(1, 300)),
            st.tuples(st.integers(1, 90), st.integers(1, 300), st.just(3)),
        ),
        elements=st.integers(0, 255),
        fill=st.integers(0, 255),
    )
)
@settings(max_examples=30, deadline=None)
def test_encoded_png_is_decoded_by_pillow_to_the_same_pixels(pixels: NDArray[np.uint8]) -> None:
    with Image.open(BytesIO(encode_png(pixels))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (4, 4, 4), (2, 0, 3)])
def test_encoder_refuses_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected uint8 pixels"):
        encode_png(np.zeros(shape, dtype=np.uint8))


def test_encoder_refuses_floats() -> None:
    with pytest.raises(ValueError, match="float64"):
        encode_png(np.zeros((2, 2)))  # type: ignore[arg-type]


def test_every_class_is_in_at_least_ten_train_images(made: DatasetSummary) -> None:
    images = np.zeros(256, dtype=int)
    for path in (made.root / "gtFine/train").rglob("*.png"):
        with Image.open(path) as labels:
            images[np.unique(np.asarray(labels))] += 1
    assert images[:19].min() >= 10
    assert images[255] == 64
    assert images[19:255].sum() == 0


def test_classes_are_frequent_under_another_seed_too() -> None:
    counts = np.array([np.bincount(draw_scene(1, 0, i)[1].ravel(), minlength=256)[:19] >= 100 for i in range(64)])
    assert counts.sum(axis=0).min() >= 10


def test_images_and_labels_have_the_promised_shape(made: DatasetSummary) -> None:
    with Image.open(made.root / FIRST_IMAGE) as image, Image.open(made.root / FIRST_LABEL) as labels:
        assert (image.size, image.mode) == ((512, 256), "RGB")
        assert (labels.size, labels.mode) == ((512, 256), "L")


def test_scenes_differ_between_seeds_splits_and_indices() -> None:
    scenes = [draw_scene(*key)[0].tobytes() for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len(set(scenes)) == 4


# --- what is written -----------------------------------------------------------------------------------------------


def test_data_hash_of_seed_0_never_changes(made: DatasetSummary) -> None:
    assert made.data_hash == SEED_0_HASH


def test_two_processes_write_the_same_bytes(made: DatasetSummary, raced: tuple[Path, list[str]]) -> None:
    ours, theirs = files_below(made.root), files_below(raced[0])
    assert len(ours) == 2 * 72 + 1
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if ours[path] != theirs[path]] == []


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
    with pytest.raises(OutputError, match=r"not empty.*nothing was written.*Fix: name another directory"):
        make_dataset(tmp_path)
    assert files_below(tmp_path) == {"thesis.txt": b"precious"}


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


# --- the synthetic one, checked ------------------------------------------------------------------------------------


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
    assert f"emacheck data make {copy} --seed 0" in text


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
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_manifest_makes_it_crash(tmp_path: Path, content: object) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError):
        read_manifest(tmp_path)


def test_a_synthetic_data_set_without_its_manifest_is_not_taken_for_a_real_one(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"synthetic data set, but its manifest.json is missing"):
        check_dataset(copy)


# --- a real one, checked -------------------------------------------------------------------------------------------


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
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


# --- the cache and the command line --------------------------------------------------------------------------------


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/eve")
    monkeypatch.delenv("EMACHECK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == Path("/home/eve/.cache/emacheck")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_root() == Path("/home/eve/.cache/emacheck")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_root() == Path("/var/cache/emacheck")
    monkeypatch.setenv("EMACHECK_CACHE", "/scratch")
    assert cache_root() == Path("/scratch")
    monkeypatch.setenv("EMACHECK_CACHE", "~/here")
    assert cache_root() == Path("/home/eve/here")


def test_no_home_at_all_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMACHECK_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(UsageError, match="set EMACHECK_CACHE to a directory"):
        cache_root()


def test_the_commands_say_what_they_did(made: DatasetSummary, real: Path) -> None:
    result = CliRunner().invoke(data, ["make", str(made.root)])
    assert result.exit_code == 0
    assert "64 train + 8 val pairs" in result.output
    assert "already there" in result.output
    assert SEED_0_HASH in result.output
    result = CliRunner().invoke(data, ["check", str(made.root)])
    assert result.exit_code == 0
    assert "Decoded 72 of 72 pairs; nothing wrong found." in result.output
    result = CliRunner().invoke(data, ["check", "--all", str(real)])
    assert result.exit_code == 0
    assert "real Cityscapes, 6 train + 1 val pairs." in result.output


def test_the_commands_raise_what_the_outer_boundary_prints(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert isinstance(CliRunner().invoke(data, ["check", str(tmp_path)]).exception, DataError)
    assert isinstance(CliRunner().invoke(data, ["make", str(tmp_path)]).exception, OutputError)
    assert CliRunner().invoke(data, ["make", str(tmp_path / "new"), "--seed", "-1"]).exit_code == 2


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, emacheck.cli.data\n"
        "assert not {'PIL', 'emacheck.data.scene'} & sys.modules.keys()\n"
        "import emacheck.data.cityscapes, emacheck.data.synthetic\n"
        f"assert not set({FORBIDDEN}) & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_first_few_are_quoted_and_counted() -> None:
    assert first_few(["x\x1b[31m"]) == r"'x\x1b[31m'"
    assert first_few("gfedcba", limit=3) == "'a', 'b', 'c' and 4 more"
