from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.fingerprints import CALM_FRAMES, LEAST_CALM_FRAMES, Fingerprinter
from limpet.contracts.scoring import RowScores, SignalScorer
from limpet.contracts.signal_steps import BandEnergies, HoldLast
from tests.bundles import anomaly_manifest, tiny_scorer

RELEASE = 2.5
STEPS = [HoldLast(max_rows=3), BandEnergies(frame_rows=12, hop_rows=5, bands=3)]


def scored(values: NDArray[np.float64], sizes: list[int], bands: bool = False) -> list[RowScores]:
    """Scores of rows, pushed in chunks of these sizes, then the rest."""
    scorer = SignalScorer(anomaly_manifest(steps=STEPS if bands else None), tiny_scorer)
    parts = np.split(values, np.cumsum(sizes))
    return [scorer.push(part) for part in parts if len(part)]


def direction(parts: list[RowScores], row: int) -> NDArray[np.float32] | None:
    """At one row of a recording."""
    fingerprinter, start = Fingerprinter(RELEASE), 0
    for part in parts:
        if row < start + len(part.scores):
            return fingerprinter.direction_at(part, row - start)
        fingerprinter.push(part)
        start += len(part.scores)
    raise AssertionError("no such row")


def recording(loud: tuple[float, float], calm_rows: int = 60, seed: int = 0) -> NDArray[np.float64]:
    """Calm rows, then three loud ones; speed spreads four times as much as current."""
    rng = np.random.default_rng(seed)
    calm = rng.normal(0.0, [0.8, 0.2], (calm_rows, 2))
    return np.concatenate([calm, np.tile(loud, (3, 1))])


def test_a_direction_has_length_1_and_counts_each_dimension_in_its_own_spread() -> None:
    found = direction(scored(recording((8.0, 2.0)), []), 61)
    assert found is not None
    assert np.linalg.norm(found) == pytest.approx(1.0)
    assert found.tolist() == pytest.approx([np.sqrt(0.5)] * 2, abs=0.1)


def test_how_far_a_stream_leaves_normal_does_not_matter_which_way_does() -> None:
    near, far, away = (
        direction(scored(recording(loud), []), 61)
        for loud in ((6.0, 0.0), (18.0, 0.0), (-9.0, 0.0))
    )
    assert near is not None
    assert far is not None
    assert away is not None
    assert near @ far > 0.999
    assert near @ away < -0.99


def test_normal_is_the_streams_own() -> None:
    values = recording((8.0, 0.0))
    moved = values + np.array([1.0, 0.5])
    a, b = direction(scored(values, []), 61), direction(scored(moved, []), 61)
    assert a is not None
    assert b is not None
    assert a @ b > 0.999


@pytest.mark.parametrize("bands", [False, True])
@pytest.mark.parametrize("sizes", [[1] * 400, [7] * 50, [300], [397, 2]])
def test_any_chunking_gives_the_same_direction(sizes: list[int], bands: bool) -> None:
    values = np.concatenate([recording((8.0, 2.0), 400), np.full((20, 2), 9.0)])
    for row in (415, 418, 421):  # of frames that are not calm, as where an incident opens
        whole = direction(scored(values, [], bands), row)
        assert whole is not None
        np.testing.assert_array_equal(direction(scored(values, sizes, bands), row), whole)


def test_frames_that_are_not_calm_and_those_of_long_ago_are_no_part_of_normal() -> None:
    quiet = recording((8.0, 0.0), CALM_FRAMES)
    before = np.concatenate([np.full((30, 2), [0.0, 9.0]), np.full((30, 2), 1.0), quiet])
    a, b = (
        direction(scored(quiet, []), len(quiet) - 1),
        direction(scored(before, []), len(before) - 1),
    )
    assert a is not None
    assert b is not None
    # The first rows of `quiet` alone are warm-up, and so not counted there.
    assert a @ b > 0.99


def test_memory_is_bounded() -> None:
    fingerprinter = Fingerprinter(RELEASE)
    for part in scored(recording((0.0, 0.0), 5000), [40] * 120):
        fingerprinter.push(part)
    assert CALM_FRAMES <= sum(map(len, fingerprinter._calm)) < CALM_FRAMES + 40


def test_too_few_calm_frames_and_frames_that_are_all_alike_give_no_direction() -> None:
    warm_up = 7
    few = recording((8.0, 0.0), warm_up + LEAST_CALM_FRAMES - 1)
    enough = recording((8.0, 0.0), warm_up + LEAST_CALM_FRAMES)
    assert direction(scored(few, []), len(few) - 1) is None
    assert direction(scored(enough, []), len(enough) - 1) is not None
    alike = np.concatenate([np.ones((60, 2)), np.full((3, 2), 9.0)])
    assert direction(scored(alike, []), 61) is None
