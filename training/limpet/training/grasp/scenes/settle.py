"""Clutter: objects dropped on a table one after another, inside walls that are then taken away.

What rests without the walls, within reach and above the table, is a scene; otherwise the next
attempt of the same seed is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from limpet.contracts.errors import LimpetError
from limpet.training.grasp.scenes.objects import GraspObject, make_object
from limpet.training.grasp.scenes.physics import (
    TIMESTEP_S,
    Settled,
    body_name,
    pose_of,
    set_pose,
    table_with,
)

FEWEST, MOST = 9, 16
"""Objects of a scene: GraspNet-1Billion has about ten, a bin that is picked from has more."""
DROP_RADIUS_M = 0.08
WALL_M = 0.15
"""Half of the walled square, 30 cm as a small bin: objects come to lie on and against each other,
and stay so where friction holds them once the walls are gone."""
REACH_M = 0.24
"""How far from the middle an object's origin may rest."""
SINK_M = 0.003
"""How far contacts may let an object into the table."""
STILL_M_S, STILL_RAD_S = 0.01, 0.15
ATTEMPTS = 12
FALL_S, LONGEST_S, UNWALLED_S = 0.45, 5.0, 1.0


def choose_objects(available: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    """`FEWEST` to `MOST` different objects of those."""
    number = min(int(rng.integers(FEWEST, MOST + 1)), len(available))
    return tuple(sorted(int(k) for k in rng.choice(np.asarray(available), number, replace=False)))


def settle(numbers: Sequence[int], seed: int) -> Settled:
    """Drops objects until they rest: the same for the same seed.

    Args:
        numbers: Objects, each once.
        seed: Of where and how they fall.

    Raises:
        LimpetError: They came to rest in none of `ATTEMPTS`.
    """
    items = [make_object(number) for number in numbers]
    spec = table_with(items)
    walls = []
    for k, (x, y) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        walls.append(f"wall{k}")
        spec.worldbody.add_geom(
            name=walls[-1],
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x * (WALL_M + 0.05), y * (WALL_M + 0.05), 0.5],
            size=[0.05 if x else 0.3, 0.05 if y else 0.3, 0.5],
        )
    model = spec.compile()
    for attempt in range(ATTEMPTS):
        _stand(model, walls, True)
        data = _drop(model, items, np.random.default_rng([seed, attempt]))
        _stand(model, walls, False)
        _run(model, data, UNWALLED_S)
        calm = _rest(model, data)
        poses = np.stack([pose_of(data, body_name(item.number)) for item in items])
        if calm and all(map(_lies, items, poses)):
            return Settled(tuple(numbers), poses)
    raise LimpetError(
        f"objects {list(numbers)} do not come to rest within {REACH_M} m in {ATTEMPTS} attempts "
        f"from seed {seed}",
        "name another seed",
    )


def _stand(model: mujoco.MjModel, walls: Sequence[str], up: bool) -> None:
    for wall in walls:
        model.geom(wall).contype[:] = int(up)
        model.geom(wall).conaffinity[:] = int(up)


def _drop(
    model: mujoco.MjModel, items: Sequence[GraspObject], rng: np.random.Generator
) -> mujoco.MjData:
    data = mujoco.MjData(model)
    for k, item in enumerate(items):  # those that wait lie outside of the walls, far apart
        aside = np.eye(4)
        aside[:3, 3] = (1.0 + k, 1.0, item.radius_m)
        set_pose(model, data, body_name(item.number), aside)
    top = 0.0
    for k, item in enumerate(items):
        angle, far = rng.uniform(0, 2 * np.pi), DROP_RADIUS_M * np.sqrt(rng.random())
        pose = np.eye(4)
        pose[:3, :3] = Rotation.random(random_state=rng).as_matrix()
        turned = item.mesh.vertices @ pose[:3, :3].T
        pose[:3, 3] = (far * np.cos(angle), far * np.sin(angle), top - turned[:, 2].min() + 0.01)
        set_pose(model, data, body_name(item.number), pose)
        _run(model, data, FALL_S)
        top = max(_top(data, other) for other in items[: k + 1])
    _rest(model, data)
    return data


def _top(data: mujoco.MjData, item: GraspObject) -> float:
    pose = pose_of(data, body_name(item.number))
    return float((item.mesh.vertices @ pose[2, :3]).max() + pose[2, 3])


def _run(model: mujoco.MjModel, data: mujoco.MjData, seconds: float) -> None:
    mujoco.mj_step(model, data, round(seconds / TIMESTEP_S))


def _rest(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    """Runs until all is still for two looks in a row; False if it never is."""
    still = 0
    for _ in range(round(LONGEST_S / 0.1)):
        _run(model, data, 0.1)
        speed = data.qvel.reshape(-1, 6)
        calm = np.abs(speed[:, :3]).max() < STILL_M_S and np.abs(speed[:, 3:]).max() < STILL_RAD_S
        still = still + 1 if calm else 0
        if still == 2:
            mujoco.mj_forward(model, data)
            return True
    return False


def _lies(item: GraspObject, pose: np.ndarray) -> bool:
    lowest = float((item.mesh.vertices @ pose[2, :3]).min() + pose[2, 3])
    return lowest > -SINK_M and float(np.hypot(*pose[:2, 3])) < REACH_M
