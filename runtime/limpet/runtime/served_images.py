"""Requests to a model that takes images: from what a robot sent to what it may act on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from limpet.contracts.errors import EngineError, ImplausibleError
from limpet.contracts.image_model import ImageModel
from limpet.contracts.images import ChannelOrder, as_rgb
from limpet.contracts.manifest import ActionDecoding
from limpet.contracts.tensors import Array, Tensors
from limpet.runtime.camera_watch import CameraWatches, check_exposure
from limpet.runtime.turn import OutsideTurn

MOVING = (0.02, 0.05)
"""Forward speed (m/s) and turn rate (rad/s) from which a robot moves: more than odometry's noise,
and in three frames at 20 Hz enough to shift an image by half a pixel."""
UNIT_WITHIN = 0.05
"""How far the squares of a bearing's cosine and sine may sum from 1."""
TOO_FAST = 2.0
"""Times the largest speeds that a measured one may be: wheels slip, gyroscopes saturate."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a request comes from.

    Attributes:
        client: The connection.
        camera: Name of the camera among those of this connection.
        captured_ns: When the image was captured.
        channel_order: Of the image.
    """

    client: bytes
    camera: str
    captured_ns: int
    channel_order: ChannelOrder = "rgb"


class ServedImages:
    """An image model that refuses what cannot be so. Belongs to the model's worker.

    Args:
        model: Preprocessing, graph, decoding.
    """

    def __init__(self, model: ImageModel) -> None:
        self.model = model
        self._cameras = CameraWatches()

    @property
    def valid_ns(self) -> int | None:
        """How long after its capture an action may be followed, None for an encoder alone."""
        action = self.model.action
        return None if action is None else round(action.valid_s * 1e9)

    def infer(self, request: Tensors, origin: Origin) -> Tensors:
        """Computes the outputs of a request.

        Raises:
            TensorError: The request does not fit the model.
            ImplausibleError: It fits and cannot be so.
            EngineError: The graph gave something that is no number.
        """
        with OutsideTurn():  # a large image takes milliseconds before it comes to the engine
            return self._infer(request, origin)

    def _infer(self, request: Tensors, origin: Origin) -> Tensors:
        name = self.model.inputs[0].name
        request = self.model.completed(request)
        if origin.channel_order != "rgb":
            request = {**request, name: as_rgb(request[name], origin.channel_order)}
        small = self.model.shrink(request)
        check_exposure(small)
        if self.model.action is not None:
            goal, motion, *memory = (request[spec.name] for spec in self.model.inputs[1:])
            check_goal(goal, self.model.action)
            check_motion(motion, self.model.action)
            for each in memory:
                check_memory(each)
            moving = bool(np.any(np.abs(motion) >= MOVING))
            watch = self._cameras.of(origin.client, origin.camera)
            watch.check(request[name], origin.captured_ns, moving)
        outputs = self.model.infer_small(small, request)
        for name, array in outputs.items():
            if not np.isfinite(array).all():
                raise EngineError(f"the model computed {name!r} with values that are no numbers")
        return outputs


def check_goal(goal: Array, action: ActionDecoding) -> None:
    """Refuses a goal (distance, cosine, sine) that is no place within the model's reach.

    Raises:
        ImplausibleError: `goal`.
    """
    distance, cos, sin = map(float, goal)
    unit = abs(cos * cos + sin * sin - 1.0) <= UNIT_WITHIN  # False for NaN
    if not (0.0 <= distance <= action.farthest_goal_m and unit):
        raise ImplausibleError(
            "goal",
            f"goal [{distance:g}, {cos:g}, {sin:g}], wanted a distance from 0 to "
            f"{action.farthest_goal_m:g} m and the cosine and sine of its bearing",
            "look at localisation and planner",
        )


def check_motion(motion: Array, action: ActionDecoding) -> None:
    """Refuses a motion (forward speed, turn rate) that no such robot has.

    Raises:
        ImplausibleError: `proprioception`.
    """
    speed, turn_rate = map(float, motion)
    most = TOO_FAST * action.largest_speed, TOO_FAST * action.largest_turn_rate
    if not (abs(speed) <= most[0] and abs(turn_rate) <= most[1]):
        raise ImplausibleError(
            "proprioception",
            f"proprioception [{speed:g}, {turn_rate:g}], wanted at most {most[0]:g} m/s and "
            f"{most[1]:g} rad/s",
            "look at the odometry",
        )


def check_memory(memory: Array) -> None:
    """Refuses a memory that no policy has.

    Raises:
        ImplausibleError: `memory`.
    """
    if not bool(np.all(np.abs(memory) <= 1.0)):  # False for NaN
        raise ImplausibleError(
            "memory",
            "memory has numbers beyond ±1 or none at all, wanted those of an earlier result",
            "send back what the result before carried, or nothing to begin anew",
        )
