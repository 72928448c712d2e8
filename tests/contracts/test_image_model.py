"""Camera images through preprocessing, graph and decoding, and the golden data that proves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from limpet.contracts.bundle import read_bundle
from limpet.contracts.errors import BundleError, TensorError
from limpet.contracts.golden import check_golden
from limpet.contracts.image_model import ImageModel, embed
from limpet.contracts.images import preprocess
from limpet.contracts.tensors import Tensors
from limpet.runtime.engines import open_engine
from tests.bundles import change_manifest
from tests.navigation_bundles import (
    LEARNT,
    navigation_bundle,
    policy_bundle,
    policy_golden,
    policy_manifest,
    tiny_policy,
)

MANIFEST = policy_manifest()


def request(rows: int = 48, columns: int = 64, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    return {
        "image": rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8),
        "goal": np.array([2.0, 1.0, 0.0], np.float32),
        "proprioception": np.array([0.1, 0.0], np.float32),
        **changes,
    }


def test_a_request_has_one_image_of_any_size_and_its_result_one_row_of_each_output() -> None:
    model = ImageModel(MANIFEST, tiny_policy)
    assert [spec.describe() for spec in model.inputs] == [
        "image uint8 [rows, columns, 3]",
        "goal float32 [3]",
        "proprioception float32 [2]",
    ]
    assert [spec.describe() for spec in model.outputs] == [
        "embedding float32 [48]",
        "action float32 [2]",
    ]
    asked = request()
    outputs = model.infer(asked)
    batch = {name: asked[name][None] for name in ("goal", "proprioception")}
    expected = tiny_policy({"image": preprocess(asked["image"], model.how)[None], **batch})
    for name, array in expected.items():
        np.testing.assert_array_equal(outputs[name], array[0])


def test_an_action_beyond_the_largest_speeds_is_limited_to_them() -> None:
    def hasty(inputs: Tensors) -> Tensors:
        return {**tiny_policy(inputs), "action": np.array([[3.0, -9.0]], np.float32)}

    action = ImageModel(MANIFEST, hasty).infer(request())["action"]
    np.testing.assert_allclose(action, [0.5, -1.5])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image": np.zeros((48, 64, 3), np.float32)}, "image is float32"),
        ({"image": np.zeros((3, 48, 64), np.uint8)}, "image has shape"),
        ({"image": np.zeros((8, 64, 3), np.uint8)}, "image has 8 rows and 64 columns"),
        ({"goal": np.zeros(2, np.float32)}, "tensor 'goal' has shape"),
        ({"goal": np.zeros(3)}, "tensor 'goal' is float64"),
        ({"depth": np.zeros(2, np.float32)}, "unknown tensor 'depth'"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_by_name(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(TensorError) as caught:
        ImageModel(MANIFEST, tiny_policy).infer(request(**changed))
    assert message in caught.value.message


def test_a_request_without_an_image_is_told_what_is_wanted() -> None:
    asked = request()
    del asked["image"]
    with pytest.raises(TensorError, match="tensor 'image' is missing") as caught:
        ImageModel(MANIFEST, tiny_policy).infer(asked)
    assert "image uint8 [rows, columns, 3]" in caught.value.hint


def test_other_preprocessing_than_trainings_fails_though_the_graph_is_right() -> None:
    golden = policy_golden(MANIFEST)
    assert check_golden(golden, MANIFEST, tiny_policy).passed
    darker = msgspec.structs.replace(MANIFEST.image(), mean=(0.4, 0.5, 0.5))
    other = msgspec.structs.replace(MANIFEST, preprocessing=darker)
    checks = {c.name: c.passed for c in check_golden(golden, other, tiny_policy).checks}
    assert checks == {"prepared image": False, "embedding": True, "action": True}


def test_an_engine_that_gives_no_numbers_fails() -> None:
    def broken(inputs: Tensors) -> Tensors:
        return {name: np.full_like(array, np.nan) for name, array in tiny_policy(inputs).items()}

    checks = check_golden(policy_golden(MANIFEST), MANIFEST, broken).checks
    assert [check.passed for check in checks] == [True, False, False]


def test_an_encoder_alone_takes_the_image_alone(tmp_path: Path) -> None:
    bundle = navigation_bundle(tmp_path / "encoder")
    model = ImageModel(bundle.manifest, open_engine(bundle).run)
    assert [spec.name for spec in model.inputs] == ["image"]
    assert model.action is None
    (embedding,) = model.infer({"image": request()["image"]}).values()
    assert np.linalg.norm(embedding) == pytest.approx(1.0)


def test_many_images_are_embedded_at_once_also_by_a_bundle_with_a_policy() -> None:
    asked = [request(rows) for rows in (20, 40, 60)]
    prepared = np.stack([preprocess(each["image"], MANIFEST.image()) for each in asked])
    one_by_one = [ImageModel(MANIFEST, tiny_policy).infer(each)["embedding"] for each in asked]
    np.testing.assert_allclose(embed(MANIFEST, tiny_policy, prepared), one_by_one, atol=1e-6)


def set_in(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets what lies at a path of a manifest."""

    def change(manifest: dict[str, Any]) -> None:
        at: Any = manifest
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_in("preprocessing", value=None), "needs preprocessing of images"),
        (set_in("decoding", value=None), "do not fit an image encoder, wanted"),
        (set_in("preprocessing", "width", value=64), "do not fit an image encoder with a policy"),
        (set_in("preprocessing", "scale", value=[0.0, 1.0, 1.0]), "wanted positive ones"),
        (set_in("decoding", "action", value=None), "do not fit an image encoder"),
        (
            set_in("decoding", "embedding", value="code"),
            "does not name the output embedding",
        ),
        (set_in("decoding", "action", "valid_s", value=0.0), "finite numbers above 0"),
        (set_in("decoding", "action", "largest_speed", value=-1.0), "finite numbers above 0"),
        (set_in("inputs", 1, "shape", value=["batch", 2]), "do not fit an image encoder"),
        (set_in("outputs", 0, "dtype", value="float16"), "do not fit an image encoder"),
    ],
)
def test_a_manifest_whose_parts_do_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    bundle = policy_bundle(tmp_path / "nav")
    change_manifest(bundle, change)
    with pytest.raises(BundleError) as caught:
        read_bundle(bundle.path)
    assert message in caught.value.message
    assert caught.value.hint


# What it remembers -------------------------------------------------------------------------------


REMEMBERING = policy_manifest(remembers=True)


def test_a_memory_is_the_one_input_that_may_be_missing() -> None:
    model = ImageModel(REMEMBERING, tiny_policy)
    assert model.inputs[-1].describe() == "memory float32 [1]"
    first = model.infer(request())
    empty = model.infer(request(memory=np.zeros(1, np.float32)))
    later = model.infer(request(memory=np.array([0.5], np.float32)))
    assert {name: array.tolist() for name, array in first.items()} == {
        name: array.tolist() for name, array in empty.items()
    }
    assert first["next_memory"].tolist() == [LEARNT]
    assert later["action"][0] == pytest.approx(first["action"][0] * 0.75)
    asked = request()
    del asked["goal"]
    with pytest.raises(TensorError, match="tensor 'goal' is missing"):
        model.infer(asked)
    with pytest.raises(TensorError, match="tensor 'memory' has shape"):
        model.infer(request(memory=np.zeros(2, np.float32)))


def test_what_is_remembered_stays_within_its_range() -> None:
    def swelling(inputs: Tensors) -> Tensors:
        return {**tiny_policy(inputs), "next_memory": np.array([[1.0001]], np.float32)}

    assert ImageModel(REMEMBERING, swelling).infer(request())["next_memory"].tolist() == [1.0]


def test_golden_data_proves_the_memory_too(tmp_path: Path) -> None:
    bundle = policy_bundle(tmp_path / "nav", remembers=True)
    parity = check_golden(bundle.golden(), bundle.manifest, open_engine(bundle).run)
    assert parity.passed
    assert [check.name for check in parity.checks][-1] == "next_memory"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_in("decoding", "action", "memory", value=None), "an image encoder with a policy"),
        (set_in("inputs", 3, "shape", value=["batch", 2]), "wanted one size"),
        (set_in("inputs", 3, "name", value="past"), "and the name 'memory'"),
        (set_in("outputs", 2, "name", value="past"), "embedding, action and memory"),
        (set_in("inputs", 3, "shape", value=["batch", "size"]), "a policy that remembers"),
        (set_in("decoding", "action", "memory", "step_s", value=0.0), "finite numbers above 0"),
    ],
)
def test_a_memory_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    bundle = policy_bundle(tmp_path / "nav", remembers=True)
    change_manifest(bundle, change)
    with pytest.raises(BundleError) as caught:
        read_bundle(bundle.path)
    assert message in caught.value.message
