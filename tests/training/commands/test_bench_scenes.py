"""`limpet bench scenes`: scenes rendered in processes of their own, and timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.contracts.errors import DataError
from limpet.runtime.commands import bench
from tests.command_line import limpet, stated_entry_points

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "entry_points", stated_entry_points)


@pytest.mark.timeout(120)
def test_it_reports_frames_of_each_number_of_processes(capsys: Capture) -> None:
    small = ("--layouts", 1, "--frames", 20)
    done = limpet(
        capsys, "bench", "scenes", *small, "--processes", 1, "--processes", 2, "--json", "-"
    )
    assert done.code == 0
    assert done.err.splitlines() == ["rendering in 1 process", "rendering in 2 processes"]
    report = done.report
    assert list(report) == ["machine", "setting", "rows"]
    assert list(report["setting"]) == ["layouts", "frames", "camera", "lidar", "textures"]
    assert [row["processes"] for row in report["rows"]] == [1, 2]
    for row in report["rows"]:
        assert list(row)[1:4] == [
            "frames_per_s",
            "frames_per_cpu_s",
            "frames_per_s_with_building",
        ]
        assert list(row["frame_ms"]) == ["look", "photograph", "sensors"]
        assert list(row["building_s"]) == ["layout", "geometry", "appearance", "painting"]
        assert 0 < row["frames_per_s_with_building"] < row["frames_per_s"]
        assert all(value > 0 for value in (*row["frame_ms"].values(), *row["building_s"].values()))
    one = report["rows"][0]
    # Rendering is all that is counted: 32 frames, since 20 are two sixteens.
    assert one["frames_per_s"] == pytest.approx(1e3 / sum(one["frame_ms"].values()))
    building = sum(one["building_s"].values())
    assert one["frames_per_s_with_building"] == pytest.approx(
        32 / (building + 32 / one["frames_per_s"])
    )


def test_a_folder_without_textures_is_refused_before_anything_is_rendered(
    capsys: Capture, tmp_path: Path
) -> None:
    done = limpet(capsys, "bench", "scenes", "--textures", tmp_path)
    assert done.code == DataError.exit_code
    assert "holds 0 texture images" in done.err
    assert "rendering" not in done.err
