"""The contrastive objective."""

from __future__ import annotations

import numpy as np
import torch

from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.objective import Batches, contrast


def unit(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, 8, generator=generator), dim=1)


def test_the_loss_is_least_where_positives_meet_and_negatives_are_opposite() -> None:
    anchor = unit(6, 0)[:1].repeat(6, 1)
    best = contrast(anchor, anchor, -anchor, 0.1)
    assert 0.0 <= float(best) < 1e-6
    assert float(contrast(anchor, anchor, anchor, 0.1)) > 1.9  # log(7): cannot tell them apart
    assert float(contrast(anchor, -anchor, anchor, 0.1)) > 20.0


def test_other_normal_windows_are_no_negatives() -> None:
    anchor, negatives = unit(4, 1), unit(5, 2)
    loss = contrast(anchor, anchor, negatives, 0.1)
    alone = torch.stack([contrast(a[None], a[None], negatives, 0.1) for a in anchor])
    torch.testing.assert_close(loss, alone.mean())


def test_a_positive_is_near_in_time_and_never_from_another_stretch() -> None:
    n = 400
    time = np.arange(n, dtype=np.float32)[:, None, None] * np.ones((1, 8, 1), np.float32)
    stretch = np.repeat([0, 1], n // 2)
    config = AnomalyConfig(batch=256, near_rows=5, clip=1e9)
    anchor, positive, negatives = Batches(time, stretch, config).draw(np.random.default_rng(0))
    apart = np.abs(anchor - positive)[:, 0, 0]
    assert apart.max() == 5
    assert (stretch[anchor[:, 0, 0].astype(int)] == stretch[positive[:, 0, 0].astype(int)]).all()
    assert negatives.shape == anchor.shape
