"""A control: the encoder trained to keep what its image looked like, not what stands where.

Dimension legend: b images, h rows, w columns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.objective import Batches

SHRINK = 2
"""The reconstruction has so many times fewer rows and columns than the image."""
COARSEST = 8
"""Rows and columns of the map that the decoder begins with."""


class Autoencoder(nn.Module):
    """An encoder and a decoder of its embeddings.

    Args:
        encoder: What is kept after training.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        width, image = encoder.config.width, encoder.config.image
        self._size = (image.height // SHRINK, image.width // SHRINK)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(encoder.config.seed)
            self.first = nn.Linear(encoder.config.embedding, 4 * width * COARSEST**2)
            self.layers = nn.Sequential(
                *_enlarge(4 * width, 2 * width),
                *_enlarge(2 * width, width),
                *_enlarge(width, width),
                nn.Conv2d(width, 3, 3, padding=1),
            )

    def forward(self, images: Tensor) -> Tensor:
        """Mean squared error of the reconstruction, in units of the encoder's input.

        Args:
            images: As the encoder takes them. (b, 3, h, w)
        """
        embedded = self.encoder(images) * self.encoder.config.embedding**0.5
        start = self.first(embedded).view(len(images), -1, COARSEST, COARSEST)
        wanted = functional.adaptive_avg_pool2d(images, self._size)
        made = functional.interpolate(self.layers(functional.relu(start)), self._size)
        return functional.mse_loss(made.float(), wanted.float())


def _enlarge(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.Upsample(scale_factor=2),
        nn.Conv2d(channels, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    ]


def reconstruction_loss(
    model: Autoencoder, batches: Batches, rng: np.random.Generator, device: str
) -> dict[str, Tensor]:
    """Loss of one step: both views of every pose, each reconstructed by itself.

    Args:
        model: On `device`.
        batches: Gives the views of `batch` poses.
        rng: Of this step; draws the poses and how each view looks.
        device: Where the loss is computed.

    Returns:
        `loss`, a scalar.
    """
    return {"loss": model(batches.inputs(batches.draw(rng), device))}
