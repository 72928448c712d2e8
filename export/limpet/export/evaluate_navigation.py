"""`limpet evaluate navigation` as a function: a RUN or a bundle and pairs of frames → figures of
the embedding and, where there is a policy, of drives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.errors import BundleError
from limpet.contracts.golden import Run
from limpet.contracts.image_model import embed
from limpet.contracts.images import Float32, ImagePreprocessing, Uint8, preprocess
from limpet.contracts.manifest import Manifest, NavigationDecoding
from limpet.export.models import OpenModel, Source, open_model
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.environment import Observation, action_of
from limpet.training.navigation.evaluation import (
    Embed,
    EmbeddingFigures,
    embed_frames,
    figures,
    raw_pixels,
)
from limpet.training.navigation.frames import open_frames
from limpet.training.navigation.policy_evaluation import (
    UNSEEN,
    Evaluation,
    Outcome,
    evaluate_driver,
)
from limpet.training.navigation.scenes import SceneLibrary


class Driving(msgspec.Struct, frozen=True, kw_only=True):
    """How the policy drives in layouts and appearances that nothing was trained in.

    Attributes:
        layouts: Seeds of the layouts: first, and one after the last.
        overall: Success rate and SPL with 95 % intervals, contacts an episode.
        by_appearance: The same of each unseen appearance, by its seed.
    """

    layouts: tuple[int, int]
    overall: Outcome
    by_appearance: dict[int, Outcome]


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
        driving: How the policy drives; None for an encoder alone, and where no episode was asked
            for.
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
    driving: Driving | None


def evaluate_navigation(
    model: Path,
    data: Path,
    *,
    neighbours: Path | None = None,
    episodes: int = 200,
    textures: Path | None = None,
) -> NavigationEvaluation:
    """Embeds frames and compares the embeddings' similarity with that of the geometry; drives.

    Args:
        model: A RUN, which PyTorch runs, or a bundle, which ONNX Runtime runs on the CPU.
        data: Frames, as `limpet.training.navigation.frames.open_frames` takes them.
        neighbours: Picture to draw of frames and their nearest neighbours.
        episodes: Episodes that a policy drives.
        textures: Folder of images for the appearances that it drives in; None draws all patterns.

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
        driving=_drive(opened, episodes, textures),
    )


def _drive(opened: OpenModel, episodes: int, textures: Path | None) -> Driving | None:
    decoding = opened.manifest.decoding
    if not isinstance(decoding, NavigationDecoding) or decoding.action is None or not episodes:
        return None
    found = drive_unseen(opened.manifest, opened.run, episodes, textures)
    return Driving(layouts=UNSEEN.layouts, overall=found.overall, by_appearance=found.by_appearance)


def drive_unseen(manifest: Manifest, run: Run, episodes: int, textures: Path | None) -> Evaluation:
    """Drives by a model's own graph, from camera image to speeds, where nothing was trained.

    Args:
        manifest: Of an image encoder with a policy.
        run: Executes its graph.
        episodes: How many; the same for every model.
        textures: Folder of images for the appearances; None draws all patterns.
    """
    decoding = manifest.decoding
    assert isinstance(decoding, NavigationDecoding)
    assert decoding.action is not None
    how, name, remembers = manifest.image(), decoding.action.name, decoding.action.memory
    size = int(manifest.inputs[-1].shape[1]) if remembers else 0
    robot = UNSEEN.robot

    def drive(seen: Sequence[Observation], memory: Float32) -> tuple[Float32, Float32]:
        inputs = {
            sense: np.stack([observed[sense] for observed in seen])
            for sense in ("goal", "proprioception")
        }
        images = np.stack([observed["image"] for observed in seen])
        if remembers is not None:
            inputs[remembers.input] = memory
        found = run({"image": prepared(images, how), **inputs})
        actions = [action_of(float(v), float(omega), robot) for v, omega in found[name]]
        kept = memory if remembers is None else found[remembers.output]
        return np.stack(actions), np.asarray(kept, np.float32)

    library = SceneLibrary(textures)
    return evaluate_driver(
        drive, ("image",), UNSEEN, memory=size, episodes=episodes, library=library
    )


def _config(model: Path, manifest: Manifest) -> NavigationConfig:
    """What the similarity and the random encoder follow from: the training's configuration."""
    configuration = dict(manifest.provenance.configuration)
    configuration.pop("policy", None)
    try:
        return msgspec.convert(configuration, NavigationConfig)
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
