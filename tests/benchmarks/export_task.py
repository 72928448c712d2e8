"""What a lower precision costs in the task's terms: bundles of one encoder against its fp32 one.

Each function takes bundles by precision, `fp32` among them, and gives figures by precision. All
precisions meet the same recordings, images, episodes or views.

Dimension legend: m images, g grasps, h hypotheses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from limpet.contracts.bundle import Bundle
from limpet.contracts.golden import Run
from limpet.contracts.grasp_agreement import SAME_M, SAME_RAD
from limpet.contracts.grasp_frames import rotation_between_rad
from limpet.contracts.grasp_model import GraspModel
from limpet.contracts.grasps import (
    TRANSLATION,
    GraspDecoding,
    hypotheses_of,
    rotations_of,
    suppress,
)
from limpet.contracts.image_files import image_paths, read_image
from limpet.contracts.images import preprocess
from limpet.contracts.tensors import Tensors
from limpet.export.evaluate_anomaly import evaluate_anomaly
from limpet.export.evaluate_grasp import TEST_SPLITS
from limpet.export.evaluate_navigation import drive_unseen
from limpet.export.parity import onnx_run
from limpet.export.precision.neighbours import likeness
from limpet.training.grasp.graspnet import GraspNet
from limpet.training.grasp.judging.average_precision import Judge, average_precision
from limpet.training.grasp.judging.finders import request_of
from limpet.training.grasp.judging.view_pairs import view_pairs
from limpet.training.intervals import bootstrap

Figures = dict[str, float | int | list[float] | None]
CLEAR = 1e-3
"""Cosine by which fp32 must find another neighbour further for that to be a clear change."""
RECALLS = (1, 10, 50)
"""Best grasps of fp32 that are looked for."""


def on_recordings(
    bundles: Mapping[str, Bundle], labelled: Path, from_row: int
) -> dict[str, Figures]:
    """How well labelled faults are found."""
    found = {}
    for name, bundle in bundles.items():
        mean = evaluate_anomaly(bundle.path, labelled, from_row=from_row).mean
        found[name]: Figures = {"auroc": mean.auroc, "average_precision": mean.average_precision}
    return found


def on_images(bundles: Mapping[str, Bundle], images: Path) -> dict[str, Figures]:
    """How a camera's model differs from itself in fp32 on images.

    `flips` is the share of images whose nearest neighbour is another one; `clear` are those of
    which fp32 finds the new neighbour further by more than `CLEAR`. Actions are those towards goals
    drawn evenly, at speeds the robot has, in m/s and rad/s.
    """
    how, files = bundles["fp32"].manifest.image(), image_paths([str(images)])
    seen = np.stack([preprocess(read_image(file), how) for file in files])
    m, rng = len(files), np.random.default_rng(0)
    bearing = rng.uniform(-np.pi, np.pi, m)
    drawn = {
        "image": seen,
        "goal": np.stack([rng.uniform(0.4, 8.0, m), np.cos(bearing), np.sin(bearing)], axis=1),
        "proprioception": rng.uniform([0.0, -1.5], [0.5, 1.5], (m, 2)),
    }
    outputs = {}
    for name, bundle in bundles.items():
        inputs = {
            spec.name: drawn[spec.name].astype(np.float32)
            if spec.name in drawn
            else np.zeros((m, int(spec.shape[1])), np.float32)  # a memory at a trip's beginning
            for spec in bundle.manifest.inputs
        }
        outputs[name] = _run(bundle)(inputs)
    return {name: _image_figures(outputs["fp32"], one) for name, one in outputs.items()}


def _image_figures(exact: Tensors, outputs: Tensors) -> Figures:
    before, now = (likeness(each["embedding"]) for each in (exact, outputs))
    m = len(now)
    lost = before.max(axis=1) - before[np.arange(m), now.argmax(axis=1)]
    found: Figures = {
        "images": m,
        "flips": float((lost > 0).mean()),
        "clear": float((lost > CLEAR).mean()),
    }
    if "action" in outputs:
        error = np.abs(outputs["action"] - exact["action"])
        found |= {
            "speed_mean": float(error[:, 0].mean()),
            "speed_most": float(error[:, 0].max()),
            "turn_mean": float(error[:, 1].mean()),
            "turn_most": float(error[:, 1].max()),
        }
    return found


def on_drives(
    bundles: Mapping[str, Bundle], episodes: int, textures: Path | None
) -> dict[str, Figures]:
    """Success rate on the same episodes in unseen layouts and appearances.

    `sr_difference` is that to fp32, with its 95 % interval over pairs.
    """
    trips = {
        name: drive_unseen(bundle.manifest, _run(bundle), episodes, textures).trips
        for name, bundle in bundles.items()
    }
    ended = {name: np.array([t.success for t in each], float) for name, each in trips.items()}
    found: dict[str, Figures] = {}
    for name, each in trips.items():
        pairs = bootstrap(ended[name] - ended["fp32"])
        found[name] = {
            "episodes": episodes,
            "sr": float(ended[name].mean()),
            "spl": float(np.mean([trip.spl for trip in each])),
            "sr_difference": [pairs.mean, pairs.low, pairs.high],
            "ended_otherwise": int((ended[name] != ended["fp32"]).sum()),
        }
    return found


def on_views(bundles: Mapping[str, Bundle], data: Path, views: int) -> dict[str, Figures]:
    """Average precision in percent of two views, and whether fp32's grasps are found again.

    `ap_difference` is that to fp32, with its 95 % interval over views. `recall_K` is the share of
    fp32's best K grasps that are among the hypotheses, within 5 mm and 10°; `position_mm` and
    `turn_deg` are how far those of the best 50 are off, on average.
    """
    scenes = GraspNet(data)
    judge = Judge(scenes)
    outputs: dict[str, Tensors] = {}

    def kept(name: str, run: Run) -> Run:
        def keep(inputs: Tensors) -> Tensors:
            outputs[name] = run(inputs)
            return outputs[name]

        return keep

    models = {
        name: GraspModel(bundle.manifest, kept(name, _run(bundle)))
        for name, bundle in bundles.items()
    }
    decoding = bundles["fp32"].manifest.decoding
    assert isinstance(decoding, GraspDecoding)
    ap: dict[str, list[float]] = {name: [] for name in models}
    agreement: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    chosen = [scene for split in TEST_SPLITS for scene in scenes.split(split)]
    for pair in (pair for scene in chosen for pair in view_pairs(scenes, scene, views)):
        frames = [scenes.frame(pair.scene, pair.reference)]
        if pair.auxiliary is not None:
            frames.append(scenes.frame(pair.scene, pair.auxiliary))
        for name, model in models.items():
            answer = model.infer(request_of(frames, model.how, merged=False))
            accuracy = judge.judge(frames[0], answer.grasps.rows).accuracy()
            ap[name].append(average_precision([accuracy]).ap)
        if outputs:  # of this view, for either all models saw something or none did
            for name in models:
                agreement[name].append(agree(outputs["fp32"], outputs[name], decoding))
            outputs.clear()
    found: dict[str, Figures] = {}
    for name, each in ap.items():
        pairs = bootstrap(np.array(each) - np.array(ap["fp32"]))
        found[name] = {
            "views": len(each),
            "ap": float(np.mean(each)),
            "ap_difference": [pairs.mean, pairs.low, pairs.high],
            **{
                key: float(np.nanmean([one[key] for one in agreement[name]]))
                for key in agreement[name][0]
            },
        }
    return found


def agree(expected: Tensors, found: Tensors, decoding: GraspDecoding) -> dict[str, float]:
    """How the best grasps of one computation are found by another."""
    wanted = hypotheses_of(expected, decoding)
    wanted = wanted[suppress(wanted)[: max(RECALLS)]]  # (g, 17)
    others = hypotheses_of(found, decoding)  # (h, 17)
    offsets = []  # (metres, radians) of each one's nearest, infinite where none is the same
    for row in wanted:
        distance = np.linalg.norm(others[:, TRANSLATION] - row[TRANSLATION], axis=1)
        near = distance <= SAME_M
        turn = rotation_between_rad(rotations_of(others[near]), rotations_of(row[None]))
        same = turn <= SAME_RAD
        share = distance[near][same] / SAME_M + turn[same] / SAME_RAD
        best = share.argmin() if share.size else None
        offsets.append(
            (np.inf, np.inf)
            if best is None
            else (float(distance[near][same][best]), float(turn[same][best]))
        )
    off = np.array(offsets)  # (g, 2)
    there = np.isfinite(off[:, 0])
    embedding = decoding.embedding
    return {
        **{f"recall_{k}": float(there[:k].mean()) for k in RECALLS},
        "position_mm": float(1e3 * off[there, 0].mean()) if there.any() else np.nan,
        "turn_deg": float(np.rad2deg(off[there, 1].mean())) if there.any() else np.nan,
        "cosine": float(expected[embedding] @ found[embedding]),
    }


def _run(bundle: Bundle) -> Run:
    return onnx_run(bundle.model_path.read_bytes(), bundle.manifest, threads=1)
