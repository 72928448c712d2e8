"""Objects of known shape, and rows of grasps."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.training.grasp.meshes import Mesh, mesh_of
from limpet.training.grasp.shapes import box


@pytest.fixture(scope="session")
def block() -> Mesh:
    """A box of 4 cm (x), 12 cm (y), 8 cm (z) about the origin."""
    return mesh_of([box((0, 0, 0), (0.04, 0.12, 0.08))])[0]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
