"""Figures of embeddings: 1 where they are perfect, and nothing to be had by chance."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from limpet.contracts.errors import DataError, UsageError
from limpet.training.navigation.evaluation import embed_frames, figures, raw_pixels
from limpet.training.navigation.frames import Frames, open_frames
from limpet.training.navigation.neighbours import GAP, draw_neighbours
from limpet.training.navigation.similarity import beam_weights, lidar_similarity
from tests.navigation_frames import CONFIG, SIDE, write_pairs

POSES = np.arange(40)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    folder = write_pairs(tmp_path_factory.mktemp("pairs"), layouts=2, poses=20, views=2)
    return open_frames(folder, CONFIG.image)


def by_geometry(frames: Frames) -> NDArray[np.float32]:
    """Embeddings whose cosines are in the order of geometric similarity. (p, 2, e)"""
    weights = beam_weights(frames.sensor, CONFIG)
    scaled = np.minimum(frames.lidar, CONFIG.near_m) * np.sqrt(weights) / 1e2
    # Points on a large sphere: cosines fall with distance.
    rows = np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)
    rows[:, -1] = np.sqrt(1.0 - (scaled**2).sum(axis=1))
    return np.repeat(rows[:, None], 2, axis=1)


def by_chance(frames: Frames) -> NDArray[np.float32]:
    rows = np.random.default_rng(0).normal(size=(len(frames), 2, 16))
    return (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float32)


def test_embeddings_of_the_geometry_are_perfect(frames: Frames) -> None:
    found = figures(by_geometry(frames), POSES, frames, CONFIG)
    assert found.spearman > 0.999
    assert found.recall_at_1 == 1.0
    assert found.neighbour_similarity == pytest.approx(1.0, abs=1e-6)
    assert found.spearman_whole_range < found.spearman


def test_chance_tells_nothing(frames: Frames) -> None:
    found = figures(by_chance(frames), POSES, frames, CONFIG)
    assert abs(found.spearman) < 0.1
    assert found.recall_at_1 < 0.2
    assert found.probe_r2_ahead < 0.3


def test_neighbours_are_judged_by_their_geometry(frames: Frames) -> None:
    found = figures(by_chance(frames), POSES, frames, CONFIG)
    weights = beam_weights(frames.sensor, CONFIG)
    mean = lidar_similarity(frames.lidar, frames.lidar, weights, CONFIG.near_m).mean()
    assert found.neighbour_similarity == pytest.approx(mean, abs=0.06)


def test_a_linear_map_finds_ranges_that_are_there(frames: Frames) -> None:
    ranges = np.minimum(frames.lidar[:, [0, 5, 55]], CONFIG.near_m)
    rows = np.concatenate([ranges, np.full((len(ranges), 1), 3.0)], axis=1)
    rows = np.repeat((rows / np.linalg.norm(rows, axis=1, keepdims=True))[:, None], 2, axis=1)
    found = figures(rows.astype(np.float32), POSES, frames, CONFIG)
    assert found.probe_error_m < 0.15
    assert figures(by_chance(frames), POSES, frames, CONFIG).probe_error_m > 0.5


def test_a_single_appearance_has_no_recall(frames: Frames) -> None:
    alone = dataclasses.replace(frames, images=[part[:, :1] for part in frames.images])
    found = figures(by_geometry(frames)[:, :1], POSES, alone, CONFIG)
    assert np.isnan(found.recall_at_1)
    assert found.spearman > 0.999


def test_too_few_poses_are_refused(frames: Frames) -> None:
    with pytest.raises(DataError, match="wanted at least 4"):
        figures(by_geometry(frames)[:3], POSES[:3], frames, CONFIG)


def test_frames_are_embedded_pose_by_pose_and_view_by_view(frames: Frames) -> None:
    def mean_of(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return images.reshape(len(images), -1).mean(axis=1, keepdims=True).astype(np.float32)

    embedded, poses = embed_frames(mean_of, frames)
    assert (poses == POSES).all()
    assert embedded.shape == (40, 2, 1)
    wanted = frames.take(np.array([33]), np.array([1])).mean()
    assert embedded[33, 1, 0] == pytest.approx(wanted, rel=1e-4)


def test_raw_pixels_have_unit_length_and_no_brightness(frames: Frames) -> None:
    image = frames.take(np.array([3]), np.array([0]))
    dark = (image // 2).astype(np.uint8)
    rows = raw_pixels(np.concatenate([image, dark, np.zeros_like(image)]))
    assert rows.shape == (3, 768)
    assert np.linalg.norm(rows[0]) == pytest.approx(1.0, abs=1e-5)
    assert rows[0] @ rows[1] > 0.99
    assert not rows[2].any()


def test_the_picture_shows_each_frame_beside_the_nearest_others(
    frames: Frames, tmp_path: Path
) -> None:
    embedded = by_geometry(frames)
    draw_neighbours(tmp_path / "n.png", embedded, POSES, frames)
    with Image.open(tmp_path / "n.png") as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == ((SIDE + GAP) * 12 - GAP, (SIDE + GAP) * 7, 3)
    first = frames.take(np.array([0]), np.array([0]))[0]
    assert (sheet[:SIDE, :SIDE] == first).all()
    cosines = embedded[0, 0] @ embedded[:, 1].T
    cosines[0] = -1
    nearest = frames.take(np.array([cosines.argmax()]), np.array([1]))[0]
    left = SIDE + 2 * GAP
    assert (sheet[:SIDE, left : left + SIDE] == nearest).all()
    with pytest.raises(UsageError, match="no suffix of a picture"):
        draw_neighbours(tmp_path / "n.gif", embedded, POSES, frames)
