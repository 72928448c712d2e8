"""What the bundle of an image encoder, with its policy if it has one, says of it, and golden data
that PyTorch computed.

Dimension legend: m images, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import nn

from limpet.contracts.array_files import DAMAGE
from limpet.contracts.errors import DataError, TensorError
from limpet.contracts.golden import PREPARED, Golden
from limpet.contracts.images import check_image, preprocess, resize_area
from limpet.contracts.manifest import (
    SCHEMA_VERSION,
    ActionDecoding,
    Manifest,
    MemoryDecoding,
    NavigationDecoding,
    Precision,
    Provenance,
)
from limpet.contracts.tensors import TensorSpec
from limpet.export.graph import OPSET
from limpet.export.provenance import provenance_of, weights_digest
from limpet.export.runs import torch_run
from limpet.training.navigation.encoder import Encoder, load_encoder_run
from limpet.training.navigation.policy import NavigationModel
from limpet.training.navigation.policy_train import Policy, load_policy
from limpet.training.run import SAMPLE, RunRecord

EMBEDDING_COSINE = 0.9999
"""Smallest cosine of an embedding with the one that PyTorch computed."""
PREPARED_TOLERANCE = 1e-3
"""Largest difference of a prepared image: a sixteenth of a shade of grey at the default scale."""
ACTION_TOLERANCE = 1e-3
"""Largest difference of an action, m/s and rad/s: far below what a drive can follow."""
MEMORY_TOLERANCE = 1e-3
"""Largest difference of a memory, whose numbers are within ±1."""
GOLDEN_IMAGES = 4
"""Images of the training data in the golden data."""
CAMERA_ROWS, CAMERA_COLUMNS = 48, 64
"""Size of the golden raw images: another aspect than the encoder's, no whole factor, and small,
since a bundle carries them and what they become."""


@dataclass(frozen=True)
class NavigationRun:
    """A finished RUN of an image encoder.

    Attributes:
        path: The folder.
        encoder: Its encoder.
        record: Its record.
        policy: The policy that was trained on the encoder; None where none was.
    """

    path: Path
    encoder: Encoder
    record: RunRecord
    policy: Policy | None

    @property
    def module(self) -> nn.Module:
        """What becomes the graph."""
        if self.policy is None:
            return self.encoder
        return NavigationModel(self.encoder, self.policy.actor).eval()

    def manifest(self, name: str, precision: Precision) -> Manifest:
        """The bundle's manifest."""
        config = self.encoder.config

        def tensor(name: str, *shape: int, unit: str = "") -> TensorSpec:
            return TensorSpec(name=name, dtype="float32", shape=["batch", *shape], unit=unit)

        image = tensor("image", 3, config.image.height, config.image.width, unit="1")
        embedding = tensor("embedding", config.embedding, unit="1")
        inputs, outputs = [image], [msgspec.structs.replace(embedding, range=(-1.0, 1.0))]
        action = None
        if self.policy is not None:
            # Units differ within a row: `ActionDecoding` says which.
            inputs += [tensor("goal", 3), tensor("proprioception", 2)]
            outputs += [tensor("action", 2)]
            actor = self.policy.actor
            speed, turn_rate = actor.speeds.tolist()
            remembers = None
            if actor.memory:
                period_s = 1.0 / self.policy.record.config.task.robot.control_hz
                remembers = MemoryDecoding(step_s=period_s)
                memory = tensor(remembers.input, actor.memory, unit="1")
                inputs += [msgspec.structs.replace(memory, range=(-1.0, 1.0))]
                outputs += [msgspec.structs.replace(inputs[-1], name=remembers.output)]
            action = ActionDecoding(
                largest_speed=speed, largest_turn_rate=turn_rate, memory=remembers
            )
        return Manifest(
            schema_version=SCHEMA_VERSION,
            name=name,
            kind="navigation",
            space_id=weights_digest(self.encoder),
            inputs=inputs,
            outputs=outputs,
            preprocessing=config.image,
            decoding=NavigationDecoding(embedding="embedding", action=action),
            precision=precision,
            opset=OPSET,
            provenance=self._provenance(),
        )

    def _provenance(self) -> Provenance:
        found = provenance_of(self.record)
        if self.policy is None:
            return found
        record = self.policy.record
        return msgspec.structs.replace(
            found,
            configuration={**found.configuration, "policy": msgspec.to_builtins(record.config)},
            metrics={
                **found.metrics,
                **{f"policy training: {name}": value for name, value in record.figures.items()},
                **record.metrics,
            },
            versions={**record.versions, **found.versions},
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
        tolerances = {"embedding cosine": EMBEDDING_COSINE, PREPARED: PREPARED_TOLERANCE}
        if self.policy is not None:
            distance_m, bearing = (
                np.linspace(0.4, 6.0, len(images)),
                np.linspace(-2, 2, len(images)),
            )
            goal = np.stack([distance_m, np.cos(bearing), np.sin(bearing)], axis=1)
            share = np.linspace(0.0, 1.0, len(images))[:, None]
            driven = share * self.policy.actor.speeds.numpy()
            inputs |= {"goal": goal.astype(np.float32), "proprioception": driven.astype(np.float32)}
            tolerances["action"] = ACTION_TOLERANCE
            if self.policy.actor.memory:
                # Not what a trip would leave there, but every number takes part.
                shape = len(images), self.policy.actor.memory
                memory = np.sin(np.arange(shape[0] * shape[1])).reshape(shape)
                inputs["memory"] = memory.astype(np.float32)
                tolerances["next_memory"] = MEMORY_TOLERANCE
        return Golden(
            inputs=inputs,
            outputs=torch_run(self.module, manifest)(inputs),
            tolerances=tolerances,
            images=images,
        )


def open_navigation_run(path: Path) -> NavigationRun:
    """Opens a RUN.

    Raises:
        DataError: No finished RUN of an image encoder, damaged weights, or a policy whose training
            was interrupted or that does not drive by the encoder.
    """
    return NavigationRun(path, *load_encoder_run(path), load_policy(path))


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
