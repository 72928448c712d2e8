"""Signal preprocessing: the same numbers in any chunking, as its definition says.

Dimension legend: n rows, c channels, m frames, f features of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.contracts.errors import TensorError
from limpet.contracts.signal_preprocessor import (
    SignalPreprocessor,
    prepare_stretches,
    prepare_together,
)
from limpet.contracts.signal_steps import (
    BandEnergies,
    Clip,
    HoldLast,
    LookBack,
    SignalStep,
    features_of,
)
from limpet.contracts.signals import LAST_SCORED, Prepared
from tests.contracts.signal_definition import Naive
from tests.contracts.signal_streams import (
    BROKEN,
    ON_OWN_LEVEL,
    PLAIN,
    Fleet,
    Rows,
    chains,
    column,
    cuts,
    fleets,
    in_one,
    names,
    only,
    streams,
)


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
