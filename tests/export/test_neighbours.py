"""Whether images keep their nearest neighbours, which int8 of an image encoder is chosen by."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.golden import Run
from limpet.contracts.manifest import Manifest
from limpet.contracts.tensors import Tensors
from limpet.export.precision.choice import HEADROOM
from limpet.export.precision.neighbours import LOST, MOST_IMAGES, Neighbours, likeness
from tests.navigation_bundles import policy_manifest


@pytest.fixture
def manifest() -> Manifest:
    return policy_manifest()


def at(angles: np.ndarray) -> np.ndarray:
    """Embeddings on a circle. (m,) → (m, 2)"""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def giving(*angles: float) -> Run:
    """A graph that gives these embeddings, call by call, of images that it does not look at."""
    left = list(angles)

    def run(inputs: Tensors) -> Tensors:
        rows = len(inputs["image"])
        some, left[:] = left[:rows], left[rows:]
        return {"embedding": at(np.array(some))}

    return run


def images(manifest: Manifest, *counts: int) -> list[Tensors]:
    size = [int(one) for one in manifest.inputs[0].shape[1:]]
    return [{"image": np.zeros((count, *size), np.float32)} for count in counts]


def test_the_same_embeddings_cost_nothing_however_the_data_comes(manifest: Manifest) -> None:
    found = Neighbours(manifest, images(manifest, 2, 2), giving(0.0, 0.1, 0.5, 0.7))
    assert found.cost(giving(0.0, 0.1, 0.5, 0.7)) == 0.0


def test_a_neighbour_that_float32_finds_much_further_costs_more_than_may_be(
    manifest: Manifest,
) -> None:
    found = Neighbours(manifest, images(manifest, 4), giving(0.0, 0.1, 0.5, 0.7))
    cost = found.cost(giving(0.0, 0.6, 0.5, 0.1))
    assert cost == pytest.approx((np.cos(0.1) - np.cos(0.7)) / LOST, rel=1e-3)
    assert cost > HEADROOM


def test_a_neighbour_as_near_as_its_own_costs_next_to_nothing(manifest: Manifest) -> None:
    found = Neighbours(manifest, images(manifest, 3), giving(0.0, 0.1, -0.1001))
    assert 0.0 < found.cost(giving(0.0, 0.1, -0.0999)) < 0.01


def test_one_image_has_no_neighbour(manifest: Manifest) -> None:
    assert Neighbours(manifest, images(manifest, 1), giving(0.0)).cost(giving(1.0)) == 0.0


def test_only_so_many_images_are_looked_at(manifest: Manifest) -> None:
    seen = []

    def run(inputs: Tensors) -> Tensors:
        seen.append(len(inputs["image"]))
        return {"embedding": at(np.arange(len(inputs["image"])) / 100)}

    Neighbours(manifest, images(manifest, *[64] * 20), run)
    assert sum(seen) == MOST_IMAGES


def test_no_row_is_its_own_neighbour() -> None:
    assert likeness(at(np.array([0.0, 0.2, 1.0]))).argmax(axis=1).tolist() == [1, 0, 1]
