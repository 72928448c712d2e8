"""Recorded episodes: one npz each, readable without limpet.

    format       "limpet-trajectory-1"
    config       JSON of the episode: layout, goal, shortest_m, appearance_set, appearance,
                 control_hz, success
    poses        float64 (n + 1, 3): x, y (m), yaw (rad), world frame, before each command and last
    goals        float32 (n + 1, 2): distance (m) and bearing (rad) of the goal, robot frame
    lidar        float32 (n + 1, B): ranges, m; beam 0 ahead, then counter-clockwise, a full turn
    actions      float32 (n, 2): forward speed (m/s) and turn rate (rad/s), as commanded
    images       uint8 (n + 1, H, W, 3), RGB; absent where none were recorded

Dimension legend: n commands, B beams, H rows, W columns.
"""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.whole_files import write_whole
from limpet.training.navigation.controllers import Controller
from limpet.training.navigation.environment import PointGoalEnv, action_of
from limpet.training.navigation.files import read_arrays
from limpet.training.navigation.robot import polar
from limpet.training.navigation.textures import AppearanceSet

FORMAT = "limpet-trajectory-1"
ARRAYS = {
    "poses": ("f8", 2),
    "goals": ("f4", 2),
    "lidar": ("f4", 2),
    "actions": ("f4", 2),
    "images": ("u1", 4),
}


class TrajectoryRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a trajectory is of.

    Attributes:
        layout: Seed of the layout.
        goal: x, y (m).
        shortest_m: Geodesic distance from start to goal.
        appearance_set, appearance: What it looked like.
        control_hz: Commands per second.
        success: Whether the goal was reached.
    """

    layout: int
    goal: tuple[float, float]
    shortest_m: float
    appearance_set: AppearanceSet
    appearance: int
    control_hz: float
    success: bool


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded episode; the arrays are as this module's head says."""

    record: TrajectoryRecord
    poses: NDArray[np.float64]
    goals: NDArray[np.float32]
    lidar: NDArray[np.float32]
    actions: NDArray[np.float32]
    images: NDArray[np.uint8] | None = None


def record_episode(env: PointGoalEnv, controller: Controller) -> Trajectory:
    """Drives an environment that has just been reset until its episode is over.

    Images are recorded where the environment observes them.

    Raises:
        UsageError: The environment does not observe its LiDAR.
    """
    config = env.config
    if "lidar" not in config.senses:
        raise UsageError(
            f"senses are {', '.join(config.senses)}, a trajectory needs lidar",
            "add it to the environment's senses",
        )
    poses, goals, seen, actions = [], [], [], []
    touched, over, success, contacts = False, False, False, 0
    while True:
        goal = polar(env.pose, env.episode.goal)
        poses.append(env.pose.copy())
        goals.append(goal)
        seen.append(env.observed)
        if over:
            break
        v, omega = controller.speeds(env.pose, goal, env.observed["lidar"], touched)
        actions.append((v, omega))
        _, _, success, truncated, info = env.step(action_of(v, omega, config.robot))
        touched, contacts = info["contacts"] > contacts, info["contacts"]
        over = success or truncated
    record = TrajectoryRecord(
        layout=env.episode.layout,
        goal=env.episode.goal,
        shortest_m=env.episode.shortest_m,
        appearance_set=config.appearance_set,
        appearance=env.appearance,
        control_hz=config.robot.control_hz,
        success=success,
    )
    images = [observed["image"] for observed in seen if "image" in observed]
    return Trajectory(
        record=record,
        poses=np.array(poses),
        goals=np.array(goals, np.float32),
        lidar=np.stack([observed["lidar"] for observed in seen]),
        actions=np.array(actions, np.float32),
        images=np.stack(images) if images else None,
    )


def write_trajectory(path: Path | str, trajectory: Trajectory) -> None:
    """Writes one npz, whole or not at all."""
    arrays = {name: array for name in ARRAYS if (array := getattr(trajectory, name)) is not None}
    config = msgspec.json.encode(trajectory.record).decode()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, format=np.array(FORMAT), config=np.array(config), **arrays)
    write_whole(Path(path), buffer.getvalue())


def read_trajectory(path: Path | str) -> Trajectory:
    """Reads what `write_trajectory` wrote.

    Raises:
        DataError: Not such a file, or its arrays do not fit together.
    """
    found = read_arrays(path)
    if str(found.get("format")) != FORMAT:
        what = f"format {found['format']}" if "format" in found else "no format"
        raise DataError(f"{path}: {what}, wanted {FORMAT!r}", "record it with this version")
    try:
        record = msgspec.json.decode(str(found.get("config")), type=TrajectoryRecord)
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: config: {error}") from error
    arrays = {name: found.get(name) for name in ARRAYS}
    steps = len(found["actions"]) if "actions" in found else 0
    for name, (dtype, dimensions) in ARRAYS.items():
        array = arrays[name]
        if array is None:
            if name == "images":
                continue
            raise DataError(f"{path}: has no {name}, found {', '.join(sorted(found))}")
        rows = steps + (name != "actions")
        if array.dtype != np.dtype(dtype) or array.ndim != dimensions or len(array) != rows:
            raise DataError(
                f"{path}: {name} is {array.dtype} {list(array.shape)}, wanted {np.dtype(dtype)} "
                f"with {dimensions} dimensions and {rows} rows"
            )
    return Trajectory(record=record, **arrays)  # type: ignore[arg-type]
