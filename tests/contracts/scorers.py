"""Scorers whose models remember for ever, so many frames, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from limpet.contracts.manifest import Manifest
from limpet.contracts.scoring import SignalScorer
from limpet.contracts.signal_steps import LookBack, SignalStep, features_of
from limpet.contracts.signals import Float32
from limpet.contracts.tensors import Tensors, TensorSpec
from tests.bundles import anomaly_manifest

Chain = Sequence[SignalStep]


def manifest_of(chain: Chain, channels: int, state_size: int | None = None) -> Manifest:
    """A manifest of this chain; the state is as large as a frame unless another size is given."""
    assert isinstance(chain[-1], LookBack)
    manifest = anomaly_manifest(
        channels=[f"c{i}" for i in range(channels)],
        look_back=chain[-1].frames,
        steps=chain[:-1],
    )
    if state_size is None:
        return manifest

    def resized(specs: list[TensorSpec]) -> list[TensorSpec]:
        return [*specs[:2], msgspec.structs.replace(specs[2], shape=["batch", state_size])]

    inputs, outputs = resized(manifest.inputs), resized(manifest.outputs)
    return msgspec.structs.replace(manifest, inputs=inputs, outputs=outputs)


def sums(inputs: Tensors) -> dict[str, Float32]:
    """Remembers for ever: the state is the sum of all frames, each weighing half the one after.

    It counts what is present too, so that a mask that is lost or moved changes the score.
    """
    state, states = inputs["state"], []
    weights = np.arange(1, state.shape[1] + 1, dtype=np.float32)
    for row in range(inputs["samples"].shape[1]):
        frame = inputs["samples"][:, row] + np.float32(3.0) * inputs["present"][:, row]
        state = np.float32(0.5) * state + frame
        states.append(state)
    embedding = np.stack(states, axis=1)
    return {"embedding": embedding, "score": (embedding * weights).sum(axis=2), "next_state": state}


def taps(frames: int) -> Callable[[Tensors], dict[str, Float32]]:
    """Remembers so many frames, the newest included: a weighted sum of all that is in them."""

    def run(inputs: Tensors) -> dict[str, Float32]:
        both = np.concatenate([inputs["samples"], inputs["present"]], axis=2)  # (b, m, 2f)
        batch, count, width = both.shape
        before = inputs["state"].reshape(batch, frames - 1, width)
        known = np.concatenate([before, both], axis=1)
        weights = np.arange(1, frames * width + 1, dtype=np.float32)
        score = np.stack(
            [(known[:, i : i + frames].reshape(batch, -1) * weights).sum(1) for i in range(count)],
            axis=1,
        )
        next_state = known[:, count:].reshape(batch, -1)
        return {"embedding": inputs["samples"], "score": score, "next_state": next_state}

    return run


def finite_memory(chain: Chain, channels: int) -> SignalScorer:
    """A scorer whose model remembers exactly the frames that the chain looks back on."""
    assert isinstance(chain[-1], LookBack)
    look_back, size = chain[-1].frames, 2 * features_of(chain, channels)
    return SignalScorer(
        manifest_of(chain, channels, state_size=(look_back - 1) * size or 1),
        taps(look_back) if look_back > 1 else memoryless,
    )


def memoryless(inputs: Tensors) -> dict[str, Float32]:
    """`taps(1)`, with a state of one number, since none of no size can be said."""
    none = inputs["state"][:, :0]
    return {**taps(1)({**inputs, "state": none}), "next_state": inputs["state"]}
