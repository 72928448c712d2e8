"""Depth images of real scenes, as inputs of a model that finds grasps.

Dimension legend: V views, N points a model takes of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from limpet.contracts.clouds import prepare
from limpet.contracts.errors import DataError, ImplausibleError
from limpet.contracts.grasp_model import GraspModel
from limpet.contracts.manifest import Manifest
from limpet.contracts.tensors import Tensors
from limpet.training.grasp.graspnet import GraspNet
from limpet.training.grasp.judging.finders import request_of
from limpet.training.grasp.judging.real_scenes import find_real_scenes, read_real_scene
from limpet.training.grasp.judging.view_pairs import auxiliary_view


@dataclass(frozen=True)
class DepthViews:
    """One view of a scene, or two.

    Attributes:
        files: What it is read from.
        request: Reads it as a model's request.
    """

    files: list[Path]
    request: Callable[[], Tensors]


def find_depth_views(path: Path, manifest: Manifest) -> list[DepthViews]:
    """Views at a path, in order: of each training scene of a data set in GraspNet-1Billion's
    layout, or of all its scenes where none is for training, two and one in turn; else the real
    scenes that `find_real_scenes` finds.

    Raises:
        DataError: There are none.
    """
    if (path / "scenes").is_dir():
        data = GraspNet(path)
        scenes = data.split("train") or data.scenes
        return [_of_scene(data, scene, manifest, index) for index, scene in enumerate(scenes)]
    found = [_real(scene) for scene in find_real_scenes(path)]
    if not found:
        raise DataError(
            f"{path} holds no depth images",
            "wanted real scenes, .npz with depth and intrinsics_matrix or folders with depth.png "
            "and meta.mat, or a folder in GraspNet-1Billion's layout",
        )
    return found


def prepared_views(manifest: Manifest, views: DepthViews) -> Tensors | None:
    """The model's input, None where preprocessing finds nothing to grasp. points (V, N, 3)

    Raises:
        DataError: A file cannot be read, or shows what no camera sees.
    """
    model = GraspModel(manifest, lambda inputs: inputs)
    try:
        seen = model.read(views.request())
    except ImplausibleError as error:
        where = ", ".join(map(str, views.files))
        raise DataError(f"{where}: {error.message}", error.hint) from error
    points = prepare(seen.clouds, seen.poses_in_ref, model.how).points
    return None if points is None else {manifest.inputs[0].name: points}


def _real(scene: Path) -> DepthViews:
    files = [scene / "depth.png", scene / "meta.mat"] if scene.is_dir() else [scene]
    return DepthViews(files, lambda: read_real_scene(scene).request)


def _of_scene(data: GraspNet, scene: int, manifest: Manifest, index: int) -> DepthViews:
    """Another view of each scene; with the one beside it where the index is even."""
    there = data.views(scene)
    reference = there[index % len(there)]
    sights = {view: data.pose(scene, view)[:3, 2] for view in there}
    beside = auxiliary_view(reference, sights) if index % 2 == 0 else None
    views = [reference] if beside is None else [reference, beside]
    folder = data.root / "scenes" / f"scene_{scene:04d}" / data.camera / "depth"

    def request() -> Tensors:
        frames = [data.frame(scene, view) for view in views]
        return request_of(frames, manifest.cloud(), merged=False)

    return DepthViews([folder / f"{view:04d}.png" for view in views], request)
