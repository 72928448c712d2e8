"""What the bundle of a grasp encoder says of it, and golden data that PyTorch computed.

Dimension legend: V views, n points of a cloud, N points a model takes of each view.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import nn

from limpet.contracts.array_files import DAMAGE
from limpet.contracts.clouds import CloudPreprocessing, prepare
from limpet.contracts.errors import DataError
from limpet.contracts.golden import PREPARED_POINTS, Golden
from limpet.contracts.grasp_agreement import GRASP_SCORE, LOST_GRASPS
from limpet.contracts.grasp_frames import ANGLES, DEPTHS
from limpet.contracts.grasps import GraspDecoding
from limpet.contracts.manifest import SCHEMA_VERSION, Manifest, Precision
from limpet.contracts.tensors import TensorSpec
from limpet.export.graph import OPSET
from limpet.export.provenance import provenance_of, weights_digest
from limpet.export.runs import torch_run
from limpet.training.grasp.encoder import GraspEncoder, load_grasp_run
from limpet.training.run import SAMPLE, RunRecord

EMBEDDING_COSINE, SEED_COSINE = 0.999, 0.999
"""Smallest cosine of the scene's embedding, and smallest mean of the seeds', with PyTorch's: where
neighbours are nearly as far, rounding chooses others, which moved one to 0.9998."""
MOST_LOST = 0.06
"""Largest share of the best 50 grasps that another device may not find: three of them."""
SCORE_TOLERANCE = 0.005
"""Largest mean difference of the scores of those that it does, of 1."""
STRAYS = 0.02
"""Largest share of the prepared points that may be others: processors add in another order."""


@dataclass(frozen=True)
class GraspRun:
    """A finished RUN of a grasp encoder.

    Attributes:
        path: The folder.
        encoder: Its encoder.
        record: Its record.
    """

    path: Path
    encoder: GraspEncoder
    record: RunRecord

    @property
    def module(self) -> nn.Module:
        """What becomes the graph."""
        return self.encoder

    def manifest(self, name: str, precision: Precision) -> Manifest:
        """The bundle's manifest."""
        config, decoding = self.encoder.config, GraspDecoding()
        s, t, e = config.seeds, config.approaches, config.embedding

        def tensor(
            name: str, *shape: int | str, unit: str = "1", low: float = 0.0, high: float = 1.0
        ) -> TensorSpec:
            frame = "ref" if shape[-1] == 3 else ""
            limits = None if unit == "m" and frame else (low, high)
            return TensorSpec(
                name=name,
                dtype="float32",
                shape=list(shape),
                unit=unit,
                frame=frame,
                range=limits,
            )

        return Manifest(
            schema_version=SCHEMA_VERSION,
            name=name,
            kind="grasp",
            space_id=weights_digest(self.encoder),
            inputs=[tensor("points", "views", config.cloud.points, 3, unit="m")],
            outputs=[
                tensor(decoding.embedding, e, low=-1.0),
                tensor(decoding.seeds, s, 3, unit="m"),
                tensor(decoding.seed_embedding, s, e, low=-1.0),
                tensor(decoding.objectness, s),
                tensor(decoding.graspness, s),
                tensor(decoding.approach, s, t, 3, low=-1.0),
                tensor(decoding.score, s, t, ANGLES, DEPTHS),
                tensor(decoding.width, s, t, ANGLES, DEPTHS, unit="m", high=0.1),
            ],
            preprocessing=self._preprocessing(),
            decoding=decoding,
            precision=precision,
            opset=OPSET,
            provenance=provenance_of(self.record),
        )

    def _preprocessing(self) -> CloudPreprocessing:
        """The encoder's; that of one trained on merged clouds merges them."""
        config = self.encoder.config
        return msgspec.structs.replace(config.cloud, merge_views=config.input == "prefused")

    def golden(self, manifest: Manifest) -> Golden:
        """What the bundle must compute: a sample of the training data, prepared once more as if
        its points were what cameras saw.
        """
        how = manifest.cloud()
        clouds = read_clouds(self.path / SAMPLE)
        points = prepare(list(clouds), [np.eye(4)] * len(clouds), how).points
        if points is None:
            raise DataError(f"{self.path / SAMPLE} holds nothing to grasp", "train again")
        inputs = {manifest.inputs[0].name: points}
        decoding = manifest.decoding
        assert isinstance(decoding, GraspDecoding)
        return Golden(
            inputs=inputs,
            outputs=torch_run(self.module, manifest)(inputs),
            tolerances={
                PREPARED_POINTS: STRAYS,
                LOST_GRASPS: MOST_LOST,
                GRASP_SCORE: SCORE_TOLERANCE,
                f"{decoding.embedding} cosine": EMBEDDING_COSINE,
                f"{decoding.seed_embedding} cosine": SEED_COSINE,
            },
            clouds=clouds,
        )


def open_grasp_run(path: Path) -> GraspRun:
    """Opens a RUN.

    Raises:
        DataError: No finished RUN of a grasp encoder, or damaged weights.
    """
    return GraspRun(path, *load_grasp_run(path))


def read_clouds(path: Path) -> NDArray[np.float32]:
    """Reads a RUN's `sample.npz`: points of each view in the reference frame. (V, n, 3)

    Raises:
        DataError: It is missing or damaged, or holds no clouds.
    """
    try:
        with path.open("rb") as file:
            points = np.load(file, allow_pickle=False)["points"]
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}", "train again") from error
    if points.ndim != 3 or points.shape[2] != 3 or points.dtype != np.float32 or not points.size:
        raise DataError(
            f"{path} holds {points.dtype} {list(points.shape)}, wanted float32 clouds "
            "[views, points, 3]",
            "train again",
        )
    return np.asarray(points, np.float32)
