"""From outputs to rows: which hypotheses stay, and what they say."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from limpet.contracts.grasp_frames import (
    ANGLES_RAD,
    approach_directions,
    poses_of,
    rotation_of,
)
from limpet.contracts.grasps import (
    COLUMNS,
    DEPTH,
    ROTATION,
    SCORE,
    TRANSLATION,
    WIDTH,
    GraspDecoding,
    Grasps,
    decode,
    hypotheses_of,
    rows_of,
    suppress,
)
from limpet.contracts.grippers import fit_of

RNG = np.random.default_rng(8)
DECODING = GraspDecoding(per_approach=1)
# A post of 4 cm, square, that stands in the gripper's way along z.
_SIDE = np.arange(-0.02, 0.0201, 0.004)
POST = np.stack(np.meshgrid(_SIDE, _SIDE, 0.5 + np.arange(0, 0.06, 0.004)), axis=-1).reshape(-1, 3)
POST = POST.astype(np.float32)


def _row(score: float, at: list[float], degrees: float = 0.0) -> np.ndarray:
    rotation = rotation_of([0, 0, 1.0], np.deg2rad(degrees))[None]
    place = np.array([at])
    return rows_of(np.array([score]), np.array([0.06]), np.array([0.02]), rotation, place, 0.02)[0]


def _outputs(scores: np.ndarray, width: float = 0.06) -> dict[str, np.ndarray]:
    s, t = scores.shape[:2]
    return {
        "seeds": np.tile(np.array([0, 0, 0.51], np.float32), (s, 1)),
        "objectness": np.ones(s, np.float32),
        "graspness": np.ones(s, np.float32),
        "approach": np.tile(np.array([0, 0, 1], np.float32), (s, t, 1)),
        "score": scores.astype(np.float32),
        "width": np.full(scores.shape, width, np.float32),
    }


def test_of_two_that_are_nearly_the_same_the_better_stays() -> None:
    rows = np.stack(
        [
            _row(0.5, [0, 0, 0]),
            _row(0.9, [0.02, 0, 0]),  # better, 2 cm away
            _row(0.4, [0.04, 0, 0]),  # 2 cm from the better one, 4 from the first
            _row(0.3, [0.06, 0, 0]),
            _row(0.2, [0.02, 0, 0], 29.0),
            _row(0.1, [0.02, 0, 0], 31.0),
        ]
    )
    assert suppress(rows).tolist() == [1, 3, 5]
    assert suppress(rows, 0.01, 0.1).tolist() == [1, 0, 2, 3, 4]  # the last two differ by 2°
    assert suppress(rows[:0]).tolist() == []


def test_suppression_is_what_looking_at_all_pairs_gives() -> None:
    count = 150
    rotation = rotation_of(approach_directions()[RNG.integers(0, 300, count)], np.zeros(count))
    place = RNG.uniform(0, 0.08, (count, 3))
    rows = rows_of(RNG.random(count), 0.05 * np.ones(count), np.ones(count), rotation, place, 0.02)
    kept: list[int] = []
    for index in np.argsort(-rows[:, SCORE]):
        one = rows[index]
        same = False
        for other in rows[kept]:
            turn = one[ROTATION].reshape(3, 3).T @ other[ROTATION].reshape(3, 3)
            angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
            distance = np.linalg.norm(one[TRANSLATION] - other[TRANSLATION])
            same |= bool(angle < np.pi / 6 and distance < 0.03)
        if not same:
            kept.append(int(index))
    assert suppress(rows).tolist() == kept


def test_a_hypothesis_is_the_best_angle_and_depth_of_its_approach() -> None:
    scores = np.zeros((2, 2, 12, 4))
    scores[0, 0, 3, 2], scores[0, 1, 0, 0], scores[1, 0, 11, 3] = 0.9, 0.5, 0.7
    rows = hypotheses_of(_outputs(scores), DECODING)
    assert rows.shape == (4, COLUMNS)
    np.testing.assert_allclose(rows[:3, SCORE], [0.9, 0.7, 0.5])
    np.testing.assert_allclose(rows[:2, DEPTH], [0.03, 0.04])
    wanted = rotation_of([0, 0, 1.0], ANGLES_RAD[3])
    np.testing.assert_allclose(rows[0, ROTATION].reshape(3, 3), wanted, atol=1e-7)
    np.testing.assert_allclose(rows[0, TRANSLATION], [0, 0, 0.51])
    assert (rows[:, 16] == -1).all()
    assert (rows[:, 2] == np.float32(0.02)).all()


def test_a_seed_where_little_can_be_grasped_counts_for_less() -> None:
    outputs = _outputs(np.full((3, 1, 12, 4), 0.8))
    outputs["graspness"] = np.array([0.25, 1.0, -0.1], np.float32)
    outputs["objectness"] = np.array([1.0, 0.81, 1.0], np.float32)
    rows = hypotheses_of(outputs, DECODING)
    np.testing.assert_allclose(rows[:, SCORE], [0.8 * 0.9, 0.8 * 0.5, 0.0], rtol=1e-6)
    alone = msgspec.structs.replace(DECODING, graspness_power=0.0)
    np.testing.assert_allclose(hypotheses_of(outputs, alone)[:, SCORE], 0.8, rtol=1e-6)


def test_several_of_one_approach_are_turned_apart_and_no_more_than_are_asked_for() -> None:
    scores = RNG.random((5, 2, 12, 4))
    outputs = _outputs(scores)
    many = hypotheses_of(outputs, msgspec.structs.replace(DECODING, per_approach=3))
    assert len(many) == 30
    wanted = []
    for grips in scores.reshape(10, 12, 4):
        left = list(range(12))
        for _ in range(3):
            best = max(left, key=lambda angle: grips[angle].max())
            wanted.append(grips[best].max())
            left = [angle for angle in left if (angle - best) % 12 not in (11, 0, 1)]
    np.testing.assert_allclose(many[:, SCORE], np.sort(wanted)[::-1], rtol=1e-6)
    few = hypotheses_of(outputs, msgspec.structs.replace(DECODING, per_approach=3, hypotheses=7))
    np.testing.assert_array_equal(few, many[:7])


def test_a_width_is_never_wider_than_the_gripper() -> None:
    rows = hypotheses_of(_outputs(np.ones((1, 1, 12, 4)), 0.09), DECODING)
    assert rows[0, WIDTH] == np.float32(0.09)
    wide = msgspec.structs.replace(DECODING, width_factor=1.2)
    assert hypotheses_of(_outputs(np.ones((1, 1, 12, 4)), 0.09), wide)[0, WIDTH] == np.float32(0.1)


@pytest.mark.parametrize("shift_m", [0.0, 0.02])
def test_what_stays_is_free_and_holds_something(shift_m: float) -> None:
    decoding = msgspec.structs.replace(DECODING, per_approach=4, finger_shift_m=shift_m)
    scores = np.zeros((3, 1, 12, 4))
    scores[[0, 1, 2], :, :, [0, 1, 3]] = 0.5 + 0.1 * RNG.random(
        (3, 1, 12)
    )  # the last hits the floor
    outputs = _outputs(scores)
    line = np.arange(-0.1, 0.1, 0.008)
    floor = np.stack(np.meshgrid(line, line, 0.545), -1)
    observed = np.concatenate([POST, floor.reshape(-1, 3).astype(np.float32)])
    found = decode(outputs, observed, decoding)
    assert found.hypotheses == 12
    assert 0 < found.free < 12
    assert found.nothing == ""
    rows = found.rows
    assert (np.diff(rows[:, SCORE]) <= 0).all()
    fit = fit_of(
        rows[:, ROTATION].reshape(-1, 3, 3),
        rows[:, TRANSLATION],
        rows[:, DEPTH],
        rows[:, WIDTH],
        observed,
        decoding.gripper,
    )
    assert not fit.collides.any()
    assert (fit.held >= decoding.fewest_held).all()


def test_moved_fingers_find_grasps_where_widths_are_too_small() -> None:
    outputs = _outputs(np.ones((1, 1, 12, 4)), width=0.03)  # the post is 4 cm wide
    still = decode(outputs, POST, msgspec.structs.replace(DECODING, finger_shift_m=0.0))
    assert still.nothing == "none_holds"
    assert still.rows.shape == (0, COLUMNS)
    moved = decode(outputs, POST, DECODING)
    assert moved.rows[0, WIDTH] > 0.04


def test_a_score_falls_where_little_is_held() -> None:
    outputs = _outputs(np.full((1, 1, 12, 4), 0.8))
    plain = msgspec.structs.replace(DECODING, square_power=0.0, enough_held=0)
    kept = decode(outputs, POST, plain).rows[0]
    assert kept[SCORE] == np.float32(0.8)
    count = fit_of(
        kept[None, ROTATION].reshape(1, 3, 3),
        kept[None, TRANSLATION],
        kept[None, DEPTH],
        kept[None, WIDTH],
        POST,
        plain.gripper,
    ).held[0]
    for enough, share in ((2 * count, 0.5), (4 * count, 0.25), (count, 1.0)):
        decoding = msgspec.structs.replace(plain, enough_held=int(enough))
        fallen = decode(outputs, POST, decoding).rows[0]
        np.testing.assert_allclose(fallen[SCORE], 0.8 * share, rtol=1e-6)
        np.testing.assert_array_equal(fallen[1:], kept[1:])


def test_of_two_turns_that_a_network_likes_as_much_the_square_one_is_first() -> None:
    scores = np.zeros((1, 1, 12, 4))
    scores[:, :, 1, 1], scores[:, :, 6, 1] = 0.9, 0.8  # 15° off the post's sides, and square
    outputs = _outputs(scores)
    both = msgspec.structs.replace(DECODING, per_approach=2, enough_held=0, square_power=0.0)
    square = rotation_of([0, 0, 1.0], ANGLES_RAD[6]).reshape(9)
    first = decode(outputs, POST, both).rows[0]
    assert np.abs(first[ROTATION] - square).max() > 0.1
    ranked = decode(outputs, POST, msgspec.structs.replace(both, square_power=4.0)).rows
    np.testing.assert_allclose(ranked[0, ROTATION], square, atol=1e-6)
    np.testing.assert_allclose(ranked[0, SCORE], 0.8, rtol=1e-5)
    assert 0 < ranked[1, SCORE] < 0.8


def test_nothing_between_the_fingers_is_no_grasp() -> None:
    outputs = _outputs(np.ones((1, 1, 12, 4)))
    outputs["seeds"] = outputs["seeds"] + np.float32(0.2)
    found = decode(outputs, POST, DECODING)
    assert (found.nothing, found.hypotheses, found.free) == ("none_holds", 1, 0)


def test_poses_are_the_grippers_in_the_camera_and_on_the_robot() -> None:
    rows = np.stack([_row(0.9, [0.1, 0.2, 0.5], 40.0)])
    grasps = Grasps(rows=rows)
    pose = grasps.poses_in_camera()[0]
    np.testing.assert_allclose(pose[:3, 0], [0, 0, 1], atol=1e-7)
    np.testing.assert_allclose(pose[:3, 3], [0.1, 0.2, 0.5])
    camera = poses_of(rotation_of([1.0, 2, 0], 0.3), np.array([0.4, 0, 1.0]))
    np.testing.assert_allclose(grasps.poses_in_base(camera)[0], camera @ pose)
