"""PointGoal navigation as a Gymnasium environment, `limpet/PointGoal-v0`.

Importing this module registers it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import gymnasium
import msgspec
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from limpet.contracts.errors import UsageError
from limpet.training.navigation.camera import Camera, Lidar
from limpet.training.navigation.episodes import Episode, EpisodeRules, sample_episode
from limpet.training.navigation.robot import Robot, polar
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.textures import AppearanceSet

ENVIRONMENT_ID = "limpet/PointGoal-v0"

FARTHEST_M = 100.0
"""Upper bound of a goal's distance in the observation space; no layout is as wide."""

Sense = Literal["image", "lidar", "goal", "proprioception"]
Observation = dict[str, NDArray[Any]]


class PointGoalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the task is.

    Attributes:
        layouts: Seeds of layouts: first, and one after the last.
        appearance_set: Whose appearances are shown.
        appearances: How many of the set's appearances there are.
        senses: What is observed. Without "image" nothing is rendered.
        steps: Commands until an episode is truncated.
        success_radius_m: How near the goal counts as there.
        progress_reward: Reward for each metre of geodesic distance gained.
        success_reward: Reward for being there.
        contact_reward: Reward for a command that ends in contact.
        step_reward: Reward for each command.
        episodes: Which starts and goals are drawn.
        robot, camera, lidar: What drives and sees.
    """

    layouts: tuple[int, int] = (0, 200)
    appearance_set: AppearanceSet = "policy"
    appearances: int = 20
    senses: tuple[Sense, ...] = ("image", "lidar", "goal", "proprioception")
    steps: int = 400
    success_radius_m: float = 0.3
    progress_reward: float = 1.0
    success_reward: float = 5.0
    contact_reward: float = -0.1
    step_reward: float = -0.01
    episodes: EpisodeRules = EpisodeRules()
    robot: Robot = Robot()
    camera: Camera = Camera()
    lidar: Lidar = Lidar()


class PointGoalEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Drive to a point given in the robot's own frame, through rooms and furniture.

    Action, float32 (2,) within ±1: forward speed, from 0 at -1 to the robot's largest at 1, and
    turn rate, counter-clockwise, ±1 being the robot's largest. `action_of` makes one of m/s and
    rad/s. The robot stops at contact and does not slide; it can still turn.

    Observation, a dictionary of what `config.senses` names:
        image: uint8 (H, W, 3), RGB.
        lidar: float32 (B,), m; the first beam looks forward, the others follow counter-clockwise.
        goal: float32 (3,): distance (m), cosine and sine of its bearing, robot frame.
        proprioception: float32 (2,): forward speed driven (m/s) and turn rate (rad/s) over the last
            period. After a contact the speed is less than commanded.

    Reward: `progress_reward` × geodesic distance gained, `step_reward` each step,
    `contact_reward` at a contact, `success_reward` at the goal.

    An episode terminates within `success_radius_m` of the goal, and is truncated after `steps`.

    `info` has: layout, appearance (seed in its set), pose (x, y, yaw), goal (x, y), distance_m
    (geodesic), shortest_m (of the episode), driven_m, contacts, success, and spl =
    success · shortest / max(driven, shortest), which means something when the episode is over.

    `reset(seed=…)` fixes all that follows. `reset(options=…)` takes "episode" (an `Episode`) or
    "layout" (its seed), and "appearance" (a seed), each otherwise drawn.

    Args:
        config: The task.
        textures: Folder of images for appearances; None draws all patterns.
        library: Scenes to share with other environments of this process.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        config: PointGoalConfig = PointGoalConfig(),  # noqa: B008 - frozen
        textures: Path | str | None = None,
        library: SceneLibrary | None = None,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        first, stop = config.layouts
        if not 0 <= first < stop or config.appearances < 1 or config.steps < 1:
            raise UsageError(
                f"layouts {config.layouts}, appearances {config.appearances}, steps "
                f"{config.steps}: wanted 0 <= first < stop, and at least 1 of the others"
            )
        self.config, self.render_mode = config, render_mode
        self.scenes = SceneLibrary(textures) if library is None else library
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        by_sense: dict[str, spaces.Space[Any]] = {
            sense: _space_of(sense, config) for sense in config.senses
        }
        self.observation_space = spaces.Dict(by_sense)  # type: ignore[assignment]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode."""
        super().reset(seed=seed)
        config, rng = self.config, self.np_random
        options = options or {}
        appearance = options.get("appearance")
        if appearance is None:
            appearance = int(rng.integers(config.appearances))
        episode = options.get("episode")
        if episode is None:
            layout = options.get("layout")
            if layout is None:
                layout = int(rng.integers(*config.layouts))
            space = self.scenes.layout(layout).free_space(config.robot.radius_m)
            episode, field = sample_episode(self.scenes.layout(layout), space, config.episodes, rng)
        else:
            space = self.scenes.layout(episode.layout).free_space(config.robot.radius_m)
            field = space.distances_to(episode.goal)
        self.episode: Episode = episode
        self.field = field
        self.appearance: int = appearance
        self.pose = np.array(episode.start)
        self._obstacles = self.scenes.layout(episode.layout).footprints
        self._speeds = (0.0, 0.0)
        self._distance = episode.shortest_m
        self._steps, self._contacts, self._driven = 0, 0, 0.0
        self._success = False
        self.observed = self._observe()
        return self.observed, self._info()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Drives for one control period.

        Args:
            action: Forward speed, -1 standing to 1 as fast as the robot can, and turn rate, -1
                right to 1 left; beyond ±1 it is limited. (2,)

        Returns:
            Observation by sense, reward, whether the goal is reached, whether the steps are used up
            without that, and figures of the episode so far.
        """
        config = self.config
        v, omega = speeds_of(action, config.robot)
        self.pose, driven, touched = config.robot.drive(self.pose, v, omega, self._obstacles)
        self._speeds = (driven * config.robot.control_hz, omega)
        self._driven += driven
        self._contacts += touched
        self._steps += 1
        before = self._distance
        distance = self.field.at(self.pose[:2])
        # Beside a cell's free neighbours there may be none for a moment: the last one holds.
        self._distance = distance if math.isfinite(distance) else before
        self._success = polar(self.pose, self.episode.goal)[0] <= config.success_radius_m
        reward = (
            config.progress_reward * (before - self._distance)
            + config.step_reward
            + config.contact_reward * touched
            + config.success_reward * self._success
        )
        truncated = self._steps >= config.steps and not self._success
        self.observed = self._observe()
        return self.observed, float(reward), self._success, truncated, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """The newest image; without "image" among the senses, one of its own."""
        if self.render_mode is None:
            return None
        return self.observed["image"] if "image" in self.observed else self._image()

    def _observe(self) -> Observation:
        config = self.config
        seen: Observation = {}
        for sense in config.senses:
            if sense == "image":
                seen[sense] = self._image()
            elif sense == "lidar":
                seen[sense] = self._ranges()
            elif sense == "goal":
                distance, bearing = polar(self.pose, self.episode.goal)
                goal = [distance, math.cos(bearing), math.sin(bearing)]
                seen[sense] = np.array(goal, np.float32)
            else:
                seen[sense] = np.array(self._speeds, np.float32)
        return seen

    def _ranges(self) -> NDArray[np.float32]:
        geometry = self.scenes.geometry(self.episode.layout)
        true = geometry.ranges(self.pose[None], self.config.lidar)[0]
        return self.config.lidar.measure(true, self.np_random)

    def _image(self) -> NDArray[np.uint8]:
        config, layout = self.config, self.episode.layout
        seen = self.scenes.geometry(layout).look(
            self.pose[None], config.camera, jitter_N2=config.camera.jitter(1, self.np_random)
        )
        painted = self.scenes.painted(layout, config.appearance_set, self.appearance)
        image: NDArray[np.uint8] = painted.photograph(seen, self.np_random)[0]
        return image

    def _info(self) -> dict[str, Any]:
        shortest = self.episode.shortest_m
        return {
            "layout": self.episode.layout,
            "appearance": self.appearance,
            "pose": self.pose.copy(),
            "goal": np.array(self.episode.goal),
            "distance_m": self._distance,
            "shortest_m": shortest,
            "driven_m": self._driven,
            "contacts": self._contacts,
            "success": self._success,
            "spl": self._success * shortest / max(self._driven, shortest),
        }


def speeds_of(action: NDArray[np.float32], robot: Robot) -> tuple[float, float]:
    """Forward speed (m/s) and turn rate (rad/s) of an action (2,); beyond ±1 it is limited."""
    a, b = (min(1.0, max(-1.0, float(value))) for value in action)
    return robot.speed * (a + 1) / 2, robot.turn_rate * b


def action_of(v: float, omega: float, robot: Robot) -> NDArray[np.float32]:
    """The action for a forward speed (m/s) and a turn rate (rad/s), limited to ±1. (2,)"""
    action = np.array([2 * v / robot.speed - 1, omega / robot.turn_rate])
    return np.asarray(np.clip(action, -1.0, 1.0), np.float32)


def _space_of(sense: Sense, config: PointGoalConfig) -> spaces.Box:
    robot, camera, lidar = config.robot, config.camera, config.lidar
    if sense == "image":
        return spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
    if sense == "lidar":
        return spaces.Box(0.0, lidar.range_m, (lidar.beams,), np.float32)
    if sense == "goal":
        bounds = np.array([[0.0, -1.0, -1.0], [FARTHEST_M, 1.0, 1.0]], np.float32)
        return spaces.Box(bounds[0], bounds[1], dtype=np.float32)
    most = np.array([robot.speed * 1.001, robot.turn_rate * 1.001], np.float32)
    return spaces.Box(-most, most, dtype=np.float32)


gymnasium.register(ENVIRONMENT_ID, entry_point=f"{__name__}:{PointGoalEnv.__name__}")
