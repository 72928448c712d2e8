"""GraspNet-1Billion's folder layout, which the synthetic scenes have as well.

    ROOT/models/000/nontextured.ply            object meshes, object frame, m
    ROOT/grasp_label/000_labels.npz            points, offsets (angle, depth, width), scores,
                                               collision; see `limpet.training.grasp.label_cache`
    ROOT/collision_label/scene_0000/collision_labels.npz   arr_0 …, one an object of the scene
    ROOT/scenes/scene_0000/object_id_list.txt
    ROOT/scenes/scene_0000/realsense/
        depth/0000.png    uint16, m = value / factor_depth
        label/0000.png    uint8, 0 table, else object id + 1
        meta/0000.mat     intrinsic_matrix, factor_depth, cls_indexes (object id + 1),
                          poses (3, 4, n), objects in the camera
        camera_poses.npy  (views, 4, 4), camera i in camera 0, as a robot knows it
        true_camera_poses.npy  the same without error, where poses err: in synthetic scenes
        cam0_wrt_table.npy (4, 4), camera 0 in the table's frame, whose z axis points up

Scenes 0–99 are for training, 90–99 of them for choices during development; 100–129 are tests with
objects of training, 130–159 with similar ones and 160–189 with novel ones. Any part of it may be
there.

Source: https://graspnet.net/datasets.html; which order and which file is used where: graspnetAPI,
graspnet-baseline.

Dimension legend: H rows, W columns, n objects of a scene, P grasp points of an object, v vertices,
t triangles.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError, MissingExtraError, UsageError
from limpet.contracts.mat_format import MatFormatError, MatVariable, read_variables
from limpet.training.grasp.label_cache import (
    CANDIDATES,
    LATTICE,
    collision_bits,
    object_arrays,
    packed_arrays,
    stamped,
    written_whole,
)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SPLITS = {
    "train": range(90),
    "validation": range(90, 100),
    "seen": range(100, 130),
    "similar": range(130, 160),
    "novel": range(160, 190),
}
"""Scene numbers of each split."""

TRUE_POSES = "true_camera_poses.npy"

GRASPABLE_TENTHS = 8
"""A candidate counts for graspness where it holds at a friction coefficient of at most 0.8."""

_ROWS_AT_ONCE = 256


def default_cache() -> Path:
    """Where caches go by default."""
    return Path.home() / ".cache" / "limpet" / "grasp" / "labels"


@dataclass(frozen=True, eq=False)
class Frame:
    """One view of a scene.

    Attributes:
        scene: Number of the scene.
        view: Number of the view.
        depth_m: Distance along the optical axis, 0 where nothing came back. (H, W)
        intrinsics: Pinhole camera matrix, pixels. (3, 3)
        labels: 0 table, else object id + 1. (H, W)
        object_ids: The scene's objects, in the order of `GraspNet.objects`.
        pose_object_in_camera: Of each object. (n, 4, 4)
        pose_camera_in_scene: Of this camera in camera 0's frame, as a robot knows it. (4, 4)
        true_pose_camera_in_scene: The same without error. (4, 4)
        pose_camera0_in_table: Of that camera 0 on the table, whose z axis points up. (4, 4)
    """

    scene: int
    view: int
    depth_m: Float32
    intrinsics: Float64
    labels: NDArray[np.uint8]
    object_ids: tuple[int, ...]
    pose_object_in_camera: Float64
    pose_camera_in_scene: Float64
    true_pose_camera_in_scene: Float64
    pose_camera0_in_table: Float64

    @property
    def pose_camera_in_table(self) -> Float64:
        """Of this camera on the table, without error. (4, 4)"""
        return self.pose_camera0_in_table @ self.true_pose_camera_in_scene


@dataclass(frozen=True, eq=False)
class ObjectGrasps:
    """The grasp labels of an object, which no scene has a part in.

    Attributes:
        points: Grasp points on its surface, object frame, m. (P, 3)
        friction: Lowest friction coefficient at which a candidate holds, in tenths; 0 where none
            does, or the gripper collides with the object itself. (P, 300, 12, 4)
        width_m: Opening of the gripper. (P, 300, 12, 4)
    """

    points: Float32
    friction: NDArray[np.uint8]
    width_m: NDArray[np.float16]


class GraspNet:
    """A data set in GraspNet-1Billion's layout.

    Args:
        root: Its folder.
        camera: Whose images: `realsense` or `kinect`.
        cache: Folder for labels unpacked; the default is `default_cache()`.

    Attributes:
        root: As given.
        camera: As given.
        scenes: Numbers of the scenes that are there, ascending.

    Raises:
        DataError: `root` has no scene of this camera.
    """

    def __init__(
        self, root: Path | str, camera: str = "realsense", cache: Path | None = None
    ) -> None:
        self.root = Path(root)
        self.camera = camera
        found = {
            int(folder.name.removeprefix("scene_")): folder
            for folder in sorted((self.root / "scenes").glob("scene_[0-9][0-9][0-9][0-9]"))
            if (folder / camera / "meta").is_dir()
        }
        if not found:
            raise DataError(
                f"{self.root} has no scenes/scene_0000/{camera}/meta",
                "wanted the folder of GraspNet-1Billion, or of scenes in its layout",
            )
        self.scenes = sorted(found)
        name = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:12]
        self._cache = (cache or default_cache()) / f"{self.root.resolve().name}-{name}"
        # Bound to the object, so that they are freed with it.
        self.labels = lru_cache(maxsize=None)(self._labels)
        self.mesh = lru_cache(maxsize=None)(self._mesh)
        self.collision_bits = lru_cache(maxsize=64)(self._collision_bits)
        self._scene_arrays = lru_cache(maxsize=256)(self._read_scene_arrays)
        self._objects = lru_cache(maxsize=None)(self._read_objects)

    def split(self, name: str) -> list[int]:
        """Scenes of a split that are there; the names are those of `SPLITS`.

        Raises:
            UsageError: No such split.
        """
        if name not in SPLITS:
            raise UsageError(f"no split {name!r}", f"one of {', '.join(SPLITS)}")
        return [scene for scene in self.scenes if scene in SPLITS[name]]

    def objects(self, scene: int) -> list[int]:
        """Object ids of a scene, in the order of poses and collision labels.

        That is the order of `cls_indexes` in the views' meta, the one the collision labels were
        written in; `object_id_list.txt` must name the same objects.
        """
        return list(self._objects(scene))

    def views(self, scene: int) -> list[int]:
        """Numbers of a scene's views, ascending."""
        names = (file.stem for file in (self._scene(scene) / "meta").glob("*.mat"))
        return sorted(int(name) for name in names if name.isdigit())

    def frame(self, scene: int, view: int) -> Frame:
        """One view of a scene.

        Raises:
            DataError: A file is missing, damaged, or does not fit the others.
        """
        folder, name = self._scene(scene), f"{view:04d}"
        meta = _read_meta(folder / "meta" / f"{name}.mat")
        ids = meta.object_ids
        order = self.objects(scene)
        if sorted(ids) != sorted(order):
            raise DataError(f"{folder / 'meta' / name}.mat has objects {ids}, the scene {order}")
        depth = _read_png(folder / "depth" / f"{name}.png")
        labels = _read_png(folder / "label" / f"{name}.png")
        if depth.shape != labels.shape:
            raise DataError(f"{folder}: depth {name} is {depth.shape}, its label {labels.shape}")
        return Frame(
            scene=scene,
            view=view,
            depth_m=(depth / meta.factor_depth).astype(np.float32),
            intrinsics=meta.intrinsics,
            labels=labels.astype(np.uint8),
            object_ids=tuple(order),
            pose_object_in_camera=meta.poses[[ids.index(one) for one in order]],
            pose_camera_in_scene=self.pose(scene, view),
            true_pose_camera_in_scene=self._pose(scene, view, 1),
            pose_camera0_in_table=self._scene_arrays(scene)[2],
        )

    def pose(self, scene: int, view: int) -> Float64:
        """Of a view's camera in camera 0's frame, as a robot knows it. (4, 4)"""
        return self._pose(scene, view, 0)

    def _pose(self, scene: int, view: int, which: int) -> Float64:
        poses = self._scene_arrays(scene)[which]
        if view >= len(poses):
            raise DataError(f"{self._scene(scene)}/camera_poses.npy has no view {view}")
        pose: Float64 = poses[view]
        return pose

    def _mesh(self, object_id: int) -> tuple[Float64, NDArray[np.int32]]:
        """An object's surface: vertices [m, object frame] (v, 3), triangles (t, 3).

        Raises:
            DataError: It is missing, or no mesh.
            MissingExtraError: Open3D is not installed.
        """
        file = self.root / "models" / f"{object_id:03d}" / "nontextured.ply"
        if not file.is_file():
            raise DataError(f"{file} does not exist", "wanted a mesh of each object")
        try:
            import open3d as o3d
        except ModuleNotFoundError as error:
            raise MissingExtraError("training", "open3d") from error
        mesh = o3d.io.read_triangle_mesh(file)
        vertices = np.asarray(mesh.vertices, np.float64)
        triangles = np.asarray(mesh.triangles, np.int32)
        if not len(vertices) or not len(triangles):
            raise DataError(f"{file} has {len(vertices)} vertices, {len(triangles)} triangles")
        return vertices, triangles

    def _labels(self, object_id: int) -> ObjectGrasps:
        """Grasp labels of an object; the first call unpacks them into the cache.

        Raises:
            DataError: They are missing, damaged, or have other arrays.
        """
        file = self.root / "grasp_label" / f"{object_id:03d}_labels.npz"
        return ObjectGrasps(*object_arrays(file, self._cache))

    def collisions(self, scene: int) -> list[NDArray[np.bool_]]:
        """For each object of a scene, which candidates collide with the scene. (P, 300, 12, 4)"""
        return [unpack(bits).reshape(len(bits), *LATTICE) for bits in self.collision_bits(scene)]

    def _collision_bits(self, scene: int) -> list[NDArray[np.uint8]]:
        """The same, packed and mapped: `unpack(bits[rows])` reads some points. (P, 1800)"""
        counts = [self._points(object_id) for object_id in self.objects(scene)]
        return collision_bits(self._collision_file(scene), self._cache, counts)

    def graspable_shares(self, scene: int) -> list[Float32]:
        """For each object and grasp point, the share of its candidates that hold at a friction of
        at most 0.8 and collide with nothing in the scene: graspness before it is scaled. (P,)

        Source: GSNet (Wang et al., ICCV 2021), equation 1.
        """
        place = stamped(self._cache, self._collision_file(scene), "shares")
        bits = self.collision_bits(scene)
        counts = [len(one) for one in bits]
        if not place.exists():
            with written_whole(place, np.float32, (sum(counts),)) as shares:
                start = 0
                for object_id, packed in zip(self.objects(scene), bits, strict=True):
                    friction = self.labels(object_id).friction
                    for row in range(0, len(packed), _ROWS_AT_ONCE):
                        piece = friction[row : row + _ROWS_AT_ONCE].reshape(-1, CANDIDATES)
                        holds = (piece > 0) & (piece <= GRASPABLE_TENTHS)
                        holds &= ~unpack(packed[row : row + _ROWS_AT_ONCE])
                        shares[start + row : start + row + len(piece)] = holds.mean(1)
                    start += len(packed)
        whole = np.load(place)
        return list(np.split(whole, np.cumsum(counts)[:-1]))

    def _points(self, object_id: int) -> int:
        """P, without unpacking the labels."""
        file = self.root / "grasp_label" / f"{object_id:03d}_labels.npz"
        with packed_arrays(file, ("points",)) as arrays:
            return int(arrays["points"].shape[0])

    def _scene(self, scene: int) -> Path:
        folder = self.root / "scenes" / f"scene_{scene:04d}" / self.camera
        if scene not in self.scenes:
            raise DataError(f"{folder} does not exist", f"scenes there: {_ranges(self.scenes)}")
        return folder

    def _collision_file(self, scene: int) -> Path:
        return self.root / "collision_label" / f"scene_{scene:04d}" / "collision_labels.npz"

    def _read_objects(self, scene: int) -> tuple[int, ...]:
        folder, views = self._scene(scene), self.views(scene)
        if not views:
            raise DataError(f"{folder}/meta has no view")
        first = folder / "meta" / f"{views[0]:04d}.mat"
        ids = _read_meta(first).object_ids
        listing = folder.parent / "object_id_list.txt"
        if listing.is_file():
            listed = [int(word) for word in listing.read_text().split()]
            if sorted(listed) != sorted(ids):
                raise DataError(f"{listing} names {sorted(listed)}, {first} {sorted(ids)}")
        return ids

    def _read_scene_arrays(self, scene: int) -> tuple[Float64, Float64, Float64]:
        """Known poses of cameras, their true ones, and that of camera 0 on the table."""
        folder = self._scene(scene)
        known = _read_npy(folder / "camera_poses.npy", 3)
        true = _read_npy(folder / TRUE_POSES, 3) if (folder / TRUE_POSES).exists() else known
        if true.shape != known.shape:
            raise DataError(f"{folder}: {len(true)} {TRUE_POSES}, {len(known)} camera_poses.npy")
        return known, true, _read_npy(folder / "cam0_wrt_table.npy", 2)


def unpack(bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Collisions from eight a byte. (n, 1800) → (n, 14400)"""
    return np.unpackbits(bits, axis=1).view(np.bool_)


@dataclass(frozen=True, eq=False)
class _Meta:
    intrinsics: Float64  # (3, 3)
    factor_depth: float
    object_ids: tuple[int, ...]
    poses: Float64  # (n, 4, 4)


def _read_meta(file: Path) -> _Meta:
    try:
        variables = {one.name: one for one in read_variables(file.read_bytes())}
    except (OSError, MatFormatError, zlib.error) as error:
        raise DataError(f"{file}: not a .mat that can be read: {error}") from error
    ids = tuple(int(one) - 1 for one in _variable(file, variables, "cls_indexes").array.ravel())
    poses = _variable(file, variables, "poses").array
    # MATLAB itself drops the last dimension where there is one object.
    poses = poses.reshape(*poses.shape[:2], -1) if poses.ndim == 2 else poses
    if poses.shape != (3, 4, len(ids)):
        raise DataError(f"{file}: poses is {poses.shape} for {len(ids)} objects, wanted (3, 4, n)")
    whole = np.tile(np.eye(4), (len(ids), 1, 1))
    whole[:, :3] = np.moveaxis(poses, 2, 0)
    intrinsics = _variable(file, variables, "intrinsic_matrix").array
    factor = float(_variable(file, variables, "factor_depth").array.ravel()[0])
    if intrinsics.shape != (3, 3) or not factor > 0:
        raise DataError(f"{file}: intrinsic_matrix is {intrinsics.shape}, factor_depth {factor:g}")
    return _Meta(intrinsics.astype(np.float64), factor, ids, whole)


def _variable(file: Path, variables: dict[str, MatVariable], name: str) -> MatVariable:
    found = variables.get(name)
    if found is None or not found.is_numeric or not found.size:
        raise DataError(f"{file} has no numbers {name!r}; variables: {', '.join(variables)}")
    return found


def _read_png(file: Path) -> NDArray[Any]:
    """A picture of one channel, as it is stored. (H, W)"""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "Pillow") from error
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{file}: not an image that can be read: {error}") from error
    if pixels.ndim != 2:
        raise DataError(f"{file} is {pixels.shape}, wanted one channel")
    return pixels


def _read_npy(file: Path, ndim: int) -> Float64:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: not an npy that can be read: {error}") from error
    if array.ndim != ndim or array.shape[-2:] != (4, 4):
        raise DataError(f"{file} is {array.shape}, wanted poses of 4 × 4")
    return np.asarray(array, np.float64)


def _ranges(numbers: list[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}, {len(numbers)} in all" if numbers else "none"
