"""The demo's picking robot: a served model says what to grasp while the sensors stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from limpet.contracts.bundle import read_bundle
from limpet.contracts.clouds import prepare
from limpet.contracts.grasps import GraspDecoding
from limpet.runtime.demo.pick import PickReport
from limpet.runtime.demo.report import count_of
from limpet.runtime.demo.results import read_result
from limpet.runtime.demo.served_robot import BUNDLES, ServedRobot
from limpet.runtime.grasp_picture import draw_grasps

REFERENCE = BUNDLES / "grasp"
READY_S = 60.0
"""Longest time until the first answer, on a busy machine."""


def reference_bundle() -> Path | None:
    """The repository's grasp encoder, None where there is none.

    Raises:
        BundleError: It is damaged.
    """
    return REFERENCE if REFERENCE.is_dir() and finds_grasps(REFERENCE) else None


def finds_grasps(bundle: Path) -> bool:
    """Whether a bundle finds grasps.

    Raises:
        BundleError: It is damaged, or none.
    """
    return read_bundle(bundle).manifest.kind == "grasp"


class Picking(ServedRobot):
    """One model that finds grasps, and its robot."""

    MODEL = "grasp"

    def start(self, endpoint: str) -> None:
        """Starts the robot; returns when it has its first answer.

        Raises:
            ChildError: The robot ended.
        """
        self.robot = self.children.start(
            "picking-robot", "limpet.runtime.demo.pick", endpoint, self.MODEL, self.bundle,
            self._report, self._rows,
        )  # fmt: skip
        self.children.wait_for_line(self.robot, "ready", READY_S)

    def stop(self) -> PickReport | None:
        """Stops the robot; what it came to, and the picture of its grasps. None where it never was.

        Raises:
            ChildError: It ended badly.
        """
        if self.robot is None:
            return None
        self.children.stop(self.robot)
        report = read_result(self._report, PickReport)
        self._draw(report)
        return report

    def _draw(self, report: PickReport) -> None:
        bundle = read_bundle(self.bundle)
        clouds, decoding = bundle.golden().clouds, bundle.manifest.decoding
        assert clouds is not None  # `read_bundle` saw to both
        assert isinstance(decoding, GraspDecoding)
        how = bundle.manifest.cloud()
        seen = prepare(list(clouds), [np.eye(4)] * len(clouds), how)
        points = np.zeros((1, 0, 3), np.float32) if seen.points is None else seen.points
        draw_grasps(
            self.folder.grasps,
            clouds.reshape(-1, 3),
            seen.observed,
            points[:, : how.candidates].reshape(-1, 3),
            np.load(self._rows, allow_pickle=False),
            decoding.gripper,
            seen.plane,
            describe(report),
        )

    @property
    def _report(self) -> Path:
        return self.folder.logs / "picking_robot.json"

    @property
    def _rows(self) -> Path:
        return self.folder.logs / "picking_robot.npy"


def describe(report: PickReport) -> str:
    """What it came to, in one line."""
    found = (
        f"no grasp ({report.nothing})"
        if report.nothing
        else f"{report.rows} grasps of {report.free} free among {report.hypotheses} hypotheses"
    )
    return f"{found} in {count_of(report.views, 'view')}"


def failures_of(report: PickReport) -> list[str]:
    """What did not work, one sentence each. A scene without a grasp is no failure."""
    if report.failed or not report.answered:
        return [f"picking robot: {report.answered} of {report.requests} scenes answered"]
    return []
