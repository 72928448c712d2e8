"""From rows of a stream to scores of rows, with any engine: the one path that training's
calibration, export's golden data, `limpet predict` and the server share.

Dimension legend: n rows, m frames, f features, e embedding, l frames that a score looks back on.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import BundleError, TensorError
from limpet.contracts.manifest import AnomalyDecoding, Manifest
from limpet.contracts.signals import Float32, Prepared, SignalPreprocessor, States
from limpet.contracts.tensors import Tensors


@dataclass(frozen=True)
class RowScores:
    """Scores of a chunk of n rows.

    Attributes:
        scores: Score of each row, NaN where its state is not a scored one. (n,)
        embeddings: Embedding of each frame. (m, e)
        prepared: States of the rows, and the frames that were scored.
    """

    scores: Float32
    embeddings: Float32
    prepared: Prepared

    @property
    def states(self) -> States:
        """`signals.RowState` of each row. (n,)"""
        return self.prepared.states


class StreamingModel:
    """A graph `(samples, present, state) → (embedding, score, next state)` behind any engine.

    Args:
        manifest: A model of kind `anomaly`.
        run: Executes the graph.

    Raises:
        BundleError: The model scores no streams.
    """

    def __init__(self, manifest: Manifest, run: Callable[[Tensors], Tensors]) -> None:
        manifest.signal()
        if not isinstance(manifest.decoding, AnomalyDecoding):
            raise BundleError(f"model {manifest.name!r} has no score output")
        self._run, self._names = run, manifest.decoding
        self._samples, self._present, self._state = (spec.name for spec in manifest.inputs)
        size = manifest.inputs[2].shape[1]
        assert isinstance(size, int)  # `read_bundle` refuses a state of no fixed size
        self.state_size = size

    def step(
        self, samples: Float32, present: Float32, state: Float32
    ) -> tuple[Float32, Float32, Float32]:
        """Takes the next frames of b streams.

        Args:
            samples: Frames. (b, m, f)
            present: 1 where measured. (b, m, f)
            state: What the model remembers of each stream, zeros at its first frame. (b, s)

        Returns:
            Embeddings (b, m, e), scores (b, m), and the new state (b, s).

        Raises:
            EngineError: The engine failed.
        """
        outputs = self._run({self._samples: samples, self._present: present, self._state: state})
        names = self._names
        return outputs[names.embedding], outputs[names.score], outputs[names.next_state]

    def replay(self, samples: Float32, present: Float32) -> tuple[Float32, Float32]:
        """Embeddings (b, e) and scores (b,) after the last of frames (b, l, f) of new streams."""
        state = np.zeros((len(samples), self.state_size), np.float32)
        embeddings, scores, _ = self.step(samples, present, state)
        return embeddings[:, -1], scores[:, -1]


class SignalScorer:
    """Scores one stream; keeps preprocessing, model state and the held score between chunks.

    Args:
        manifest: A model of kind `anomaly`.
        run: Executes the graph.
        max_frames: Most frames in one call of `run`.

    Raises:
        BundleError: The model scores no streams.
    """

    def __init__(
        self, manifest: Manifest, run: Callable[[Tensors], Tensors], max_frames: int = 1024
    ) -> None:
        self.model = StreamingModel(manifest, run)
        signal = manifest.signal()
        self.preprocessor = SignalPreprocessor(signal.steps, len(signal.channels))
        self._max_frames = max_frames
        embedding = manifest.outputs[0].shape[2]
        assert isinstance(embedding, int)  # `read_bundle` refuses an embedding of no fixed size
        self._embedding = embedding
        self.reset()

    def reset(self) -> None:
        """Forgets the stream: the next row is the first."""
        self.preprocessor.reset()
        self._state = np.zeros((1, self.model.state_size), np.float32)
        self._held = float("nan")
        self._recent: deque[Prepared] = deque()
        self._before = self._kept = 0  # frames there before the newest chunk, and in all

    def push(self, rows: NDArray[np.floating]) -> RowScores:
        """Scores the next rows of the stream, in the channels' own units. (n, c)

        Raises:
            TensorError: Rows of another shape or type.
            EngineError: The engine failed; the stream must be reset.
        """
        prepared = self.preprocessor.push(rows)
        frames, present = prepared.frames, prepared.present
        scores = np.empty(len(frames), np.float32)
        embeddings = np.empty((len(frames), self._embedding), np.float32)
        for start, stop in self._pieces(prepared.begins):
            if prepared.begins[start]:
                self._state = np.zeros_like(self._state)
            here = slice(start, stop)
            embedding, score, self._state = self.model.step(
                frames[None, here], present[None, here], self._state
            )
            embeddings[here], scores[here] = embedding[0], score[0]
        self._remember(prepared)
        row_scores = prepared.row_scores(scores, self._held)
        if len(scores):
            self._held = float(scores[-1])
        return RowScores(row_scores, embeddings, prepared)

    def _pieces(self, begins: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
        """Stretches of frames of one stream, each short enough for one call."""
        edges = [*np.flatnonzero(begins).tolist(), len(begins)]
        if edges[0] > 0:
            edges.insert(0, 0)
        for start, stop in itertools.pairwise(edges):
            for piece in range(start, stop, self._max_frames):
                yield piece, min(piece + self._max_frames, stop)

    def _remember(self, newest: Prepared) -> None:
        """Keeps this chunk, and those before it that its scores and the last one look back on."""
        self._before = self._kept
        if not len(newest.frames):
            return
        self._recent.append(newest)
        self._kept += len(newest.frames)
        enough = self.preprocessor.look_back_frames + len(newest.frames)
        while self._kept - len(self._recent[0].frames) >= enough:
            oldest = len(self._recent.popleft().frames)
            self._kept, self._before = self._kept - oldest, self._before - oldest

    def looked_back_on(self, frame: int) -> tuple[Float32, Float32]:
        """What the score of a frame depends on: frames and present. (l, f)

        Args:
            frame: Its index in the newest chunk; -1 is the newest frame before that chunk, whose
                score holds until the chunk's first frame.

        Raises:
            TensorError: The frame has no score.
        """
        stop = self._before + frame + 1
        scored = np.concatenate([np.empty(0, bool), *(chunk.scored for chunk in self._recent)])
        if frame < -1 or not 0 < stop <= len(scored) or not scored[stop - 1]:
            raise TensorError(f"frame {frame} of the newest chunk has no score")
        here = slice(stop - self.preprocessor.look_back_frames, stop)
        return (
            np.concatenate([chunk.frames for chunk in self._recent])[here],
            np.concatenate([chunk.present for chunk in self._recent])[here],
        )
