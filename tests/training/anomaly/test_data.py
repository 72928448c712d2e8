"""From recordings to windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.recordings import Recording
from limpet.contracts.signals import SignalPreprocessor, Standardize, StreamBaseline
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.data import prepare_training

TRAINING = AnomalyConfig(baseline="training", window_rows=16)
STREAM = AnomalyConfig(window_rows=16)


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


def test_the_last_quarter_is_held_out_and_no_window_crosses_the_cut(record) -> None:  # type: ignore[no-untyped-def]
    data = prepare_training([record(noise(1000))], "pump", TRAINING)
    assert (data.fit.ends[0], data.fit.ends[-1]) == (15, 749)
    assert (data.held_out.ends[0], data.held_out.ends[-1]) == (765, 999)


@pytest.mark.parametrize("config", [TRAINING, STREAM])
def test_held_out_rows_change_nothing_that_is_fitted(record, config: AnomalyConfig) -> None:  # type: ignore[no-untyped-def]
    values, other = noise(1000), noise(1000)
    other[750:] = 1e6 * noise(250, seed=1)
    a, b = (prepare_training([record(v)], "pump", config) for v in (values, other))
    assert a.preprocessing == b.preprocessing
    np.testing.assert_array_equal(a.fit.values, b.fit.values)
    assert not np.array_equal(a.held_out.values, b.held_out.values)


def test_windows_are_what_the_preprocessor_makes_of_streams_that_start_anew(record) -> None:  # type: ignore[no-untyped-def]
    values = noise(1000)
    data = prepare_training([record(values)], "pump", STREAM)
    both = np.concatenate([data.fit.values, data.held_out.values])
    ends = np.concatenate([data.fit.ends, data.held_out.ends])
    for start in (0, 500):
        steps = data.preprocessing.steps
        prepared = SignalPreprocessor(steps, 2).push(values[start : start + 500])
        ours = (ends >= start) & (ends < start + 500)
        theirs = np.isin(prepared.ends + start, ends)
        assert theirs.sum() > 100
        np.testing.assert_array_equal(both[ours], prepared.windows[theirs])


def test_prepared_rows_have_about_zero_mean_and_unit_spread_in_any_unit(record) -> None:  # type: ignore[no-untyped-def]
    values = noise(2000) * [1e-6, 1e5] + [3.0, -1e7]
    for config in (TRAINING, STREAM):
        fit = prepare_training([record(values)], "pump", config).fit.values
        assert np.abs(fit.mean(axis=(0, 1))).max() < 0.15
        assert np.abs(fit.std(axis=(0, 1)) - 1).max() < 0.15


def test_train_rows_uses_only_the_first_rows_of_the_files_in_order(record) -> None:  # type: ignore[no-untyped-def]
    files = [record(noise(600), name="a.csv"), record(noise(600, seed=1), name="b.csv")]
    data = prepare_training(files, "pumps", TRAINING, train_rows=900)
    assert [(d.name, d.rows) for d in data.digests] == [("a.csv", 600), ("b.csv", 300)]
    first = prepare_training(files, "pumps", TRAINING, train_rows=600)
    assert [d.name for d in first.digests] == ["a.csv"]
    more = prepare_training(files, "pumps", TRAINING, train_rows=5000)
    assert "asks for more than there is: 1200 rows" in more.warnings[0]


def test_each_file_has_its_own_part_held_out(record) -> None:  # type: ignore[no-untyped-def]
    files = [record(noise(600), name="a.csv"), record(noise(600, seed=1), name="b.csv")]
    held_out = prepare_training(files, "pumps", TRAINING).held_out
    assert set(held_out.ends.tolist()) == {*range(465, 600), *range(1065, 1200)}
    assert (held_out.stretch[held_out.ends < 600] != held_out.stretch[-1]).all()


def test_no_window_reaches_into_the_segment_before(record) -> None:  # type: ignore[no-untyped-def]
    segments = tuple(range(0, 1000, 50))
    data = prepare_training([record(noise(1000), segments=segments)], "pump", TRAINING)
    for windows in (data.fit, data.held_out):
        assert (windows.ends % 50 >= 15).all()
    assert len(set(data.fit.stretch.tolist())) == 15


def test_too_few_rows_say_how_many_it_takes_and_those_suffice(record) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=r"pump: 100 rows, wanted at least 124"):
        prepare_training([record(noise(100))], "pump", TRAINING)
    assert len(prepare_training([record(noise(124))], "pump", TRAINING).held_out) == 16


def test_segments_shorter_than_a_window_are_an_error_that_says_so(record) -> None:  # type: ignore[no-untyped-def]
    segments = tuple(range(0, 1000, 10))
    with pytest.raises(DataError, match="longest segment has 10 rows, wanted at least the 16"):
        prepare_training([record(noise(1000), segments=segments)], "pump", TRAINING)


def test_a_channel_without_any_value_is_an_error_that_names_it(record) -> None:  # type: ignore[no-untyped-def]
    values = noise(500)
    values[:400, 1] = np.nan
    with pytest.raises(DataError, match="channel 'c1' has no value") as caught:
        prepare_training([record(values)], "pump", TRAINING)
    assert "--ignore 'c1'" in caught.value.hint


def test_gaps_everywhere_are_an_error_that_counts_the_windows(record) -> None:  # type: ignore[no-untyped-def]
    values = noise(500)
    values[np.arange(500) % 20 < 13] = np.nan
    with pytest.raises(DataError, match="0 whole windows of 16 rows to fit, wanted at least 64"):
        prepare_training([record(values)], "pump", TRAINING)


@pytest.mark.parametrize("config", [TRAINING, STREAM])
def test_a_constant_channel_is_kept_with_a_warning_and_its_change_shows(  # type: ignore[no-untyped-def]
    record, config: AnomalyConfig
) -> None:
    values = noise(1000)
    values[:, 1] = 40.0
    data = prepare_training([record(values)], "pump", config)
    assert "channel 'c1' is constant" in data.warnings[0]
    assert np.isfinite(data.fit.values).all()
    moved = values.copy()
    moved[900:, 1] = 48.0
    shown = SignalPreprocessor(data.preprocessing.steps, 2).push(moved)
    (at_once,) = shown.windows[shown.ends == 900]
    assert at_once[-1, 1] == pytest.approx(2.0, abs=0.01)


def test_constant_channels_alone_are_an_error(record) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="every channel is constant"):
        prepare_training([record(np.full((500, 2), 7.0))], "pump", TRAINING)


def test_labelled_anomalies_in_the_training_rows_are_counted_in_a_warning(record) -> None:  # type: ignore[no-untyped-def]
    labels = np.zeros(1000, bool)
    labels[600:640] = True
    data = prepare_training([record(noise(1000), labels=labels)], "pump", TRAINING)
    assert "40 of the 1000 training rows are labelled anomalous" in data.warnings[0]
    before = prepare_training([record(noise(1000), labels=labels)], "pump", TRAINING, 600)
    assert not before.warnings


def test_short_segments_with_a_stream_baseline_get_a_warning(record) -> None:  # type: ignore[no-untyped-def]
    segments = tuple(range(0, 1000, 200))
    data = prepare_training([record(noise(1000), segments=segments)], "pump", STREAM)
    assert 'consider baseline = "training"' in data.warnings[0]


def test_the_chain_follows_the_choice_of_baseline(record) -> None:  # type: ignore[no-untyped-def]
    recording = record(noise(1000) * 5.0 + 100.0)
    for config, relative in ((TRAINING, False), (STREAM, True)):
        steps = prepare_training([recording], "pump", config).preprocessing.steps
        assert any(isinstance(step, Standardize) for step in steps)
        assert any(isinstance(step, StreamBaseline) for step in steps) == relative


@pytest.mark.parametrize("n", [212, 5000])
def test_the_sample_is_finite_long_enough_and_anomalous_at_its_end(record, n: int) -> None:  # type: ignore[no-untyped-def]
    values = noise(n)
    values[-20:-12] = np.nan
    rows = prepare_training([record(values)], "pump", TRAINING).sample_rows
    assert len(rows) >= min(2 * 16 + 64, n)
    assert np.isfinite(rows).all()
    quarter = len(rows) // 4
    assert rows[-quarter:, 0].mean() > rows[:-quarter, 0].mean() + 4.0
