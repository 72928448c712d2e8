"""Injected anomalies."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.signals import Float32
from limpet.training.anomaly.injection import Injection, inject


def normal(b: int = 300, w: int = 32, c: int = 3, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((b, w, c)).astype(np.float32)


def injected(kind: Injection, windows: Float32, seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    return inject(windows, normal(seed=9), rng, weakest=1.0, strongest=5.0, kinds=(kind,))


@pytest.mark.parametrize("kind", Injection)
def test_every_kind_changes_every_window_and_begins_nowhere_but_reaches_the_end(
    kind: Injection,
) -> None:
    windows = normal()
    changed = injected(kind, windows) != windows  # (b, w, c)
    assert changed.any(axis=(1, 2)).all()
    # Time runs differently before the newest row, which itself is where it was.
    last_rows = 2 if kind is Injection.FREQUENCY else 1
    assert changed[:, -last_rows:].any(axis=(1, 2)).mean() > 0.99
    assert changed.any(axis=1).mean() < 0.9  # some channels stay as they were
    assert np.isfinite(injected(kind, windows)).all()


def test_a_spike_is_at_most_three_rows_long() -> None:
    windows = normal()
    changed = (injected(Injection.SPIKE, windows) != windows).any(axis=2)
    assert changed.sum(axis=1).max() == 3
    assert changed.sum(axis=1).min() == 1


def test_a_level_shift_moves_by_what_was_asked() -> None:
    windows = normal()
    moved = np.abs(injected(Injection.LEVEL_SHIFT, windows) - windows)
    moved = moved[moved > 0]
    assert moved.min() >= 0.99
    assert moved.max() <= 5.01


def test_a_frozen_channel_stands_still_at_the_end() -> None:
    windows = normal()
    frozen = injected(Injection.FREEZE, windows)
    touched = (frozen != windows).any(axis=1)  # (b, c)
    assert (np.ptp(frozen[:, -4:], axis=1)[touched] == 0).all()


def test_drift_grows_and_scaling_keeps_the_mean_of_the_stretch() -> None:
    still = np.zeros((200, 32, 1), np.float32)
    drift = np.abs(injected(Injection.DRIFT, still))[:, :, 0]
    assert (np.diff(drift, axis=1) >= 0).all()
    np.testing.assert_allclose(injected(Injection.SCALE, still + 2.0), 2.0, rtol=1e-6)


def test_the_same_generator_state_gives_the_same_windows_and_leaves_the_input_alone() -> None:
    windows = normal()
    kept = windows.copy()
    first, again, other = (
        inject(windows, windows, np.random.default_rng(s), weakest=1.0, strongest=5.0)
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(windows, kept)
    assert (first != other).any()
