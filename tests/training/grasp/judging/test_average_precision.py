"""Each case is worked out by hand: what the public evaluator's steps come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.errors import TensorError
from limpet.contracts.grasp_frames import inverse_pose, rotation_of, transform_points
from limpet.training.grasp.graspnet import GraspNet
from limpet.training.grasp.judging.average_precision import (
    OUTCOMES,
    Judge,
    Judged,
    Model,
    average_precision,
    judge_grasps,
    make_model,
    table_points,
)
from tests.training.grasp.layouts import (
    Labelled,
    box_mesh,
    looking_down,
    standing,
    write_objects,
    write_scene,
)

Float64 = NDArray[np.float64]
CAMERA = looking_down(0.5)
BOX = (0.06, 0.03, 0.05)  # 3 cm across y


def model(extent: tuple[float, float, float] = BOX, *, slope: float = 0.0) -> Model:
    mesh = box_mesh(extent)
    vertices = np.asarray(mesh.vertices).copy()
    vertices[:, 1] *= 1 + 2 * slope * vertices[:, 0] / extent[1]
    return make_model(vertices, np.asarray(mesh.triangles))


def grasp(
    *,
    score: float = 0.5,
    width: float = 0.05,
    depth: float = 0.02,
    x: float = 0.0,
    y: float = 0.0,
    z: float = 0.05,
    turn: float = 0.0,
) -> Float64:
    """From above at a place of the table; at turn 0 it closes along the table's y axis."""
    rotation = rotation_of([0.0, 0, -1], turn)
    in_camera = inverse_pose(CAMERA)
    row = np.zeros(17)
    row[:4] = score, width, 0.02, depth
    row[4:13] = (in_camera[:3, :3] @ rotation).ravel()
    row[13:16] = transform_points(np.array([x, y, z]), in_camera)
    row[16] = -1
    return row


def judge(
    rows: Sequence[Float64], models: Sequence[Model], places: Sequence[NDArray[np.float64]]
) -> Judged:
    poses = inverse_pose(CAMERA) @ np.stack(places)
    table = transform_points(table_points(), inverse_pose(CAMERA))
    return judge_grasps(np.stack(rows) if rows else np.zeros((0, 17)), models, poses, table)


def one_box(*rows: Float64) -> Judged:
    return judge(rows, [model()], [standing(0.025)])


def outcome(judged: Judged) -> list[str]:
    return [OUTCOMES[index] for index in judged.outcome]


def test_the_grasps_of_these_tests_come_from_above_and_close_along_y() -> None:
    in_table = CAMERA[:3, :3] @ grasp()[4:13].reshape(3, 3)
    np.testing.assert_allclose(in_table[:, :2], [[0, 0], [0, 1], [-1, 0]], atol=1e-12)


def test_parallel_faces_between_the_fingers_hold_at_the_lowest_friction() -> None:
    judged = one_box(grasp())
    assert (judged.friction.tolist(), outcome(judged)) == ([0.2], ["holds"])
    # One grasp, all frictions: precision at k is 1/k for every k.
    expected = np.repeat(1 / np.arange(1, 51)[:, None], 6, axis=1)
    np.testing.assert_allclose(judged.accuracy(), expected)
    found = average_precision([judged.accuracy()])
    harmonic = sum(1 / k for k in range(1, 51)) / 50
    assert found.ap == pytest.approx(100 * harmonic)
    assert (found.ap_08, found.ap_04) == pytest.approx((found.ap, found.ap))


@pytest.mark.parametrize(("slope", "friction"), [(0.3999, 0.4), (0.4001, 0.6)])
def test_sloping_faces_hold_from_the_friction_of_their_slope(slope: float, friction: float) -> None:
    # 6 cm along x and 4 cm across y in the middle: y = ±(2 cm + slope · x).
    wedge = model((0.06, 0.04, 0.05), slope=slope)
    judged = judge([grasp(width=0.08)], [wedge], [standing(0.025)])
    assert judged.friction.tolist() == [friction]
    ap = average_precision([judged.accuracy()])
    harmonic = 100 * sum(1 / k for k in range(1, 51)) / 50
    assert ap.ap_08 == pytest.approx(harmonic)
    assert ap.ap_04 == pytest.approx(harmonic if friction == 0.4 else 0)
    assert ap.ap == pytest.approx(harmonic * (5 if friction == 0.4 else 4) / 6)


def test_a_grasp_around_nothing_is_empty_and_one_into_things_collides() -> None:
    # Twelve centimetres above the box; then fingers inside the box; then fingers in the table.
    assert outcome(one_box(grasp(z=0.17))) == ["empty"]
    assert outcome(one_box(grasp(width=0.02))) == ["collides"]
    judged = judge(
        [grasp(z=0.02, depth=0.03, width=0.05)], [model((0.06, 0.03, 0.02))], [standing(0.01)]
    )
    assert outcome(judged) == ["collides"]
    # The same on the same box with fingers that stop above the table.
    judged = judge(
        [grasp(z=0.02, depth=0.01, width=0.05)], [model((0.06, 0.03, 0.02))], [standing(0.01)]
    )
    assert outcome(judged) == ["holds"]
    # A neighbour 5 mm beside the box, where a finger has to go.
    places = [standing(0.025), standing(0.025, y_m=0.035)]
    judged = judge([grasp(width=0.034)], [model(), model()], places)
    assert outcome(judged) == ["collides"]
    assert judged.friction.tolist() == [-1]


def test_the_base_collides_as_well() -> None:
    # 4 cm of gripper (2 beyond its point, 2 behind), base 1 cm thick behind that.
    tall = model((0.06, 0.03, 0.12))
    assert outcome(judge([grasp(z=0.12)], [tall], [standing(0.06)])) == ["holds"]
    # Its point 2.5 cm deep in the box: the base, 2 to 3 cm behind, meets the top.
    judged = judge([grasp(z=0.095)], [tall], [standing(0.06)])
    assert outcome(judged) == ["collides"]


def test_fewer_than_ten_points_between_the_fingers_are_none() -> None:
    # A rod of 1 cm × 1 cm: voxels of 8 mm leave four to six points where 2 cm of it are held.
    rod = model((0.06, 0.01, 0.01))
    judged = judge([grasp(z=0.07, depth=0.01)], [rod], [standing(0.065)])
    assert outcome(judged) == ["empty"]


def test_widths_are_clipped_to_what_the_gripper_opens() -> None:
    judged = one_box(grasp(width=0.3), grasp(width=-1, x=0.1, score=0.4))
    assert judged.rows[:, 1].tolist() == [0.1, 0.0]
    # A box of 10.4 cm: as wide as the fingers of 12 cm would be, if they were.
    wide = model((0.06, 0.104, 0.05))
    assert outcome(judge([grasp(width=0.12)], [wide], [standing(0.025)])) == ["collides"]


def test_of_nearly_equal_grasps_the_best_stays() -> None:
    near = [grasp(score=0.4), grasp(score=0.9, x=0.01), grasp(score=0.6, x=-0.01)]
    assert one_box(*near).rows[:, 0].tolist() == [0.9]
    # 31° apart, or 3.1 cm: other grasps.
    turned = grasp(score=0.4, turn=np.deg2rad(31))
    assert one_box(grasp(score=0.9), turned).rows[:, 0].tolist() == [0.9, 0.4]
    aside = grasp(score=0.4, x=0.031)
    assert one_box(grasp(score=0.9), aside).rows[:, 0].tolist() == [0.9, 0.4]


def test_an_object_has_ten_grasps_at_most() -> None:
    rows = [grasp(score=0.9 - 0.01 * step, z=0.05 + 0.031 * step) for step in range(13)]
    rows.append(grasp(score=0.1, x=0.3))
    judged = judge(rows, [model(), model()], [standing(0.025), standing(0.025, x_m=0.3)])
    assert judged.object_index.tolist() == [0] * 10 + [1]
    np.testing.assert_allclose(judged.rows[:, 0], [*(0.9 - 0.01 * np.arange(10)), 0.1])


def test_grasps_below_the_fiftieth_do_not_count() -> None:
    # Six objects with ten grasps each; scores fall from object to object.
    places = [standing(0.025, x_m=0.2 * index - 0.5) for index in range(6)]
    rows = [
        grasp(score=1 - 0.1 * index - 0.001 * step, x=0.2 * index - 0.5, z=0.05 + 0.031 * step)
        for index in range(6)
        for step in range(10)
    ]
    judged = judge(rows, [model()] * 6, places)
    assert len(judged.rows) == 50
    assert set(judged.object_index.tolist()) == {0, 1, 2, 3, 4}
    # The 50th and the 51st alike: both count, as they score "at least" so much; 50 ranks remain.
    rows[50][0] = rows[49][0]
    judged = judge(rows, [model()] * 6, places)
    assert len(judged.rows) == 51
    assert judged.accuracy().shape == (50, 6)


def test_precision_is_divided_by_k_even_where_there_are_fewer_grasps() -> None:
    # Best first: holds at 0.4, fails, holds at 1.0.
    rows = np.zeros((3, 17))
    judged = Judged(rows, np.zeros(3, np.intp), np.array([0.4, -1, 1.0]), np.zeros(3, np.intp))
    accuracy = judged.accuracy()
    assert accuracy[:3, 0].tolist() == [0, 0, 0]  # at 0.2
    np.testing.assert_allclose(accuracy[:5, 1], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])  # at 0.4
    np.testing.assert_allclose(accuracy[:5, 4], [1, 1 / 2, 2 / 3, 2 / 4, 2 / 5])  # at 1.0
    assert accuracy[49, 4] == pytest.approx(2 / 50)


def test_no_grasp_is_no_precision() -> None:
    judged = one_box()
    assert judged.accuracy().shape == (50, 6)
    assert not judged.accuracy().any()
    assert np.isnan(average_precision([]).ap)


def test_grasps_that_are_none_are_refused() -> None:
    with pytest.raises(TensorError, match=r"grasps are \(2, 16\), wanted \(g, 17\)"):
        judge_grasps(np.zeros((2, 16)), [], np.zeros((0, 4, 4)), np.zeros((0, 3)))
    with pytest.raises(TensorError, match="no number"):
        judge_grasps(np.full((1, 17), np.nan), [], np.zeros((0, 4, 4)), np.zeros((0, 3)))


def test_a_coarse_mesh_is_filled_and_a_fine_one_is_its_vertices() -> None:
    coarse = box_mesh(BOX, spacing_m=1.0)
    assert len(coarse.vertices) == 8
    filled = make_model(np.asarray(coarse.vertices), np.asarray(coarse.triangles))
    fine = make_model(np.asarray(box_mesh(BOX).vertices), np.asarray(box_mesh(BOX).triangles))
    assert len(filled.points) == pytest.approx(len(fine.points), rel=0.3)
    assert len(fine.points) > 100


def test_a_scene_on_disk_is_judged_in_each_views_own_frame(tmp_path: Path) -> None:
    objects = {3: Labelled(BOX, np.zeros((1, 3)))}
    write_objects(tmp_path, objects)
    cameras = [CAMERA, looking_down(0.4, shift_m=0.1, tilt_rad=0.4)]
    write_scene(tmp_path, 100, objects, {3: standing(0.025)}, cameras)
    data = GraspNet(tmp_path, cache=tmp_path / "cache")
    in_first = grasp()
    for view in (0, 1):
        frame = data.frame(100, view)
        row = in_first.copy()
        moved = inverse_pose(frame.pose_camera_in_scene)
        row[4:13] = (moved[:3, :3] @ row[4:13].reshape(3, 3)).ravel()
        row[13:16] = transform_points(row[13:16], moved)
        judged = Judge(data).judge(frame, row[None])
        assert (judged.friction.tolist(), outcome(judged)) == ([0.2], ["holds"])
