"""What tests of served image models share: a server of them, and what a robot asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.runtime.client import Inference, RobotClient
from limpet.runtime.server import Server
from tests.navigation_bundles import navigation_bundle, policy_bundle
from tests.runtime.serving import PATIENCE_S, serving

MODEL = "tiny-policy"
VALID_S = 30.0
"""So long that no busy machine makes an answer stale that a test does not want stale."""


@contextmanager
def serving_images(folder: Path) -> Iterator[Server]:
    """A server of a policy and of an encoder alone."""
    bundles = [
        policy_bundle(folder / "navigation", valid_s=VALID_S).path,
        navigation_bundle(folder / "encoder").path,
    ]
    with serving(folder, more=bundles) as served:
        yield served


def scene(number: int = 0, rows: int = 48, columns: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def senses(image: NDArray[Any] | None = None, **changes: Any) -> dict[str, NDArray[Any]]:
    return {
        "image": scene() if image is None else image,
        "goal": np.array([2.0, 0.8, 0.6], np.float32),
        "proprioception": np.array([0.3, 0.0], np.float32),
        **changes,
    }


def ask(robot: RobotClient, inputs: dict[str, NDArray[Any]], **options: Any) -> Inference:
    return robot.infer(MODEL, inputs, timeout_s=PATIENCE_S, **options)


def count(robot: RobotClient, name: str) -> int:
    return robot.status().counters.get(name, 0)
