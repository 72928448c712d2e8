"""What an image encoder's bundle says of it, and golden data that PyTorch computed.

Dimension legend: m images, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.array_files import DAMAGE
from limpet.contracts.errors import DataError, TensorError
from limpet.contracts.golden import PREPARED, Golden
from limpet.contracts.images import check_image, preprocess, resize_area
from limpet.contracts.manifest import SCHEMA_VERSION, Manifest, NavigationDecoding, Precision
from limpet.contracts.tensors import TensorSpec
from limpet.export.graph import OPSET
from limpet.export.provenance import provenance_of, weights_digest
from limpet.export.runs import torch_run
from limpet.training.navigation.encoder import Encoder, load_encoder_run
from limpet.training.run import SAMPLE, RunRecord

EMBEDDING_COSINE = 0.9999
"""Smallest cosine of an embedding with the one that PyTorch computed."""
PREPARED_TOLERANCE = 1e-3
"""Largest difference of a prepared image: a sixteenth of a shade of grey at the default scale."""
GOLDEN_IMAGES = 4
"""Images of the training data in the golden data."""
CAMERA_ROWS, CAMERA_COLUMNS = 48, 64
"""Size of the golden raw images: another aspect than the encoder's, no whole factor, and small,
since a bundle carries them and what they become."""


@dataclass(frozen=True)
class NavigationRun:
    """A finished RUN of an image encoder."""

    path: Path
    encoder: Encoder
    record: RunRecord

    @property
    def module(self) -> Encoder:
        """What becomes the graph."""
        return self.encoder

    def manifest(self, name: str, precision: Precision) -> Manifest:
        """The bundle's manifest."""
        config = self.encoder.config
        shape: list[int | str] = ["batch", 3, config.image.height, config.image.width]
        return Manifest(
            schema_version=SCHEMA_VERSION,
            name=name,
            kind="navigation",
            space_id=weights_digest(self.encoder),
            inputs=[TensorSpec(name="image", dtype="float32", shape=shape, unit="1")],
            outputs=[
                TensorSpec(
                    name="embedding",
                    dtype="float32",
                    shape=["batch", config.embedding],
                    unit="1",
                    range=(-1.0, 1.0),
                )
            ],
            preprocessing=config.image,
            decoding=NavigationDecoding(embedding="embedding"),
            precision=precision,
            opset=OPSET,
            provenance=provenance_of(self.record),
        )

    def golden(self, manifest: Manifest) -> Golden:
        """What the bundle must compute: frames of the training data as a camera of another size
        sends them, black, and white.
        """
        how = manifest.image()
        sample = read_images(self.path / SAMPLE)[:GOLDEN_IMAGES]
        size = (CAMERA_ROWS, CAMERA_COLUMNS)
        raw = np.rint([resize_area(image, *size) for image in sample]).astype(np.uint8)
        extreme = np.zeros((2, *size, 3), np.uint8)
        extreme[1] = 255
        images = np.concatenate([raw, extreme])
        inputs = {"image": np.stack([preprocess(image, how) for image in images])}
        return Golden(
            inputs=inputs,
            outputs=torch_run(self.encoder, manifest)(inputs),
            tolerances={"embedding cosine": EMBEDDING_COSINE, PREPARED: PREPARED_TOLERANCE},
            images=images,
        )


def open_navigation_run(path: Path) -> NavigationRun:
    """Opens a RUN.

    Raises:
        DataError: No finished RUN of an image encoder, or damaged weights.
    """
    return NavigationRun(path, *load_encoder_run(path))


def read_images(path: Path) -> NDArray[np.uint8]:
    """Reads a RUN's `sample.npz`. uint8 (m, H, W, 3)

    Raises:
        DataError: It is missing or damaged, or holds no images.
    """
    try:
        with path.open("rb") as file:
            images = np.load(file, allow_pickle=False)["images"]
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}", "train again") from error
    try:
        return np.stack([check_image(image) for image in images])
    except (TensorError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds no images: {error}", "train again") from error
