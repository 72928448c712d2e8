"""Stage 1: pseudo-anomalies reach the reconstruction errors that they were given as targets.

Dimension legend: n frames, f features, m windows of w frames.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from limpet.training.anomaly.pseudo import (
    LEAST_ERROR,
    TOLERANCE,
    Achieved,
    PseudoAnomalies,
)

CLIP = 10.0
NEAREST, FARTHEST_EXCESS = 0.05, 1.0


def smooth(n: int, f: int, seed: int = 0) -> NDArray[np.float32]:
    """Waves of unit spread that share some of their motion, with a little noise."""
    rng, t = np.random.default_rng(seed), np.arange(n)[:, None]
    waves = np.sin(t / rng.uniform(5, 40, f) + rng.uniform(0, 6, f))
    mixed = waves @ (np.eye(f) + 0.3 * rng.standard_normal((f, f)))
    mixed = (mixed - mixed.mean(0)) / mixed.std(0) + 0.1 * rng.standard_normal((n, f))
    return mixed.astype(np.float32)


def windows(rows: NDArray[np.float32], w: int) -> NDArray[np.float32]:
    return rows[np.arange(len(rows) - w + 1)[:, None] + np.arange(w)]


@cache
def stage_1(f: int, w: int, seed: int = 0) -> tuple[PseudoAnomalies, NDArray[np.float32]]:
    normal = windows(smooth(3000, f), w)
    return PseudoAnomalies(normal, {}, CLIP, seed), normal


def make(
    stage: PseudoAnomalies, normal: NDArray[np.float32], seed: int = 1
) -> tuple[NDArray[np.float32], Achieved]:
    return stage.make(normal, np.random.default_rng(seed), NEAREST, FARTHEST_EXCESS)


def errors(stage: PseudoAnomalies, made: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reconstruction errors. (m, f)"""
    with torch.no_grad():
        return np.asarray(stage._model.errors(torch.from_numpy(made)).numpy())


@pytest.mark.parametrize(
    ("f", "w"), [(1, 2), (1, 32), (3, 1), (3, 16), (3, 32), (8, 2), (8, 32), (32, 32)]
)
def test_nine_of_ten_moved_features_of_smooth_windows_have_their_target_error(
    f: int, w: int
) -> None:
    stage, normal = stage_1(f, w)
    _, achieved = make(stage, normal[::10])
    assert len(achieved.targets) > 150
    assert achieved.on_target >= 0.9
    assert achieved.on_target == np.mean(
        np.abs(achieved.errors - achieved.targets) <= TOLERANCE * achieved.targets
    )


@pytest.mark.parametrize("with_discrete", [False, True])
def test_errors_are_those_of_the_windows_that_come_out(with_discrete: bool) -> None:
    if with_discrete:
        rows, known = discrete_rows()
        normal = windows(rows, 16)
        stage = PseudoAnomalies(normal, known, CLIP, 0)
    else:
        stage, normal = stage_1(3, 16)
    made, achieved = make(stage, normal[::10])
    found = errors(stage, made)
    for each in achieved.errors:
        assert np.abs(found - each).min() < 1e-5


def test_targets_lie_beyond_the_normal_errors_by_the_excess_that_was_asked_for() -> None:
    stage, normal = stage_1(1, 16)
    _, achieved = make(stage, normal[::5])
    excess = achieved.targets / float(stage.normal_errors[0]) - 1.0
    assert excess.min() >= NEAREST * 0.99
    assert excess.max() <= FARTHEST_EXCESS * 1.01
    assert np.median(excess) == pytest.approx(np.sqrt(NEAREST * FARTHEST_EXCESS), rel=0.2)


def test_few_normal_windows_exceed_the_normal_error_and_most_pseudo_anomalies_do() -> None:
    stage, normal = stage_1(3, 16)
    bound = stage.normal_errors.numpy()
    assert (errors(stage, normal) > bound).mean() < 0.03
    made, _ = make(stage, normal[::10])
    changed = (made != normal[::10]).any(axis=1)
    assert (errors(stage, made)[changed] > bound[np.nonzero(changed)[1]]).mean() > 0.9


def test_a_pseudo_anomaly_reaches_the_windows_last_frame_and_stays_within_the_clip() -> None:
    stage, normal = stage_1(3, 16)
    made, _ = make(stage, normal[::10])
    changed = (made != normal[::10]).any(axis=2)
    assert changed.any(axis=1).mean() > 0.99
    # Time that runs faster leaves the newest frame itself as it was.
    assert changed[changed.any(axis=1), -2:].any(axis=1).mean() > 0.95
    assert np.abs(made).max() <= CLIP
    assert made.dtype == np.float32


def test_the_same_seed_gives_the_same_windows_and_another_another() -> None:
    normal = windows(smooth(600, 2), 8)
    first, again, other = (PseudoAnomalies(normal, {}, CLIP, seed) for seed in (0, 0, 1))
    made = make(first, normal[:50])[0]
    np.testing.assert_array_equal(made, make(again, normal[:50])[0])
    assert not np.array_equal(made, make(first, normal[:50], seed=2)[0])
    assert not torch.equal(first.normal_errors, other.normal_errors)


def test_training_stage_1_leaves_torchs_randomness_as_it_was() -> None:
    before = torch.random.get_rng_state()
    PseudoAnomalies(windows(smooth(200, 1), 4), {}, CLIP, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def discrete_rows() -> tuple[NDArray[np.float32], dict[int, NDArray[np.float32]]]:
    """A wave, a mode of three values and a rare flag."""
    rng = np.random.default_rng(0)
    modes, flags = np.float32([-1.2, 0.1, 1.4]), np.float32([-0.3, 3.2])
    rows = np.column_stack(
        [
            smooth(2000, 1)[:, 0],
            modes[np.arange(2000) // 50 % 3],
            flags[(rng.random(2000) < 0.05).astype(int)],
        ]
    )
    return rows, {1: modes, 2: flags}


def test_discrete_features_are_flipped_to_other_values_of_their_own_and_never_moved() -> None:
    rows, known = discrete_rows()
    normal = windows(rows, 16)
    stage = PseudoAnomalies(normal, known, CLIP, 0)
    made, achieved = make(stage, normal[::4])
    for feature, values in known.items():
        assert np.isin(made[:, :, feature], values).all()
        changed = made[:, :, feature] != normal[::4, :, feature]
        assert 0.1 < changed.any(axis=1).mean() < 0.9
    # Only the continuous feature has targets, which it meets with the others flipped.
    assert len(achieved.targets) <= len(made)
    assert achieved.on_target >= 0.9


def test_with_discrete_features_alone_no_error_has_a_target() -> None:
    rows, known = discrete_rows()
    normal = windows(rows[:, 1:], 16)
    stage = PseudoAnomalies(normal, {0: known[1], 1: known[2]}, CLIP, 0)
    made, achieved = make(stage, normal[::4])
    assert np.isnan(achieved.on_target)
    assert (made != normal[::4]).any(axis=(1, 2)).mean() > 0.5


def test_a_feature_that_never_moves_has_the_least_error() -> None:
    rows = smooth(500, 2)
    rows[:, 1] = 0.0
    stage = PseudoAnomalies(windows(rows, 8), {}, CLIP, 0)
    assert float(stage.normal_errors[1]) == pytest.approx(LEAST_ERROR)
    assert np.isfinite(make(stage, windows(rows, 8)[:50])[0]).all()
