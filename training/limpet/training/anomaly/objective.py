"""The contrastive objective: windows near in time attract, injected anomalies repel.

Dimension legend: b anchors, m negatives, e embedding, w rows, c channels.

Other normal windows are no negatives: pushing apart what is equally normal would spend the
embedding on telling normal states from each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from limpet.contracts.signals import Float32
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.injection import inject
from limpet.training.anomaly.model import CausalEncoder


def contrast(anchor: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each anchor with its positive against all negatives.

    Args:
        anchor: Unit vectors. (b, e)
        positive: Unit vectors. (b, e)
        negatives: Unit vectors, shared by all anchors. (m, e)
        temperature: Divides the cosines.

    Returns:
        Mean loss, at least 0.
    """
    attract = (anchor * positive).sum(1, keepdim=True) / temperature  # (b, 1)
    repel = anchor @ negatives.transpose(0, 1) / temperature  # (b, m)
    return (torch.logsumexp(torch.cat([attract, repel], 1), 1) - attract[:, 0]).mean()


@dataclass(frozen=True)
class Batches:
    """Draws batches from normal windows.

    Attributes:
        windows: Prepared normal windows in order of time. (n, w, c)
        stretch: Which uninterrupted stretch each window belongs to; positives stay within one. (n,)
        config: Batch size, nearness and magnitudes.
    """

    windows: Float32
    stretch: np.ndarray[tuple[int], np.dtype[np.intp]]
    config: AnomalyConfig

    def draw(self, rng: np.random.Generator) -> tuple[Float32, Float32, Float32]:
        """Anchors, positives and negatives, each (b, w, c)."""
        n, config = len(self.windows), self.config
        anchor = rng.integers(0, n, config.batch)
        offset = rng.integers(1, config.near_rows + 1, config.batch)
        offset *= rng.choice([-1, 1], config.batch)
        near = np.clip(anchor + offset, 0, n - 1)
        near = np.where(self.stretch[near] == self.stretch[anchor], near, anchor)
        source = rng.integers(0, n, config.batch)
        negatives = inject(
            self.windows[source],
            self.windows,
            rng,
            weakest=config.weakest,
            strongest=config.strongest,
        ).clip(-config.clip, config.clip)
        return self.windows[anchor], self.windows[near], negatives

    def loss(self, encoder: CausalEncoder, rng: np.random.Generator, device: str) -> Tensor:
        """Loss of one step."""
        anchor, positive, negatives = self.draw(rng)
        batch = torch.from_numpy(np.concatenate([anchor, positive, negatives])).to(device)
        z_anchor, z_positive, z_negatives = encoder(batch).chunk(3)
        return contrast(z_anchor, z_positive, z_negatives, self.config.temperature)
