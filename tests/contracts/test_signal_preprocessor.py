"""Signal preprocessing: the same numbers in any chunking, and the laws of each step.

Dimension legend: n rows, c channels, m frames, f features of a frame.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from limpet.contracts.errors import TensorError
from limpet.contracts.signal_preprocessor import (
    SignalPreprocessor,
    prepare_stretches,
    prepare_together,
)
from limpet.contracts.signal_runners import runner_of
from limpet.contracts.signal_steps import (
    LEVEL_FRAMES,
    BandEnergies,
    Clip,
    HoldLast,
    LookBack,
    SignalStep,
    Standardize,
    StreamBaseline,
    features_of,
)
from limpet.contracts.signals import LAST_SCORED, Float32, Prepared, RowState, States
from tests.contracts.signal_streams import BROKEN, Fleet, Rows, chains, cuts, fleets, streams


def in_one(chain: Sequence[SignalStep], rows: Rows) -> Prepared:
    return SignalPreprocessor(chain, rows.shape[1]).push(rows)


def in_chunks(chain: Sequence[SignalStep], rows: Rows, at: Sequence[int]) -> Prepared:
    preprocessor = SignalPreprocessor(chain, rows.shape[1])
    chunks = [preprocessor.push(chunk) for chunk in np.split(rows, at)]
    starts = [0, *at]
    return Prepared(
        np.concatenate([chunk.states for chunk in chunks]),
        np.concatenate([chunk.frames for chunk in chunks]),
        np.concatenate([chunk.present for chunk in chunks]),
        np.concatenate([chunk.ends + start for chunk, start in zip(chunks, starts, strict=True)]),
        np.concatenate([chunk.begins for chunk in chunks]),
        np.concatenate([chunk.scored for chunk in chunks]),
    )


def assert_same(found: Prepared, wanted: Prepared) -> None:
    for field in ("states", "frames", "present", "ends", "begins", "scored"):
        np.testing.assert_array_equal(getattr(found, field), getattr(wanted, field), field)


class Level:
    """A feature's level from its definition: a weighted mean of all values that counted."""

    def __init__(self, step: StreamBaseline, feature: int) -> None:
        self._scale, self._step = step.scale[feature], step
        self._first = 0.0
        self._counted: list[tuple[int, float]] = []  # block and value

    def relative(self, value: float, frame: int) -> float:
        """A measured value relative to the level of its block, then it counts."""
        block = frame // LEVEL_FRAMES
        before = [(b, v) for b, v in self._counted if b < block]
        if not self._counted:
            self._first = value
        if before:
            ages = [LEVEL_FRAMES * (block - 1 - b) for b, _ in before]
            weights = [math.exp(-age / self._step.time_constant_frames) for age in ages]
            level = sum(w * v for w, (_, v) in zip(weights, before, strict=True)) / sum(weights)
        else:
            level = self._first
        delta, most = value - level, self._step.influence * self._scale
        settled = len(before) >= self._step.settling_frames
        self._counted.append((block, level + min(max(delta, -most), most) if settled else value))
        return delta / self._scale


def band_edges(step: BandEnergies) -> list[int]:
    """First bin of each band and the bin after the last: each band has one bin at least."""
    bins = step.frame_rows // 2 + 1
    edges = [2]
    for band in range(1, step.bands + 1):
        ideal = round(2 * (bins / 2) ** (band / step.bands))
        edges.append(min(max(ideal, edges[-1] + 1, 2 + band), bins - (step.bands - band)))
    return edges


def band_energies(step: BandEnergies, values: Sequence[float]) -> list[float]:
    """Of one channel's frame, by the sums that define the Fourier transform."""
    n = step.frame_rows
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * i / n) for i in range(n)]
    weighted = [w * v for w, v in zip(hann, values, strict=True)]
    power = []
    for k in range(n // 2 + 1):
        angles = [2 * math.pi * k * i / n for i in range(n)]
        real = sum(v * math.cos(a) for v, a in zip(weighted, angles, strict=True))
        imaginary = sum(v * math.sin(a) for v, a in zip(weighted, angles, strict=True))
        power.append(real * real + imaginary * imaginary)
    edges = band_edges(step)
    return [math.log10(sum(power[a:b]) / n + 1e-12) for a, b in itertools.pairwise(edges)]


class Naive:
    """The definition, one row at a time: slow, and not like the implementation."""

    def __init__(self, chain: Sequence[SignalStep], channels: int) -> None:
        hold, self.steps, look_back = chain[0], list(chain[1:-1]), chain[-1]
        assert isinstance(hold, HoldLast)
        assert isinstance(look_back, LookBack)
        self.max_rows, self.look_back = hold.max_rows, look_back.frames
        self.bands = None
        if self.steps and isinstance(self.steps[0], BandEnergies):
            self.bands = self.steps.pop(0)
        self.frame_rows = self.bands.frame_rows if self.bands else 1
        self.hop_rows = self.bands.hop_rows if self.bands else 1
        settling = [s.settling_frames for s in self.steps if isinstance(s, StreamBaseline)]
        self.first_scored = max([self.look_back, *settling])
        self.channels = channels
        self.last = [0.0] * channels
        self.missing = [math.inf] * channels
        self.states: list[RowState] = []
        self.frames: list[tuple[list[float], list[bool], int, bool, bool]] = []
        self.begin()

    def begin(self) -> None:
        """A stream of its own begins."""
        self.rows: list[tuple[list[float], list[bool], bool]] = []  # values, present, any filled
        self.spans: list[int] = []  # first row of each frame of this stream
        features = self.channels * (self.bands.bands if self.bands else 1)
        baselines = [s for s in self.steps if isinstance(s, StreamBaseline)]
        self.levels = [[Level(step, i) for i in range(features)] for step in baselines]

    def take(self, index: int, row: NDArray[np.float64]) -> None:
        measured = [bool(abs(value) < 1e39) for value in row]
        for i, value in enumerate(row):
            self.last[i] = float(value) if measured[i] else self.last[i]
            self.missing[i] = 0 if measured[i] else self.missing[i] + 1
        present = [missing <= self.max_rows for missing in self.missing]
        if not any(present):
            self.states.append(RowState.HOLE)
            self.begin()
            return
        self.rows.append((list(self.last), present, not all(measured)))
        start = len(self.rows) - self.frame_rows
        if start >= 0 and start % self.hop_rows == 0:
            self.make_frame(start, index)
        self.states.append(self.state())

    def make_frame(self, start: int, index: int) -> None:
        rows = self.rows[start:]
        x, present = [], []
        for i in range(self.channels):
            values = [values[i] for values, _, _ in rows]
            whole = all(flags[i] for _, flags, _ in rows)
            energies = band_energies(self.bands, values) if self.bands else values
            x += energies
            present += [whole] * len(energies)
        number, levels = len(self.spans), iter(self.levels)
        for step in self.steps:
            if isinstance(step, Clip):
                x = [min(max(value, -step.limit), step.limit) for value in x]
            elif isinstance(step, Standardize):
                x = [(v - m) / s for v, m, s in zip(x, step.mean, step.scale, strict=True)]
            else:
                assert isinstance(step, StreamBaseline)
                for i, level in enumerate(next(levels)):
                    if present[i] and step.adapts[i]:
                        x[i] = level.relative(x[i], number)
        self.spans.append(start)
        x = [value if here else 0.0 for value, here in zip(x, present, strict=True)]
        self.frames.append((x, present, index, number == 0, number + 1 >= self.first_scored))

    def state(self) -> RowState:
        if len(self.spans) < self.first_scored:
            return RowState.WARMING_UP
        if not all(all(present) for _, present, _ in self.rows[self.spans[-1] :]):
            return RowState.PARTIAL
        looked_back_on = self.rows[self.spans[-self.look_back] :]
        filled = any(filled for _, _, filled in looked_back_on)
        return RowState.FILLED if filled else RowState.SCORED


@given(cuts())
def test_any_chunking_gives_the_same_states_and_frames(
    cut: tuple[list[SignalStep], Rows, list[int]],
) -> None:
    chain, rows, at = cut
    assert_same(in_chunks(chain, rows, at), in_one(chain, rows))


@given(fleets())
def test_streams_prepared_together_are_as_alone(fleet: Fleet) -> None:
    chain, recordings, rounds = fleet
    channels = recordings[0].shape[1]
    together = [SignalPreprocessor(chain, channels) for _ in recordings]
    alone = [SignalPreprocessor(chain, channels) for _ in recordings]
    at = [0] * len(recordings)
    for sizes in rounds:
        who = [i for i, size in enumerate(sizes) if size is not None]
        chunks = []
        for i in who:
            chunks.append(recordings[i][at[i] : at[i] + (sizes[i] or 0)])
            at[i] += len(chunks[-1])
        found = prepare_together([together[i] for i in who], chunks)
        for i, prepared, chunk in zip(who, found, chunks, strict=True):
            assert_same(prepared, alone[i].push(chunk))


@given(streams())
def test_row_by_row_is_as_all_at_once(stream: tuple[list[SignalStep], Rows]) -> None:
    chain, rows = stream
    assert_same(in_chunks(chain, rows, range(1, len(rows))), in_one(chain, rows))


@given(streams())
@settings(max_examples=200)
def test_the_chain_does_what_its_definition_says(stream: tuple[list[SignalStep], Rows]) -> None:
    chain, rows = stream
    prepared, naive = in_one(chain, rows), Naive(chain, rows.shape[1])
    for index, row in enumerate(rows):
        naive.take(index, row)
    assert names(prepared.states) == [state.name.lower() for state in naive.states]
    frames, present, ends, begins, scored = ([f[i] for f in naive.frames] for i in range(5))
    for found in (prepared.frames, prepared.present):
        assert found.dtype == np.float32
        assert found.shape == (len(frames), features_of(chain, rows.shape[1]))
    np.testing.assert_array_equal(prepared.ends, ends)
    np.testing.assert_array_equal(prepared.begins, begins)
    np.testing.assert_array_equal(prepared.scored, scored)
    if frames:
        np.testing.assert_array_equal(prepared.present, present)
        np.testing.assert_allclose(prepared.frames, frames, rtol=1e-4, atol=1e-4)


@given(streams())
def test_what_is_prepared_is_always_finite_and_0_where_absent(
    stream: tuple[list[SignalStep], Rows],
) -> None:
    chain, rows = stream
    prepared = in_one(chain, rows)
    assert np.isfinite(prepared.frames).all()
    assert set(np.unique(prepared.present)) <= {0.0, 1.0}
    assert not prepared.frames[prepared.present == 0].any()


@given(streams())
def test_the_first_row_with_a_score_is_the_last_of_the_first_scored_frame(
    stream: tuple[list[SignalStep], Rows],
) -> None:
    chain, rows = stream
    prepared = in_one(chain, rows)
    has_score = prepared.states <= LAST_SCORED
    first = np.flatnonzero(has_score & ~np.concatenate([[False], has_score[:-1]]))
    after = np.concatenate([[False], prepared.scored[:-1]]) & ~prepared.begins
    np.testing.assert_array_equal(first, prepared.ends[prepared.scored & ~after])


@given(streams())
def test_nothing_from_before_a_hole_reaches_beyond_it(
    stream: tuple[list[SignalStep], Rows],
) -> None:
    chain, rows = stream
    assert isinstance(chain[0], HoldLast)
    before = np.full((5 + chain[0].max_rows + 1, rows.shape[1]), np.nan)
    before[:5] = 33.0
    alone, later = in_one(chain, rows), in_one(chain, np.concatenate([before, rows]))
    np.testing.assert_array_equal(later.states[len(before) :], alone.states)
    after = later.ends >= len(before)
    for field in ("frames", "present", "begins", "scored"):
        np.testing.assert_array_equal(getattr(later, field)[after], getattr(alone, field), field)


@given(cuts())
def test_after_a_reset_a_stream_is_new(cut: tuple[list[SignalStep], Rows, list[int]]) -> None:
    chain, rows, at = cut
    preprocessor = SignalPreprocessor(chain, rows.shape[1])
    first = preprocessor.push(rows)
    for chunk in np.split(rows[::-1], at):
        preprocessor.push(chunk)
    preprocessor.reset()
    assert_same(preprocessor.push(rows), first)


@given(streams(), st.integers(0, 60))
def test_the_past_does_not_depend_on_the_future(
    stream: tuple[list[SignalStep], Rows], now: int
) -> None:
    chain, rows = stream
    other = rows.copy()
    other[now:] = 7.0
    before, after = in_one(chain, rows), in_one(chain, other)
    np.testing.assert_array_equal(before.states[:now], after.states[:now])
    past = before.ends < now
    assert past.sum() == (after.ends < now).sum()
    for field in ("frames", "present", "ends", "begins", "scored"):
        earlier = getattr(before, field)[past]
        np.testing.assert_array_equal(earlier, getattr(after, field)[: past.sum()], field)


PLAIN: list[SignalStep] = [
    HoldLast(max_rows=2),
    Standardize(mean=[3.0], scale=[2.0]),
    LookBack(frames=3),
]
ON_OWN_LEVEL: list[SignalStep] = [
    HoldLast(max_rows=2),
    StreamBaseline(
        time_constant_frames=20.0, scale=[2.0], adapts=[True], settling_frames=8, influence=3.0
    ),
    LookBack(frames=3),
]
VIBRATION = BandEnergies(frame_rows=64, hop_rows=32, bands=4)


def column(*values: float) -> Rows:
    return np.array(values, float)[:, None]


def names(states: States) -> list[str]:
    return [RowState(int(state)).name.lower() for state in states]


def only(frames: Float32) -> list[float]:
    """The one feature of each frame."""
    assert frames.shape[1] == 1
    return [float(value) for value in frames[:, 0]]


def test_the_mean_standardises_to_zero_and_one_scale_to_one() -> None:
    assert only(in_one(PLAIN, column(3, 5, 1)).frames) == [0, 1, -1]


def test_a_row_is_a_frame_and_the_first_of_a_stream_begins_it() -> None:
    prepared = in_one(PLAIN, column(3, 5, 7, 9))
    assert prepared.ends.tolist() == [0, 1, 2, 3]
    assert prepared.begins.tolist() == [True, False, False, False]
    assert prepared.scored.tolist() == [False, False, True, True]
    assert only(prepared.present) == [1, 1, 1, 1]


def test_the_first_score_comes_after_the_warm_up() -> None:
    preprocessor = SignalPreprocessor(PLAIN, 1)
    assert preprocessor.warm_up_rows == 2
    assert preprocessor.look_back_frames == 3
    states = names(preprocessor.push(column(1, 2, 3, 4)).states)
    assert states == ["warming_up", "warming_up", "scored", "scored"]


def test_a_short_gap_is_filled_and_said_so_while_the_score_looks_back_on_it() -> None:
    prepared = in_one(PLAIN, column(1, 1, 5, np.nan, 1, 1, 1))
    assert names(prepared.states) == [
        *("warming_up", "warming_up", "scored"),
        *("filled", "filled", "filled", "scored"),
    ]
    assert only(prepared.frames) == [-1, -1, 1, 1, -1, -1, -1]
    assert only(prepared.present) == [1] * 7


def test_a_long_gap_of_all_channels_is_a_hole_and_the_stream_begins_anew() -> None:
    nan = np.nan
    prepared = in_one(PLAIN, column(1, 1, 1, nan, nan, nan, nan, 1, 1, 1))
    assert names(prepared.states) == [
        *("warming_up", "warming_up", "scored", "filled", "filled", "hole", "hole"),
        *("warming_up", "warming_up", "scored"),
    ]
    assert prepared.ends.tolist() == [0, 1, 2, 3, 4, 7, 8, 9]  # a hole has no frames
    assert prepared.ends[prepared.begins].tolist() == [0, 7]


TWO_CHANNELS: list[SignalStep] = [HoldLast(max_rows=2), LookBack(frames=2)]


def test_one_dead_channel_is_absent_and_the_others_are_scored_without_it() -> None:
    rows = np.arange(16.0).reshape(8, 2)
    rows[2:6, 1] = np.nan
    prepared = in_one(TWO_CHANNELS, rows)
    assert names(prepared.states) == [
        *("warming_up", "scored", "filled", "filled", "partial", "partial"),
        *("filled", "scored"),
    ]
    assert prepared.present[:, 1].tolist() == [1, 1, 1, 1, 0, 0, 1, 1]
    assert prepared.frames[:, 1].tolist() == [1, 3, 3, 3, 0, 0, 13, 15]
    assert prepared.frames[:, 0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert prepared.begins.sum() == 1  # the stream goes on


def test_a_channel_that_was_never_measured_is_absent_and_all_of_them_are_a_hole() -> None:
    chain: list[SignalStep] = [HoldLast(max_rows=5), LookBack(frames=1)]
    nan = np.nan
    rows = np.array([[nan, nan], [1, nan], [1, nan], [1, 1], [1, nan]])
    assert names(in_one(chain, rows).states) == ["hole", "partial", "partial", "scored", "filled"]


def test_a_channel_comes_back_after_a_hole_only_when_it_is_measured() -> None:
    rows = np.full((9, 2), 5.0)
    rows[3:6], rows[6:8, 1] = np.nan, np.nan
    prepared = in_one([HoldLast(max_rows=1), LookBack(frames=1)], rows)
    assert names(prepared.states) == [
        *("scored", "scored", "scored", "filled", "hole", "hole"),
        *("partial", "partial", "scored"),
    ]


@pytest.mark.parametrize("value", BROKEN)
def test_what_is_no_measurement_counts_as_missing(value: float) -> None:
    rows, same = column(1, 2, value, 4), column(1, 2, np.nan, 4)
    assert_same(in_one(PLAIN, rows), in_one(PLAIN, same))
    assert names(in_one(PLAIN, rows).states)[-1] == "filled"


def test_row_scores_are_the_newest_frames_and_none_where_the_state_says_so() -> None:
    chain: list[SignalStep] = [
        HoldLast(max_rows=0),
        BandEnergies(frame_rows=6, hop_rows=3, bands=1),
        LookBack(frames=1),
    ]
    preprocessor = SignalPreprocessor(chain, 1)
    prepared = preprocessor.push(np.ones((10, 1)))
    assert prepared.ends.tolist() == [5, 8]
    scores = prepared.row_scores(np.array([7.0, 8.0], np.float32), held=np.nan)
    np.testing.assert_array_equal(scores, [*[np.nan] * 5, 7, 7, 7, 8, 8])
    prepared = preprocessor.push(column(1, 1, np.nan))
    scores = prepared.row_scores(np.array([9.0], np.float32), held=8.0)
    np.testing.assert_array_equal(scores, [8, 9, np.nan])


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


# Stretches ---------------------------------------------------------------------------------------


def test_clipping_limits_both_sides() -> None:
    chain: list[SignalStep] = [HoldLast(max_rows=0), Clip(limit=2.0), LookBack(frames=1)]
    assert only(in_one(chain, column(-9, 1, 9)).frames) == [-2, 1, 2]


@given(st.data())
@settings(max_examples=50)
def test_separate_stretches_are_prepared_as_streams_of_their_own(data: st.DataObject) -> None:
    channels = data.draw(st.integers(1, 3))
    chain = data.draw(chains(channels))
    assert isinstance(chain[-1], LookBack)
    count = SignalPreprocessor(chain, channels).warm_up_rows + 1
    stretches = np.random.default_rng(0).normal(size=(3, count, channels))
    found = prepare_stretches(chain, stretches)
    assert found.shape == (3, chain[-1].frames, features_of(chain, channels))
    assert found.dtype == np.float32
    for one, stretch in zip(found, stretches, strict=True):
        prepared = in_one(chain, stretch)
        assert prepared.scored.tolist() == [False] * (len(prepared.scored) - 1) + [True]
        np.testing.assert_array_equal(one, prepared.frames[-chain[-1].frames :])
    np.testing.assert_array_equal(prepare_stretches(chain, stretches[1:2]), found[1:2])


def test_no_stretches_are_no_frames() -> None:
    assert prepare_stretches(PLAIN, np.zeros((0, 3, 1))).shape == (0, 3, 1)


@pytest.mark.parametrize("value", BROKEN)
def test_a_separate_stretch_may_not_hide_what_is_missing(value: float) -> None:
    stretches = np.zeros((2, 3, 1))
    stretches[1, 2, 0] = value
    with pytest.raises(TensorError, match="NaN or infinite values"):
        prepare_stretches(PLAIN, stretches)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 1), r"rows have shape \[3, 1\], wanted \[stretches, rows, channels\]"),
        ((2, 4, 1), "4 rows, wanted the 3 up to a first score"),
        ((2, 2, 1), "2 rows, wanted the 3 up to a first score"),
        ((2, 3, 2), "Standardize needs 2 positive scales"),
        ((2, 3, 0), "at least one channel"),
    ],
)
def test_separate_stretches_of_another_shape_are_refused(
    shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(TensorError, match=message):
        prepare_stretches(PLAIN, np.zeros(shape))


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(3), r"signal is float64 \[3\], wanted floating \[rows, 1\]"),
        (np.zeros((3, 2)), r"signal is float64 \[3, 2\], wanted floating \[rows, 1\]"),
        (np.zeros((3, 1), int), r"signal is int64 \[3, 1\], wanted floating \[rows, 1\]"),
    ],
)
def test_rows_of_another_form_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        SignalPreprocessor(PLAIN, 1).push(rows)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_of_lower_precision_are_taken(dtype: type[np.floating[Any]]) -> None:
    rows = column(1, 2, 3, 4)
    assert_same(SignalPreprocessor(PLAIN, 1).push(rows.astype(dtype)), in_one(PLAIN, rows))


def test_the_callers_rows_are_left_as_they_are() -> None:
    rows = column(1, np.nan, 3, 4)
    before = rows.copy()
    for chain in (PLAIN, ON_OWN_LEVEL):
        in_one(chain, rows)
        np.testing.assert_array_equal(rows, before)


HOLD, BACK = HoldLast(max_rows=1), LookBack(frames=4)


def baseline(**changes: Any) -> StreamBaseline:
    given = {
        "time_constant_frames": 9.0,
        "scale": [1.0],
        "adapts": [True],
        "settling_frames": 4,
        "influence": 3.0,
    }
    return StreamBaseline(**{**given, **changes})


def bands(**changes: int) -> BandEnergies:
    return BandEnergies(**{"frame_rows": 8, "hop_rows": 4, "bands": 2, **changes})


BANDS_WANTED = "wanted a hop of 1 to 8 rows and 1 to 2 bands"


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([], "must end with a look_back of at least one frame"),
        ([HOLD], "must end with a look_back"),
        ([BACK], "must begin with hold_last"),
        ([BACK, HOLD], "must end with a look_back"),
        ([HOLD, LookBack(frames=0)], "at least one frame"),
        ([HOLD, LookBack(frames=-1)], "at least one frame"),
        ([HoldLast(max_rows=-1), BACK], r"hold_last.max_rows >= 0"),
        ([HOLD, HOLD, BACK], "HoldLast stands in the wrong place"),
        ([HOLD, BACK, BACK], "LookBack stands in the wrong place"),
        ([HOLD, Clip(limit=1.0), bands(), BACK], "BandEnergies stands in the wrong place"),
        ([HOLD, bands(), bands(), BACK], "BandEnergies stands in the wrong place"),
        ([bands(), HOLD, BACK], "must begin with hold_last"),
        ([HOLD, bands(hop_rows=0), BACK], f"hop_rows 0 .* {BANDS_WANTED}"),
        ([HOLD, bands(hop_rows=9), BACK], f"hop_rows 9 .* {BANDS_WANTED}"),
        ([HOLD, bands(bands=0), BACK], f"0 bands of frames of 8 rows, {BANDS_WANTED}"),
        ([HOLD, bands(bands=3), BACK], f"3 bands of frames of 8 rows, {BANDS_WANTED}"),
        ([HOLD, bands(bands=-1), BACK], f"-1 bands of frames of 8 rows, {BANDS_WANTED}"),
        ([HOLD, bands(frame_rows=5), BACK], "of frames of 5 rows"),
        ([HOLD, bands(frame_rows=-8), BACK], "of frames of -8 rows"),
        ([HOLD, bands(), Standardize(mean=[0.0], scale=[1.0]), BACK], "2 positive scales, one a"),
        ([HOLD, bands(), baseline(), BACK], "StreamBaseline needs 2 positive scales"),
        ([HOLD, Standardize(mean=[], scale=[]), bands(bands=0), BACK], "BandEnergies stands in"),
        ([HOLD, Standardize(mean=[0.0], scale=[0.0]), BACK], "1 positive scales"),
        ([HOLD, Standardize(mean=[0.0], scale=[float("nan")]), BACK], "1 positive scales"),
        ([HOLD, Standardize(mean=[0.0] * 2, scale=[1.0]), BACK], "1 positive scales"),
        ([HOLD, Standardize(mean=[0.0], scale=[1.0] * 2), BACK], "1 positive scales"),
        ([HOLD, Standardize(mean=[], scale=[]), BACK], "1 positive scales"),
        ([HOLD, baseline(scale=[-1.0]), BACK], "StreamBaseline needs 1 positive"),
        ([HOLD, baseline(scale=[1.0, 1.0]), BACK], "1 positive"),
        ([HOLD, baseline(adapts=[]), BACK], "1 positive"),
        ([HOLD, baseline(time_constant_frames=0.0), BACK], "wanted > 0"),
        ([HOLD, baseline(influence=0.0), BACK], "wanted > 0"),
        ([HOLD, Clip(limit=-1.0), BACK], "clip.limit is -1, wanted > 0"),
        ([HOLD, Clip(limit=float("nan")), BACK], "clip.limit is nan, wanted > 0"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused(chain: list[SignalStep], message: str) -> None:
    with pytest.raises(TensorError, match=message):
        SignalPreprocessor(chain, 1)


def test_a_chain_without_channels_is_refused() -> None:
    with pytest.raises(TensorError, match="at least one channel"):
        SignalPreprocessor([HOLD, Standardize(mean=[], scale=[]), BACK], 0)


@given(chains(2))
def test_a_chain_survives_the_manifest(chain: list[SignalStep]) -> None:
    raw = msgspec.json.encode(chain)
    assert msgspec.json.decode(raw, type=list[SignalStep]) == chain
