"""Signal preprocessing: the same numbers in any chunking, and the laws of each step.

Dimension legend: n rows, c channels, w rows of a window, m windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from limpet.contracts.errors import TensorError
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signals import (
    Clip,
    Float32,
    HoldLast,
    Prepared,
    RowState,
    SignalPreprocessor,
    SignalStep,
    Standardize,
    States,
    StreamBaseline,
    Window,
    prepare_windows,
)
from limpet.contracts.tensors import Tensors
from tests.bundles import anomaly_manifest

Rows = NDArray[np.float64]

BROKEN = [np.nan, np.inf, -np.inf, 1e300]
"""What a sensor may send that is no measurement."""


@st.composite
def chains(draw: st.DrawFn, channels: int) -> list[SignalStep]:
    """Chains with and without a baseline of the stream, with windows that hop or do not."""
    chain: list[SignalStep] = [HoldLast(max_rows=draw(st.integers(0, 3)))]
    if draw(st.booleans()):
        chain.append(
            StreamBaseline(
                time_constant_rows=draw(st.floats(1.0, 50.0)),
                min_scale=[0.1] * channels,
                settling_rows=draw(st.integers(1, 9)),
                influence=draw(st.floats(0.5, 5.0)),
            )
        )
    if draw(st.booleans()):
        mean = draw(st.lists(st.floats(-5, 5), min_size=channels, max_size=channels))
        chain.append(Standardize(mean=mean, scale=[2.0] * channels))
    chain.append(Clip(limit=10.0))
    return [*chain, Window(rows=draw(st.integers(1, 6)), hop=draw(st.integers(1, 4)))]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[SignalStep], Rows]:
    """A chain, and rows with values missing here and there."""
    channels = draw(st.integers(1, 3))
    chain = draw(chains(channels))
    good = st.floats(-100, 100, width=32)
    value = st.one_of(good, good, good, st.sampled_from(BROKEN))
    shape = (draw(st.integers(0, 40)), channels)
    return chain, draw(npst.arrays(np.float64, shape, elements=value, fill=st.nothing()))


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[SignalStep], Rows, list[int]]:
    """A stream, and where to cut it into chunks; empty chunks are chunks too."""
    chain, rows = draw(streams())
    return chain, rows, sorted(draw(st.lists(st.integers(0, len(rows)), max_size=8)))


def in_one(chain: Sequence[SignalStep], rows: Rows) -> Prepared:
    return SignalPreprocessor(chain, rows.shape[1]).push(rows)


def in_chunks(chain: Sequence[SignalStep], rows: Rows, at: Sequence[int]) -> Prepared:
    preprocessor = SignalPreprocessor(chain, rows.shape[1])
    chunks = [preprocessor.push(chunk) for chunk in np.split(rows, at)]
    starts = [0, *at]
    return Prepared(
        np.concatenate([chunk.states for chunk in chunks]),
        np.concatenate([chunk.windows for chunk in chunks]),
        np.concatenate([chunk.ends + start for chunk, start in zip(chunks, starts, strict=True)]),
    )


def tiny_manifest(chain: Sequence[SignalStep], channels: int) -> Any:
    window = chain[-1]
    assert isinstance(window, Window)
    return anomaly_manifest(
        channels=[f"c{i}" for i in range(channels)],
        window=window.rows,
        hop=window.hop,
        steps=chain[:-1],
    )


def sums(inputs: Tensors) -> dict[str, Float32]:
    """A score that depends on every value of a window."""
    windows = inputs["window"]
    weights = np.arange(1, windows[0].size + 1, dtype=np.float32)
    return {"score": np.stack([(window.ravel() * weights).sum() for window in windows])}


def naive(chain: Sequence[SignalStep], rows: Rows) -> tuple[States, list[Float32], list[int]]:
    """The definition, one row at a time: slow, and not like the implementation."""
    hold, window, channels = chain[0], chain[-1], rows.shape[1]
    assert isinstance(hold, HoldLast)
    assert isinstance(window, Window)
    last: list[float | None] = [None] * channels
    missing = [0] * channels
    settling = max([s.settling_rows for s in chain if isinstance(s, StreamBaseline)], default=1)
    first = max(window.rows, settling)
    history: list[tuple[list[float], bool]] = []  # rows since the window began, and if filled
    moments = [(0.0, 0.0, 0.0)] * channels
    states, windows, ends = [], [], []
    for index, row in enumerate(rows):
        measured = [bool(abs(value) < 1e39) for value in row]
        for i, value in enumerate(row):
            last[i] = float(value) if measured[i] else last[i]
            missing[i] = 0 if measured[i] else missing[i] + 1
        if any(last[i] is None or missing[i] > hold.max_rows for i in range(channels)):
            states.append(RowState.HOLE)
            history, moments = [], [(0.0, 0.0, 0.0)] * channels
            continue
        x = [float(value) for value in last if value is not None]
        for step in chain[1:-1]:
            if isinstance(step, Clip):
                x = [min(max(value, -step.limit), step.limit) for value in x]
            elif isinstance(step, Standardize):
                x = [(v - m) / s for v, m, s in zip(x, step.mean, step.scale, strict=True)]
            else:
                assert isinstance(step, StreamBaseline)
                decay, relative = float(np.exp(-1.0 / step.time_constant_rows)), []
                for i, value in enumerate(x):
                    weight, mean, spread = moments[i]
                    delta = value - mean
                    scale = max((spread / weight) ** 0.5 if weight else 0.0, step.min_scale[i])
                    relative.append(delta / scale if weight else 0.0)
                    if len(history) >= settling:
                        delta = min(max(delta, -step.influence * scale), step.influence * scale)
                    weight = decay * weight + 1.0
                    mean += delta / weight
                    spread = decay * spread + delta * delta * (1.0 - 1.0 / weight)
                    moments[i] = (weight, mean, spread)
                x = relative
        history.append((x, not all(measured)))
        if len(history) < first:
            states.append(RowState.WARMING_UP)
            continue
        recent = history[-window.rows :]
        states.append(RowState.FILLED if any(filled for _, filled in recent) else RowState.SCORED)
        if (len(history) - first) % window.hop == 0:
            windows.append(np.array([values for values, _ in recent], np.float32))
            ends.append(index)
    return np.array(states, np.uint8), windows, ends


@given(cuts())
def test_any_chunking_gives_the_same_states_and_windows(
    cut: tuple[list[SignalStep], Rows, list[int]],
) -> None:
    chain, rows, at = cut
    whole, chunked = in_one(chain, rows), in_chunks(chain, rows, at)
    np.testing.assert_array_equal(chunked.states, whole.states)
    np.testing.assert_array_equal(chunked.ends, whole.ends)
    np.testing.assert_array_equal(chunked.windows, whole.windows)


@given(cuts())
def test_any_chunking_gives_the_same_scores(cut: tuple[list[SignalStep], Rows, list[int]]) -> None:
    chain, rows, at = cut
    manifest = tiny_manifest(chain, rows.shape[1])
    whole = SignalScorer(manifest, sums).push(rows).scores
    scorer = SignalScorer(manifest, sums, max_batch=3)
    chunked = [scorer.push(chunk).scores for chunk in np.split(rows, at)]
    np.testing.assert_array_equal(np.concatenate(chunked), whole)


@given(streams())
def test_the_chain_does_what_its_definition_says(stream: tuple[list[SignalStep], Rows]) -> None:
    chain, rows = stream
    prepared = in_one(chain, rows)
    states, windows, ends = naive(chain, rows)
    np.testing.assert_array_equal(prepared.states, states)
    np.testing.assert_array_equal(prepared.ends, ends)
    assert prepared.windows.dtype == np.float32
    assert prepared.windows.shape == (len(windows), chain[-1].rows, rows.shape[1])  # type: ignore[union-attr]
    if windows:
        # Where the spread is nearly the floor, the order of additions decides the last digits.
        np.testing.assert_allclose(prepared.windows, windows, rtol=1e-4, atol=1e-4)


@given(streams())
def test_a_row_has_a_score_exactly_when_its_state_says_so(
    stream: tuple[list[SignalStep], Rows],
) -> None:
    chain, rows = stream
    scored = SignalScorer(tiny_manifest(chain, rows.shape[1]), sums).push(rows)
    assert scored.scores.shape == (len(rows),)
    assert scored.scores.dtype == np.float32
    np.testing.assert_array_equal(~np.isnan(scored.scores), scored.states <= RowState.FILLED)


@given(streams())
def test_what_is_prepared_is_always_finite(stream: tuple[list[SignalStep], Rows]) -> None:
    chain, rows = stream
    assert np.isfinite(in_one(chain, rows).windows).all()


@given(streams())
def test_after_a_reset_a_stream_is_new(stream: tuple[list[SignalStep], Rows]) -> None:
    chain, rows = stream
    scorer = SignalScorer(tiny_manifest(chain, rows.shape[1]), sums)
    first = scorer.push(rows)
    scorer.reset()
    again = scorer.push(rows)
    np.testing.assert_array_equal(again.states, first.states)
    np.testing.assert_array_equal(again.scores, first.scores)


@given(streams(), st.integers(0, 40))
def test_the_past_does_not_depend_on_the_future(
    stream: tuple[list[SignalStep], Rows], now: int
) -> None:
    chain, rows = stream
    other = rows.copy()
    other[now:] = 7.0
    before, after = in_one(chain, rows), in_one(chain, other)
    np.testing.assert_array_equal(before.states[:now], after.states[:now])
    past = before.ends < now
    np.testing.assert_array_equal(before.windows[past], after.windows[: past.sum()])


PLAIN: list[SignalStep] = [
    HoldLast(max_rows=2),
    Standardize(mean=[3.0], scale=[2.0]),
    Window(rows=3),
]
ON_OWN_LEVEL: list[SignalStep] = [
    HoldLast(max_rows=2),
    StreamBaseline(time_constant_rows=20.0, min_scale=[1e-6], settling_rows=8, influence=3.0),
    Window(rows=3),
]


def column(*values: float) -> Rows:
    return np.array(values, float)[:, None]


def names(states: States) -> list[str]:
    return [RowState(int(state)).name.lower() for state in states]


def test_the_mean_standardises_to_zero_and_one_scale_to_one() -> None:
    np.testing.assert_array_equal(in_one(PLAIN, column(3, 3, 3)).windows, np.zeros((1, 3, 1)))
    np.testing.assert_array_equal(in_one(PLAIN, column(5, 5, 5)).windows, np.ones((1, 3, 1)))


def test_a_window_is_the_last_rows_oldest_first() -> None:
    windows = in_one(PLAIN, column(3, 5, 7, 9)).windows
    np.testing.assert_array_equal(windows[:, :, 0], [[0, 1, 2], [1, 2, 3]])


def test_the_first_score_comes_after_the_warm_up() -> None:
    preprocessor = SignalPreprocessor(PLAIN, 1)
    assert preprocessor.warm_up_rows == 2
    states = names(preprocessor.push(column(1, 2, 3, 4)).states)
    assert states == ["warming_up", "warming_up", "scored", "scored"]


def test_between_hops_the_score_holds() -> None:
    chain: list[SignalStep] = [HoldLast(max_rows=0), Window(rows=2, hop=3)]
    rows = column(1, 2, 3, 4, 5, 6)
    prepared = in_one(chain, rows)
    assert prepared.ends.tolist() == [1, 4]
    scores = SignalScorer(tiny_manifest(chain, 1), sums).push(rows).scores
    np.testing.assert_array_equal(scores, [np.nan, 5, 5, 5, 14, 14])


def test_a_short_gap_is_filled_and_said_so_while_the_window_holds_it() -> None:
    prepared = in_one(PLAIN, column(1, 1, 5, np.nan, 1, 1, 1))
    assert names(prepared.states) == [
        *("warming_up", "warming_up", "scored"),
        *("filled", "filled", "filled", "scored"),
    ]
    np.testing.assert_array_equal(prepared.windows[1, :, 0], [-1, 1, 1])


def test_a_long_gap_is_a_hole_and_the_window_starts_anew() -> None:
    nan = np.nan
    states = names(in_one(PLAIN, column(1, 1, 1, nan, nan, nan, nan, 1, 1, 1)).states)
    assert states == [
        *("warming_up", "warming_up", "scored", "filled", "filled", "hole", "hole"),
        *("warming_up", "warming_up", "scored"),
    ]


def test_a_channel_that_was_never_measured_is_a_hole() -> None:
    chain: list[SignalStep] = [HoldLast(max_rows=5), Window(rows=1)]
    rows = np.array([[1, np.nan], [1, np.nan], [1, 1], [1, np.nan]])
    assert names(in_one(chain, rows).states) == ["hole", "hole", "scored", "filled"]


@pytest.mark.parametrize("value", BROKEN)
def test_what_is_no_measurement_counts_as_missing(value: float) -> None:
    rows, same = column(1, 2, value, 4), column(1, 2, np.nan, 4)
    np.testing.assert_array_equal(in_one(PLAIN, rows).windows, in_one(PLAIN, same).windows)
    assert names(in_one(PLAIN, rows).states)[-1] == "filled"


def test_a_constant_stream_is_at_its_own_level() -> None:
    windows = in_one(ON_OWN_LEVEL, np.full((50, 1), 1234.5)).windows
    np.testing.assert_array_equal(windows, np.zeros((43, 3, 1)))


@given(st.floats(-1e3, 1e3), st.floats(0.1, 100.0))
@settings(max_examples=30)
def test_relative_to_itself_a_stream_has_neither_level_nor_unit(offset: float, unit: float) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 1))
    plain, moved = in_one(ON_OWN_LEVEL, rows), in_one(ON_OWN_LEVEL, rows * unit + offset)
    np.testing.assert_allclose(moved.windows, plain.windows, rtol=1e-3, atol=1e-3)


def test_a_fault_is_taken_for_the_new_normal_only_slowly() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 1))
    rows[100:] += 50.0
    trusting = [
        msgspec.structs.replace(step, influence=1e9) if isinstance(step, StreamBaseline) else step
        for step in ON_OWN_LEVEL
    ]
    after = 20  # rows after the step: the time constant
    robust = in_one(ON_OWN_LEVEL, rows).windows[100 + after - 9, -1, 0]
    assert robust > 2 * in_one(trusting, rows).windows[100 + after - 9, -1, 0]


def test_a_stream_has_no_score_before_its_baseline_has_settled() -> None:
    preprocessor = SignalPreprocessor(ON_OWN_LEVEL, 1)
    assert preprocessor.warm_up_rows == 7
    states = names(preprocessor.push(np.arange(10.0)[:, None]).states)
    assert states == ["warming_up"] * 7 + ["scored"] * 3


def test_a_row_is_compared_with_those_before_it_only() -> None:
    quiet = np.sin(np.arange(100.0))[:, None]
    jump = np.concatenate([quiet, column(1000.0)])
    assert in_one(ON_OWN_LEVEL, jump).windows[-1, -1, 0] > 500


def test_clipping_limits_both_sides() -> None:
    chain: list[SignalStep] = [HoldLast(max_rows=0), Clip(limit=2.0), Window(rows=3)]
    np.testing.assert_array_equal(in_one(chain, column(-9, 1, 9)).windows[0, :, 0], [-2, 1, 2])


def test_separate_windows_are_prepared_as_streams_of_their_own() -> None:
    rng = np.random.default_rng(0)
    for chain, rows in ((PLAIN, 3), (ON_OWN_LEVEL, 8)):
        stretches = rng.normal(size=(5, rows, 1))
        wanted = np.stack([in_one(chain, stretch).windows[0] for stretch in stretches])
        np.testing.assert_array_equal(prepare_windows(chain, stretches), wanted)


@pytest.mark.parametrize("value", BROKEN)
def test_a_separate_window_may_not_hide_what_is_missing(value: float) -> None:
    windows = np.zeros((2, 3, 1))
    windows[1, 2, 0] = value
    with pytest.raises(TensorError, match="NaN or infinite values"):
        prepare_windows(PLAIN, windows)


@pytest.mark.parametrize("shape", [(3, 1), (2, 4, 1), (2, 3, 2)])
def test_separate_windows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorError):
        prepare_windows(PLAIN, np.zeros(shape))


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
    taken = SignalPreprocessor(PLAIN, 1).push(rows.astype(dtype))
    np.testing.assert_array_equal(taken.windows, in_one(PLAIN, rows).windows)


def test_the_callers_rows_are_left_as_they_are() -> None:
    rows = column(1, np.nan, 3, 4)
    before = rows.copy()
    in_one(PLAIN, rows)
    np.testing.assert_array_equal(rows, before)


HOLD, WINDOW = HoldLast(max_rows=1), Window(rows=4)


def baseline(**changes: Any) -> StreamBaseline:
    given = {"time_constant_rows": 9.0, "min_scale": [1.0], "settling_rows": 4, "influence": 3.0}
    return StreamBaseline(**{**given, **changes})


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([], "must end with a window"),
        ([HOLD], "must end with a window"),
        ([WINDOW], "must begin with hold_last"),
        ([WINDOW, HOLD], "must end with a window"),
        ([HOLD, Window(rows=0)], "at least one row and hop"),
        ([HOLD, Window(rows=1, hop=0)], "at least one row and hop"),
        ([HoldLast(max_rows=-1), WINDOW], r"hold_last.max_rows >= 0"),
        ([HOLD, HOLD, WINDOW], "HoldLast stands in the wrong place"),
        ([HOLD, WINDOW, WINDOW], "Window stands in the wrong place"),
        ([HOLD, Standardize(mean=[0.0], scale=[0.0]), WINDOW], "1 positive scales"),
        ([HOLD, Standardize(mean=[0.0] * 2, scale=[1.0]), WINDOW], "1 positive scales"),
        ([HOLD, Standardize(mean=[], scale=[]), WINDOW], "1 positive scales"),
        ([HOLD, baseline(min_scale=[-1.0]), WINDOW], "positive"),
        ([HOLD, baseline(time_constant_rows=0.0), WINDOW], "wanted > 0"),
        ([HOLD, baseline(influence=0.0), WINDOW], "wanted > 0"),
        ([HOLD, Clip(limit=-1.0), WINDOW], "clip.limit is -1, wanted > 0"),
        ([HOLD, Clip(limit=float("nan")), WINDOW], "clip.limit is nan, wanted > 0"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused(chain: list[SignalStep], message: str) -> None:
    with pytest.raises(TensorError, match=message):
        SignalPreprocessor(chain, 1)


def test_a_chain_without_channels_is_refused() -> None:
    with pytest.raises(TensorError, match="at least one channel"):
        SignalPreprocessor([HOLD, Standardize(mean=[], scale=[]), WINDOW], 0)


@given(chains(2))
def test_a_chain_survives_the_manifest(chain: list[SignalStep]) -> None:
    raw = msgspec.json.encode(chain)
    assert msgspec.json.decode(raw, type=list[SignalStep]) == chain
