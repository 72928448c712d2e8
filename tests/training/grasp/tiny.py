"""A data set of boxes small enough to train on in a test; its labels follow from geometry.

Dimension legend: P grasp points, V = 300 directions, A = 12 angles, D = 4 depths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.clouds import CloudPreprocessing
from limpet.contracts.grasp_frames import ANGLES_RAD, approach_directions, rotation_of
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.graspnet import GraspNet
from limpet.training.grasp.samples import Sample, SampleMaker
from limpet.training.grasp.targets import SceneLabels
from tests.training.grasp.layouts import (
    LATTICE,
    Labelled,
    looking_down,
    standing,
    write_objects,
    write_scene,
)

VIEWS = ((0.0, 0.0), (0.3, -0.5), (-0.3, 0.5))
"""Sideways shift and tilt of each camera."""
EXTENTS_M = {0: (0.04, 0.06, 0.08), 1: (0.05, 0.05, 0.05)}


def box(extent_m: tuple[float, float, float], points: int, rng: np.random.Generator) -> Labelled:
    """A box that is held where two of its faces lie square to the closing direction.

    A candidate's friction is the tangent of the angle between closing direction and nearest axis;
    it is reached only from outside of the face that its point lies on.
    """
    half = np.asarray(extent_m) / 2
    at = rng.uniform(-1, 1, (points, 3))
    face = rng.integers(0, 3, points)
    at[np.arange(points), face] = np.sign(at[np.arange(points), face])
    outward = np.where(np.arange(3) == face[:, None], at, 0.0)  # (P, 3)
    reached = outward @ approach_directions().T < -0.5  # (P, V)
    frames = rotation_of(approach_directions()[:, None], ANGLES_RAD)  # (V, A, 3, 3)
    cosine = np.abs(frames[..., 1]).max(-1)  # (V, A)
    friction = np.maximum(np.tan(np.arccos(np.clip(cosine, 0, 1))), 0.05)
    lowest = np.where(friction <= 1.2, np.ceil(friction * 10) / 10, -1.0)
    scores = np.where(reached[:, :, None], lowest, -1.0)  # (P, V, A)
    return Labelled(
        extent_m, at * half, np.broadcast_to(scores[..., None], (points, *LATTICE)).copy()
    )


def write_tiny(root: Path, scenes: tuple[int, ...] = (0, 1, 90), points: int = 24) -> Path:
    """A data set in GraspNet's layout: two boxes on a table, three cameras."""
    rng = np.random.default_rng(0)
    objects = {one: box(extent, points, rng) for one, extent in EXTENTS_M.items()}
    write_objects(root, objects)
    for scene in scenes:
        poses: dict[int, NDArray[Any]] = {}
        for one, side in ((0, -1.0), (1, 1.0)):
            pose = standing(EXTENTS_M[one][2] / 2, side * rng.uniform(0.05, 0.07))
            turn = rng.uniform(0, np.pi)
            pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
            poses[one] = pose
        cameras = [looking_down(0.5, shift, tilt) for shift, tilt in VIEWS]
        write_scene(root, scene, objects, poses, cameras, noise=rng)
    return root


SMALL = GraspConfig(
    cloud=CloudPreprocessing(points=512, candidates=128), pairs=3, channels=32, embedding=16,
    seeds=32, group=16, group_channels=16, steps=4, batch=2,
)  # fmt: skip
"""A network that trains in a second."""


def open_tiny(
    root: Path, config: GraspConfig = SMALL
) -> tuple[list[Sample], dict[int, SceneLabels]]:
    """Samples of the training scenes of a data set, and their labels; caches beside it."""
    data = GraspNet(root, cache=root.parent / "cache" / "labels")
    maker = SampleMaker(
        data, config.cloud, config.input, config.pairs, cache=root.parent / "cache" / "samples"
    )
    scenes = data.split("train")
    return maker.of(scenes), {scene: SceneLabels(data, scene) for scene in scenes}
