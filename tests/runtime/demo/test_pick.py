"""The demo's picking robot against a real server."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from limpet.contracts.bundle import read_bundle
from limpet.runtime.demo import pick
from limpet.runtime.demo.picking import describe, failures_of
from limpet.runtime.picking_robot import PickingRobot
from tests.grasp_bundles import grasp_bundle
from tests.runtime.serving import serving


class AfterThree:
    """Is set when it was asked often enough for three scenes."""

    def __init__(self, robot: PickingRobot) -> None:
        self._robot = robot

    @property
    def is_set(self) -> bool:
        return self._robot._last_id >= 3


def test_it_asks_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pick, "EVERY_S", 0.0)
    bundle = read_bundle(grasp_bundle(tmp_path / "grasp").path)
    clouds = bundle.golden().clouds
    assert clouds is not None
    with (
        serving(tmp_path, more=[bundle.path]) as served,
        PickingRobot(served.listening[0]) as robot,
    ):
        report, rows = pick.ask_steadily(
            robot,
            "tiny-grasp",
            list(clouds),
            AfterThree(robot),  # type: ignore[arg-type]
        )
        unknown, none = pick.ask_steadily(
            robot,
            "other",
            list(clouds[:1]),
            SetAfter(2),  # type: ignore[arg-type]
        )
    assert (report.requests, report.answered, report.failed, report.views) == (3, 3, 0, 2)
    assert rows.shape == (report.rows, 17)
    assert report.best_score == rows[0, 0]
    assert report.p50_ms is not None
    assert "grasps of" in describe(report)
    assert failures_of(report) == []
    assert unknown.failed == unknown.requests
    assert none.shape == (0, 17)
    assert failures_of(unknown) == [f"picking robot: 0 of {unknown.requests} scenes answered"]
    nothing = msgspec.structs.replace(report, nothing="empty_table", rows=0)
    assert describe(nothing) == "no grasp (empty_table) in 2 views"
    assert np.isfinite(rows).all()


class SetAfter:
    """Is set when it was asked that often."""

    def __init__(self, times: int) -> None:
        self._left = times

    @property
    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0
