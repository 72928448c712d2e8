"""The contrastive objective: a privileged sensor says which frames are alike.

Dimension legend: b poses of a batch, n = 2 b frames, B beams, e embedding.

Rows of a batch: the first view of every pose, then the second of every pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limpet.contracts.errors import DataError
from limpet.training.distributed import gather, shard
from limpet.training.navigation.augmentations import (
    color_maps,
    crop,
    crop_maps,
    flip,
    flip_goals,
    flip_scans,
    to_input,
)
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.frames import Float32, Frames, Indices, Uint8
from limpet.training.navigation.hardening import harden
from limpet.training.navigation.similarity import beam_weights, goal_similarity, lidar_similarity


def temperatures(distance: Tensor, config: NavigationConfig) -> Tensor:
    """Temperature of each pair, by its geometric distance within 0 and 1. (n, n)

    `distance`: τ = coldest + (warmest - coldest) d, the paper's sign (0.1 + 0.9 d): of two
    negatives the more similar one is repelled more. `similarity`: the opposite sign.
    """
    spread = config.warmest - config.coldest
    if config.temperature == "fixed":
        return torch.full_like(distance, config.coldest)
    grown = distance if config.temperature == "distance" else 1.0 - distance
    return config.coldest + spread * grown


def multi_positive(
    embedded: Tensor, temperature: Tensor, positive: Tensor, negative: Tensor
) -> Tensor:
    """-log(Σ_p e^(s_p / τ_p) / (Σ_p e^(s_p / τ_p) + Σ_n e^(s_n / τ_n))), s the cosine, averaged
    over the frames that have a positive ("Robust Scene Transfer for PointGoal Navigation via
    Privileged Sensor Guided Contrastive Learning", arXiv 2606.05506).

    Args:
        embedded: Rows of unit length. (n, e)
        temperature: Of each pair. (n, n)
        positive: Which pairs are; the diagonal is not. (n, n)
        negative: The same; no pair is both. (n, n)
    """
    logits = embedded @ embedded.T / temperature
    nothing = -torch.inf
    attract = torch.logsumexp(logits.masked_fill(~positive, nothing), 1)
    both = torch.logsumexp(logits.masked_fill(~(positive | negative), nothing), 1)
    return (both - attract)[positive.any(1)].mean()


def ranked(embedded: Tensor, distance: Tensor, temperature: float) -> Tensor:
    """Every frame a positive against all that are at least as far from the anchor as itself
    ("Rank-N-Contrast", arXiv 2210.01189, with cosines): embeddings get the order of geometry.

    Args:
        embedded: Rows of unit length. (n, e)
        distance: Geometric, of each pair. (n, n)
        temperature: Divides the cosines.
    """
    own = torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    order = distance.masked_fill(own, -1.0).argsort(1, descending=True)[:, :-1]
    logits = (embedded @ embedded.T / temperature).gather(1, order)
    return (torch.logcumsumexp(logits, 1) - logits).mean()


@dataclass(frozen=True)
class Draw:
    """A global batch.

    Attributes:
        images: uint8 (2, b, H, W, 3)
        distance: Geometric distance of the poses, 0 to 1. (b, b)
        matrix, offset: Colour map of each view. (2, b, 3, 3), (2, b, 3)
        crops: Which part of the image each view shows; None for the whole. (2, b, 2, 3)
    """

    images: Uint8
    distance: NDArray[np.float32]
    matrix: Float32
    offset: Float32
    crops: Float32 | None


class Batches:
    """Draws batches of frames, and gives their loss.

    Args:
        frames: What to learn from.
        config: What can be chosen.

    Raises:
        DataError: There are fewer poses than a batch has, or goals are asked for and unknown.
    """

    def __init__(self, frames: Frames, config: NavigationConfig) -> None:
        if len(frames) < config.batch:
            raise DataError(
                f"{frames.name} has {len(frames)} poses, a batch takes {config.batch}",
                "record more, or set a smaller `batch`",
            )
        if frames.goals is None and config.similarity != "lidar":
            raise DataError(
                f'{frames.name} knows no goals, which similarity = "{config.similarity}" needs',
                'set similarity = "lidar"',
            )
        self._frames, self._config = frames, config
        self._weights = beam_weights(frames.sensor, config)

    def draw(self, rng: np.random.Generator) -> Draw:
        """One global batch."""
        config, frames, b = self._config, self._frames, self._config.batch
        poses = rng.choice(len(frames), b, replace=False)
        mirrored = rng.random(b) < 0.5
        first = rng.integers(0, frames.views, b)
        second = first
        if frames.views > 1 and config.objective != "simclr":
            second = (first + rng.integers(1, frames.views, b)) % frames.views
        images = np.stack([frames.take(poses, view) for view in (first, second)])
        for seen in images:
            flip(seen, mirrored)
        matrix, offset = color_maps(2 * b, rng, config.brightened, config.color_jitter)
        crops = None
        if config.objective == "simclr":
            crops = crop_maps(2 * b, rng, config.crop).reshape(2, b, 2, 3)
        return Draw(
            images=images,
            distance=self._distance(poses, mirrored),
            matrix=matrix.reshape(2, b, 3, 3),
            offset=offset.reshape(2, b, 3),
            crops=crops,
        )

    def _distance(self, poses: Indices, mirrored: NDArray[np.bool_]) -> Float32:
        config, frames = self._config, self._frames
        similarity = np.ones((len(poses), len(poses)))
        if config.similarity in ("lidar", "product"):
            scans = flip_scans(frames.lidar[poses], mirrored)
            similarity *= lidar_similarity(scans, scans, self._weights, config.near_m)
        if config.similarity in ("goal", "product"):
            assert frames.goals is not None
            goals = flip_goals(frames.goals[poses], mirrored)
            similarity *= goal_similarity(goals, goals, config.far_goal_m)
        distance = np.clip(1.0 - similarity, 0.0, 1.0)
        np.fill_diagonal(distance, 0.0)  # a pose is like itself, whatever its scan lacks
        return distance.astype(np.float32)

    def loss(self, encoder: Encoder, rng: np.random.Generator, device: str) -> dict[str, Tensor]:
        """Loss of one step.

        Args:
            encoder: On `device`.
            rng: Of this step, the same on every rank.
            device: Where the loss is computed.

        Returns:
            Scalars: `loss`, and `correlation` of geometric with embedding distance in the batch.
        """
        draw, config = self.draw(rng), self._config
        views = self.inputs(draw, device)
        distance = torch.from_numpy(draw.distance).to(device).repeat(2, 2)

        def loss_of(embedded: Tensor) -> Tensor:
            # Outside of autocast: a cosine at a temperature of 0.1 needs its digits.
            with torch.autocast(embedded.device.type, enabled=False):
                both = torch.cat([gather(part) for part in embedded.chunk(2)])
                return self._contrast(both, distance)

        if config.attack_steps:
            views = harden(encoder, views, loss_of, config)
        embedded = encoder(views)
        both = torch.cat([gather(part) for part in embedded.detach().chunk(2)])
        return {"loss": loss_of(embedded), "correlation": _correlation(both, distance)}

    def inputs(self, draw: Draw, device: str) -> Tensor:
        """This rank's b rows as the encoder takes them: first, then second views. (2b, 3, H, W)"""
        own = shard(self._config.batch)
        made = []
        # Outside of autocast: half precision has fewer shades than a camera.
        with torch.autocast(device, enabled=False):
            for view in (0, 1):
                images = torch.from_numpy(draw.images[view, own]).to(device)
                matrix, offset = draw.matrix[view, own], draw.offset[view, own]
                made.append(to_input(images, self._config.image, matrix, offset))
                if draw.crops is not None:
                    made[-1] = crop(made[-1], draw.crops[view, own])
            return torch.cat(made)

    def _contrast(self, embedded: Tensor, distance: Tensor) -> Tensor:
        config, n = self._config, len(embedded)
        if config.objective == "ranked":
            return ranked(embedded, distance, config.coldest)
        own = torch.eye(n, dtype=torch.bool, device=embedded.device)
        twin = own.roll(n // 2, 0)  # the other view of the same pose
        if config.objective == "simclr":
            cold = torch.full_like(distance, config.coldest)
            return multi_positive(embedded, cold, twin, ~(own | twin))
        positive = ((1.0 - distance >= config.positive_similarity) | twin) & ~own
        negative = (1.0 - distance <= config.negative_similarity) & ~positive & ~own
        return multi_positive(embedded, temperatures(distance, config), positive, negative)


def _correlation(embedded: Tensor, distance: Tensor) -> Tensor:
    """Pearson's, of cosines with similarities of different poses."""
    n = len(embedded)
    other = ~torch.eye(n // 2, dtype=torch.bool, device=embedded.device).repeat(2, 2)
    pairs = torch.stack([(embedded @ embedded.T)[other], 1.0 - distance[other]])
    return torch.corrcoef(pairs.float())[0, 1]
