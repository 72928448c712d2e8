"""Two views of a scene, prepared as the robot prepares them, and what their candidates are.

Preparing takes longer than a training step, so it is done once for each scene and kept in files.
What a file holds follows from the scene's own files and from the choices named in its name's hash.

Dimension legend: q samples of a scene, v views, N points of a view, m candidates of a view,
n objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from limpet.contracts.array_files import DAMAGE
from limpet.contracts.clouds import CloudPreprocessing, depth_points, prepare
from limpet.contracts.errors import DataError
from limpet.contracts.grasp_frames import inverse_pose, transform_points
from limpet.contracts.whole_files import write_whole
from limpet.training.grasp.graspnet import Frame, GraspNet, default_cache
from limpet.training.grasp.matching import Matcher

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Input = Literal["two", "one", "prefused"]

_FORMAT = 2
"""Raised where the same choices give other files."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One scene as the network sees it.

    Attributes:
        scene: Number of the scene.
        reference, auxiliary: Numbers of the views.
        points: In the reference camera's frame, metres, as the robot places them; candidates
            first. (v, N, 3)
        true: Where the candidates are without the error of these poses. (v, m, 3)
        owner: Object that each candidate lies on, -1 for none. (v, m)
        grasp_point: Nearest grasp point of that object, -1 for none. (v, m)
        graspness: Share of its candidates that hold, scaled to 0 … 1 over the views. (v, m)
        poses: Of each object in the reference camera's frame. (n, 4, 4)
    """

    scene: int
    reference: int
    auxiliary: int
    points: Float32
    true: Float32
    owner: NDArray[np.intp]
    grasp_point: NDArray[np.intp]
    graspness: Float32
    poses: Float64


class SampleMaker:
    """Prepares samples of a data set, or reads those that are there.

    Args:
        data: The data set.
        cloud: How depth becomes points.
        kind: Two views apart, one view, or the clouds of two merged into one.
        pairs: Samples of a scene; each has its own reference view where there are as many.
        seed: Of the choice of views.
        cache: Folder of the files.
    """

    def __init__(
        self,
        data: GraspNet,
        cloud: CloudPreprocessing,
        kind: Input,
        pairs: int,
        seed: int = 0,
        cache: Path | None = None,
    ) -> None:
        self._data, self._cloud, self._kind = data, cloud, kind
        self._pairs, self._seed = pairs, seed
        self._cache = cache or default_cache().parent / "samples"
        self._matcher = Matcher(data)

    def of(
        self, scenes: Sequence[int], report: Callable[[int, str], None] = lambda done, note: None
    ) -> list[Sample]:
        """Samples of scenes.

        Raises:
            DataError: A scene cannot be read, or no pair of its views shows an object.
        """
        samples: list[Sample] = []
        for done, scene in enumerate(scenes):
            file = self.file(scene)
            if not file.is_file():
                self._write(file, self._make(scene))
            samples += self._read(file)
            report(done + 1, f"{len(samples)} samples")
        return samples

    def file(self, scene: int) -> Path:
        """Where the samples of a scene are kept."""
        root = self._data.root
        stamps = [
            (str(file.relative_to(root)), file.stat().st_size, file.stat().st_mtime_ns)
            for file in self._sources(scene)
        ]
        said = [
            _FORMAT, str(root.resolve()), self._data.camera, stamps,
            msgspec.to_builtins(self._cloud), self._kind, self._pairs, self._seed,
        ]  # fmt: skip
        digest = hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:16]
        return self._cache / f"scene_{scene:04d}-{digest}.npz"

    def _sources(self, scene: int) -> list[Path]:
        """What samples of a scene follow from: views, poses, labels, meshes; those there are."""
        root, name = self._data.root, f"scene_{scene:04d}"
        folder = root / "scenes" / name / self._data.camera
        files = [*folder.glob("depth/*.png"), *folder.glob("meta/*.mat"), *folder.glob("*.npy")]
        files += (root / "collision_label" / name).glob("*.npz")
        for object_id in self._data.objects(scene):
            files += (root / "grasp_label").glob(f"{object_id:03d}_labels.npz")
            files += (root / "models" / f"{object_id:03d}").glob("*.ply")
        return sorted(files)

    def make(self, frames: Sequence[Frame]) -> Sample | None:
        """A sample of one or two views, None where they show nothing to grasp."""
        reference = frames[0]
        poses = poses_in_reference(frames)
        clouds = [depth_points(frame.depth_m, frame.intrinsics, self._cloud) for frame in frames]
        merged = self._kind == "prefused"
        how = msgspec.structs.replace(self._cloud, merge_views=merged)
        prepared = prepare(clouds, poses, how)
        if prepared.points is None or len(prepared.points) < (1 if merged else len(frames)):
            return None
        if prepared.correction is not None:
            poses[1] = prepared.correction @ poses[1]
        candidates = prepared.points[:, : self._cloud.candidates]
        shape = candidates.shape[:2]
        flat = candidates.reshape(-1, 3)
        if merged:
            placed = [
                transform_points(cloud, pose) for cloud, pose in zip(clouds, poses, strict=True)
            ]
            view = _nearest_cloud(flat, placed)
        else:
            view = np.repeat(np.arange(shape[0]), shape[1])
        true = _without_error(flat, view, frames, poses)
        matches = self._matcher.match(reference, true)
        return Sample(
            scene=reference.scene,
            reference=reference.view,
            auxiliary=frames[-1].view,
            points=prepared.points.astype(np.float32),
            true=true.reshape(candidates.shape).astype(np.float32),
            owner=matches.object_index.reshape(shape),
            grasp_point=matches.grasp_point.reshape(shape),
            graspness=matches.graspness.reshape(shape),
            poses=reference.pose_object_in_camera,
        )

    def _make(self, scene: int) -> list[Sample]:
        views = self._data.views(scene)
        rng = np.random.default_rng([self._seed, scene])
        made: list[Sample] = []
        references = rng.permutation(np.resize(rng.permutation(views), self._pairs))
        for reference in references.tolist():
            others = [view for view in views if view != reference]
            chosen = [reference]
            if self._kind != "one":
                if not others:
                    raise DataError(
                        f"scene {scene} has one view", 'train with input = "one", or add views'
                    )
                chosen.append(int(rng.choice(others)))
            sample = self.make([self._data.frame(scene, view) for view in chosen])
            if sample is not None:
                made.append(sample)
        if not made:
            raise DataError(
                f"{self._data.root}, scene {scene}: nothing stands out of the table in any of "
                f"{len(references)} choices of views",
                "look at its depth images and camera poses",
            )
        return made

    def _write(self, file: Path, samples: list[Sample]) -> None:
        import io

        arrays: dict[str, Any] = {
            field.name: np.stack([getattr(sample, field.name) for sample in samples])
            for field in fields(Sample)
        }
        arrays["owner"] = arrays["owner"].astype(np.int16)
        arrays["grasp_point"] = arrays["grasp_point"].astype(np.int32)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, buffer.getvalue())

    def _read(self, file: Path) -> list[Sample]:
        try:
            with file.open("rb") as raw, np.load(raw, allow_pickle=False) as archive:
                arrays = {field.name: archive[field.name] for field in fields(Sample)}
        except DAMAGE as error:
            raise DataError(f"{file}: not prepared samples: {error}", f"rm {file}") from error
        return [
            Sample(
                scene=int(arrays["scene"][row]),
                reference=int(arrays["reference"][row]),
                auxiliary=int(arrays["auxiliary"][row]),
                points=arrays["points"][row],
                true=arrays["true"][row],
                owner=arrays["owner"][row].astype(np.intp),
                grasp_point=arrays["grasp_point"][row].astype(np.intp),
                graspness=arrays["graspness"][row],
                poses=arrays["poses"][row],
            )
            for row in range(len(arrays["scene"]))
        ]


def poses_in_reference(frames: Sequence[Frame]) -> list[Float64]:
    """Of each camera in the first one's frame, as a robot knows them. (4, 4) each"""
    to_reference = inverse_pose(frames[0].pose_camera_in_scene)
    # Exactly the identity: the reference is not moved.
    return [np.eye(4), *(to_reference @ frame.pose_camera_in_scene for frame in frames[1:])]


def _nearest_cloud(points: Float32, clouds: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
    """Which view each point of a merged cloud comes from. (n,)"""
    distances = [cKDTree(cloud).query(points)[0] for cloud in clouds]
    view: NDArray[np.intp] = np.argmin(distances, axis=0)
    return view


def _without_error(
    points: Float32,
    view: NDArray[np.intp],
    frames: Sequence[Frame],
    poses: Sequence[Float64],
) -> Float64:
    """Where points are in truth: what a camera saw is labelled, not where that seems to be.

    Args:
        points: In the reference camera's frame, by `poses`. (n, 3)
        view: Which of the frames each comes from. (n,)
        frames: The reference first.
        poses: Of each camera in the reference camera's frame, as its points were placed. (4, 4)
    """
    true: Float64 = np.array(points, np.float64)
    to_reference = inverse_pose(frames[0].true_pose_camera_in_scene)
    for index, frame in enumerate(frames[1:], 1):
        mine = view == index
        truly = to_reference @ frame.true_pose_camera_in_scene @ inverse_pose(poses[index])
        true[mine] = transform_points(true[mine], truly)
    return true
