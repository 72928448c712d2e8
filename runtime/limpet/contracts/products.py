"""Products of long thin matrices on the calling thread alone.

BLAS shares large products among all cores and waits for the slowest. With three columns there is
nothing to gain, and on a robot whose cores are busy the waiting made a view's sampling take twice
and its decoding four times as long. Small products stay on the thread that asks.

Dimension legend: n points, m rows or columns of the other matrix, k inner size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_AT_ONCE = 131_072
"""Multiplications that BLAS does without other threads: OpenBLAS's limit is twice as many."""


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """`a @ b` for two matrices. (n, k), (k, m) → (n, m)"""
    n, k = a.shape
    m = b.shape[1]
    if n * k * m <= MOST_AT_ONCE:
        whole: NDArray[Any] = a @ b
        return whole
    result = np.empty((n, m), np.result_type(a, b))
    if n >= m:
        step = max(1, MOST_AT_ONCE // (k * m))
        for start in range(0, n, step):
            np.matmul(a[start : start + step], b, out=result[start : start + step])
    else:
        step = max(1, MOST_AT_ONCE // (k * n))
        for start in range(0, m, step):
            np.matmul(a, b[:, start : start + step], out=result[:, start : start + step])
    return result


def along(points: NDArray[Any], direction: NDArray[Any]) -> NDArray[Any]:
    """Components of points along one direction. (n, 3), (3,) → (n,)"""
    x, y, z = points.T
    a, b, c = direction.astype(points.dtype)
    total: NDArray[Any] = x * a
    total += y * b
    total += z * c
    return total
