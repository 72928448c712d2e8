"""A small RUN of the real training code, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.train import train_anomaly

CONFIG = AnomalyConfig(
    blocks=2, width=8, bank_frames=64, steps=4, batch=8, baseline_settling_frames=9
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished RUN on 600 rows of two named channels at 10 Hz, of which one tells the other."""
    folder = tmp_path_factory.mktemp("trained")
    t = np.arange(600)
    rng = np.random.default_rng(0)
    speed = np.sin(t / 9) + rng.normal(0, 0.2, 600)
    values = np.stack([speed, 2.0 * speed + rng.normal(0, 0.02, 600)], axis=1)
    names = np.array(["speed", "current"])
    np.savez(folder / "normal.npz", values=values, channels=names, rate_hz=10.0)
    train_anomaly(folder / "normal.npz", folder / "run", CONFIG, command="limpet train anomaly …")
    return folder / "run"
