"""The picture: drawn for whatever a recording holds, and never blank."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.contracts.incidents import Incident, compare
from limpet.runtime.demo.drawing import POINTS, _extremes
from limpet.runtime.demo.report import StreamReport
from limpet.runtime.demo.sources import user_source
from limpet.runtime.demo.timeline import Track, draw_timeline

pytest.importorskip("matplotlib", reason="needs the extra `dashboard`")

REPORT = StreamReport(
    name="pump", title="a pump", recording="pump.npy", channels=2, train_rows=500, train_s=9.0,
    threshold=1.3, false_alarm_rate=0.01, exceeding_share=None, rows=500, acknowledged=500,
    seconds=3.0, times_real_time=None, message_p50_ms=2.0, message_p99_ms=5.0, labelled=False,
    intervals=None, detected=None, missed=None, outside=None, outside_share=None, incidents=0,
)  # fmt: skip


def track(
    file: Path, values: NDArray[np.float64], *, labelled: bool = False, incidents: bool = True
) -> Track:
    """A track of a recording whose second half was streamed."""
    np.save(file, values)
    source = user_source(file)
    n = len(source.streamed)
    scores = np.random.default_rng(0).random(n).astype(np.float32)
    scores[:31] = np.nan
    reported = [
        Incident(
            number=number, start=start, reported=start + 2, stop=start + 20, peak_score=3.0,
            channels=((f"c{values.shape[1] - 1}", 1.0),),
        )
        for number, start in ((1, n // 4), (3, n // 2))
    ] * incidents  # fmt: skip
    truth = np.zeros(n, bool)
    truth[n // 2 : n // 2 + 40] = True
    return Track(
        source=source,
        report=msgspec.structs.replace(REPORT, incidents=len(reported)),
        scores_n=scores,
        release_threshold=1.1,
        incidents=reported,
        found=compare(truth, reported) if labelled else None,
    )


def colours(file: Path) -> int:
    """How many different colours a picture has."""
    from matplotlib.image import imread

    picture = (imread(file)[..., :3] * 255).astype(np.uint32)
    return len(np.unique(picture @ np.array([1, 256, 65536], np.uint32)))


@pytest.mark.parametrize("channels", [1, 2, 40])
@pytest.mark.parametrize("labelled", [True, False])
def test_any_number_of_channels_is_drawn(tmp_path: Path, channels: int, labelled: bool) -> None:
    values = np.random.default_rng(1).normal(size=(1000, channels))
    values[::7, 0] = np.nan
    drawn = track(tmp_path / "pump.npy", values, labelled=labelled)
    draw_timeline(tmp_path / "timeline.png", [drawn])
    assert colours(tmp_path / "timeline.png") > 20


def test_two_streams_share_a_picture_and_a_quiet_one_is_drawn_too(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(1000, 2))
    loud = track(tmp_path / "loud.npy", values, labelled=True)
    quiet = track(tmp_path / "quiet.npy", np.zeros((1000, 2)), incidents=False)
    draw_timeline(tmp_path / "timeline.png", [loud, quiet])
    assert colours(tmp_path / "timeline.png") > 20


def test_a_spike_of_one_row_survives_in_a_long_recording() -> None:
    values = np.zeros(50 * POINTS)
    values[12_345] = 9.0
    x, y = _extremes(np.arange(len(values)), values)
    assert len(y) <= POINTS
    assert y.max() == 9.0
    assert abs(x[y.argmax()] - 12_345) <= 200
