"""A small real grasp bundle, made without training.

Its seeds are the first candidates of the first view, every one approached along the optical axis
and from two tilted directions, with a score that falls with the seed's number and the angle.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from limpet.contracts.bundle import GOLDEN, MODEL, Bundle, write_bundle
from limpet.contracts.clouds import CloudPreprocessing, prepare
from limpet.contracts.golden import PREPARED_POINTS, Golden
from limpet.contracts.grasp_agreement import GRASP_SCORE, LOST_GRASPS
from limpet.contracts.grasps import GraspDecoding
from limpet.contracts.manifest import SCHEMA_VERSION, Manifest
from limpet.contracts.tensors import Tensors, TensorSpec
from tests.bundles import OPSET, onnx_bytes
from tests.table_tops import Ball, Box, cloud_of, look_at, relative_pose

SEEDS, APPROACHES, EMBEDDING = 64, 3, 8
CLOUD = CloudPreprocessing(points=1024, candidates=256)
THINGS: list[Ball | Box] = [Ball(0.02, -0.03, 0.03), Box(-0.1, 0.05, (0.05, 0.06, 0.08))]
REFERENCE, AUXILIARY = look_at([0.05, -0.2, 0.55]), look_at([-0.35, -0.2, 0.45])
TOLERANCES = {
    PREPARED_POINTS: 0.02,
    LOST_GRASPS: 0.02,
    GRASP_SCORE: 1e-4,
    "embedding cosine": 0.9999,
    "seed_embedding cosine": 0.9999,
}
_TILTS = np.array([[0.0, 0, 1], [0.5, 0, 0.866], [0, 0.5, 0.866]], np.float32)


def grasp_manifest(*, name: str = "tiny-grasp", decoding: GraspDecoding | None = None) -> Manifest:
    """The manifest of `grasp_bundle`."""

    def tensor(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=list(shape))

    s, t, e = SEEDS, APPROACHES, EMBEDDING
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        kind="grasp",
        space_id="tiny-grasp",
        inputs=[tensor("points", "views", CLOUD.points, 3)],
        outputs=[
            tensor("embedding", e),
            tensor("seeds", s, 3),
            tensor("seed_embedding", s, e),
            tensor("objectness", s),
            tensor("graspness", s),
            tensor("approach", s, t, 3),
            tensor("score", s, t, 12, 4),
            tensor("width", s, t, 12, 4),
        ],
        preprocessing=CLOUD,
        decoding=decoding or GraspDecoding(),
        opset=OPSET,
    )


def _constants() -> dict[str, NDArray[np.float32]]:
    seed = np.arange(SEEDS, dtype=np.float32)[:, None, None, None] / SEEDS
    tilt = np.arange(APPROACHES, dtype=np.float32)[:, None, None] / 20
    angle = np.arange(12, dtype=np.float32)[:, None] / 100
    depth = np.arange(4, dtype=np.float32) / 200
    score = 0.9 - 0.5 * seed - tilt - angle - depth
    return {
        "ones": np.ones(SEEDS, np.float32),
        "directions": np.tile(_TILTS, (SEEDS, 1, 1)),
        "scores": score.astype(np.float32),
        "widths": np.full((SEEDS, APPROACHES, 12, 4), 0.07, np.float32),
        "spread": np.random.default_rng(4).normal(size=(3, EMBEDDING)).astype(np.float32),
    }


def tiny_grasp(inputs: Tensors) -> dict[str, NDArray[np.float32]]:
    """What the graph of `grasp_bundle` computes, in NumPy."""
    points, known = inputs["points"], _constants()
    seeds = points[0, :SEEDS]
    rows = seeds @ known["spread"]
    whole = points.mean(axis=(0, 1)) @ known["spread"]
    nothing = np.float32(0) * points.mean(dtype=np.float32)
    return {
        "embedding": whole / np.linalg.norm(whole),
        "seeds": seeds,
        "seed_embedding": rows / np.linalg.norm(rows, axis=1, keepdims=True),
        "objectness": known["ones"] + nothing,
        "graspness": known["ones"] + nothing,
        "approach": known["directions"] + nothing,
        "score": known["scores"] + nothing,
        "width": known["widths"] + nothing,
    }


def grasp_golden(manifest: Manifest) -> Golden:
    """Golden data: two views of a table with a ball and a box."""
    aux = cloud_of(THINGS, AUXILIARY)
    pose = relative_pose(REFERENCE, AUXILIARY)
    there = (aux @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32)
    first = cloud_of(THINGS, REFERENCE)
    count = min(len(first), len(there))
    clouds = np.stack([first[:: max(1, len(first) // count)][:count], there[:count]])
    points = prepare(list(clouds), [np.eye(4), np.eye(4)], manifest.cloud()).points
    assert points is not None
    inputs = {"points": points}
    return Golden(
        inputs=inputs, outputs=tiny_grasp(inputs), tolerances=dict(TOLERANCES), clouds=clouds
    )


def grasp_bundle(
    path: Path, *, name: str = "tiny-grasp", decoding: GraspDecoding | None = None
) -> Bundle:
    """A `grasp` bundle."""
    manifest = grasp_manifest(name=name, decoding=decoding)
    nodes = [
        helper.make_node("Gather", ["points", "zero"], ["first"], axis=0),
        helper.make_node("Slice", ["first", "start", "end", "start"], ["picked"]),
        helper.make_node("Identity", ["picked"], ["seeds"]),
        helper.make_node("MatMul", ["picked", "spread"], ["rows"]),
        helper.make_node("LpNormalization", ["rows"], ["seed_embedding"], axis=1, p=2),
        helper.make_node("ReduceMean", ["points", "both"], ["middle"], keepdims=0),
        helper.make_node("Unsqueeze", ["middle", "start"], ["middle_row"]),
        helper.make_node("MatMul", ["middle_row", "spread"], ["whole"]),
        helper.make_node("LpNormalization", ["whole"], ["whole_unit"], axis=1, p=2),
        helper.make_node("Squeeze", ["whole_unit", "start"], ["embedding"]),
        helper.make_node("ReduceMean", ["points", "all"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nil"], ["nothing"]),
        *(
            helper.make_node("Add", [constant, "nothing"], [output])
            for constant, output in (
                ("ones", "objectness"),
                ("ones", "graspness"),
                ("directions", "approach"),
                ("scores", "score"),
                ("widths", "width"),
            )
        ),
    ]
    constants = {
        **_constants(),
        "zero": np.array(0, np.int64),
        "start": np.array([0], np.int64),
        "end": np.array([SEEDS], np.int64),
        "both": np.array([0, 1], np.int64),
        "all": np.array([0, 1, 2], np.int64),
        "nil": np.array(0, np.float32),
    }
    model = onnx_bytes(nodes, manifest.inputs, manifest.outputs, constants)
    return write_bundle(path, manifest, {MODEL: model, GOLDEN: grasp_golden(manifest).encode()})
