"""VUS against the public implementation's figures (`vus_golden.py`), and laws that it must keep."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest

from limpet.training.anomaly.volumes import DEFAULT_WINDOW_ROWS, metric_window, volumes
from tests.benchmarks.public_metrics import PublicFigures, Series
from tests.training.anomaly.vus_golden import (
    REAL,
    demo_series,
    labels,
    read_golden,
    real_series,
    seeded_series,
)

SEEDED, DEMO_RECORDINGS, GOLDEN = seeded_series(), demo_series(), read_golden()


def assert_agrees(series: Series, golden: PublicFigures) -> None:
    window = series.window_rows
    if window is None:
        window = metric_window(series.channel)
    assert window == golden.window_rows
    found = volumes(series.scores, series.labels, window)
    assert found.pr == pytest.approx(golden.vus_pr, abs=1e-9)
    assert found.roc == pytest.approx(golden.vus_roc, abs=1e-9)


@pytest.mark.parametrize("name", [*SEEDED, *DEMO_RECORDINGS])
def test_volumes_and_window_are_those_of_the_public_implementation(name: str) -> None:
    assert_agrees({**SEEDED, **DEMO_RECORDINGS}[name], GOLDEN[name])


@pytest.mark.parametrize("name", REAL)
def test_they_are_on_real_recordings_too(name: str, data_dir: Path) -> None:
    assert_agrees(real_series(data_dir / name, REAL[name]), GOLDEN[name])


def test_the_golden_file_holds_these_series_and_no_other() -> None:
    assert set(GOLDEN) == {*SEEDED, *DEMO_RECORDINGS, *REAL}


def test_only_the_order_of_the_scores_counts() -> None:
    rng = np.random.default_rng(2)
    scores, truth = rng.normal(size=900), labels(900, (300, 340))
    assert volumes(np.exp(3 * scores), truth, 40) == volumes(scores, truth, 40)


def test_a_recording_read_backwards_has_the_same_volumes() -> None:
    rng = np.random.default_rng(3)
    scores, truth = rng.normal(size=900), labels(900, (0, 20), (300, 340), (350, 352))
    forwards, backwards = volumes(scores, truth, 40), volumes(scores[::-1], truth[::-1], 40)
    np.testing.assert_allclose([forwards.pr, forwards.roc], [backwards.pr, backwards.roc])


@pytest.mark.parametrize("truth", [labels(50), labels(50, (0, 50))])
def test_volumes_are_undefined_without_rows_of_both_kinds(truth: np.ndarray) -> None:
    found = volumes(np.arange(50.0), truth, 10)
    assert math.isnan(found.pr)
    assert math.isnan(found.roc)


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_missing_values_do_not_hide_a_period(missing: float) -> None:
    wave = np.sin(2 * np.pi * np.arange(3000) / 40)
    wave[::97] = missing
    assert metric_window(wave) == 40


@pytest.mark.parametrize(
    "values",
    [np.full(500, np.nan), np.full(500, 0.1), np.arange(2.0), np.ones(1)],
    ids=["all missing", "constant", "two rows", "one row"],
)
def test_a_channel_without_a_period_takes_the_default_window(values: np.ndarray) -> None:
    assert metric_window(values) == DEFAULT_WINDOW_ROWS


def test_a_long_recording_takes_well_under_a_second() -> None:
    rng = np.random.default_rng(4)
    scores, truth = rng.normal(size=12_000), rng.random(12_000) < 0.02
    began_s = time.process_time()
    volumes(scores, truth, 100)
    assert time.process_time() - began_s < 0.5
