"""The catalogue of objects: splits, closed meshes, mass."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from limpet.contracts.errors import DataError
from limpet.training.grasp.scenes.meshes import mesh_of
from limpet.training.grasp.scenes.objects import (
    OBJECTS,
    make_object,
    numbers_for,
    solids_of,
    use_of,
)
from limpet.training.grasp.scenes.shapes import Capsule, box

SOME = (5, 20, 45, 103)  # can, mug, nut, channel


def test_splits_share_no_object_and_novel_shares_no_family() -> None:
    uses = {use: numbers_for(use) for use in ("train", "similar", "novel")}
    assert sum(map(len, uses.values())) == OBJECTS >= 60
    assert {len(numbers) for numbers in uses.values()} == {72, 24}
    families = {use: {solids_of(k)[0] for k in numbers} for use, numbers in uses.items()}
    assert families["similar"] == families["train"]
    assert not families["novel"] & families["train"]


def test_an_unknown_object_is_refused() -> None:
    with pytest.raises(DataError, match=f"object {OBJECTS}: wanted 0 to {OBJECTS - 1}"):
        use_of(OBJECTS)


@pytest.mark.parametrize("number", SOME)
def test_a_mesh_is_closed_and_faces_outwards(number: int) -> None:
    """Each directed edge is there once, and once in the other direction."""
    item = make_object(number)
    triangles = item.mesh.triangles
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    count = collections.Counter(map(tuple, edges.tolist()))
    assert max(count.values()) == 1
    assert all((b, a) in count for a, b in count)
    assert item.mesh.volume_m3 == pytest.approx(item.bulk.volume_m3, rel=0.04)


@pytest.mark.parametrize("number", SOME)
def test_an_object_is_centred_and_the_same_for_its_number(number: int) -> None:
    item = make_object(number)
    low, high = item.mesh.vertices.min(axis=0), item.mesh.vertices.max(axis=0)
    np.testing.assert_allclose(low + high, 0, atol=1e-12)
    make_object.cache_clear()
    np.testing.assert_array_equal(make_object(number).mesh.vertices, item.mesh.vertices)


def test_a_union_has_no_surface_inside() -> None:
    """Two overlapping bars: the volume counts the crossing once."""
    bars = [box((0, 0, 0), (0.06, 0.02, 0.02)), box((0, 0, 0), (0.02, 0.06, 0.02))]
    mesh, bulk = mesh_of(bars)
    truth = 2 * 0.06 * 0.02 * 0.02 - 0.02**3
    assert mesh.volume_m3 == pytest.approx(truth, rel=0.02)
    assert bulk.volume_m3 == pytest.approx(truth, rel=0.06)


def test_inertia_of_a_ball_is_that_of_a_ball() -> None:
    ball = Capsule(np.array([0.01, 0, 0]), np.array([0.01, 0, 1e-9]), 0.03)
    _, bulk = mesh_of([ball])
    truth = 0.4 * bulk.volume_m3 * 0.03**2
    np.testing.assert_allclose(bulk.inertia, truth * np.eye(3), atol=0.02 * truth)
    np.testing.assert_allclose(bulk.centroid, [0.01, 0, 0], atol=2e-4)
