"""Grasp bundles: what a manifest must say, and what golden data proves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from limpet.contracts.bundle import read_bundle
from limpet.contracts.clouds import CloudPreprocessing
from limpet.contracts.consistency import check_consistency
from limpet.contracts.errors import BundleError
from limpet.contracts.golden import PREPARED_POINTS, check_golden, read_golden
from limpet.contracts.grasp_agreement import GRASP_SCORE, LOST_GRASPS, stray_share
from limpet.contracts.grasps import GraspDecoding
from limpet.contracts.grippers import Gripper
from limpet.contracts.images import ImagePreprocessing
from limpet.contracts.manifest import decode_manifest, encode_manifest
from limpet.contracts.tensors import Tensors
from tests.grasp_bundles import TOLERANCES, grasp_bundle, grasp_golden, grasp_manifest, tiny_grasp

MANIFEST = grasp_manifest()
GOLDEN = grasp_golden(MANIFEST)


def test_a_bundle_is_read_and_proves_itself(tmp_path: Path) -> None:
    bundle = read_bundle(grasp_bundle(tmp_path / "bundle").path)
    parity = check_golden(bundle.golden(), bundle.manifest, tiny_grasp)
    assert parity.passed
    assert {check.name for check in parity.checks} == set(TOLERANCES)


def test_a_manifest_of_a_grasp_model_survives_its_bytes() -> None:
    read = decode_manifest(encode_manifest(MANIFEST), "here")
    assert msgspec.structs.replace(read, manifest_sha256="") == MANIFEST


def test_a_manifest_from_before_outlines_counted_is_read() -> None:
    fields = msgspec.json.decode(encode_manifest(MANIFEST))
    for name in ("enough_held", "square_power"):
        del fields["decoding"][name]
    assert decode_manifest(msgspec.json.encode(fields), "here").decoding == MANIFEST.decoding


def _replaced(**changes: Any) -> Any:
    return msgspec.structs.replace(MANIFEST, **changes)


def _reshaped(index: int, shape: list[int | str]) -> Any:
    outputs = list(MANIFEST.outputs)
    outputs[index] = msgspec.structs.replace(outputs[index], shape=shape)
    return _replaced(outputs=outputs)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (_replaced(preprocessing=None), "needs preprocessing of clouds"),
        (_replaced(preprocessing=ImagePreprocessing()), "needs preprocessing of clouds"),
        (_replaced(decoding=None), "decoding of grasps"),
        (_replaced(preprocessing=CloudPreprocessing()), r"wanted float32 \['views', 4096, 3\]"),
        (
            _replaced(preprocessing=CloudPreprocessing(points=1024, candidates=2048)),
            "do not fit each other",
        ),
        (
            _replaced(preprocessing=CloudPreprocessing(points=1024, voxel_m=0.0)),
            "'voxel_m': 0.0",
        ),
        (_replaced(decoding=GraspDecoding(gripper=Gripper(finger_m=-1))), "'finger_m': -1"),
        (_replaced(decoding=GraspDecoding(finger_shift_m=-1)), "do not fit each other"),
        (_replaced(decoding=GraspDecoding(square_power=-1)), "do not fit each other"),
        (_replaced(decoding=GraspDecoding(enough_held=-1)), "do not fit each other"),
        (_replaced(decoding=GraspDecoding(score="quality")), "decoding does not name"),
        (_reshaped(5, [64, 2, 3]), "approaches"),
        (_reshaped(6, [64, 3, 12, 5]), "do not fit a grasp model"),
        (_reshaped(3, [32]), "seeds"),
        (_reshaped(0, [4]), "embeddings of"),
    ],
)
def test_parts_that_do_not_fit_are_refused(manifest: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        check_consistency(manifest, "here")


def _checks(change: Any) -> dict[str, bool]:
    def run(inputs: Tensors) -> Tensors:
        outputs = tiny_grasp(inputs)
        return {**outputs, **change(outputs)}

    return {check.name: check.passed for check in check_golden(GOLDEN, MANIFEST, run).checks}


def test_seeds_in_another_order_are_the_same_grasps() -> None:
    order = np.random.default_rng(1).permutation(64)
    names = ("seeds", "seed_embedding", "objectness", "graspness", "approach", "score", "width")
    checks = _checks(lambda outputs: {name: outputs[name][order] for name in names})
    assert all(checks.values())


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda o: {"embedding": o["embedding"][::-1].copy()}, {"embedding cosine"}),
        (lambda o: {"score": o["score"] * np.float32(0.99)}, {GRASP_SCORE}),
        (
            lambda o: {"seeds": o["seeds"] + np.float32(0.01)},
            {LOST_GRASPS, GRASP_SCORE, "seed_embedding cosine"},
        ),
        (lambda o: {"approach": o["approach"][..., ::-1].copy()}, {LOST_GRASPS, GRASP_SCORE}),
        (lambda o: {"score": o["score"] * np.float32(np.nan)}, {LOST_GRASPS, GRASP_SCORE}),
        (lambda o: {"seed_embedding": -o["seed_embedding"]}, {"seed_embedding cosine"}),
    ],
)
def test_other_grasps_fail_by_name(change: Any, failed: set[str]) -> None:
    found = {name for name, passed in _checks(change).items() if not passed}
    assert found <= failed
    assert found


def test_other_preprocessing_fails_by_name() -> None:
    other = _replaced(preprocessing=CloudPreprocessing(points=1024, candidates=256, voxel_m=0.007))
    checks = check_golden(GOLDEN, other, tiny_grasp).checks
    assert [check.name for check in checks if not check.passed] == [PREPARED_POINTS]


def test_points_that_strayed_are_counted() -> None:
    points = np.random.default_rng(0).uniform(size=(2, 100, 3)).astype(np.float32)
    moved = points[:, ::-1].copy()
    assert stray_share(moved, points) == 0
    moved[0, :10] += 0.01
    assert stray_share(moved, points) == pytest.approx(10 / 200)
    assert stray_share(points[:1], points) == 1


def test_golden_data_without_clouds_is_refused(tmp_path: Path) -> None:
    for clouds in (None, np.ones((2, 5), np.float32)):
        file = tmp_path / "golden.npz"
        file.write_bytes(dataclasses.replace(GOLDEN, clouds=clouds).encode())
        with pytest.raises(BundleError, match="do not fit the manifest: raw float32"):
            read_golden(file, MANIFEST)
