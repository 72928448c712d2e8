"""Real scenes without meshes: a depth image, its camera, and what is to be grasped.

    FILE.npz             depth [m], intrinsics_matrix, and where it has it smoothed_object_pc, the
                         target's points in the camera's frame (6-DOF GraspNet's scenes)
    FOLDER/depth.png     uint16, with FOLDER/meta.mat: intrinsic_matrix, factor_depth (GraspNet)

Dimension legend: H rows, W columns, n points.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.cameras import read_camera
from limpet.contracts.depth_files import read_depth
from limpet.contracts.errors import DataError
from limpet.contracts.tensors import Tensors

TARGET_KEY = "smoothed_object_pc"


@dataclass(frozen=True, eq=False)
class RealScene:
    """One scene.

    Attributes:
        path: Its file or folder.
        request: What a grasp model takes of it.
        target: Points of what is to be grasped, camera frame, m; None: all that stands out of the
            table. (n, 3)
    """

    path: Path
    request: Tensors
    target: NDArray[np.float64] | None = None


def find_real_scenes(path: Path) -> list[Path]:
    """Scenes at a path: one, or those of a folder; none where there is nothing of the kind."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".npz" else []
    if (path / "depth.png").is_file():
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    return [one for one in inside if one.suffix.lower() == ".npz" or (one / "depth.png").is_file()]


def read_real_scene(path: Path) -> RealScene:
    """Reads one scene.

    Raises:
        DataError: It cannot be read, or lacks its camera.
        MissingExtraError: It has a PNG and Pillow is not installed.
    """
    if path.is_dir():
        camera = read_camera(path / "meta.mat")
        request: dict[str, NDArray[Any]] = {
            "depth": read_depth(path / "depth.png").values,
            "intrinsics": camera.intrinsics,
        }
        if camera.depth_scale is not None:
            request["depth_scale"] = np.array([camera.depth_scale])
        return RealScene(path, request)
    file = read_depth(path)
    if file.intrinsics is None:
        raise DataError(f"{path} has no intrinsics_matrix", "wanted the camera's, (3, 3)")
    return RealScene(
        path,
        {"depth": file.values.astype(np.float32), "intrinsics": file.intrinsics},
        _target(path),
    )


def _target(path: Path) -> NDArray[np.float64] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if TARGET_KEY not in archive.files:
                return None
            points = archive[TARGET_KEY]
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: {TARGET_KEY} cannot be read: {error}") from error
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind != "f":
        raise DataError(f"{path}: {TARGET_KEY} is {points.dtype} {list(points.shape)}")
    return np.asarray(points[np.isfinite(points).all(1)], np.float64)
