"""The laws of the steps that remember: a stream's own level, and frames of band energies.

Dimension legend: n rows, c channels, f features of a frame.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.contracts.signal_runners import runner_of
from limpet.contracts.signal_steps import (
    LEVEL_FRAMES,
    BandEnergies,
    HoldLast,
    LookBack,
    SignalStep,
    StreamBaseline,
    features_of,
)
from limpet.contracts.signals import Float32
from tests.contracts.signal_streams import ON_OWN_LEVEL, Rows, column, in_one, names, only

VIBRATION = BandEnergies(frame_rows=64, hop_rows=32, bands=4)


# Baselines ---------------------------------------------------------------------------------------


def test_a_constant_stream_is_at_its_own_level() -> None:
    assert only(in_one(ON_OWN_LEVEL, np.full((50, 1), 1234.5)).frames) == [0.0] * 50


@given(st.floats(-1e3, 1e3))
@settings(max_examples=30)
def test_relative_to_itself_a_stream_has_no_level_and_keeps_its_unit(offset: float) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 1))
    plain, moved = in_one(ON_OWN_LEVEL, rows).frames, in_one(ON_OWN_LEVEL, rows + offset).frames
    np.testing.assert_allclose(moved, plain, rtol=1e-3, atol=1e-3)


def with_baseline(**changes: Any) -> list[SignalStep]:
    return [
        msgspec.structs.replace(step, **changes) if isinstance(step, StreamBaseline) else step
        for step in ON_OWN_LEVEL
    ]


def test_a_louder_stream_is_louder_for_the_spread_is_fixed() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 1))
    trusting = with_baseline(influence=1e9)
    quiet, loud = in_one(trusting, rows).frames, in_one(trusting, 5 * rows).frames
    np.testing.assert_allclose(loud, 5 * quiet, rtol=1e-4, atol=1e-5)


def test_a_feature_that_does_not_adapt_passes_unchanged() -> None:
    chain: list[SignalStep] = [
        HoldLast(max_rows=0),
        StreamBaseline(
            time_constant_frames=20.0,
            scale=[2.0, 2.0],
            adapts=[True, False],
            settling_frames=1,
            influence=3.0,
        ),
        LookBack(frames=1),
    ]
    rows = np.random.default_rng(0).normal(size=(60, 2)) + 9.0
    frames = in_one(chain, rows).frames
    np.testing.assert_array_equal(frames[:, 1], rows[:, 1].astype(np.float32))
    np.testing.assert_array_equal(frames[:, 0], in_one(ON_OWN_LEVEL, rows[:, :1]).frames[:, 0])


def test_a_level_is_the_mean_of_what_came_before_its_block() -> None:
    values = np.random.default_rng(0).normal(size=3 * LEVEL_FRAMES)
    steady = with_baseline(time_constant_frames=1e9, settling_frames=1000)
    found = only(in_one(steady, values[:, None]).frames)
    for row, value in enumerate(values):
        known = row // LEVEL_FRAMES * LEVEL_FRAMES
        level = values[:known].mean() if known else values[0]
        assert found[row] == pytest.approx((value - level) / 2.0, abs=1e-5)


@pytest.mark.parametrize("features", [1, 2])
def test_a_level_has_every_bit_the_same_in_any_chunking(features: int) -> None:
    step = msgspec.structs.replace(
        ON_OWN_LEVEL[1], scale=[1.0] * features, adapts=[True] * features
    )
    values = np.random.default_rng(0).normal(size=(300, features))
    present = np.ones(values.shape, bool)
    runner = runner_of(step)
    whole = runner(values[None], present[None], np.zeros((1, runner.size)), 0)[0]
    memory = np.zeros((1, runner.size))
    for i in range(len(values)):
        row = slice(i, i + 1)
        found = runner(values[None, row], present[None, row], memory, i % LEVEL_FRAMES)
        np.testing.assert_array_equal(found[0], whole[row])


def test_a_level_follows_a_step_with_its_time_constant() -> None:
    rows = np.concatenate([np.zeros((4000, 1)), np.ones((400, 1))])
    chain = with_baseline(time_constant_frames=160.0, scale=[1.0])
    after = in_one(chain, rows).frames[4000:, 0]
    np.testing.assert_allclose(after[160], math.exp(-1.0), rtol=0.05)
    np.testing.assert_allclose(after[320], math.exp(-2.0), rtol=0.05)


def test_a_fault_is_taken_for_the_new_normal_only_slowly() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 1))
    rows[100:] += 50.0
    after = 120  # a time constant after the step
    robust = in_one(ON_OWN_LEVEL, rows).frames[after, 0]
    assert robust > 2 * in_one(with_baseline(influence=1e9), rows).frames[after, 0]


def test_a_stream_has_no_score_before_its_baseline_has_settled() -> None:
    preprocessor = SignalPreprocessor(ON_OWN_LEVEL, 1)
    assert preprocessor.warm_up_rows == 7
    states = names(preprocessor.push(np.arange(10.0)[:, None]).states)
    assert states == ["warming_up"] * 7 + ["scored"] * 3


def test_a_row_is_compared_with_those_before_it_only() -> None:
    quiet = np.sin(np.arange(100.0))[:, None]
    jump = np.concatenate([quiet, column(1000.0)])
    np.testing.assert_allclose(in_one(ON_OWN_LEVEL, jump).frames[-1, 0], 500.0, rtol=0.01)


def test_an_absent_channel_keeps_its_level_until_it_comes_back() -> None:
    chain = [
        msgspec.structs.replace(step, scale=[2.0] * 2, adapts=[True] * 2)
        if isinstance(step, StreamBaseline)
        else step
        for step in ON_OWN_LEVEL
    ]
    rows = np.random.default_rng(0).normal([100.0, -40.0], size=(120, 2))
    rows[40:100, 1] = np.nan
    frames = in_one(chain, rows).frames
    assert np.abs(frames[100:, 1]).max() < 3.0


# Bands -------------------------------------------------------------------------------------------


def energies(values: Rows, step: BandEnergies = VIBRATION) -> Float32:
    chain: list[SignalStep] = [HoldLast(max_rows=0), step, LookBack(frames=1)]
    return in_one(chain, values.reshape(len(values), -1)).frames


def test_every_band_has_a_bin_of_its_own_and_together_they_are_all_from_the_second_cycle() -> None:
    rng = np.random.default_rng(0)
    for frame_rows in (*range(6, 40), 63, 64, 256, 1000):
        values = rng.normal(size=frame_rows)
        most = frame_rows // 2 - 2
        spectrum = np.abs(np.fft.rfft(values * np.hanning(frame_rows + 1)[:-1])) ** 2
        for bands in {1, 2, most // 2, most} - {0}:
            step = BandEnergies(frame_rows=frame_rows, hop_rows=1, bands=min(bands, most))
            found = 10.0 ** energies(values, step).astype(float)
            assert found.shape == (1, step.bands)
            assert found.sum() == pytest.approx(spectrum[2:].sum() / frame_rows, rel=1e-4)
            if step.bands == most:
                # One bin each, but for the last, which takes the two highest.
                singles = [*spectrum[2:-2], spectrum[-2:].sum()]
                np.testing.assert_allclose(found[0] * frame_rows, singles, rtol=1e-4)


def test_a_tone_is_in_the_band_of_its_frequency_and_four_times_as_strong_at_twice_the_size() -> (
    None
):
    time = np.arange(64)
    edges = 2 * (33 / 2) ** (np.arange(5) / 4)  # 2, 4, 8.1, 16.4, 33 cycles a frame
    for band in range(4):
        cycles = math.sqrt(edges[band] * edges[band + 1])
        tone = np.sin(2 * np.pi * cycles * time / 64)
        once, twice = energies(tone)[0], energies(2 * tone)[0]
        assert once.argmax() == band
        assert twice[band] - once[band] == pytest.approx(math.log10(4.0), abs=1e-5)


def test_silence_and_a_constant_have_the_least_energy() -> None:
    np.testing.assert_allclose(energies(np.zeros(64)), -12.0)
    assert energies(np.full(64, 7.0)).max() < -11.9


def test_features_are_ordered_by_channel_and_within_it_by_frequency() -> None:
    time = np.arange(64)
    low, high = np.sin(2 * np.pi * 3 * time / 64), np.sin(2 * np.pi * 25 * time / 64)
    both = energies(np.stack([low, high], axis=1))[0]
    np.testing.assert_allclose(both, [*energies(low)[0], *energies(high)[0]], rtol=1e-5)
    assert both.argmax() in (0, 7)
    assert features_of([HoldLast(max_rows=0), VIBRATION, LookBack(frames=1)], 2) == 8


def test_a_frame_comes_every_hop_and_the_first_score_when_all_frames_are_there() -> None:
    chain: list[SignalStep] = [HoldLast(max_rows=0), VIBRATION, LookBack(frames=3)]
    preprocessor = SignalPreprocessor(chain, 1)
    prepared = preprocessor.push(np.random.default_rng(0).normal(size=(200, 1)))
    assert prepared.ends.tolist() == [63, 95, 127, 159, 191]
    assert prepared.scored.tolist() == [False, False, True, True, True]
    assert preprocessor.warm_up_rows == 127
    assert names(prepared.states) == ["warming_up"] * 127 + ["scored"] * 73


def test_states_speak_of_the_frames_that_the_score_that_holds_looks_back_on() -> None:
    chain: list[SignalStep] = [
        HoldLast(max_rows=1),
        BandEnergies(frame_rows=6, hop_rows=4, bands=1),
        LookBack(frames=1),
    ]
    rows = np.random.default_rng(0).normal(size=(30, 2))
    rows[4, 0] = np.nan  # in the frames 0..5 and 4..9, whose scores hold until row 12
    rows[19:22, 1] = np.nan  # absent at 20 and 21: in the frames 16..21 and 20..25
    prepared = in_one(chain, rows)
    assert prepared.ends.tolist() == [5, 9, 13, 17, 21, 25, 29]
    assert prepared.present[:, 1].tolist() == [1, 1, 1, 1, 0, 0, 1]
    assert prepared.present[:, 0].all()
    states = names(prepared.states)
    assert states[:13] == ["warming_up"] * 5 + ["filled"] * 8
    assert states[13:19] == ["scored"] * 6
    assert states[19:] == ["filled", *["partial"] * 9, "scored"]
