"""Does a grasp hold? Close, lift 20 cm, shake: in MuJoCo, in the settled scene.

The gripper is the evaluator's (`gripper`), on a carriage that moves without turning. It is put at
the grasp's pose with its fingers opened to the grasp's width, closes both together with a limited
force, lifts and shakes. A grasp succeeds when, at the end, an object that both fingers touch has
been raised.

Frames: table (z up, top at 0), gripper (x approach, y closing direction, z height).

Dimension legend: k grasps, n objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import mujoco
import numpy as np
import scipy.io
from numpy.typing import NDArray

from limpet.contracts.errors import DataError
from limpet.training.grasp.scenes.gripper import BASE_M, FINGER_M, HEIGHT_M, MAX_WIDTH_M
from limpet.training.grasp.scenes.layout import CAMERA, scene_folder
from limpet.training.grasp.scenes.objects import OBJECTS
from limpet.training.grasp.scenes.physics import (
    TIMESTEP_S,
    Settled,
    body_name,
    items_of,
    quat_wxyz,
    set_pose,
    table_with,
)
from limpet.training.grasp.scenes.shapes import Float64

LONGEST_M = 0.05
"""Largest depth of a grasp that is tried; GraspNet's go to 0.04."""

FINGER_DAMPING = 250.0
"""Of each finger's joint, N s/m: pressed by 25 N it closes at 0.1 m/s and kicks nothing away."""

Outcome = Literal[
    "held",
    "collides",  # the opened gripper is in an object or the table
    "empty",  # the fingers met, or met nothing
    "slipped",  # not held once lifted
    "shaken off",
]


class LiftConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How hard it is.

    Attributes:
        friction: Sliding friction of fingers and object: rubber on plastic.
        torsional_m: Torsional friction of a fingertip.
        force_n: Closing force.
        penetration_m: How deep the opened gripper may be in something.
        raise_m: How far it lifts.
        shake_m, shake_hz: Amplitude and frequency of the shaking, in x and in y.
        close_s, lift_s, hold_s, shake_s: Durations.
    """

    friction: float = 0.9
    torsional_m: float = 0.005
    force_n: float = 25.0
    penetration_m: float = 0.002
    raise_m: float = 0.2
    shake_m: float = 0.015
    shake_hz: float = 3.0
    close_s: float = 0.8
    lift_s: float = 0.8
    hold_s: float = 0.2
    shake_s: float = 0.7


@dataclass(frozen=True)
class Lift:
    """What became of a grasp.

    Attributes:
        outcome: "held" is success, the others are reasons for failure.
        object_number: The object in the fingers after closing, None if none was.
    """

    outcome: Outcome
    object_number: int | None

    @property
    def success(self) -> bool:
        """Whether it held."""
        return self.outcome == "held"


def lift_success(
    scene: Settled,
    rows: NDArray[Any],
    pose_in_table: Float64 | None = None,
    config: LiftConfig | None = None,
) -> list[Lift]:
    """Tries grasps, each in the scene as it lay before.

    Args:
        scene: Objects at rest.
        rows: GraspNet rows: score, width, height, depth, rotation (9), translation (3), object;
            m. The height is the gripper's own, and the last column is not read. (k, 17)
        pose_in_table: Of the rows' frame in the table's; by default they are in the table's. (4, 4)
        config: How hard it is.

    Raises:
        DataError: The rows have another shape, or no finite numbers.
    """
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or rows.shape[1] != 17 or not np.isfinite(rows[:, :16]).all():
        raise DataError(f"grasps of shape {rows.shape}: wanted finite rows of shape (k, 17)")
    trial = _Trial(scene, config or LiftConfig())
    outer = np.eye(4) if pose_in_table is None else pose_in_table
    out = []
    for row in rows:
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = row[4:13].reshape(3, 3), row[13:16]
        out.append(trial.run(outer @ pose, width_m=float(row[1]), depth_m=float(row[3])))
    return out


def read_settled(root: Path, scene: int) -> Settled:
    """The clutter of a scene of a synthetic data set, from its first view's poses.

    Raises:
        DataError: The scene is not there, or shows objects that are not this package's.
    """
    folder = scene_folder(root, scene)
    try:
        meta = scipy.io.loadmat(folder / CAMERA / "meta" / "0000.mat")
        first_in_table = np.load(folder / CAMERA / "cam0_wrt_table.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: no scene that can be read: {error}") from error
    numbers = tuple(int(k) - 1 for k in meta["cls_indexes"].ravel())
    if not (root / "synthetic.json").exists() or max(numbers) >= OBJECTS:
        raise DataError(
            f"{root}: not made by limpet.training.grasp.scenes.generate: no physics for it"
        )
    poses = np.tile(np.eye(4), (len(numbers), 1, 1))
    poses[:, :3] = np.moveaxis(meta["poses"].astype(np.float64), -1, 0)
    return Settled(numbers, first_in_table @ poses)


class _Trial:
    """A scene with a gripper in it."""

    def __init__(self, scene: Settled, config: LiftConfig) -> None:
        self._scene, self._config = scene, config
        self._model = self._compiled()

    def run(self, pose: Float64, width_m: float, depth_m: float) -> Lift:
        """Tries one grasp. Pose in the table's frame. (4, 4)"""
        config = self._config
        model = self._model
        data = mujoco.MjData(model)
        for number, placed in zip(self._scene.objects, self._scene.poses, strict=True):
            set_pose(model, data, body_name(number), placed)
        model.body("hand").quat[:] = quat_wxyz(pose[:3, :3])
        data.joint("x").qpos, data.joint("y").qpos, data.joint("z").qpos = pose[:3, 3]
        half = min(max(width_m, 0.0), MAX_WIDTH_M) / 2
        self._shape(half, min(max(depth_m, 0.0), LONGEST_M))
        data.joint("left").qpos = data.joint("right").qpos = half
        target = pose[:3, 3].copy()
        data.ctrl[:3], data.ctrl[3] = target, 0.0
        mujoco.mj_forward(model, data)
        if self._touched(model, data, config.penetration_m):
            return Lift("collides", None)
        before = {number: self._height(data, number) for number in self._scene.objects}
        data.ctrl[3] = -config.force_n
        self._move(model, data, target, config.close_s)
        grasped = self._between(model, data)
        if grasped is None:
            return Lift("empty", None)
        self._move(model, data, target, config.lift_s, raised=config.raise_m)
        target[2] += config.raise_m
        self._move(model, data, target, config.hold_s)
        if not self._holds(model, data, before):
            return Lift("slipped", grasped)
        self._move(model, data, target, config.shake_s, shaking=True)
        self._move(model, data, target, config.hold_s)
        return Lift("held" if self._holds(model, data, before) else "shaken off", grasped)

    def _shape(self, half: float, depth: float) -> None:
        """Gives base and fingers the size of a grasp.

        They only ever shrink from what was compiled, so bounding volumes stay valid.
        """
        length = BASE_M + depth
        self._model.geom("base").size[1] = half + FINGER_M
        for name in ("left", "right"):
            self._model.geom(name).size[0] = length / 2
            self._model.geom(name).pos[0] = depth - length / 2

    def _compiled(self) -> mujoco.MjModel:
        """The scene and a gripper of the largest width and depth."""
        spec = table_with(items_of(self._scene))
        carriage = spec.worldbody.add_body(name="carriage", gravcomp=1.0)
        for axis, name in zip(np.eye(3), "xyz", strict=True):
            carriage.add_joint(
                name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis.tolist(), damping=0.0
            )
            # A servo of 30 rad/s and critical damping for about 1.2 kg and a load.
            actuator = spec.add_actuator(name=name, target=name)
            actuator.trntype = mujoco.mjtTrn.mjTRN_JOINT
            actuator.set_to_position(kp=20_000.0, kv=400.0)
        hand = carriage.add_body(name="hand", gravcomp=1.0)
        friction = [self._config.friction, self._config.torsional_m, 1e-4]
        # The gripper's friction holds whatever the object's is.
        rubber = {"friction": friction, "condim": 4, "priority": 1}
        reach = MAX_WIDTH_M / 2 + FINGER_M
        hand.add_geom(
            name="base",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[-BASE_M - FINGER_M / 2, 0, 0],
            size=[FINGER_M / 2, reach, HEIGHT_M / 2],
            mass=0.8,
            **rubber,
        )
        length = BASE_M + LONGEST_M
        for name, side in (("left", 1.0), ("right", -1.0)):
            finger = hand.add_body(name=name, gravcomp=1.0)
            finger.add_joint(
                name=name,
                type=mujoco.mjtJoint.mjJNT_SLIDE,
                axis=[0, side, 0],
                range=[0, MAX_WIDTH_M / 2],
                damping=FINGER_DAMPING,
                armature=0.05,
            )
            finger.add_geom(
                name=name,
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[LONGEST_M - length / 2, side * FINGER_M / 2, 0],
                size=[length / 2, FINGER_M / 2, HEIGHT_M / 2],
                mass=0.2,
                **rubber,
            )
            spec.add_exclude(bodyname1="hand", bodyname2=name)
        spec.add_exclude(bodyname1="left", bodyname2="right")
        together = spec.add_equality(
            type=mujoco.mjtEq.mjEQ_JOINT,
            name1="left",
            name2="right",
            objtype=mujoco.mjtObj.mjOBJ_JOINT,
        )
        together.data[:5] = [0, 1, 0, 0, 0]
        together.solref[:] = [2 * TIMESTEP_S, 1.0]
        close = spec.add_actuator(name="close", target="left")
        close.trntype = mujoco.mjtTrn.mjTRN_JOINT
        close.set_to_motor()
        close.gear[0] = 2.0  # the two fingers share it
        return spec.compile()

    def _move(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        target: Float64,
        seconds: float,
        raised: float = 0.0,
        shaking: bool = False,
    ) -> None:
        steps = round(seconds / TIMESTEP_S)
        for k in range(steps):
            share = (k + 1) / steps
            at = target.copy()
            at[2] += raised * (10 * share**3 - 15 * share**4 + 6 * share**5)  # least jerk
            if shaking:
                swing = self._config.shake_m * math.sin(math.pi * share)  # swells and fades
                phase = 2 * math.pi * self._config.shake_hz * seconds * share
                at[:2] += swing * np.array([math.sin(phase), math.cos(phase)])
            data.ctrl[:3] = at
            mujoco.mj_step(model, data)

    def _touched(self, model: mujoco.MjModel, data: mujoco.MjData, deeper_than: float) -> bool:
        gripper = {model.geom(name).id for name in ("base", "left", "right")}
        contact = data.contact
        mine = [bool(gripper & set(pair)) for pair in contact.geom.tolist()]
        return bool(np.any(np.asarray(mine, bool) & (contact.dist < -deeper_than)))

    def _between(self, model: mujoco.MjModel, data: mujoco.MjData) -> int | None:
        """The object that both fingers touch."""
        touching = []
        pairs = data.contact.geom
        for name in ("left", "right"):
            finger = model.geom(name).id
            mine = pairs[(pairs == finger).any(axis=1)]
            others = np.where(mine[:, 0] == finger, mine[:, 1], mine[:, 0])
            touching.append({int(model.geom_bodyid[geom]) for geom in others})
        for number in self._scene.objects:
            if model.body(body_name(number)).id in touching[0] & touching[1]:
                return number
        return None

    def _holds(self, model: mujoco.MjModel, data: mujoco.MjData, before: dict[int, float]) -> bool:
        number = self._between(model, data)
        if number is None:
            return False
        return self._height(data, number) - before[number] > 0.7 * self._config.raise_m

    @staticmethod
    def _height(data: mujoco.MjData, number: int) -> float:
        return float(data.body(body_name(number)).xipos[2])
