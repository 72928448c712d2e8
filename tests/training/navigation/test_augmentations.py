"""Augmentations: exact where nothing is changed, and geometry that follows the mirror."""

from __future__ import annotations

import numpy as np
import torch

from limpet.contracts.images import ImagePreprocessing, normalize
from limpet.training.navigation.augmentations import (
    BRIGHTER,
    color_maps,
    crop,
    crop_maps,
    flip,
    flip_goals,
    flip_scans,
    to_input,
)
from limpet.training.navigation.camera import Lidar

HOW = ImagePreprocessing(width=8, height=8, mean=(0.4, 0.5, 0.6), scale=(0.2, 0.25, 0.3))
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
SAME = np.broadcast_to(np.eye(3, dtype=np.float32), (4, 3, 3)).copy()


def test_without_a_change_of_colour_it_is_the_robot_s_own_preprocessing() -> None:
    found = to_input(torch.from_numpy(IMAGES), HOW, SAME, np.zeros((4, 3), np.float32))
    np.testing.assert_allclose(found.numpy(), normalize(IMAGES, HOW), atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_brightness_is_clipped_as_a_camera_clips() -> None:
    found = to_input(torch.from_numpy(IMAGES), HOW, 2 * SAME, np.zeros((4, 3), np.float32))
    brighter = np.minimum(IMAGES.astype(np.float32) * 2, 255)
    np.testing.assert_allclose(found.numpy(), normalize(brighter, HOW), atol=1e-5)


def test_only_the_share_that_is_asked_for_is_brightened() -> None:
    rng = np.random.default_rng(1)
    matrix, offset = color_maps(400, rng, brightened=0.5, jitter=0.0)
    factor = matrix[:, 0].sum(axis=1)
    bright = factor > 1.0 + 1e-6
    assert 0.4 < bright.mean() < 0.6
    assert (factor[bright] >= BRIGHTER[0] - 1e-6).all()
    assert (factor[bright] <= BRIGHTER[1] + 1e-6).all()
    assert np.abs(matrix[~bright] - np.eye(3)).max() < 1e-6
    assert not offset.any()


def test_jitter_changes_colours_and_keeps_grey_within_its_balance() -> None:
    matrix, _ = color_maps(50, np.random.default_rng(2), brightened=0.0, jitter=0.3)
    assert matrix[:, 0, 0].std() > 0.1
    assert np.abs(matrix[:, 0, 1]).max() > 0.05  # saturation mixes channels


def test_scans_and_goals_follow_the_mirror() -> None:
    lidar = Lidar(beams=12)
    bearing = (lidar.angles + np.pi) % (2 * np.pi) - np.pi
    scan = np.where(bearing > 0, 1.0, 2.0).astype(np.float32)[None]
    mirrored = flip_scans(scan, np.array([True]))
    for angle, value in zip(bearing, mirrored[0], strict=True):
        (twin,) = scan[0, np.isclose(np.cos(bearing), np.cos(angle))
                       & np.isclose(np.sin(bearing), -np.sin(angle))]  # fmt: skip
        assert value == twin
    assert (flip_scans(scan, np.array([False])) == scan).all()
    goals = np.array([[2.0, 0.5], [3.0, -1.0]], np.float32)
    np.testing.assert_allclose(
        flip_goals(goals, np.array([True, False])), [[2.0, -0.5], [3.0, -1.0]]
    )


def test_only_chosen_images_are_mirrored() -> None:
    images = IMAGES.copy()
    flip(images, np.array([True, False, True, False]))
    assert (images[0] == IMAGES[0, :, ::-1]).all()
    assert (images[1] == IMAGES[1]).all()


def test_a_crop_of_everything_is_the_image_and_a_smaller_one_lies_inside() -> None:
    made = to_input(torch.from_numpy(IMAGES), HOW, SAME, np.zeros((4, 3), np.float32))
    whole = np.tile(np.eye(2, 3, dtype=np.float32), (4, 1, 1))
    np.testing.assert_allclose(crop(made, whole).numpy(), made.numpy(), atol=1e-5)
    maps = crop_maps(500, np.random.default_rng(3), 0.4)
    sides = maps[:, [0, 1], [0, 1]]
    assert (np.abs(maps[:, :, 2]) + sides <= 1.0 + 1e-6).all()
    assert sides.prod(axis=1).min() > 0.3
