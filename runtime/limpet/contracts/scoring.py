"""From rows of a stream to scores of rows, with any engine: the one path that training's
calibration, export's golden data, `limpet predict` and the server share.

Dimension legend: b streams, n rows, m frames, f features, e embedding, s state, l frames that a
score looks back on.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import BundleError, EngineError, TensorError
from limpet.contracts.manifest import AnomalyDecoding, Manifest
from limpet.contracts.signal_preprocessor import SignalPreprocessor, prepare_together
from limpet.contracts.signals import Float32, Prepared, States
from limpet.contracts.tensors import Tensors


class RowScores(msgspec.Struct, frozen=True):
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


class KeptState(Protocol):
    """What a model remembers of one stream, where an engine computes; zeros at first."""

    def clear(self) -> None:
        """Makes it zeros again: the stream begins anew."""
        ...


@runtime_checkable
class StateKeeper(Protocol):
    """An engine that keeps states where it computes, so that they are not moved at each call."""

    def new_state(self) -> KeptState:
        """The state of one more stream."""
        ...

    def run_kept(self, inputs: Tensors, states: Sequence[Any]) -> Tensors:
        """Executes the graph for streams whose states `new_state` gave, no two the same.

        Args:
            inputs: All inputs but the state.
            states: Of each row of the batch; they are changed in place.

        Returns:
            All outputs but the next state.
        """
        ...


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

    def step_kept(
        self, keeper: StateKeeper, samples: Float32, present: Float32, states: Sequence[KeptState]
    ) -> tuple[Float32, Float32]:
        """As `step`, where an engine keeps the states of the b streams.

        Args:
            keeper: The engine.
            samples: Frames. (b, m, f)
            present: 1 where measured. (b, m, f)
            states: Of each stream; they are changed in place. b of them

        Returns:
            Embeddings (b, m, e) and scores (b, m).

        Raises:
            EngineError: The engine failed.
        """
        outputs = keeper.run_kept({self._samples: samples, self._present: present}, states)
        return outputs[self._names.embedding], outputs[self._names.score]

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
        keeper: Executes the graph instead of `run` and keeps the stream's state, if it is given.

    Raises:
        BundleError: The model scores no streams.
        EngineError: `keeper` has no memory for another state.
    """

    def __init__(
        self,
        manifest: Manifest,
        run: Callable[[Tensors], Tensors],
        max_frames: int = 1024,
        keeper: StateKeeper | None = None,
    ) -> None:
        self.model = StreamingModel(manifest, run)
        self._keeper = keeper
        self._kept_state = None if keeper is None else keeper.new_state()
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
        self._state = np.zeros(self.model.state_size, np.float32)
        self._forget()
        self._held = float("nan")
        self._recent: deque[_Seen] = deque()
        self._before = self._kept = 0  # frames there before the newest chunk, and in all

    def push(self, rows: NDArray[np.floating]) -> RowScores:
        """Scores the next rows of the stream, in the channels' own units. (n, c)

        Raises:
            TensorError: Rows of another shape or type.
            EngineError: The engine failed; the stream must be reset.
        """
        (found,) = score_together([self], [rows])
        if isinstance(found, BaseException):
            raise found
        return found

    def _forget(self) -> None:
        """What the model remembers becomes that of a stream's first frame."""
        self._state[:] = 0.0
        if self._kept_state is not None:
            self._kept_state.clear()

    def _begin(self, prepared: Prepared) -> _Chunk:
        return _Chunk(self, prepared, list(self._pieces(prepared.begins)), [], [])

    def _finish(self, chunk: _Chunk) -> RowScores:
        self._remember(chunk.prepared)
        if len(chunk.pieces) == 1:
            (scores,), (embeddings,) = chunk.scores, chunk.embeddings
        else:
            scores = np.concatenate([np.empty(0, np.float32), *chunk.scores])
            none = np.empty((0, self._embedding), np.float32)
            embeddings = np.concatenate([none, *chunk.embeddings])
        row_scores = chunk.prepared.row_scores(scores, self._held)
        if len(scores):
            self._held = float(scores[-1])
        return RowScores(row_scores, embeddings, chunk.prepared)

    def _pieces(self, begins: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
        """Stretches of frames of one stream, each short enough for one call."""
        if 0 < len(begins) <= self._max_frames and not begins[1:].any():
            yield 0, len(begins)
            return
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
        # Copies: views would keep what all streams of a call share.
        self._recent.append(_Seen(newest.frames.copy(), newest.present.copy(), newest.scored))
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


class _Seen(NamedTuple):
    """What a chunk of m frames leaves for those that look back on it."""

    frames: Float32  # (m, f)
    present: Float32  # (m, f)
    scored: NDArray[np.bool_]  # (m,)


class _Chunk(msgspec.Struct):
    """Frames of one stream that are being scored, piece by piece."""

    scorer: SignalScorer
    prepared: Prepared
    pieces: list[tuple[int, int]]
    scores: list[Float32]  # of each piece that was scored, (m,)
    embeddings: list[Float32]  # (m, e)
    error: BaseException | None = None


def score_together(
    scorers: Sequence[SignalScorer], rows: Sequence[NDArray[np.floating]]
) -> list[RowScores | BaseException]:
    """Scores the next rows of several streams, frames of equal number in one call of the model.

    Args:
        scorers: Different ones, of one model.
        rows: As `SignalScorer.push` takes them, for each. (n, c)

    Returns:
        For each stream its scores, or what the engine raised for its rows alone, after which it
        must be reset: where a call for several fails, each is tried by itself.

    Raises:
        TensorError: Rows of another shape or type; nothing has changed.
    """
    prepared = prepare_together([scorer.preprocessor for scorer in scorers], rows)
    chunks = [scorer._begin(each) for scorer, each in zip(scorers, prepared, strict=True)]
    for turn in range(max((len(chunk.pieces) for chunk in chunks), default=0)):
        by_length: dict[int, list[_Chunk]] = {}
        for chunk in chunks:
            if turn < len(chunk.pieces) and chunk.error is None:
                start, stop = chunk.pieces[turn]
                by_length.setdefault(stop - start, []).append(chunk)
        for length, several in by_length.items():
            at_once = max(1, several[0].scorer._max_frames // length)
            for first in range(0, len(several), at_once):
                _step(several[first : first + at_once], turn)
    return [chunk.error or chunk.scorer._finish(chunk) for chunk in chunks]


def _step(chunks: Sequence[_Chunk], turn: int) -> None:
    """Gives the model one piece of each stream, all of one length."""
    try:
        _run(chunks, turn)
    except BaseException as error:  # noqa: BLE001 (handed to the caller, which raises it)
        if len(chunks) == 1:
            chunks[0].error = error
            return
        for chunk in chunks:
            _step([chunk], turn)


def _run(chunks: Sequence[_Chunk], turn: int) -> None:
    parts = [(chunk, slice(*chunk.pieces[turn])) for chunk in chunks]
    for chunk, here in parts:
        if chunk.prepared.begins[here.start]:
            chunk.scorer._forget()
    b = len(chunks)
    frames = np.concatenate([chunk.prepared.frames[here] for chunk, here in parts])
    present = np.concatenate([chunk.prepared.present[here] for chunk, here in parts])
    shape = (b, -1, frames.shape[1])
    wanted = (b, len(frames) // b)
    frames, present = frames.reshape(shape), present.reshape(shape)
    first = chunks[0].scorer
    if first._keeper is not None:
        states = [chunk.scorer._kept_state for chunk in chunks]
        embeddings, scores = first.model.step_kept(
            first._keeper, frames, present, [state for state in states if state is not None]
        )
        _check_shapes(wanted, embeddings, scores)
    else:
        state = np.concatenate([chunk.scorer._state for chunk in chunks]).reshape(b, -1)  # (b, s)
        embeddings, scores, next_states = first.model.step(frames, present, state)
        _check_shapes(wanted, embeddings, scores)
        if next_states.shape != state.shape:
            raise EngineError(f"a state of shape {list(next_states.shape)} for {b} streams")
        for chunk, next_state in zip(chunks, next_states, strict=True):
            chunk.scorer._state[:] = next_state
    for chunk, embedding, score in zip(chunks, embeddings, scores, strict=True):
        chunk.embeddings.append(embedding)
        chunk.scores.append(score)


def _check_shapes(wanted: tuple[int, int], embeddings: Float32, scores: Float32) -> None:
    if not embeddings.shape[:2] == scores.shape == wanted:
        raise EngineError(
            f"outputs of shape {list(embeddings.shape)} and {list(scores.shape)} for {wanted[1]} "
            f"frames of {wanted[0]} streams"
        )
