"""From rows of a stream to scores of rows, with any engine: the one path that training's
calibration, export's golden data, `limpet predict` and the server share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import BundleError
from limpet.contracts.manifest import AnomalyDecoding, Manifest
from limpet.contracts.signals import Float32, Prepared, SignalPreprocessor, States
from limpet.contracts.tensors import Tensors


@dataclass(frozen=True)
class RowScores:
    """Scores of a chunk of n rows.

    Attributes:
        scores: Score of each row, NaN where its state is not a scored one. (n,)
        prepared: States of the rows, and the windows that were scored.
    """

    scores: Float32
    prepared: Prepared

    @property
    def states(self) -> States:
        """`signals.RowState` of each row. (n,)"""
        return self.prepared.states


class SignalScorer:
    """Scores one stream; keeps preprocessing state and the held score between chunks.

    Args:
        manifest: A model of kind `anomaly`.
        run: Executes the graph.
        max_batch: Most windows in one call of `run`.

    Raises:
        BundleError: The model scores no streams.
    """

    def __init__(
        self, manifest: Manifest, run: Callable[[Tensors], Tensors], max_batch: int = 256
    ) -> None:
        signal = manifest.signal()
        if not isinstance(manifest.decoding, AnomalyDecoding):
            raise BundleError(f"model {manifest.name!r} has no score output")
        self.preprocessor = SignalPreprocessor(signal.steps, len(signal.channels))
        self._run, self._max_batch = run, max_batch
        self._input, self._output = manifest.inputs[0].name, manifest.decoding.score
        self._held = float("nan")

    def reset(self) -> None:
        """Forgets the stream: the next row is the first."""
        self.preprocessor.reset()
        self._held = float("nan")

    def push(self, rows: NDArray[np.floating]) -> RowScores:
        """Scores the next rows of the stream, in the channels' own units. (n, c)

        Raises:
            TensorError: Rows of another shape or type.
            EngineError: The engine failed; the stream must be reset.
        """
        prepared = self.preprocessor.push(rows)
        window_scores = self.score_windows(prepared.windows)
        scores = prepared.row_scores(window_scores, self._held)
        if len(window_scores):
            self._held = float(window_scores[-1])
        return RowScores(scores, prepared)

    def score_windows(self, windows: Float32) -> Float32:
        """Scores prepared windows (m, w, c) → (m,)."""
        scores = np.empty(len(windows), np.float32)
        for start in range(0, len(windows), self._max_batch):
            batch = np.ascontiguousarray(windows[start : start + self._max_batch])
            scores[start : start + len(batch)] = self._run({self._input: batch})[self._output]
        return scores
