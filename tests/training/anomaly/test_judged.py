"""A recording beside its labels: filled rows, flags, incidents, segments and the first row.

Dimension legend: n rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.detector import DetectorConfig
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.manifest import Calibration
from limpet.contracts.recordings import Recording
from limpet.training.anomaly.judged import Judged, check_labels, fill_unscored, judge

NAN = np.nan
DETECTOR = DetectorConfig(open_after_rows=2, close_after_rows=2)
CALIBRATION = Calibration(
    threshold=3.0, release_threshold=2.0, false_alarm_rate=0.01, held_out_rows=1000
)


def array(*scores: float) -> np.ndarray:
    return np.array(scores, np.float32)


def recording(
    labels: list[int] | None, rows: int = 10, segments: tuple[int, ...] = (0,)
) -> Recording:
    """A recording of one channel at 2 Hz."""
    return Recording(
        path=Path("pump.csv"),
        values=np.zeros((rows, 1)),
        channels=("speed",),
        rate_hz=2.0,
        segments=segments,
        labels=None if labels is None else np.array(labels, bool),
        left_out=("time (time)",),
    )


def judge_rows(
    scores: np.ndarray, labels: list[int], segments: tuple[int, ...] = (0,), from_row: int = 0
) -> Judged:
    return judge(
        recording(labels, len(labels), segments),
        scores,
        CALIBRATION,
        detector=DETECTOR,
        from_row=from_row,
    )


@pytest.mark.parametrize(
    ("scores", "segments", "filled"),
    [
        ([NAN, NAN, 5, 1], (0,), [5, 5, 5, 1]),
        ([1, 2, NAN, NAN, 4], (0,), [1, 2, 4, 4, 4]),
        ([1, 2, NAN], (0,), [1, 2, 2]),
        ([NAN, 3, NAN, 7], (0, 2), [3, 3, 7, 7]),
        ([4, 3, NAN, NAN, 7], (0, 2, 4), [4, 3, 3, 3, 7]),
    ],
    ids=["warming up", "a hole", "a hole at the end", "segments", "a segment without a score"],
)
def test_a_row_without_a_score_takes_the_next_one_of_its_segment(
    scores: list[float], segments: tuple[int, ...], filled: list[float]
) -> None:
    np.testing.assert_array_equal(fill_unscored(array(*scores), segments), array(*filled))


def test_warming_up_next_to_an_anomaly_hides_no_row() -> None:
    found = judge_rows(array(NAN, NAN, 9, 9, 0, 0), [1, 1, 1, 1, 0, 0])
    assert found.flags.tolist() == [True] * 4 + [False] * 2
    assert found.unscored == 2


def test_incidents_are_those_of_the_detector_and_need_scores_of_their_own() -> None:
    found = judge_rows(array(NAN, NAN, 9, 0, 0, 3, 3, 0, 0, 0), [0] * 6 + [1] * 4)
    assert found.incidents == 1  # one row at 9 opens none, nor do those that are filled with it
    assert found.alert.tolist() == [False] * 5 + [True] * 2 + [False] * 3
    assert (found.findings[0].delay_rows, found.outside) == (0, 0)


def test_an_incident_never_spans_two_segments() -> None:
    scores, labels = array(0, 0, 0, 3, 3, 0), [0] * 6
    assert judge_rows(scores, labels, (0,)).incidents == 1
    assert judge_rows(scores, labels, (0, 4)).incidents == 0


def test_an_interval_never_spans_two_segments() -> None:
    found = judge_rows(array(0, 0, 0, 0), [0, 1, 1, 0], (0, 2))
    assert len(found.findings) == 2


def test_rows_before_the_first_that_counts_still_drive_the_detector() -> None:
    scores, labels = array(0, 3, 3, 3, 3, 0, 0, 0), [0, 0, 0, 1, 1, 0, 0, 0]
    found = judge_rows(scores, labels, from_row=3)
    assert found.labels.tolist() == [True] * 2 + [False] * 3
    assert found.alert.tolist() == [True] * 2 + [False] * 3
    assert found.findings[0].delay_rows == -1  # reported at row 2
    assert (found.incidents, found.outside) == (1, 0)


def test_an_incident_that_was_over_before_the_first_row_is_none() -> None:
    found = judge_rows(array(3, 3, 0, 0, 0, 0, 0), [0] * 7, from_row=5)
    assert found.incidents == 0
    assert not found.alert.any()


def test_a_first_row_within_a_segment_leaves_out_the_segments_before() -> None:
    found = judge_rows(array(3, 3, 0, 0, 0, 3, 3, 3), [0] * 7 + [1], (0, 4), from_row=5)
    assert (found.incidents, len(found.labels), len(found.findings)) == (1, 3, 1)


def test_a_first_row_beyond_the_end_says_how_many_rows_there_are() -> None:
    with pytest.raises(UsageError, match=r"--from-row 4 leaves nothing of pump.csv, which has 4"):
        judge_rows(array(0, 0, 0, 0), [0, 0, 0, 1], from_row=4)


def test_a_recording_without_any_score_is_an_error() -> None:
    with pytest.raises(DataError, match=r"pump.csv: none of its 2 rows has a score"):
        judge_rows(array(NAN, NAN), [0, 1])


def test_a_recording_without_labels_says_how_to_name_them() -> None:
    with pytest.raises(DataError) as error:
        check_labels(recording(None))
    assert str(error.value) == (
        "pump.csv has no labels to evaluate against (channels: speed; left out: time (time))\n"
        "  name its label column (0 normal, 1 anomalous) with --label NAME"
    )
