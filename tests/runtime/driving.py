"""A simulated robot in an empty room, and a policy that drives it within the test's own process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.image_model import ImageModel
from limpet.contracts.manifest import Manifest
from limpet.contracts.tensors import Array, Tensors
from limpet.runtime.mobile_robot import Command, DriveCounts
from limpet.runtime.trip_memory import TripMemory

RADIUS_M = 0.3


class EmptyRoom:
    """A `Simulator`: a unicycle on a bare floor, a camera that shows stripes and noise.

    Args:
        most_steps: Commands until an episode ends without success.
        before_drive: Called with the count of commands so far, before each: a test's own mischief.
    """

    control_hz = 20.0

    def __init__(
        self, most_steps: int = 400, before_drive: Callable[[int], None] = lambda step: None
    ) -> None:
        self._most_steps, self._before_drive = most_steps, before_drive
        self.info: dict[str, Any] = {}
        self.over = True
        self.commands: list[tuple[float, float]] = []

    def begin(self, number: int) -> dict[str, Array]:
        self._rng = np.random.default_rng(number)
        self._pose = np.array([*self._rng.uniform(0, 4, 2), self._rng.uniform(-3, 3)])
        bearing = self._rng.uniform(-3, 3)
        self._goal = self._pose[:2] + 1.5 * np.array([math.cos(bearing), math.sin(bearing)])
        self._start, self._driven, self._steps = self._pose[:2].copy(), 0.0, 0
        self._motion = np.zeros(2, np.float32)
        self.over = False
        return self._senses()

    def drive(self, speed: float, turn_rate: float) -> dict[str, Array]:
        self._before_drive(len(self.commands))
        self.commands.append((speed, turn_rate))
        x, y, yaw = self._pose
        period = 1.0 / self.control_hz
        way = speed * period
        self._pose = np.array(
            [x + way * math.cos(yaw), y + way * math.sin(yaw), yaw + turn_rate * period]
        )
        self._driven += abs(way)
        self._motion = np.array([speed, turn_rate], np.float32)
        self._steps += 1
        return self._senses()

    def obstacles(self) -> NDArray[np.float64]:
        return np.array([[[-3, -3], [7, -3], [7, -2.9], [-3, -2.9]]], float)

    def _senses(self) -> dict[str, Array]:
        dx, dy = self._goal - self._pose[:2]
        distance, bearing = math.hypot(dx, dy), math.atan2(dy, dx) - self._pose[2]
        success = distance <= RADIUS_M
        self.over = success or self._steps >= self._most_steps
        shortest = float(np.linalg.norm(self._goal - self._start)) - RADIUS_M
        self.info = {
            "pose": self._pose.copy(), "goal": self._goal, "success": success, "contacts": 0,
            "driven_m": self._driven, "shortest_m": shortest,
            "spl": success * shortest / max(self._driven, shortest),
        }  # fmt: skip
        image = self._rng.integers(0, 200, (48, 64, 3), dtype=np.uint8)
        image[:, :: 2 + self._steps % 5] = 220
        return {
            "image": image,
            "goal": np.array([distance, math.cos(bearing), math.sin(bearing)], np.float32),
            "proprioception": self._motion,
        }


class LocalDriver:
    """A `Driver` without a server: preprocessing and graph, called one after the other.

    Args:
        manifest: The policy's.
        run: Executes its graph.
        control_hz: Frames per second of simulated time.
    """

    def __init__(
        self, manifest: Manifest, run: Callable[[Tensors], Tensors], control_hz: float = 20.0
    ) -> None:
        self._model = ImageModel(manifest, run)
        self._names = [spec.name for spec in self._model.inputs[:3]]
        how = self._model.memory
        self._memory = None if how is None else TripMemory(how.step_s, how.longest_s)
        self._frame_ns = round(1e9 / control_hz)
        self.counts = DriveCounts()

    def begin_trip(self) -> None:
        if self._memory is not None:
            self._memory.begin((self.counts.frames + 1) * self._frame_ns)

    def now_ns(self) -> int:
        return time.time_ns()

    def drive(
        self, image: Array, goal: Array, motion: Array, captured_ns: int, *, wait_s: float
    ) -> Command:
        assert self._model.action is not None
        request = dict(zip(self._names, (image, goal, motion), strict=True))
        self.counts.frames += 1
        now_ns = self.counts.frames * self._frame_ns
        if self._memory is not None and (memory := self._memory.before(now_ns)) is not None:
            request[self._model.inputs[3].name] = memory
        outputs = self._model.infer(request)
        speed, turn_rate = map(float, outputs[self._model.action.name])
        if self._memory is not None and self._model.memory is not None:
            self._memory.keep(now_ns, outputs[self._model.memory.output])
        self.counts.followed += 1
        return Command(speed, turn_rate, "driving", captured_ns)
