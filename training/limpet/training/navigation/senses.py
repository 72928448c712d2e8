"""What a policy perceives of an observation: an embedding, a LiDAR scan, nothing, or pixels.

A perception turns the observations of several environments into features at once, so that an
encoder runs one batch for all of them. Its features are final: the encoder stays frozen, and a
replay buffer keeps features instead of images.

Dimension legend: n observations, F features, B beams, D inputs of the policy's network.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from limpet.contracts.errors import UsageError
from limpet.contracts.images import ImagePreprocessing, normalize
from limpet.training.navigation.camera import Lidar
from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.environment import Observation, Sense
from limpet.training.navigation.policy import CONDITIONED, Actor, Eyes, closeness, unit_size
from limpet.training.navigation.policy_config import PolicyConfig


class Perception(Protocol):
    """Makes features of observations.

    Attributes:
        needs: What the environment must observe beside goal and motion.
        features: F.
    """

    needs: tuple[Sense, ...]
    features: int

    def __call__(self, seen: Sequence[Observation]) -> Tensor:
        """Features of about unit size each. (n, F)"""


class Embedding:
    """The frozen encoder's view of the camera image.

    Args:
        encoder: In evaluation mode.
    """

    needs: tuple[Sense, ...] = ("image",)

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.features = encoder, encoder.config.embedding

    def __call__(self, seen: Sequence[Observation]) -> Tensor:
        """One batch through the encoder."""
        images = np.stack([observed["image"] for observed in seen])
        return unit_size(
            self._encoder(torch.from_numpy(normalize(images, self._encoder.config.image)))
        )


class Scan:
    """A LiDAR all around: the oracle. Of each `BEAMS` neighbouring beams the nearest counts."""

    needs: tuple[Sense, ...] = ("lidar",)
    BEAMS = 3

    def __init__(self, lidar: Lidar) -> None:
        self.features = lidar.beams // self.BEAMS

    def __call__(self, seen: Sequence[Observation]) -> Tensor:
        """How close the obstacle in each sector is; the first sector looks ahead."""
        ranges = np.stack([observed["lidar"] for observed in seen])
        ahead = np.roll(ranges, self.BEAMS // 2, axis=1)
        nearest = ahead[:, : self.features * self.BEAMS].reshape(len(seen), -1, self.BEAMS)
        return closeness(torch.from_numpy(nearest.min(axis=2)))


class Nothing:
    """Blind: goal and motion alone."""

    needs: tuple[Sense, ...] = ()
    features = 0

    def __call__(self, seen: Sequence[Observation]) -> Tensor:
        """No features."""
        return torch.empty(len(seen), 0)


class Pixels:
    """The image itself, halved until it is small: for a policy that learns to see as well.

    Args:
        how: What an image goes through first.
    """

    needs: tuple[Sense, ...] = ("image",)
    features = 3 * Eyes.SIDE**2

    def __init__(self, how: ImagePreprocessing) -> None:
        self._how = how

    def __call__(self, seen: Sequence[Observation]) -> Tensor:
        """Rows of pixels, each the mean of those it covers."""
        images = normalize(np.stack([observed["image"] for observed in seen]), self._how)
        small = functional.adaptive_avg_pool2d(torch.from_numpy(images), Eyes.SIDE)
        return small.flatten(1)


class SideBySide:
    """What several perceive of the same observations, one after the other.

    Args:
        parts: The perceptions.
    """

    def __init__(self, parts: Sequence[Perception]) -> None:
        self._parts = parts
        self.needs: tuple[Sense, ...] = tuple(dict.fromkeys(n for p in parts for n in p.needs))
        self.features = sum(part.features for part in parts)

    def __call__(self, seen: Sequence[Observation]) -> Tensor:
        """Features of all."""
        return torch.cat([part(seen) for part in self._parts], dim=1)

    def columns(self) -> list[list[int]]:
        """Of a policy's inputs by all features (D), those that a policy by each part has."""
        stops = list(itertools.accumulate(part.features for part in self._parts))
        conditioned = range(self.features, self.features + CONDITIONED)
        return [
            [*range(stop - part.features, stop), *conditioned]
            for part, stop in zip(self._parts, stops, strict=True)
        ]


def perception(config: PolicyConfig, encoder: Encoder | None) -> Perception:
    """The perception that a configuration names.

    Raises:
        UsageError: It drives by embedding, and no encoder was given.
    """
    if config.sense == "lidar":
        return Scan(config.task.lidar)
    if config.sense == "nothing":
        return Nothing()
    if config.sense == "pixels":
        return Pixels(ImagePreprocessing())
    if encoder is None:
        raise UsageError("a policy that drives by embedding needs an encoder", "train one first")
    return Embedding(encoder)


@torch.no_grad()
def inputs_of(actor: Actor, perceive: Perception, seen: Sequence[Observation]) -> Tensor:
    """The network's inputs of observations, in one batch. (n, D)"""
    goal, motion = (
        torch.from_numpy(np.stack([observed[sense] for observed in seen]))
        for sense in ("goal", "proprioception")
    )
    return actor.inputs(perceive(seen), goal, motion)
