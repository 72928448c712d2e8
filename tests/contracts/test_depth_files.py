"""Depth files: what is read, and what is refused by name."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limpet.contracts.depth_files import read_depth
from limpet.contracts.errors import DataError, MissingExtraError

DEPTH = np.random.default_rng(0).integers(300, 60000, (20, 30)).astype(np.uint16)


def test_a_png_of_sixteen_bits_is_read_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(DEPTH).save(tmp_path / "depth.png")
    found = read_depth(tmp_path / "depth.png")
    assert found.values.dtype == np.uint16
    assert (found.values == DEPTH).all()
    assert found.intrinsics is None
    assert not found.is_cloud


def test_npy_holds_an_image_or_a_cloud(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", DEPTH.astype(np.float32))
    assert not read_depth(tmp_path / "image.npy").is_cloud
    np.save(tmp_path / "cloud.npy", np.ones((100, 3)))
    assert read_depth(tmp_path / "cloud.npy").is_cloud


def test_published_scenes_bring_their_intrinsics(data_dir: Path) -> None:
    scene = read_depth(data_dir / "grasp_scenes" / "mustard.npz")
    assert scene.values.shape == (480, 640)
    assert scene.intrinsics is not None
    assert scene.intrinsics[0, 0] == pytest.approx(616.365, abs=1e-3)


def test_a_real_depth_image_is_read(data_dir: Path) -> None:
    depth = read_depth(data_dir / "graspnet_scene" / "depth.png").values
    assert depth.shape == (720, 1280)
    assert np.median(depth) == pytest.approx(445, abs=10)


def test_what_is_no_depth_is_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "colour.png")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04")
    np.save(tmp_path / "deep.npy", np.zeros((2, 20, 30)))
    np.save(tmp_path / "words.npy", np.array([["a", "b"], ["c", "d"]]))
    np.savez(tmp_path / "other.npz", image=DEPTH)
    np.savez(tmp_path / "matrix.npz", depth=DEPTH, intrinsics_matrix=np.eye(4))
    for name, message in (
        ("colour.png", "is it the colour image"),
        ("damaged.png", "not a depth image that can be read"),
        ("damaged.npz", "damaged.npz"),
        ("absent.npy", "absent.npy"),
        ("deep.npy", r"float64 \[2, 20, 30\]"),
        ("words.npy", "wanted a depth image of numbers"),
        ("other.npz", "has the keys image"),
        ("matrix.npz", r"intrinsics_matrix is float64 \[4, 4\]"),
        ("depth.tiff", "no suffix of a depth image"),
    ):
        with pytest.raises(DataError, match=message):
            read_depth(tmp_path / name)


def test_a_png_without_pillow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def without_pillow(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("PIL"):
            raise ModuleNotFoundError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(MissingExtraError, match="Pillow"):
        read_depth(tmp_path / "depth.png")
