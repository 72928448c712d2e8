"""Signal chains, streams with all that goes wrong in them, and what they become.

Dimension legend: n rows, c channels, f features of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.contracts.signal_steps import (
    BandEnergies,
    Clip,
    HoldLast,
    LookBack,
    SignalStep,
    Standardize,
    StreamBaseline,
    features_of,
)
from limpet.contracts.signals import Float32, Prepared, RowState, States

Rows = NDArray[np.float64]

BROKEN = [np.nan, np.inf, -np.inf, 1e300]
"""What a sensor may send that is no measurement."""


@st.composite
def chains(draw: st.DrawFn, channels: int) -> list[SignalStep]:
    """Chains with and without frames of many rows and a baseline of the stream."""
    chain: list[SignalStep] = [HoldLast(max_rows=draw(st.integers(0, 3)))]
    if draw(st.booleans()):
        frame_rows = draw(st.integers(6, 9))
        hop_rows = draw(st.integers(1, frame_rows))
        bands = draw(st.integers(1, frame_rows // 2 - 2))
        chain.append(BandEnergies(frame_rows=frame_rows, hop_rows=hop_rows, bands=bands))
    features = features_of(chain, channels)

    def per_feature(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=features, max_size=features))

    if draw(st.booleans()):
        chain.append(
            StreamBaseline(
                time_constant_frames=draw(st.floats(1.0, 50.0)),
                scale=per_feature(st.floats(0.1, 5.0)),
                adapts=per_feature(st.booleans()),
                settling_frames=draw(st.integers(0, 20)),
                influence=draw(st.floats(0.5, 5.0)),
            )
        )
    if draw(st.booleans()):
        chain.append(Standardize(mean=per_feature(st.floats(-5, 5)), scale=[2.0] * features))
    chain.append(Clip(limit=10.0))
    return [*chain, LookBack(frames=draw(st.integers(1, 6)))]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[SignalStep], Rows]:
    """A chain, and rows with values missing here and there and channels dead for a while."""
    channels = draw(st.integers(1, 3))
    return draw(chains(channels)), draw(recordings(channels))


@st.composite
def recordings(draw: st.DrawFn, channels: int) -> Rows:
    """Rows with values missing here and there and channels dead for a while."""
    good = st.floats(-100, 100, width=32)
    value = st.one_of(good, good, good, good, st.sampled_from(BROKEN))
    length = draw(st.integers(0, 60))
    rows = draw(npst.arrays(np.float64, (length, channels), elements=value, fill=good))
    for _ in range(draw(st.integers(0, 3))):
        start, stop = draw(st.integers(0, 60)), draw(st.integers(0, 12))
        dead = draw(st.lists(st.integers(0, channels - 1), max_size=3))
        rows[start : start + stop, dead or slice(None)] = np.nan
    return rows


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[SignalStep], Rows, list[int]]:
    """A stream, and where to cut it into chunks; empty chunks are chunks too."""
    chain, rows = draw(streams())
    return chain, rows, sorted(draw(st.lists(st.integers(0, len(rows)), max_size=8)))


Fleet = tuple[list[SignalStep], list[Rows], list[list[int | None]]]
"""A chain, a recording of each stream, and for each call how many rows of each stream it takes."""


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Streams of one chain that meet in some calls; None is a stream that is not in a call."""
    channels = draw(st.integers(1, 3))
    chain = draw(chains(channels))
    count = draw(st.integers(2, 4))
    rows = [draw(recordings(channels)) for _ in range(count)]
    size = st.one_of(st.none(), st.sampled_from([4, 8]), st.integers(0, 20))
    calls = st.lists(st.lists(size, min_size=count, max_size=count), min_size=1, max_size=8)
    return chain, rows, draw(calls)


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


def in_one(chain: Sequence[SignalStep], rows: Rows) -> Prepared:
    return SignalPreprocessor(chain, rows.shape[1]).push(rows)


def column(*values: float) -> Rows:
    return np.array(values, float)[:, None]


def names(states: States) -> list[str]:
    return [RowState(int(state)).name.lower() for state in states]


def only(frames: Float32) -> list[float]:
    """The one feature of each frame."""
    assert frames.shape[1] == 1
    return [float(value) for value in frames[:, 0]]
