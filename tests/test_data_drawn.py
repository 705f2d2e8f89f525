"""What the synthetic Cityscapes shows: random numbers, scenes, images."""

import struct
from io import BytesIO

import numpy as np
import pytest
from cityscapes_roots import FIRST_IMAGE, FIRST_LABEL
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from emacheck.data.cityscapes import DatasetSummary
from emacheck.data.png import encode_png
from emacheck.data.scene import draw_scene
from emacheck.data.scene.splitmix import SplitMix64


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
@settings(max_examples=30)
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


@pytest.mark.slow
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
