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

from limpet.contracts.clouds import CloudPreprocessing, depth_points, prepare
from limpet.contracts.errors import DataError
from limpet.contracts.grasp_frames import inverse_pose, transform_points
from limpet.contracts.whole_files import write_whole
from limpet.training.grasp.graspnet import Frame, GraspNet, default_cache
from limpet.training.grasp.matching import Matcher

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Input = Literal["two", "one", "prefused"]

_FORMAT = 1
"""Raised where the same choices give other files."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One scene as the network sees it.

    Attributes:
        scene: Number of the scene.
        reference, auxiliary: Numbers of the views.
        points: In the reference camera's frame, metres; candidates first. (v, N, 3)
        owner: Object that each candidate lies on, -1 for none. (v, m)
        grasp_point: Nearest grasp point of that object, -1 for none. (v, m)
        graspness: Share of its candidates that hold, scaled to 0 … 1 over the views. (v, m)
        poses: Of each object in the reference camera's frame. (n, 4, 4)
    """

    scene: int
    reference: int
    auxiliary: int
    points: Float32
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
        folder = self._data.root / "scenes" / f"scene_{scene:04d}" / self._data.camera
        stamps = [
            (file.name, file.stat().st_size, file.stat().st_mtime_ns)
            for file in sorted((folder / "depth").glob("*.png"))
        ]
        said = [
            _FORMAT, str(self._data.root.resolve()), self._data.camera, stamps,
            msgspec.to_builtins(self._cloud), self._kind, self._pairs, self._seed,
        ]  # fmt: skip
        digest = hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:16]
        return self._cache / f"scene_{scene:04d}-{digest}.npz"

    def make(self, frames: Sequence[Frame]) -> Sample | None:
        """A sample of one or two views, None where they show nothing to grasp."""
        reference = frames[0]
        to_ref = inverse_pose(reference.pose_camera_in_scene)
        poses = [to_ref @ frame.pose_camera_in_scene for frame in frames]
        clouds = [depth_points(frame.depth_m, frame.intrinsics, self._cloud) for frame in frames]
        if self._kind == "prefused":
            merged = [
                transform_points(cloud, pose) for cloud, pose in zip(clouds, poses, strict=True)
            ]
            clouds, poses, frames = [np.concatenate(merged)], [np.eye(4)], [reference]
        else:
            poses[0] = np.eye(4)  # exactly: the reference is not moved
        prepared = prepare(clouds, poses, self._cloud)
        if prepared.points is None or len(prepared.points) < len(frames):
            return None
        candidates = prepared.points[:, : self._cloud.candidates]
        matches = self._matcher.match(reference, candidates.reshape(-1, 3))
        shape = candidates.shape[:2]
        return Sample(
            scene=reference.scene,
            reference=reference.view,
            auxiliary=frames[-1].view,
            points=prepared.points.astype(np.float32),
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
            with np.load(file, allow_pickle=False) as archive:
                arrays = {field.name: archive[field.name] for field in fields(Sample)}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"{file}: not prepared samples: {error}", f"rm {file}") from error
        return [
            Sample(
                scene=int(arrays["scene"][row]),
                reference=int(arrays["reference"][row]),
                auxiliary=int(arrays["auxiliary"][row]),
                points=arrays["points"][row],
                owner=arrays["owner"][row].astype(np.intp),
                grasp_point=arrays["grasp_point"][row].astype(np.intp),
                graspness=arrays["graspness"][row],
                poses=arrays["poses"][row],
            )
            for row in range(len(arrays["scene"]))
        ]
