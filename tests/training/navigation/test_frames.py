"""Frames from pairs and from a user's own recordings, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limpet.contracts.errors import DataError
from limpet.contracts.images import ImagePreprocessing
from limpet.training.navigation.files import map_array
from limpet.training.navigation.frames import open_frames
from tests.navigation_frames import CONFIG, SIDE, write_pairs


def write_recording(folder: Path, images: int = 4) -> Path:
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    times = 1_700_000_000 + np.arange(images)
    for time in times:
        pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{time}.0.png")
    np.savez(
        folder / "lidar.npz",
        times_ns=times * 10**9,
        ranges=rng.uniform(0.5, 3.0, (images, 60)),
        angle_min=-np.pi,
        angle_increment=2 * np.pi / 60,
    )
    return folder


def test_any_pose_is_taken_in_any_view(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", layouts=2, poses=5, views=3)
    frames = open_frames(folder, CONFIG.image)
    assert (len(frames), frames.views, frames.layouts.tolist()) == (10, 3, [0] * 5 + [1] * 5)
    with np.load(folder / "layout-00001.npz") as second:
        images, lidar, goals = second["images"], second["lidar"], second["goals"]
    taken = frames.take(np.array([7, 5]), np.array([2, 0]))
    assert (taken == [images[2, 2], images[0, 0]]).all()
    assert (frames.lidar[7] == lidar[2]).all()
    assert frames.goals is not None
    assert (frames.goals[7] == goals[2]).all()
    assert frames.digest().rows == 30


def test_the_digest_follows_the_bytes(tmp_path: Path) -> None:
    first = open_frames(write_pairs(tmp_path / "a"), CONFIG.image).digest()
    again = open_frames(write_pairs(tmp_path / "b" / "a"), CONFIG.image).digest()
    other = open_frames(write_pairs(tmp_path / "c" / "a", poses=25), CONFIG.image).digest()
    assert first == again
    assert other.sha256 != first.sha256


def test_images_are_mapped_not_read(tmp_path: Path) -> None:
    (file, *_) = sorted(write_pairs(tmp_path / "pairs").glob("*.npz"))
    mapped = map_array(file, "images")
    assert isinstance(mapped, np.memmap)
    with np.load(file) as read:
        assert (mapped == read["images"]).all()


def test_a_recording_and_a_folder_of_them_are_frames_of_one_view(tmp_path: Path) -> None:
    write_recording(tmp_path / "logs" / "a")
    write_recording(tmp_path / "logs" / "b", images=3)
    one = open_frames(tmp_path / "logs" / "a", CONFIG.image)
    both = open_frames(tmp_path / "logs", CONFIG.image)
    assert (len(one), one.views, one.images[0].shape[2:]) == (4, 1, (SIDE, SIDE, 3))
    assert (len(both), both.goals, both.layouts.tolist()) == (7, None, [0] * 4 + [1] * 3)
    assert both.digest().sha256 != one.digest().sha256


def test_what_holds_no_frames_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist") as missing:
        open_frames(tmp_path / "nowhere", CONFIG.image)
    assert "limpet.training.navigation.pairs --out DIR" in missing.value.hint
    with pytest.raises(DataError, match="neither pairs"):
        open_frames(tmp_path, CONFIG.image)
    (tmp_path / "pairs.json").write_text("{}")
    with pytest.raises(DataError, match=r"holds no layout-"):
        open_frames(tmp_path, CONFIG.image)


def test_images_of_another_size_and_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs")
    with pytest.raises(DataError, match=r"rows and columns, wanted \(128, 128\)"):
        open_frames(folder, ImagePreprocessing())
    file = folder / "layout-00001.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"layout-00001.npz: not an npz"):
        open_frames(folder, CONFIG.image)
    np.savez_compressed(file, images=np.zeros((2, 1, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"layout-00001.npz"):
        open_frames(folder, CONFIG.image)
