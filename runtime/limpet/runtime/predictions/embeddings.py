"""Embeddings of images, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.bundle import Bundle
from limpet.contracts.embeddings_file import write_embeddings
from limpet.contracts.errors import DataError, ImplausibleError, TensorError
from limpet.contracts.image_files import image_paths, read_image
from limpet.contracts.image_model import embed
from limpet.contracts.images import Float32, ImagePreprocessing, normalize, shrink
from limpet.runtime.camera_watch import check_exposure
from limpet.runtime.engines import open_engine

AT_ONCE = 16
"""Images of a batch: more are no faster on a CPU."""


class ImageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One image in the report.

    Attributes:
        path: The file.
        width, height: Its size, pixels.
        warnings: What a server would refuse it for: black, blown out, or of one colour.
    """

    path: str
    width: int
    height: int
    warnings: list[str]


class EmbeddingsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet predict --json` writes for a navigation bundle.

    Attributes:
        bundle: The folder, as it was given.
        name: The model's name.
        space_id: The embedding space: rows compare only with others of the same.
        engine: Engine and device that embedded.
        out: The embedding file.
        rows: Its rows.
        size: Its columns.
        inputs: Each image, in the order of the rows.
    """

    bundle: str
    name: str
    space_id: str
    engine: str
    out: str
    rows: int
    size: int
    inputs: list[ImageReport]


def predict_embeddings(
    model: Bundle, inputs: Sequence[str], out: Path, engine: str
) -> EmbeddingsReport:
    """Embeds images and writes one row of unit length for each.

    Args:
        model: A navigation bundle.
        inputs: Image files, and folders of them.
        out: The embedding file.
        engine: Name of the engine.

    Raises:
        DataError: An image cannot be read or used; nothing is written.
        MissingExtraError: Pillow is not installed.
        EngineError: The engine cannot load the model.
    """
    manifest, how = model.manifest, model.manifest.image()
    paths = image_paths(inputs)
    opened = open_engine(model, engine)
    rows, images = [], []
    for start in range(0, len(paths), AT_ONCE):
        prepared = []
        for path in paths[start : start + AT_ONCE]:
            image, report = _prepare(path, how)
            prepared.append(image)
            images.append(report)
        rows.append(embed(manifest, opened.run, np.stack(prepared)))
    embeddings = np.concatenate(rows)
    write_embeddings(out, embeddings)
    return EmbeddingsReport(
        bundle=str(model.path),
        name=manifest.name,
        space_id=manifest.space_id,
        engine=opened.name,
        out=str(out),
        rows=len(embeddings),
        size=embeddings.shape[1],
        inputs=images,
    )


def _prepare(path: Path, how: ImagePreprocessing) -> tuple[Float32, ImageReport]:
    image = read_image(path)
    try:
        small = shrink(image, how)
    except TensorError as error:
        raise DataError(f"{path}: {error.message}", error.hint) from error
    warnings = []
    try:
        check_exposure(small)
    except ImplausibleError as error:  # every image has its row, also one that shows nothing
        warnings.append(f"{error.message}; its embedding means nothing")
    report = ImageReport(
        path=str(path), width=image.shape[1], height=image.shape[0], warnings=warnings
    )
    return normalize(small, how), report


def describe(report: EmbeddingsReport) -> str:
    """The report for people."""
    return (
        f"{report.out}: {report.rows} embeddings of {report.size} by {report.name} on "
        f"{report.engine}, space {report.space_id[:12]}"
    )
