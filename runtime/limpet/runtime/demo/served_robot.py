"""What the demo's robots have in common: one served model, and a process that asks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from limpet.runtime.demo.children import Child, Children
from limpet.runtime.demo.folder import DemoFolder

BUNDLES = Path(__file__).resolve().parents[4] / "robot_configs" / "bundles"
"""The bundles that come with the repository; an installed wheel has none."""


@dataclass
class ServedRobot:
    """One model and its robot.

    Attributes:
        bundle: The model.
        folder: The demo's.
        children: The demo's processes.
        robot: The robot's, once it works.
    """

    MODEL: ClassVar[str]
    """Name that the model is served under."""

    bundle: Path
    folder: DemoFolder
    children: Children
    robot: Child | None = None

    @property
    def table(self) -> str:
        """Its part of the server's configuration."""
        return f'[[models]]\nname = "{self.MODEL}"\nbundle = "{self.bundle.absolute()}"\n'

    def check_alive(self) -> None:
        """Raises `ChildError` if the robot has ended by itself."""
        if self.robot is not None:
            self.robot.check_alive()
