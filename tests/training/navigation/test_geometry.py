"""What rays meet: depth, labels and ranges of known places."""

from __future__ import annotations

import math

import numpy as np
import pytest

from limpet.training.navigation.camera import Camera, Lidar
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.solids import LABELS
from limpet.training.navigation.surfaces import Charts

EXACT = Camera(width=64, height=64, pitch_jitter_deg=0.0, height_jitter_m=0.0)


def poses_in(scenes: SceneLibrary, seed: int, number: int) -> np.ndarray:
    space = scenes.layout(seed).free_space(0.18)
    rng = np.random.default_rng(0)
    places = space.centers(rng.choice(space.cells, number))
    return np.column_stack([places, rng.uniform(-math.pi, math.pi, number)])


def test_depth_is_along_the_optical_axis(scenes: SceneLibrary) -> None:
    """Points of the floor, put back into the world by their depth, lie on the floor."""
    geometry = scenes.geometry(3)
    poses = poses_in(scenes, 3, 6)
    seen = geometry.look(poses, EXACT)
    rays = EXACT.rays(poses, np.zeros((6, 2)))
    points = rays[..., :3] + seen.depth[..., None] * rays[..., 3:]
    labels = geometry.labels[seen.triangles]
    floor, ceiling = (labels == LABELS.index(name) for name in ("floor", "ceiling"))
    assert floor.mean() > 0.1
    np.testing.assert_allclose(points[floor][:, 2], 0.0, atol=1e-4)
    np.testing.assert_allclose(points[ceiling][:, 2], scenes.layout(3).plan.height, atol=1e-4)
    assert np.isfinite(seen.depth).all(), "a building is closed"


def test_each_triangle_has_a_label_and_nothing_has_none(scenes: SceneLibrary) -> None:
    labels = scenes.geometry(3).labels
    assert labels[-1] == 255
    assert {LABELS.index(name) for name in ("floor", "wall", "table")} <= {*labels.tolist()}
    assert labels[:-1].max() < len(LABELS)


def test_the_cameras_middle_looks_ahead_and_its_left_is_left() -> None:
    pose = np.array([[1.0, 2.0, math.pi / 2]])
    rays = EXACT.rays(pose, np.zeros((1, 2)))[0]
    middle = rays[31:33, 31:33].mean(axis=(0, 1))
    np.testing.assert_allclose(middle, [1.0, 2.0, EXACT.above_floor_m, 0.0, 1.0, 0.0], atol=1e-6)
    assert rays[32, 0, 3] < 0.0  # looking along +y, left is -x
    assert rays[0, 32, 5] > 0.0  # the first row looks up
    down = Camera(width=64, height=64, pitch_deg=10.0).rays(pose, np.zeros((1, 2)))[0]
    assert down[31:33, 31:33, 5].mean() == pytest.approx(-math.sin(math.radians(10.0)), abs=1e-6)


@pytest.mark.parametrize("seed", [3, 7])
def test_the_lidar_never_sees_through_what_the_robot_would_touch(
    scenes: SceneLibrary, seed: int
) -> None:
    """Along each beam the first collision is where the beam ends, up to handles and thin feet."""
    poses = poses_in(scenes, seed, 20)
    lidar = Lidar(beams=60)
    ranges = scenes.geometry(seed).ranges(poses, lidar)
    footprints = scenes.layout(seed).footprints
    for pose, row in zip(poses, ranges, strict=True):
        # The robot's own surroundings are as free as the LiDAR says.
        assert footprints.clearance(pose[None, :2])[0] <= row.min() + 0.02
        bearings = pose[2] + lidar.angles
        for share in (0.5, 0.97):
            points = pose[:2] + share * row[:, None] * np.column_stack(
                [np.cos(bearings), np.sin(bearings)]
            )
            inside = footprints.clearance(points) == 0.0
            assert inside.mean() < 0.03


def test_lidar_and_camera_agree(scenes: SceneLibrary) -> None:
    """A camera at the LiDAR's height sees ahead what the first beam measures."""
    lidar = Lidar(beams=4)
    camera = Camera(width=65, height=65, above_floor_m=lidar.above_floor_m, pitch_jitter_deg=0.0)
    seen = scenes.geometry(3).look(poses_in(scenes, 3, 12), camera, lidar)
    np.testing.assert_allclose(seen.depth[:, 32, 32], seen.ranges[:, 0], rtol=1e-4)


def test_noise_keeps_to_its_range_and_drops_beams() -> None:
    lidar = Lidar(beams=1000, noise_m=0.02, dropout=0.1, range_m=5.0)
    true = np.full((4, 1000), 2.0, np.float32)
    read = lidar.measure(true, np.random.default_rng(0))
    lost = read == 5.0
    assert 0.07 < lost.mean() < 0.13
    assert read[~lost].std() == pytest.approx(0.02, rel=0.1)
    assert lidar.measure(true * np.inf, None).tolist() == [[5.0] * 1000] * 4


def test_each_coarser_texel_averages_those_below_it() -> None:
    charts = Charts.of(np.array([5, 1]), np.array([3, 2]))
    coarse, children = charts.halved()
    values = np.arange(17.0)
    means = values[children].mean(axis=1)
    assert coarse.columns.tolist() == [3, 1]
    assert coarse.rows.tolist() == [2, 1]
    assert means[0] == np.mean([0, 1, 5, 6])
    assert means[2] == np.mean([4, 4, 9, 9])  # the odd column's neighbour is itself
    assert means[-1] == np.mean([15, 15, 16, 16])


def test_pixels_show_texels_of_their_own_patch(scenes: SceneLibrary) -> None:
    geometry = scenes.geometry(3)
    seen = geometry.look(poses_in(scenes, 3, 8), EXACT)
    surfaces = geometry.surfaces
    patches = np.concatenate([charts.points()[0] for charts in surfaces.texels])
    assert np.array_equal(patches[seen.texels], surfaces.patch_of[seen.triangles])


def test_a_ray_that_meets_nothing_shows_the_texel_of_nothing(scenes: SceneLibrary) -> None:
    geometry = scenes.geometry(3)
    away_from_the_building = np.array([[-20.0, -20.0, -3 * math.pi / 4]])
    seen = geometry.look(away_from_the_building, EXACT)
    assert np.isinf(seen.depth).all()
    texels = sum(len(charts.points()[0]) for charts in geometry.surfaces.texels)
    assert (seen.texels == texels).all(), "the entry after the last"
