"""Driving a simulated robot closed loop through a served policy, and what came of it.

Dimension legend: k obstacles, p corners of each.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import MissingExtraError, UsageError
from limpet.contracts.tensors import Array
from limpet.runtime.demo.trips import Trip
from limpet.runtime.mobile_robot import Command, DriveCounts

PATIENCE_S = 1.0
"""Longest wait for an answer where nothing sets the pace."""


class Simulator(Protocol):
    """A robot that is not there: `limpet.training.navigation.simulator` has one."""

    control_hz: float
    """Commands per second of simulated time."""
    over: bool
    """Whether the episode is."""
    info: Mapping[str, Any]
    """pose (x, y, yaw), goal (x, y), success, spl, contacts, driven_m, shortest_m."""

    def begin(self, number: int) -> Mapping[str, Array]:
        """Begins an episode: image, goal and proprioception of its start."""

    def drive(self, speed: float, turn_rate: float) -> Mapping[str, Array]:
        """Drives for one control period (m/s, rad/s): what is sensed then."""

    def obstacles(self) -> NDArray[np.float64]:
        """Outlines of what stands in the episode's layout, from above, m. (k, p, 2)"""


class Driver(Protocol):
    """Who drives: a `limpet.runtime.mobile_robot.MobileRobot`, or a policy in this process."""

    counts: DriveCounts

    def begin_trip(self) -> None:
        """The robot was carried elsewhere."""

    def now_ns(self) -> int:
        """The clock of capture times."""

    def drive(
        self, image: Array, goal: Array, motion: Array, captured_ns: int, *, wait_s: float
    ) -> Command:
        """One tick: how to drive now."""


class EpisodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One episode.

    Attributes:
        number: The same number is the same episode.
        success: Whether the robot came to its goal.
        spl: success · shortest / max(driven, shortest).
        simulated_s: How long it took.
        contacts: Commands that ended in contact.
        driven_m: Way driven.
        shortest_m: Shortest way.
    """

    number: int
    success: bool
    spl: float
    simulated_s: float
    contacts: int
    driven_m: float
    shortest_m: float


class DriveReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a drive came to.

    Attributes:
        model: The policy.
        rate_hz: Ticks per second that were meant; None: as fast as answers came.
        reached_hz: Ticks per second reached, between the beginnings and ends of episodes.
        max_age_ms: Oldest image whose action was taken up.
        episodes: Those that ended.
        sr: Share of them that came to their goal, None without any.
        spl: Mean, None without any.
        ticks: Commands driven by.
        states: Ticks by the command's state: `driving`, or why the robot stood.
        late_ticks: Ticks that began later than they should.
        frames, followed, stale, late, superseded, refused, failed, unsent, unanswered, stops: As
            `limpet.runtime.mobile_robot.DriveCounts`.
        oldest_followed_ms: Greatest age of an image whose action was driven by.
        p50_ms: Median time from sending a frame to its action.
        p99_ms: 99th percentile.
    """

    model: str
    rate_hz: float | None
    reached_hz: float
    max_age_ms: float
    episodes: list[EpisodeReport]
    sr: float | None
    spl: float | None
    ticks: int
    states: dict[str, int]
    late_ticks: int
    frames: int
    followed: int
    stale: dict[str, int]
    late: int
    superseded: int
    refused: dict[str, int]
    failed: int
    unsent: int
    unanswered: int
    stops: dict[str, int]
    oldest_followed_ms: float
    p50_ms: float | None
    p99_ms: float | None


class Pace:
    """Ticks of equal length, by deadlines that do not drift.

    Args:
        rate_hz: Ticks per second; None: each as long as its answer takes.
    """

    def __init__(self, rate_hz: float | None) -> None:
        self._period_s = None if rate_hz is None else 1.0 / rate_hz
        self._end_s = 0.0
        self.late_ticks = 0

    def begin(self) -> None:
        """Starts the first tick now."""
        self._end_s = time.monotonic() + (self._period_s or 0.0)

    def left_s(self) -> float:
        """What is left of this tick."""
        if self._period_s is None:
            return PATIENCE_S
        return max(0.0, self._end_s - time.monotonic())

    def next(self) -> None:
        """Waits for the next tick; one that should have begun already is late, and begins now."""
        if self._period_s is None:
            return
        now_s = time.monotonic()
        if now_s > self._end_s:
            self.late_ticks += 1
            self._end_s = now_s
        time.sleep(self._end_s - now_s)
        self._end_s += self._period_s


class Drive:
    """Drives episodes, and keeps what came of them.

    Args:
        simulator: The robot's body.
        driver: Its head.
        rate_hz: Ticks per second of real time; None: as fast as answers come.
        stopped: Asked at each tick whether to end.
    """

    def __init__(
        self,
        simulator: Simulator,
        driver: Driver,
        rate_hz: float | None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._simulator, self._driver, self._stopped = simulator, driver, stopped
        self._rate_hz, self._pace = rate_hz, Pace(rate_hz)
        self._states: Counter[str] = Counter()
        self._seconds = 0.0
        self.episodes: list[EpisodeReport] = []
        self.trips: list[Trip] = []

    def run(self, numbers: Iterable[int]) -> None:
        """Drives these episodes, or until stopped."""
        for number in numbers:
            if self._stopped():
                return
            self._episode(number)

    def _episode(self, number: int) -> None:
        simulator, driver, pace = self._simulator, self._driver, self._pace
        senses = simulator.begin(number)
        driver.begin_trip()
        captured_ns, began_s, ticks = driver.now_ns(), time.monotonic(), 0
        path = [np.asarray(simulator.info["pose"][:2], float)]
        pace.begin()
        while not (simulator.over or self._stopped()):
            command = driver.drive(
                senses["image"],
                senses["goal"],
                senses["proprioception"],
                captured_ns,
                wait_s=pace.left_s(),
            )
            self._states[command.state] += 1
            ticks += 1
            pace.next()
            # The scene is as it is from here on; drawing it takes time, as a camera's driver does.
            captured_ns = driver.now_ns()
            senses = simulator.drive(command.speed, command.turn_rate)
            path.append(np.asarray(simulator.info["pose"][:2], float))
        self._seconds += time.monotonic() - began_s
        info = simulator.info
        success = bool(info["success"]) if simulator.over else None
        self.trips.append(
            Trip(
                path=np.stack(path),
                goal=np.asarray(info["goal"], float),
                success=success,
                obstacles=simulator.obstacles(),
            )
        )
        if success is not None:
            self.episodes.append(
                EpisodeReport(
                    number=number,
                    success=success,
                    spl=float(info["spl"]),
                    simulated_s=ticks / simulator.control_hz,
                    contacts=int(info["contacts"]),
                    driven_m=float(info["driven_m"]),
                    shortest_m=float(info["shortest_m"]),
                )
            )

    def report(self, model: str, max_age_s: float) -> DriveReport:
        """What it came to so far."""
        counts, episodes = self._driver.counts, self.episodes
        ticks = sum(self._states.values())
        p50, p99 = np.percentile(counts.latencies_s or [np.nan], [50, 99]) * 1e3
        return DriveReport(
            model=model,
            rate_hz=self._rate_hz,
            reached_hz=ticks / self._seconds if ticks else 0.0,
            max_age_ms=max_age_s * 1e3,
            episodes=episodes,
            sr=float(np.mean([e.success for e in episodes])) if episodes else None,
            spl=float(np.mean([e.spl for e in episodes])) if episodes else None,
            ticks=ticks,
            states=dict(self._states),
            late_ticks=self._pace.late_ticks,
            frames=counts.frames,
            followed=counts.followed,
            stale=counts.stale,
            late=counts.late,
            superseded=counts.superseded,
            refused=counts.refused,
            failed=counts.failed,
            unsent=counts.unsent,
            unanswered=counts.unanswered,
            stops=counts.stops,
            oldest_followed_ms=counts.oldest_followed_s * 1e3,
            p50_ms=float(p50) if counts.latencies_s else None,
            p99_ms=float(p99) if counts.latencies_s else None,
        )


def load_simulator(name: str) -> Simulator:
    """Makes the simulator that `MODULE:NAME` names, a callable without arguments.

    Raises:
        UsageError: There is none.
        MissingExtraError: It cannot be loaded without something that is not installed.
    """
    module, _, attribute = name.partition(":")
    try:
        simulator: Simulator = getattr(importlib.import_module(module), attribute)()
    except (AttributeError, ValueError) as error:
        raise UsageError(f"no simulator {name!r}: {error}", "wanted MODULE:NAME") from error
    except (ImportError, OSError) as error:  # Open3D may lack libraries of the system
        raise MissingExtraError("training", f"{name} ({error})") from error
    return simulator
