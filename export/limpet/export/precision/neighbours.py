"""Whether images keep their nearest neighbours in a graph at a lower precision.

An embedding's cosine with itself in float32 says little of that: near neighbours are a hundredth
apart, and their order is what a robot recognises places by.

Dimension legend: m images, e embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.golden import Run
from limpet.contracts.manifest import Manifest, NavigationDecoding
from limpet.contracts.tensors import Tensors

MOST_IMAGES = 512
LOST = 2e-3
"""Cosine by which float32 may find the new neighbour further than its own. The choice of nodes uses
half of it; below that either neighbour will do."""
KEEPING = 0.99
"""Share of the images that have to keep theirs within that."""


class Neighbours:
    """Nearest neighbours among real images, by the float32 graph.

    Args:
        manifest: Of a model of images.
        data: Its inputs, as `calibration_inputs` gives them.
        run: Executes the float32 graph.
    """

    def __init__(self, manifest: Manifest, data: Sequence[Tensors], run: Run) -> None:
        decoding = manifest.decoding
        assert isinstance(decoding, NavigationDecoding)
        self._embedding, self._manifest = decoding.embedding, manifest
        self._data, images = list[Tensors](), 0
        for call in data:
            if images < MOST_IMAGES:
                self._data.append(call)
                images += len(call[manifest.inputs[0].name])
        self._likeness = likeness(self._embed(run))

    def cost(self, run: Run) -> float:
        """Share of `LOST` that the neighbours of `KEEPING` of the images keep within.

        0 of one image, which has none.
        """
        if len(self._likeness) < 2:
            return 0.0
        nearest = likeness(self._embed(run)).argmax(axis=1)
        lost = self._likeness.max(axis=1) - self._likeness[np.arange(len(nearest)), nearest]
        return float(np.quantile(lost, KEEPING, method="higher")) / LOST

    def _embed(self, run: Run) -> NDArray[np.float32]:
        """(m, e)"""
        return np.concatenate([run(self._whole(call))[self._embedding] for call in self._data])

    def _whole(self, call: Tensors) -> Tensors:
        """With what images say nothing of, and no embedding depends on."""
        rows = len(call[self._manifest.inputs[0].name])
        missing = {
            spec.name: np.zeros((rows, *map(int, spec.shape[1:])), spec.dtype)
            for spec in self._manifest.inputs
            if spec.name not in call
        }
        return {**call, **missing}


def likeness(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each row with each other, and of none with itself. (m, e) → (m, m)"""
    cosines: NDArray[np.float32] = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines
