"""Objects and a table in MuJoCo, from their convex pieces.

Table frame: z up, the table's top at z = 0, the middle of the clutter near the origin. A body's
frame is its object's frame, so a body's pose is the object's pose in the table's frame.

Dimension legend: n objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from limpet.contracts.errors import MissingExtraError
from limpet.training.grasp.scenes.objects import GraspObject, make_object
from limpet.training.grasp.scenes.shapes import Float64, Piece

try:
    import mujoco
except ModuleNotFoundError as error:
    raise MissingExtraError("training", error.name or "mujoco") from error

TIMESTEP_S = 0.002
FRICTION = (0.6, 0.01, 0.0015)
"""Sliding, torsional (m) and rolling (m) friction of objects and table: wood on plastic."""


@dataclass(frozen=True)
class Settled:
    """Objects at rest on a table.

    Attributes:
        objects: Numbers of the objects.
        poses: Of each in the table's frame. float64 (n, 4, 4)
    """

    objects: tuple[int, ...]
    poses: Float64


def body_name(number: int) -> str:
    """Name of an object's body."""
    return f"object{number}"


def table_with(
    objects: Sequence[GraspObject], friction: tuple[float, float, float] = FRICTION
) -> mujoco.MjSpec:
    """A model of objects, each free, on a table; positions are the caller's to set."""
    spec = mujoco.MjSpec()
    spec.option.timestep = TIMESTEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[5, 5, 0.1],
        friction=friction,
        condim=6,
    )
    for item in objects:
        _add_object(spec, item, friction)
    return spec


def _add_object(
    spec: mujoco.MjSpec, item: GraspObject, friction: tuple[float, float, float]
) -> None:
    name = body_name(item.number)
    body = spec.worldbody.add_body(name=name)
    body.add_freejoint(name=name)
    moments, axes = np.linalg.eigh(item.bulk.inertia * item.density)
    axes = axes * np.sign(np.linalg.det(axes))
    body.explicitinertial = True
    body.mass = item.mass_kg
    body.ipos = item.bulk.centroid
    body.inertia = moments
    body.iquat = quat_wxyz(axes)
    for k, piece in enumerate(item.pieces):
        common = {"friction": list(friction), "condim": 6, "group": 1}
        if piece.radius_m > 0:
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                fromto=piece.vertices.ravel().tolist(),
                size=[piece.radius_m, 0, 0],
                **common,
            )
        else:
            mesh = f"{name}_{k}"
            _add_hull(spec, mesh, piece)
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, **common)


def _add_hull(spec: mujoco.MjSpec, name: str, piece: Piece) -> None:
    spec.add_mesh(
        name=name,
        uservert=piece.vertices.ravel().tolist(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX,
    )


def quat_wxyz(rotation: Float64) -> Float64:
    """Quaternion of a rotation, real part first. (3, 3) → (4,)"""
    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return np.array([w, x, y, z])


def set_pose(
    model: mujoco.MjModel, data: mujoco.MjData, body: str, pose: NDArray[np.float64]
) -> None:
    """Puts a free body at rest at a pose in the table's frame. (4, 4)"""
    joint = model.joint(body)
    at, speed = int(joint.qposadr[0]), int(joint.dofadr[0])
    data.qpos[at : at + 3] = pose[:3, 3]
    data.qpos[at + 3 : at + 7] = quat_wxyz(pose[:3, :3])
    data.qvel[speed : speed + 6] = 0.0


def pose_of(data: mujoco.MjData, body: str) -> Float64:
    """Pose of a body in the table's frame. (4, 4)"""
    pose = np.eye(4)
    pose[:3, :3] = data.body(body).xmat.reshape(3, 3)
    pose[:3, 3] = data.body(body).xpos
    return pose


def items_of(scene: Settled) -> list[GraspObject]:
    """The objects of a scene."""
    return [make_object(number) for number in scene.objects]
