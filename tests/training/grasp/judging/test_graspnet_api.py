"""The same grasps in the same scenes as GraspNet's public evaluator judged them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from limpet.contracts.grasp_frames import inverse_pose, transform_points
from limpet.training.grasp.judging.average_precision import (
    OUTCOMES,
    Judged,
    judge_grasps,
    make_model,
    table_points,
)
from limpet.training.grasp.judging.force_closure import FRICTIONS
from tests.training.grasp.judging.graspnet_api_golden import FILE, case

GOLDEN = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def judged() -> dict[str, tuple[Judged, list[int]]]:
    found = {}
    for seed in GOLDEN:
        meshes, poses, camera, rows = case(int(seed))
        models = [make_model(*mesh) for mesh in meshes]
        table = transform_points(table_points(), inverse_pose(camera))
        one = judge_grasps(rows, models, poses, table)
        clipped = rows.astype(np.float64)
        clipped[:, 1] = np.clip(clipped[:, 1], 0, 0.1)
        order = [int(np.flatnonzero((clipped == row).all(1))[0]) for row in one.rows]
        found[seed] = (one, order)
    return found


@pytest.mark.parametrize("seed", GOLDEN)
def test_the_same_grasps_count_for_the_same_objects(
    judged: dict[str, tuple[Judged, list[int]]], seed: str
) -> None:
    one, order = judged[seed]
    assert order == GOLDEN[seed]["rows"]
    assert one.object_index.tolist() == GOLDEN[seed]["object"]


def test_collisions_and_empty_grasps_are_the_same(
    judged: dict[str, tuple[Judged, list[int]]],
) -> None:
    mine = np.concatenate([one.outcome >= OUTCOMES.index("collides") for one, _ in judged.values()])
    theirs = np.concatenate([GOLDEN[seed]["fails"] for seed in judged])
    assert len(mine) >= 250
    np.testing.assert_array_equal(mine, theirs)


def test_frictions_are_within_a_step_but_for_few(
    judged: dict[str, tuple[Judged, list[int]]],
) -> None:
    mine = np.concatenate([one.friction for one, _ in judged.values()])
    theirs = np.concatenate([GOLDEN[seed]["friction"] for seed in judged])
    free = (mine > 0) | (theirs > 0)
    assert np.count_nonzero(free) >= 60
    # Its normals are planes fitted to cells of 1 mm: on round things they lean by up to 6°.
    assert np.mean(np.isclose(mine, theirs)[free]) > 0.8
    steps = np.searchsorted(FRICTIONS, np.where(mine > 0, mine, 1.4) - 1e-9)
    other = np.searchsorted(FRICTIONS, np.where(theirs > 0, theirs, 1.4) - 1e-9)
    assert np.mean(np.abs(steps - other)[free] <= 1) > 0.95


def test_average_precision_is_the_same_within_one(
    judged: dict[str, tuple[Judged, list[int]]],
) -> None:
    mine, theirs = [], []
    for seed, (one, _) in judged.items():
        friction = np.array(GOLDEN[seed]["friction"])
        other = Judged(one.rows, one.object_index, friction, one.outcome)
        mine.append(100 * one.accuracy().mean())
        theirs.append(100 * other.accuracy().mean())
    assert np.mean(theirs) > 15
    assert np.mean(mine) == pytest.approx(np.mean(theirs), abs=1.0)
