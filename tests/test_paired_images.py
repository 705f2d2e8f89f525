"""Images are computed alike on every host: what takes OpenCV's place is what it computes on x86, bit for bit."""

import platform

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emacheck.train.paired import images

on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="OpenCV rounds as on x86 only where it was built for it"
)
SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))
PIXELS = st.tuples(SIZES, st.sampled_from([(), (1,), (3,), (4,)])).flatmap(
    lambda shape: arrays(np.uint8, shape[0] + shape[1])
)


@on_x86
@given(image=PIXELS, size=SIZES)
def test_an_image_is_resized_to_any_size_as_on_x86(image, size):
    expected = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(images.resize(image, *size).reshape(expected.shape), expected)


@on_x86
@given(image=arrays(np.uint8, st.tuples(st.integers(2, 30), st.integers(2, 30), st.just(3))))
def test_an_image_is_halved_as_on_x86(image):
    image = image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]
    size = image.shape[1] // 2, image.shape[0] // 2
    assert np.array_equal(images.resize(image, *size), cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))


@on_x86
def test_every_colour_has_the_hue_saturation_and_value_of_x86():
    levels = np.arange(256, dtype=np.uint8)
    for blue in levels:
        colours = np.stack(np.broadcast_arrays(blue, levels[:, None], levels), axis=-1)
        assert np.array_equal(images.to_hsv(colours), cv2.cvtColor(colours, cv2.COLOR_BGR2HSV))


@on_x86
def test_where_opencv_rounds_as_on_x86_it_is_left_alone():
    theirs = cv2.resize, cv2.cvtColor
    with images.as_on_x86():
        assert (cv2.resize, cv2.cvtColor) == theirs


def test_in_the_place_of_opencv_is_put_what_differs_and_everything_else_is_its_own():
    theirs = cv2.resize, cv2.cvtColor
    image = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)
    with images.as_on_x86(anyway=True):
        assert (cv2.resize, cv2.cvtColor) != theirs
        for same in (
            cv2.resize(image, (53, 37)),
            cv2.resize(image, (53, 37), None, 0, 0, cv2.INTER_LINEAR),
            cv2.resize(image, (53, 37), dst=None, interpolation=cv2.INTER_LINEAR),
        ):
            assert np.array_equal(same, images.resize(image, 53, 37))
        assert np.array_equal(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), images.to_hsv(image))
        for asked in ({"interpolation": cv2.INTER_NEAREST}, {"interpolation": cv2.INTER_AREA}):
            assert np.array_equal(cv2.resize(image, (53, 37), **asked), theirs[0](image, (53, 37), **asked))
        halved = theirs[0](image, None, fx=0.5, fy=0.5)
        assert np.array_equal(cv2.resize(image, None, fx=0.5, fy=0.5), halved)
        into = np.empty((37, 53, 3), np.uint8)
        assert cv2.resize(image, (53, 37), into) is into
        floats = image.astype(np.float32)
        assert np.array_equal(cv2.resize(floats, (53, 37)), theirs[0](floats, (53, 37)))
        back = cv2.cvtColor(image, cv2.COLOR_HSV2BGR)
    assert np.array_equal(back, cv2.cvtColor(image, cv2.COLOR_HSV2BGR))
    assert (cv2.resize, cv2.cvtColor) == theirs


def test_the_images_themselves_never_change():
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
    assert images.resize(image, 3, 2)[0].tolist() == [[34, 38, 42], [54, 58, 62], [74, 78, 82]]
    assert images.to_hsv(image)[0, :2].tolist() == [[15, 255, 8], [15, 102, 20]]
