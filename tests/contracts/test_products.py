"""Products in parts are products."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.products import MOST_AT_ONCE, along, product

RNG = np.random.default_rng(6)


@pytest.mark.parametrize(
    ("n", "k", "m"),
    [(5, 3, 4), (MOST_AT_ONCE, 3, 2), (MOST_AT_ONCE, 3, 1), (7, 3, MOST_AT_ONCE), (0, 3, 2)],
)
def test_a_product_in_parts_is_the_product(n: int, k: int, m: int) -> None:
    a, b = RNG.normal(size=(n, k)).astype(np.float32), RNG.normal(size=(k, m)).astype(np.float32)
    found = product(a, b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, a @ b, atol=1e-5)


def test_components_along_a_direction() -> None:
    points = RNG.normal(size=(100, 3)).astype(np.float32)
    direction = np.array([0.5, -1.0, 2.0])
    found = along(points, direction)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, points @ direction, rtol=1e-4, atol=1e-5)
