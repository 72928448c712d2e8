"""Objects of known shape, and rows of grasps."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.training.grasp.scenes.gripper import DistanceGrid
from limpet.training.grasp.scenes.meshes import Mesh, mesh_of
from limpet.training.grasp.scenes.shapes import box


@pytest.fixture(scope="session")
def block() -> Mesh:
    """A box of 4 cm (x), 12 cm (y), 8 cm (z) about the origin."""
    return mesh_of([box((0, 0, 0), (0.04, 0.12, 0.08))])[0]


@pytest.fixture(scope="session")
def block_grid(block: Mesh) -> DistanceGrid:
    return DistanceGrid(block)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
