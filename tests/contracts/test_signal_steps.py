"""Chains as a manifest carries them, and those that no preprocessor takes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given

from limpet.contracts.errors import TensorError
from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.contracts.signal_steps import (
    BandEnergies,
    Clip,
    HoldLast,
    LookBack,
    SignalStep,
    Standardize,
    StreamBaseline,
)
from tests.contracts.signal_streams import chains

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
