"""`limpet predict` with a bundle of navigation: one embedding an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import limpet
from tests.navigation_bundles import policy_bundle

Capture = pytest.CaptureFixture[str]


def test_a_bundle_with_a_policy_embeds_images_as_an_encoder_does(
    tmp_path: Path, capsys: Capture
) -> None:
    bundle = policy_bundle(tmp_path / "policy")
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    done = limpet(capsys, "predict", bundle.path, images, "--out", tmp_path / "rows.npy")
    assert done.code == 0, done.err
    rows = np.load(tmp_path / "rows.npy")
    assert rows.shape == (3, 48)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


def test_an_image_that_shows_nothing_has_its_row_and_a_warning(
    tmp_path: Path, capsys: Capture
) -> None:
    bundle = policy_bundle(tmp_path / "policy")
    images = {
        "black": np.zeros((40, 60, 3), np.uint8),
        "flat": np.full((40, 60, 3), 90, np.uint8),
        "good": np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8),
    }
    files = [tmp_path / f"{name}.png" for name in images]
    for file, pixels in zip(files, images.values(), strict=True):
        Image.fromarray(pixels).save(file)
    done = limpet(
        capsys, "predict", bundle.path, *files, "--out", tmp_path / "rows.npy", "--json", "-"
    )
    assert done.code == 0, done.err
    assert len(np.load(tmp_path / "rows.npy")) == 3
    black, flat, good = (image["warnings"] for image in done.report["inputs"])
    assert (len(black), len(flat), good) == (1, 1, [])
    assert f"warning: {files[0]}: the image is black" in done.err
    assert f"warning: {files[1]}: the image is of one colour" in done.err
