"""A navigation bundle: its parts fit each other, and its raw images prove the preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from limpet.contracts.bundle import GOLDEN, read_bundle
from limpet.contracts.errors import BundleError
from limpet.contracts.golden import PREPARED, check_golden
from limpet.runtime.engines import open_engine
from tests.bundles import change_file, change_manifest
from tests.navigation_bundles import NAVIGATION_IMAGE, navigation_bundle


def test_it_is_read_as_it_was_written_and_passes_its_check(tmp_path: Path) -> None:
    bundle = read_bundle(navigation_bundle(tmp_path / "eye").path)
    assert bundle.manifest.image() == NAVIGATION_IMAGE
    parity = check_golden(bundle.golden(), bundle.manifest, open_engine(bundle).run)
    assert parity.passed
    assert [check.name for check in parity.checks] == [PREPARED, "embedding cosine"]


def test_another_normalisation_than_training_s_fails_the_check(tmp_path: Path) -> None:
    bundle = navigation_bundle(tmp_path / "eye")
    other = msgspec.structs.replace(NAVIGATION_IMAGE, mean=(0.5, 0.5, 0.4))
    manifest = msgspec.structs.replace(bundle.manifest, preprocessing=other)
    parity = check_golden(bundle.golden(), manifest, open_engine(bundle).run)
    assert {check.name: check.passed for check in parity.checks} == {
        PREPARED: False, "embedding cosine": True,
    }  # fmt: skip


def put(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        manifest[name] = value

    return change


IMAGE = {"type": "image", "width": 16, "height": 12}
SIGNAL = {"type": "signal", "channels": ["a"], "rate_hz": 1.0, "steps": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("preprocessing", None), "needs preprocessing of images"),
        (put("preprocessing", SIGNAL), "needs preprocessing of images"),
        (put("preprocessing", {**IMAGE, "scale": [0.25, 0.0, 0.25]}), "wanted positive ones"),
        (put("preprocessing", {**IMAGE, "width": 0}), "wanted positive ones"),
        (put("preprocessing", {**IMAGE, "width": 12}), "do not fit an image encoder"),
        (put("inputs", []), "at least one input"),
        (lambda m: m["inputs"].append(m["inputs"][0]), "do not fit an image encoder"),
        (lambda m: m["outputs"][0].update(shape=["batch", "size"]), "do not fit an image encoder"),
        (lambda m: m["outputs"][0].update(dtype="float64"), "do not fit an image encoder"),
        (put("decoding", None), "does not name the output embedding"),
        (put("decoding", {"type": "navigation", "embedding": "z"}), "does not name the output"),
        (put("decoding", {"type": "anomaly"}), "does not name the output embedding"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    bundle = navigation_bundle(tmp_path / "eye")
    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        np.zeros((2, 20, 40), np.uint8),
        np.zeros((2, 20, 40, 3), np.float32),
        np.zeros((0, 20, 40, 3), np.uint8),
        np.zeros((4, 20, 40, 3), np.uint8),  # more than there are inputs
    ],
)
def test_golden_data_without_fitting_raw_images_is_refused(
    tmp_path: Path, raw: np.ndarray | None
) -> None:
    bundle = navigation_bundle(tmp_path / "eye")
    with np.load(bundle.path / GOLDEN) as arrays:
        content = {name: arrays[name] for name in arrays.files if name != "images/raw"}
    if raw is not None:
        content["images/raw"] = raw
    np.savez(tmp_path / "changed.npz", **content)
    change_file(bundle, GOLDEN, (tmp_path / "changed.npz").read_bytes())
    with pytest.raises(BundleError, match="which do not fit the manifest: raw uint8"):
        read_bundle(bundle.path)
