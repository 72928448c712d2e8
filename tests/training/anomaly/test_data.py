"""From recordings to frames: what is held out, what is an error, what the chain makes of values."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.recordings import Recording
from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.contracts.signal_steps import StreamBaseline
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.data import Stretch, TrainingData, prepare_training

TRAINING = AnomalyConfig(baseline="training", blocks=3)
STREAM = AnomalyConfig(baseline="stream", blocks=3)
BANDS = AnomalyConfig(front_end="bands", frame_rows=16, hop_rows=4, bands=3, blocks=1)
FIRST = 16
"""Frames before the first score of `TRAINING`."""


def noise(n: int, c: int = 2, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((n, c))


@pytest.fixture
def record(tmp_path: Path):  # type: ignore[no-untyped-def]
    def make(
        values: NDArray[np.float64],
        *,
        segments: tuple[int, ...] = (0,),
        labels: NDArray[np.bool_] | None = None,
        name: str = "pump.csv",
    ) -> Recording:
        path = tmp_path / name
        path.write_bytes(values.tobytes())
        return Recording(
            path=path,
            values=values,
            channels=tuple(f"c{i}" for i in range(values.shape[1])),
            rate_hz=2.0,
            segments=segments,
            labels=labels,
        )

    return make


def frames_to_fit(data: TrainingData) -> NDArray[np.float32]:
    return np.concatenate([stretch.samples[stretch.fit] for stretch in data.stretches])


def settled(stretch: Stretch) -> NDArray[np.float32]:
    return stretch.samples[stretch.fit & stretch.scored]


def test_the_last_quarter_is_held_out(record) -> None:  # type: ignore[no-untyped-def]
    (stretch,) = prepare_training([record(noise(1000))], "pump", TRAINING).stretches
    assert stretch.fit.tolist() == [row < 750 for row in range(1000)]
    assert stretch.scored.tolist() == [row >= FIRST for row in range(1000)]


@pytest.mark.parametrize("config", [TRAINING, STREAM, BANDS, AnomalyConfig()])
def test_held_out_rows_change_nothing_that_is_fitted(record, config: AnomalyConfig) -> None:  # type: ignore[no-untyped-def]
    values = noise(1000, 3)
    values[:, 2] = np.arange(1000) // 7 % 2
    other = values.copy()
    other[750:] = 1e6 * noise(250, 3, seed=1)
    other[900, :] = np.nan
    a, b = (prepare_training([record(v)], "pump", config) for v in (values, other))
    assert a.preprocessing == b.preprocessing
    assert a.choices == b.choices
    assert a.discrete.keys() == b.discrete.keys()
    for feature, known in a.discrete.items():
        np.testing.assert_array_equal(known, b.discrete[feature])
    np.testing.assert_array_equal(frames_to_fit(a), frames_to_fit(b))
    held_out = [data.stretches[0].samples[~data.stretches[0].fit] for data in (a, b)]
    assert not np.array_equal(held_out[0], held_out[1][: len(held_out[0])])


@pytest.mark.parametrize("config", [TRAINING, STREAM, BANDS])
def test_frames_are_what_the_preprocessor_makes_of_streams_that_start_anew(  # type: ignore[no-untyped-def]
    record, config: AnomalyConfig
) -> None:
    values = noise(1000)
    values[300:320, 0] = np.nan
    values[700:720] = np.nan
    data = prepare_training([record(values, segments=(0, 500))], "pump", config)
    preprocessor = SignalPreprocessor(data.preprocessing.steps, 2)
    found = iter(data.stretches)
    for start in (0, 500):
        preprocessor.reset()
        prepared = preprocessor.push(values[start : start + 500])
        edges = [*np.flatnonzero(prepared.begins), len(prepared.frames)]
        for first, last in itertools.pairwise(edges):
            stretch = next(found)
            np.testing.assert_array_equal(stretch.samples, prepared.frames[first:last])
            np.testing.assert_array_equal(stretch.present, prepared.present[first:last])
            np.testing.assert_array_equal(stretch.scored, prepared.scored[first:last])
    assert next(found, None) is None


@pytest.mark.parametrize("config", [TRAINING, STREAM])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_prepared_values_have_about_zero_mean_and_unit_spread_in_any_unit(  # type: ignore[no-untyped-def]
    record, config: AnomalyConfig, offset: float
) -> None:
    # Beside 1e6 a spread of 0.01 is less than float32 can tell apart: 0.06 is its step there.
    values = noise(2000, 3) * [1e-6, 1e5, 0.01] + [3.0, -1e7, offset]
    (stretch,) = prepare_training([record(values)], "pump", config).stretches
    assert np.abs(settled(stretch).mean(axis=0)).max() < 0.15
    assert np.abs(settled(stretch).std(axis=0) - 1).max() < 0.15


def test_a_value_beyond_float32_is_missing_in_training_as_on_a_stream(record) -> None:  # type: ignore[no-untyped-def]
    values, gap = noise(1000), noise(1000)
    values[5, 0], gap[5, 0] = 1e200, np.nan
    huge, missing = (prepare_training([record(v)], "pump", STREAM) for v in (values, gap))
    assert huge.preprocessing == missing.preprocessing
    np.testing.assert_array_equal(frames_to_fit(huge), frames_to_fit(missing))
    values[:, 0] = -1e300
    with pytest.raises(DataError, match="channel 'c0' has no value"):
        prepare_training([record(values)], "pump", STREAM)


def test_train_rows_uses_only_the_first_rows_of_the_files_in_order(record) -> None:  # type: ignore[no-untyped-def]
    files = [record(noise(600), name="a.csv"), record(noise(600, seed=1), name="b.csv")]
    data = prepare_training(files, "pumps", TRAINING, train_rows=900)
    assert [(d.name, d.rows) for d in data.digests] == [("a.csv", 600), ("b.csv", 300)]
    first = prepare_training(files, "pumps", TRAINING, train_rows=600)
    assert [d.name for d in first.digests] == ["a.csv"]
    more = prepare_training(files, "pumps", TRAINING, train_rows=5000)
    assert "asks for more than there is: 1200 rows" in more.warnings[0]


def test_each_file_has_its_own_part_held_out(record) -> None:  # type: ignore[no-untyped-def]
    files = [record(noise(600), name="a.csv"), record(noise(400, seed=1), name="b.csv")]
    stretches = prepare_training(files, "pumps", TRAINING).stretches
    assert [(int(s.fit.sum()), len(s)) for s in stretches] == [(450, 600), (300, 400)]


def test_a_stream_starts_anew_with_each_segment(record) -> None:  # type: ignore[no-untyped-def]
    segments = tuple(range(0, 1000, 50))
    stretches = prepare_training(
        [record(noise(1000), segments=segments)], "pump", TRAINING
    ).stretches
    assert [len(s) for s in stretches] == [50] * 20
    assert all(s.scored.tolist() == [row >= FIRST for row in range(50)] for s in stretches)
    assert [bool(s.fit.all()) for s in stretches] == [True] * 15 + [False] * 5


def test_a_hole_ends_a_stretch_and_a_channels_long_gap_does_not(record) -> None:  # type: ignore[no-untyped-def]
    values = noise(1000)
    values[200:240, 1] = np.nan
    values[400:440] = np.nan
    first, second = prepare_training([record(values)], "pump", TRAINING).stretches
    held = TRAINING.hold_rows
    assert (len(first), len(second)) == (400 + held, 560)
    absent = np.arange(len(first))[first.present[:, 1] == 0]
    assert absent.tolist() == list(range(200 + held, 240))
    assert (first.samples[absent, 1] == 0).all()
    assert first.present[:, 0].all()


@pytest.mark.parametrize(("config", "n"), [(TRAINING, 107), (STREAM, 212), (AnomalyConfig(), 212)])
def test_too_few_rows_say_how_many_there_are_and_one_more_suffices(  # type: ignore[no-untyped-def]
    record, config: AnomalyConfig, n: int
) -> None:
    with pytest.raises(DataError, match=r"pump: 63 scored frames to fit, wanted at least 64"):
        prepare_training([record(noise(n - 1))], "pump", config)
    (stretch,) = prepare_training([record(noise(n))], "pump", config).stretches
    assert (stretch.fit & stretch.scored).sum() == 64


def test_segments_too_short_for_a_score_are_an_error_that_says_so(record) -> None:  # type: ignore[no-untyped-def]
    segments = tuple(range(0, 1000, 10))
    with pytest.raises(DataError, match="longest segment of 10, and a first score takes 17"):
        prepare_training([record(noise(1000), segments=segments)], "pump", TRAINING)


def test_a_channel_without_any_value_is_an_error_that_names_it(record) -> None:  # type: ignore[no-untyped-def]
    values = noise(500)
    values[:400, 1] = np.nan
    with pytest.raises(DataError, match="channel 'c1' has no value") as caught:
        prepare_training([record(values)], "pump", TRAINING)
    assert "--ignore 'c1'" in caught.value.hint


def test_gaps_everywhere_are_an_error_that_counts_the_frames(record) -> None:  # type: ignore[no-untyped-def]
    values = noise(500)
    values[np.arange(500) % 20 < 13] = np.nan
    with pytest.raises(DataError, match="0 scored frames to fit, wanted at least 64") as caught:
        prepare_training([record(values)], "pump", TRAINING)
    assert "hold_rows" in caught.value.hint


@pytest.mark.parametrize("config", [TRAINING, STREAM])
def test_a_constant_channel_is_kept_with_a_warning_and_its_change_shows(  # type: ignore[no-untyped-def]
    record, config: AnomalyConfig
) -> None:
    values = noise(1000)
    values[:, 1] = 40.0
    data = prepare_training([record(values)], "pump", config)
    assert "channel 'c1' is constant" in data.warnings[0]
    assert np.isfinite(data.stretches[0].samples).all()
    moved = values.copy()
    moved[900:, 1] = 48.0
    shown = SignalPreprocessor(data.preprocessing.steps, 2).push(moved).frames[:, 1]
    assert shown[899] == 0.0
    np.testing.assert_allclose(shown[900:], 2.0, atol=0.01)  # it has no level that would follow


def test_constant_channels_alone_are_an_error(record) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="every channel is constant"):
        prepare_training([record(np.full((500, 2), 7.0))], "pump", TRAINING)


def test_the_values_of_a_discrete_channel_are_known_and_an_absent_one_is_none_of_them(  # type: ignore[no-untyped-def]
    record,
) -> None:
    values = noise(2000, 3)
    values[:, 1] = np.array([3.0, 4.0, 7.0])[np.arange(2000) // 40 % 3]
    values[300:340, 1] = np.nan
    data = prepare_training([record(values)], "pump", STREAM)
    assert list(data.discrete) == [1]
    assert len(data.discrete[1]) == 3
    assert (data.stretches[0].present[:, 1] == 0).any()
    assert not any(step.adapts[1] for step in data.preprocessing.steps
                   if isinstance(step, StreamBaseline))  # fmt: skip
    assert np.ptp(data.discrete[1]) <= 2.5  # a rare value is no large deviation


def test_labelled_anomalies_in_the_training_rows_are_counted_in_a_warning(record) -> None:  # type: ignore[no-untyped-def]
    labels = np.zeros(1000, bool)
    labels[600:640] = True
    data = prepare_training([record(noise(1000), labels=labels)], "pump", TRAINING)
    assert "40 of the 1000 training rows are labelled anomalous" in data.warnings[0]
    before = prepare_training([record(noise(1000), labels=labels)], "pump", TRAINING, 600)
    assert not before.warnings


@pytest.mark.parametrize("n", [212, 5000])
def test_the_sample_is_finite_long_enough_and_anomalous_at_its_end(record, n: int) -> None:  # type: ignore[no-untyped-def]
    values = noise(n)
    values[-20:-12] = np.nan
    rows = prepare_training([record(values)], "pump", TRAINING).sample_rows
    assert len(rows) >= min(2 * (FIRST + 1) + 64, n)
    assert np.isfinite(rows).all()
    quarter = len(rows) // 4
    assert rows[-quarter:, 0].mean() > rows[:-quarter, 0].mean() + 4.0
