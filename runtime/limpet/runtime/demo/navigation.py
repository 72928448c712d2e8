"""The demo's mobile robot: a served policy drives a simulated one while the sensors stream."""

from __future__ import annotations

from pathlib import Path

from limpet.contracts.bundle import read_bundle
from limpet.contracts.errors import MissingExtraError
from limpet.contracts.manifest import NavigationDecoding
from limpet.runtime.demo.children import ChildError
from limpet.runtime.demo.driving import DriveReport
from limpet.runtime.demo.report import count_of
from limpet.runtime.demo.results import read_result
from limpet.runtime.demo.served_robot import BUNDLES, ServedRobot
from limpet.runtime.demo.trips import draw_trips, read_trips

REFERENCE = BUNDLES / "navigation"
SCENES_S = 120.0
"""Longest time until the scenes are painted, on a busy machine."""


def reference_bundle() -> Path | None:
    """The repository's policy, None where there is none.

    Raises:
        BundleError: It is damaged.
    """
    return REFERENCE if REFERENCE.is_dir() and has_policy(REFERENCE) else None


def has_policy(bundle: Path) -> bool:
    """Whether a bundle drives.

    Raises:
        BundleError: It is damaged, or none.
    """
    decoding = read_bundle(bundle).manifest.decoding
    return isinstance(decoding, NavigationDecoding) and decoding.action is not None


class Navigation(ServedRobot):
    """One policy and its robot."""

    MODEL = "navigation"

    def start(self, endpoint: str) -> None:
        """Starts the robot; returns when its scenes are there and it has found the server.

        Raises:
            MissingExtraError: This machine cannot draw the scenes.
            ChildError: The robot ended.
        """
        robot = self.children.start(
            "mobile-robot", "limpet.runtime.demo.drive", endpoint, self.MODEL,
            self._report, self._trips,
        )  # fmt: skip
        try:
            self.children.wait_for_line(robot, "ready", SCENES_S)
        except ChildError:
            if robot.process.poll() == MissingExtraError.exit_code:
                raise MissingExtraError("training", "what draws its scenes") from None
            raise
        self.robot = robot

    def stop(self) -> DriveReport | None:
        """Stops the robot; what it came to, and the picture of its ways. None where it never drove.

        Raises:
            ChildError: It ended badly.
        """
        if self.robot is None:
            return None
        self.children.stop(self.robot)
        report = read_result(self._report, DriveReport)
        draw_trips(self.folder.trajectories, read_trips(self._trips), describe(report))
        return report

    @property
    def _report(self) -> Path:
        return self.folder.logs / "mobile_robot.json"

    @property
    def _trips(self) -> Path:
        return self.folder.logs / "mobile_robot.npz"


def describe(report: DriveReport) -> str:
    """What a drive came to, in one line."""
    arrived = sum(episode.success for episode in report.episodes)
    text = f"{arrived} of {count_of(len(report.episodes), 'episode')} at the goal"
    return text if report.spl is None else f"{text}, SPL {report.spl:.2f}"


def failures_of(report: DriveReport) -> list[str]:
    """What did not work, one sentence each. A goal that was not reached is no failure."""
    found = [
        f"mobile robot: {count} frames refused: {cause}" for cause, count in report.refused.items()
    ]
    lost = report.failed + report.unsent
    if lost or not report.followed:
        found.append(f"mobile robot: {report.followed} of {report.frames} frames got an action")
    return found
