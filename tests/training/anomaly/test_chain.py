"""What `auto` comes to, and how the chain's statistics are taken.

Dimension legend: n rows, c channels, f features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.contracts.signal_steps import (
    BandEnergies,
    Clip,
    HoldLast,
    LookBack,
    SignalStep,
    Standardize,
    StreamBaseline,
)
from limpet.training.anomaly.chain import (
    Choices,
    Piece,
    choose,
    fit_chain,
    is_constant,
    is_discrete,
    prepare_pieces,
)
from limpet.training.anomaly.config import AnomalyConfig, look_back_frames

AUTO = AnomalyConfig()


def pieces(*lengths: int, cut_at: float = 0.75, c: int = 1) -> list[Piece]:
    """Segments of noise; the last quarter of all their rows is held out."""
    rng, before = np.random.default_rng(0), 0
    cut = round(cut_at * sum(lengths))
    made = []
    for length in lengths:
        own = min(max(cut - before, 0), length)
        made.append(Piece(rng.standard_normal((length, c)), own, before))
        before += length
    return made


def whole(values: NDArray[np.float64]) -> list[Piece]:
    return [Piece(values, len(values), 0)]


def chain(values: NDArray[np.float64], **config: object) -> list[SignalStep]:
    settings = AnomalyConfig(**config)  # type: ignore[arg-type]
    made = whole(values)
    return fit_chain(made, settings, choose(made, 1.0, settings))


def of_type(steps: Sequence[SignalStep], kind: type[SignalStep]) -> list[SignalStep]:
    return [step for step in steps if isinstance(step, kind)]


@pytest.mark.parametrize(
    ("rows", "blocks"),
    [(60_000, 6), (688, 6), (687, 5), (400, 5), (250, 4), (120, 3), (100, 2), (40, 1)],
)
def test_blocks_are_as_many_as_a_quarter_of_the_rows_to_fit_is_long_enough_for(
    rows: int, blocks: int
) -> None:
    assert choose(pieces(rows), 1.0, AUTO).blocks == blocks


def test_no_block_is_taken_that_would_leave_too_few_scored_frames_while_fewer_suffice() -> None:
    for rows in range(95, 400):
        (piece,) = made = pieces(rows)
        blocks = choose(made, 1.0, AUTO).blocks
        assert piece.cut - look_back_frames(blocks) + 1 >= 64 or blocks == 1


@pytest.mark.parametrize(("length", "blocks"), [(15, 2), (16, 2), (12, 1), (60, 4), (200, 6)])
def test_the_typical_segment_says_how_many_blocks_not_all_rows_together(
    length: int, blocks: int
) -> None:
    assert choose(pieces(*[length] * 100), 1.0, AUTO).blocks == blocks


def test_a_number_of_blocks_that_is_given_is_taken() -> None:
    assert choose(pieces(50), 1.0, AnomalyConfig(blocks=6)).blocks == 6


@pytest.mark.parametrize(
    ("rate_hz", "front_end", "bands"),
    [
        (1.0, "auto", False),
        (3999.0, "auto", False),
        (4000.0, "auto", True),
        (25_600.0, "auto", True),
        (25_600.0, "rows", False),
        (1.0, "bands", True),
    ],
)
def test_band_energies_are_taken_from_4_khz_on_or_as_told(
    rate_hz: float, front_end: str, bands: bool
) -> None:
    config = AnomalyConfig(front_end=front_end)  # type: ignore[arg-type]
    made = pieces(50_000)
    choices = choose(made, rate_hz, config)
    assert choices.bands == bands
    assert bool(of_type(fit_chain(made, config, choices), BandEnergies)) == bands


@pytest.mark.parametrize(
    ("lengths", "baseline", "adapts"),
    [
        ([2000], "auto", True),
        ([300], "auto", True),  # one short stream is still a stream
        ([511] * 4, "auto", False),
        ([512] * 4, "auto", True),
        ([15] * 100, "auto", False),
        ([15] * 100, "stream", True),
        ([2000], "training", False),
    ],
)
def test_many_short_segments_have_no_level_of_their_own_unless_told(
    lengths: list[int], baseline: str, adapts: bool
) -> None:
    config = AnomalyConfig(baseline=baseline, baseline_settling_frames=5)  # type: ignore[arg-type]
    made = pieces(*lengths)
    choices = choose(made, 1.0, config)
    assert choices.adapts == adapts
    assert bool(of_type(fit_chain(made, config, choices), StreamBaseline)) == adapts


def test_segments_are_short_by_their_frames_where_frames_are_bands() -> None:
    made = pieces(*[20_000] * 4)  # 153 frames each
    assert not choose(made, 25_600.0, AUTO).adapts
    assert choose(made, 1.0, AUTO).adapts


def test_eight_snapshots_of_a_tenth_of_a_second_at_25_khz_are_enough() -> None:
    made = pieces(*[2560] * 8)
    assert choose(made, 25_600.0, AUTO) == Choices(blocks=1, bands=True, adapts=False)
    assert choose(pieces(*[2560] * 40), 25_600.0, AUTO).blocks == 2


def test_choices_depend_on_no_value() -> None:
    one, other = pieces(500, 300), pieces(500, 300)
    other[0].values[:] = 1e9
    assert choose(one, 1.0, AUTO) == choose(other, 1.0, AUTO)


def test_a_chain_begins_with_holding_and_ends_with_clipping_and_looking_back() -> None:
    first, *_, clip, last = chain(np.random.default_rng(0).standard_normal((1000, 2)), blocks=6)
    assert first == HoldLast(max_rows=AUTO.hold_rows)
    assert clip == Clip(limit=AUTO.clip)
    assert last == LookBack(frames=129)


def test_constant_is_by_the_values_size_and_discrete_by_few_values_on_many_rows() -> None:
    n = 2000
    rng = np.random.default_rng(0)
    columns = {
        "flat": np.full(n, 7.0),
        "flat but for rounding": 1e6 * (1 + 1e-10 * rng.standard_normal(n)),
        "small beside its size": 1e6 + 0.01 * rng.standard_normal(n),
        "two values": rng.integers(0, 2, n).astype(float),
        "ten values": rng.integers(0, 10, n).astype(float),
        "eleven values": rng.integers(0, 11, n).astype(float),
        "noise": rng.standard_normal(n),
    }
    values = np.column_stack([*columns.values()])
    values[::7] = np.nan
    assert is_constant(values).tolist() == [True, True, *[False] * 5]
    assert is_discrete(values).tolist()[2:] == [False, True, True, False, False]
    assert not is_discrete(values)[0]


def test_few_rows_with_few_values_are_discrete_only_with_two() -> None:
    values = np.column_stack([np.arange(50) % 2, np.arange(50) % 3]).astype(float)
    assert is_discrete(values).tolist() == [True, False]


def test_a_rare_value_of_a_discrete_channel_is_two_units_from_the_others() -> None:
    values = np.random.default_rng(0).standard_normal((4000, 2))
    values[:, 1] = 0.0
    values[500, 1] = 10.0
    (scaled, *_) = of_type(chain(values), Standardize)
    assert isinstance(scaled, Standardize)
    assert scaled.scale[1] == 5.0


def test_a_constants_unit_is_a_tenth_of_it_and_1_where_it_is_0() -> None:
    values = np.random.default_rng(0).standard_normal((1000, 3))
    values[:, 1], values[:, 2] = -40.0, 0.0
    (scaled, *_) = of_type(chain(values), Standardize)
    assert isinstance(scaled, Standardize)
    assert scaled.scale[1:] == [4.0, 1.0]


def test_a_streams_spread_is_the_local_one_or_half_the_overall_one() -> None:
    n, rng = 4096, np.random.default_rng(0)
    slow = 3.0 * np.sin(np.arange(n) / 600.0)
    values = np.column_stack([rng.standard_normal(n), rng.standard_normal(n) * 0.1 + slow])
    steps = chain(values, baseline="stream")
    (baseline,) = of_type(steps, StreamBaseline)
    assert isinstance(baseline, StreamBaseline)
    assert baseline.scale == [pytest.approx(1.0, abs=0.05), pytest.approx(0.5, abs=0.05)]
    assert baseline.adapts == [True, True]


@pytest.mark.parametrize("measured", [90, 100])
def test_a_channel_with_hardly_a_value_behind_the_settling_keeps_its_scale(measured: int) -> None:
    values = np.random.default_rng(0).standard_normal((1000, 2))
    values[measured:, 1] = np.nan
    *_, last = of_type(chain(values), Standardize)
    assert isinstance(last, Standardize)
    assert (last.mean[1], last.scale[1]) == (0.0, 1.0)


@pytest.mark.parametrize("scale", [1e-300, 1e30])
def test_values_of_any_size_have_a_scale(scale: float) -> None:
    values = scale * np.random.default_rng(0).standard_normal((1000, 1))
    (prepared,) = prepare_pieces(whole(values), chain(values))
    assert np.isfinite(prepared.frames).all()
    assert prepared.frames[prepared.scored].std() == pytest.approx(1.0, abs=0.15)


def test_frames_longer_than_every_segment_are_an_error_that_says_so() -> None:
    made = pieces(*[300] * 10, c=2)
    choices = choose(made, 8000.0, AUTO)
    with pytest.raises(DataError, match="no frame of 512 rows to fit is measured") as caught:
        fit_chain(made, AUTO, choices)
    assert "smaller frame_rows" in caught.value.hint


def test_a_channel_that_no_frame_has_whole_is_an_error_that_numbers_it() -> None:
    made = pieces(60_000, c=3)
    made[0].values[np.arange(60_000) % 100 < 20, 1] = np.nan
    with pytest.raises(DataError, match="throughout in channel 2 of 3"):
        fit_chain(made, AUTO, choose(made, 8000.0, AUTO))
