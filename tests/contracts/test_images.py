"""Images: what is refused, and resizing that is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.contracts.errors import TensorError
from limpet.contracts.images import (
    ImagePreprocessing,
    as_rgb,
    check_image,
    crop_to_aspect,
    preprocess,
    resize_area,
)


def random_image(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def test_halving_is_the_mean_of_four_pixels() -> None:
    image = random_image(32, 48)
    four = image.reshape(16, 2, 24, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_area(image, 16, 24), four, atol=1e-4)


def test_a_fractional_factor_weighs_pixels_by_what_they_overlap() -> None:
    row = np.array([0, 60, 120], np.uint8)
    image = np.broadcast_to(row[None, :, None], (16, 3, 3))
    # 3 → 2: the first covers pixel 0 and half of pixel 1.
    np.testing.assert_allclose(resize_area(image, 16, 2)[0, :, 0], [20.0, 100.0], atol=1e-4)


def test_enlarging_by_a_whole_factor_repeats_pixels() -> None:
    image = random_image(16, 16)
    np.testing.assert_allclose(resize_area(image, 32, 48), image.repeat(2, 0).repeat(3, 1))


@settings(max_examples=30)
@given(
    rows=st.integers(16, 70), columns=st.integers(16, 70), height=st.integers(1, 70),
    width=st.integers(1, 70),
)  # fmt: skip
def test_resizing_keeps_the_mean(rows: int, columns: int, height: int, width: int) -> None:
    image = random_image(rows, columns)
    small = resize_area(image, height, width)
    assert small.shape == (height, width, 3)
    np.testing.assert_allclose(small.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=1e-2)


@pytest.mark.parametrize(
    ("rows", "columns", "kept"), [(480, 640, (480, 480)), (100, 60, (60, 60)), (64, 64, (64, 64))]
)
def test_the_centre_is_cut_out(rows: int, columns: int, kept: tuple[int, int]) -> None:
    image = random_image(rows, columns)
    cut = crop_to_aspect(image, 128, 128)
    assert cut.shape[:2] == kept
    top, left = (rows - kept[0]) // 2, (columns - kept[1]) // 2
    assert np.array_equal(cut[0, 0], image[top, left])


def test_any_camera_size_becomes_the_encoders_input() -> None:
    how = ImagePreprocessing()
    grey = np.full((480, 640, 3), 255, np.uint8)
    x = preprocess(grey, how)
    assert x.shape == (3, 128, 128)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, 2.0, atol=1e-5)  # (1 - 0.5) / 0.25


def test_channels_are_normalised_each_by_its_own() -> None:
    how = ImagePreprocessing(width=16, height=16, mean=(0.0, 0.5, 1.0), scale=(1.0, 0.5, 2.0))
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 255
    assert preprocess(image, how)[:, 0, 0].tolist() == [1.0, -1.0, -0.5]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("cat.png", "found str"),
        (np.zeros((64, 64, 3), np.float32), "image is float32"),
        (np.zeros((64, 64), np.uint8), "as_rgb"),
        (np.zeros((64, 64, 4), np.uint8), "as_rgb"),
        (np.zeros((3, 64, 64), np.uint8), "channels-first"),
        (np.zeros((8, 64, 3), np.uint8), "8 rows and 64 columns, wanted 16 to 8192"),
        (np.zeros((0, 64, 3), np.uint8), "0 rows"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_found(image: object, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        check_image(image)


def test_a_known_channel_order_is_put_right() -> None:
    image = random_image(16, 16)
    alpha = np.full((16, 16, 1), 7, np.uint8)
    assert np.array_equal(as_rgb(image[..., ::-1].copy(), "bgr"), image)
    assert np.array_equal(as_rgb(np.concatenate([image, alpha], 2), "rgba"), image)
    assert np.array_equal(as_rgb(np.concatenate([image[..., ::-1], alpha], 2), "bgra"), image)
    assert np.array_equal(as_rgb(image[..., 0], "mono"), image[..., :1].repeat(3, 2))


def test_an_order_that_the_array_contradicts_is_refused() -> None:
    with pytest.raises(TensorError, match="wanted 4 channels"):
        as_rgb(random_image(16, 16), "bgra")
    with pytest.raises(TensorError, match="channel order 'yuv'"):
        as_rgb(random_image(16, 16), "yuv")  # type: ignore[arg-type]
