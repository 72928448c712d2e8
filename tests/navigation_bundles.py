"""Small real bundles of navigation, made without training.

`navigation_bundle` embeds an image by its mean colour; `policy_bundle` by the mean colours of its
parts, and steers straight to the goal, so that a robot arrives where nothing stands in its way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle, write_bundle
from limpet.contracts.golden import PREPARED, Golden
from limpet.contracts.images import ImagePreprocessing, preprocess
from limpet.contracts.manifest import (
    SCHEMA_VERSION,
    ActionDecoding,
    Manifest,
    MemoryDecoding,
    NavigationDecoding,
)
from limpet.contracts.tensors import Tensors, TensorSpec
from tests.bundles import OPSET, onnx_bytes

NAVIGATION_IMAGE = ImagePreprocessing(width=16, height=12)


def navigation_bundle(path: Path) -> Bundle:
    """An image encoder whose embedding is the image's mean colour, with unit length."""
    how = NAVIGATION_IMAGE
    image = TensorSpec(name="image", dtype="float32", shape=["batch", 3, how.height, how.width])
    embedding = TensorSpec(name="embedding", dtype="float32", shape=["batch", 3])
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("LpNormalization", ["mean"], ["embedding"], axis=1, p=2),
    ]
    model = onnx_bytes(nodes, [image], [embedding], {"axes": np.array([2, 3])})
    raw = np.random.default_rng(0).integers(0, 256, (3, 20, 40, 3), np.uint8)
    inputs = {"image": np.stack([preprocess(one, how) for one in raw])}
    means = inputs["image"].mean(axis=(2, 3))
    golden = Golden(
        inputs=inputs,
        outputs={"embedding": means / np.linalg.norm(means, axis=1, keepdims=True)},
        tolerances={"embedding cosine": 0.9999, PREPARED: 1e-3},
        images=raw,
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="tiny-navigation",
        kind="navigation",
        space_id="mean colour",
        inputs=[image],
        outputs=[embedding],
        preprocessing=how,
        decoding=NavigationDecoding(),
        opset=OPSET,
    )
    return write_bundle(path, manifest, {MODEL: model, GOLDEN: golden.encode()})


GRID = 4
"""Cells along each side that `policy_bundle` tells colours in."""
SIDE = 32
"""Rows and columns of the image that it takes."""


LEARNT = 0.125
"""What a policy that remembers adds to its memory at each image: it counts them."""


def policy_manifest(
    *, valid_s: float = 0.3, name: str = "tiny-policy", remembers: bool = False
) -> Manifest:
    """The manifest of `policy_bundle`; one that remembers slows down with each image."""

    def tensor(name: str, *shape: int) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=["batch", *shape])

    memory = MemoryDecoding() if remembers else None
    action = ActionDecoding(
        largest_speed=0.5, largest_turn_rate=1.5, valid_s=valid_s, memory=memory
    )
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        kind="navigation",
        space_id="tiny-grid",
        inputs=[
            tensor("image", 3, SIDE, SIDE),
            tensor("goal", 3),
            tensor("proprioception", 2),
            *([tensor("memory", 1)] if remembers else []),
        ],
        outputs=[
            tensor("embedding", 3 * GRID * GRID),
            tensor("action", 2),
            *([tensor("next_memory", 1)] if remembers else []),
        ],
        preprocessing=ImagePreprocessing(width=SIDE, height=SIDE),
        decoding=NavigationDecoding(action=action),
        opset=OPSET,
    )


def tiny_policy(inputs: Tensors) -> dict[str, NDArray[np.float32]]:
    """What the graph of `policy_bundle` computes, in NumPy."""
    image = inputs["image"]
    cell = SIDE // GRID
    grid = image.reshape(len(image), 3, GRID, cell, GRID, cell).mean(axis=(3, 5))
    flat = grid.reshape(len(image), -1) + np.float32(1e-3)
    distance, cos, sin = inputs["goal"].T
    behind = np.clip(sin * 1e3, -1, 1) * np.clip(-cos, 0, 1)
    turn = np.clip(2 * sin + 2 * behind + 0 * inputs["proprioception"][:, 0], -1.5, 1.5)
    speed = np.clip(distance, 0, 0.5) * np.clip(cos, 0, 1) ** 4
    kept = {}
    if "memory" in inputs:
        speed = speed * (1 - inputs["memory"][:, 0] / 2)
        kept["next_memory"] = np.clip(inputs["memory"] + LEARNT, -1, 1).astype(np.float32)
    return {
        "embedding": (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32),
        "action": np.stack([speed, turn], axis=1).astype(np.float32),
        **kept,
    }


def policy_golden(manifest: Manifest) -> Golden:
    """Golden data of `policy_bundle`: three raw images, of another size, and some noise."""
    rng = np.random.default_rng(11)
    raw = rng.integers(0, 256, (3, 37, 61, 3), dtype=np.uint8)
    image = [*(preprocess(each, manifest.image()) for each in raw)]
    image += [*rng.normal(size=(2, *image[0].shape))]
    arrays = {"image": np.stack(image), "goal": rng.normal(size=(5, 3))}
    arrays["proprioception"] = rng.normal(size=(5, 2))
    arrays["memory"] = rng.uniform(-1, 1, (5, 1))
    inputs = {spec.name: arrays[spec.name].astype(np.float32) for spec in manifest.inputs}
    return Golden(
        inputs=inputs,
        outputs=tiny_policy(inputs),
        tolerances={PREPARED: 1e-3, **{spec.name: 1e-5 for spec in manifest.outputs}},
        images=raw,
    )


def policy_bundle(path: Path, **options: Any) -> Bundle:
    """A `navigation` bundle with a policy; `options` are those of `policy_manifest`."""
    manifest = policy_manifest(**options)
    cell = SIDE // GRID
    nodes = [
        helper.make_node(
            "AveragePool", ["image"], ["grid"], kernel_shape=[cell, cell], strides=[cell, cell]
        ),
        helper.make_node("Flatten", ["grid"], ["flat"]),
        helper.make_node("Add", ["flat", "little"], ["some"]),
        helper.make_node("LpNormalization", ["some"], ["embedding"], axis=1, p=2),
        helper.make_node("Split", ["goal"], ["distance", "cos", "sin"], axis=1, num_outputs=3),
        helper.make_node("Mul", ["sin", "thousand"], ["steep"]),
        helper.make_node("Clip", ["steep", "minus_one", "one"], ["side"]),
        helper.make_node("Neg", ["cos"], ["minus_cos"]),
        helper.make_node("Clip", ["minus_cos", "zero", "one"], ["back"]),
        helper.make_node("Mul", ["side", "back"], ["behind"]),
        helper.make_node("Add", ["sin", "behind"], ["both"]),
        helper.make_node("Mul", ["both", "two"], ["wish"]),
        # An input that does not matter, since a graph has to use what it declares.
        helper.make_node("Split", ["proprioception"], ["speed", "turned"], axis=1, num_outputs=2),
        helper.make_node("Mul", ["speed", "zero"], ["nothing"]),
        helper.make_node("Add", ["wish", "nothing"], ["turn_wish"]),
        helper.make_node("Clip", ["turn_wish", "minus_most", "most"], ["turn"]),
        helper.make_node("Clip", ["cos", "zero", "one"], ["front"]),
        helper.make_node("Pow", ["front", "four"], ["ahead"]),
        helper.make_node("Clip", ["distance", "zero", "half"], ["near"]),
        helper.make_node("Mul", ["near", "ahead"], ["forward"]),
    ]
    if manifest.inputs[-1].name == "memory":
        nodes += [
            helper.make_node("Mul", ["memory", "half"], ["tired"]),
            helper.make_node("Sub", ["one", "tired"], ["fresh"]),
            helper.make_node("Mul", ["full", "fresh"], ["forward"]),
            helper.make_node("Add", ["memory", "learnt"], ["more"]),
            helper.make_node("Clip", ["more", "minus_one", "one"], ["next_memory"]),
        ]
        nodes[-6].output[0] = "full"
    nodes += [
        helper.make_node("Concat", ["forward", "turn"], ["action"], axis=1),
    ]
    numbers = {
        "little": 1e-3, "thousand": 1e3, "minus_one": -1, "one": 1, "zero": 0, "two": 2,
        "minus_most": -1.5, "most": 1.5, "four": 4, "half": 0.5, "learnt": LEARNT,
    }  # fmt: skip
    constants = {name: np.array(value, np.float32) for name, value in numbers.items()}
    return write_bundle(
        path,
        manifest,
        {
            MODEL: onnx_bytes(nodes, manifest.inputs, manifest.outputs, constants),
            GOLDEN: policy_golden(manifest).encode(),
        },
    )
