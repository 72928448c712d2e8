"""`limpet evaluate navigation` as a function: a RUN or a bundle and pairs of frames → figures."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.errors import BundleError
from limpet.contracts.golden import Run
from limpet.contracts.image_model import embed
from limpet.contracts.images import Float32, ImagePreprocessing, Uint8, preprocess
from limpet.contracts.manifest import Manifest
from limpet.export.models import Source, open_model
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.evaluation import (
    Embed,
    EmbeddingFigures,
    embed_frames,
    figures,
    raw_pixels,
)
from limpet.training.navigation.frames import open_frames


class NavigationEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How an image encoder does; the keys of `limpet evaluate navigation --json`.

    Attributes:
        model: The RUN or bundle, as it was given.
        source: Which of the two.
        name: The model's name.
        engine: What computed the embeddings.
        data: The frames, as they were given.
        poses: Poses that were judged.
        views: Appearances of each.
        embedding: Figures of the model.
        random: The same of the encoder with fresh weights.
        pixels: The same of small raw images.
    """

    model: str
    source: Source
    name: str
    engine: str
    data: str
    poses: int
    views: int
    embedding: EmbeddingFigures
    random: EmbeddingFigures
    pixels: EmbeddingFigures


def evaluate_navigation(
    model: Path, data: Path, *, neighbours: Path | None = None
) -> NavigationEvaluation:
    """Embeds frames and compares the embeddings' similarity with that of the geometry.

    Args:
        model: A RUN, which PyTorch runs, or a bundle, which ONNX Runtime runs on the CPU.
        data: Frames, as `limpet.training.navigation.frames.open_frames` takes them.
        neighbours: Picture to draw of frames and their nearest neighbours.

    Raises:
        DataError: The frames cannot be read, or `model` is neither a finished RUN nor a bundle, or
            of another kind.
        BundleError: The bundle is damaged, or was trained by another version.
        MissingExtraError: What reads the data or draws is not installed.
    """
    opened = open_model(model, "navigation")
    config = _config(model, opened.manifest)
    frames = open_frames(data, config.image)
    embed = _embedder(opened.manifest, opened.run)
    embedded, poses = embed_frames(embed, frames)
    if neighbours is not None:
        from limpet.training.navigation.neighbours import draw_neighbours

        draw_neighbours(neighbours, embedded, poses, frames)
    controls = [
        figures(embed_frames(control, frames)[0], poses, frames, config)
        for control in (random_encoder(config), raw_pixels)
    ]
    return NavigationEvaluation(
        model=str(model),
        source=opened.source,
        name=opened.manifest.name,
        engine=opened.engine,
        data=str(data),
        poses=len(poses),
        views=frames.views,
        embedding=figures(embedded, poses, frames, config),
        random=controls[0],
        pixels=controls[1],
    )


def _config(model: Path, manifest: Manifest) -> NavigationConfig:
    """What the similarity and the random encoder follow from: the training's configuration."""
    try:
        return msgspec.convert(manifest.provenance.configuration, NavigationConfig)
    except msgspec.ValidationError as error:
        raise BundleError(
            f"{model}: its training configuration is not this version's: {error}",
            "train it again, or evaluate it with the limpet that trained it",
        ) from error


def _embedder(manifest: Manifest, run: Run) -> Embed:
    how = manifest.image()
    return lambda images: embed(manifest, run, prepared(images, how))


def prepared(images: Uint8, how: ImagePreprocessing) -> Float32:
    """Images as an encoder takes them, by the robot's own preprocessing. (n, 3, h, w)"""
    return np.stack([preprocess(image, how) for image in images])


def random_encoder(config: NavigationConfig) -> Embed:
    """The control: the encoder as it is before training."""
    import torch

    from limpet.training.navigation.encoder import Encoder

    encoder = Encoder(config).eval()

    @torch.no_grad()
    def embed(images: Uint8) -> Float32:
        result: Float32 = encoder(torch.from_numpy(prepared(images, config.image))).numpy()
        return result

    return embed
