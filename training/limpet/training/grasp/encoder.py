"""The grasp encoder: one or two views → embeddings, seeds, approaches, scores and widths.

Dimension legend: b scenes, v views, N points of a view, m candidates of a view, n = v m, s seeds,
t approaches of a seed, a angles, d depths, c channels, e embedding.

One graph from points to graded grasps, all sizes fixed but the number of views. Training goes
through the same parts with a leading axis of scenes, and with seeds and frames of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from limpet.contracts.clouds import CloudPreprocessing
from limpet.contracts.errors import DataError
from limpet.training.grasp.backbone import Backbone
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.cylinder import TOKEN_HANDICAP_M, Surroundings, choose_group
from limpet.training.grasp.fusion import SimilarityAlignment
from limpet.training.grasp.grouping import QUADRATIC, take
from limpet.training.grasp.heads import (
    WIDTH_UNIT_M,
    ApproachHead,
    CandidateHead,
    GraspHead,
    choose_seeds,
)
from limpet.training.run import WEIGHTS, RunFolder, RunRecord


@dataclass(frozen=True)
class Candidates:
    """What is known of the candidates of all views, after fusion.

    Attributes:
        views: v
        points: (b, n, 3)
        features: Fused. (b, n, c)
        forms: How the surface lies. (b, n, 6)
        embedded: Of the views by themselves, rows of unit length. (b, n, e)
        logits: Of table and object. (b, n, 2)
        graspness: (b, n)
        scene: Embedding of the whole, of unit length. (b, e)
    """

    views: int
    points: Tensor
    features: Tensor
    forms: Tensor
    embedded: Tensor
    logits: Tensor
    graspness: Tensor
    scene: Tensor


@dataclass(frozen=True)
class Found:
    """Grasps of scenes.

    Attributes:
        known: The candidates.
        objectness: Probability of each. (b, n)
        chosen: Indices of the seeds. (b, s)
        views: Indices of each seed's approach directions. (b, s, t)
        score: As learnt, not clipped. (b, s, t, a, d)
        width: In units of 10 cm, not clipped. (b, s, t, a, d)
    """

    known: Candidates
    objectness: Tensor
    chosen: Tensor
    views: Tensor
    score: Tensor
    width: Tensor


class GraspEncoder(nn.Module):
    """Views of a scene → grasps.

    Args:
        config: Its sizes, its switches and the seed of its fresh weights.
    """

    def __init__(self, config: GraspConfig) -> None:
        super().__init__()
        c = config.channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.backbone = Backbone(config.cloud.candidates, c)
            self.candidate = CandidateHead(c)
            self.project = nn.Linear(c, config.embedding)
            self.scene = nn.Linear(2 * c, config.embedding)
            self.align = SimilarityAlignment(config) if config.sim_ali else None
            self.approach = ApproachHead(config)
            self.grasp = GraspHead(config)
        self.config = config

    def describe(self, points: Tensor) -> Candidates:
        """Views → candidates.

        Args:
            points: Metres, in the reference camera's frame. (b, v, N, 3)
        """
        b, v, count, _ = points.shape
        made = self.backbone(points.reshape(b * v, count, 3))
        logits, graspness = self.candidate(made.features)
        embedded = functional.normalize(self.project(made.features), dim=-1)
        features, own = made.features, made.points
        if self.align is not None:
            m, c = features.shape[1:]
            features = self.align(
                own.reshape(b, v, m, 3),
                features.reshape(b, v, m, c),
                embedded.reshape(b, v, m, embedded.shape[-1]),
            )
        tokens = made.scene.reshape(b, v * made.scene.shape[1], made.scene.shape[2])
        scene = self.scene(torch.cat([tokens.mean(1), tokens.amax(1)], -1))
        n = v * own.shape[1]
        return Candidates(
            views=v,
            points=own.reshape(b, n, 3),
            features=features.reshape(b, n, features.shape[-1]),
            forms=made.forms.reshape(b, n, QUADRATIC),
            embedded=embedded.reshape(b, n, embedded.shape[-1]),
            logits=logits.reshape(b, n, 2),
            graspness=graspness.reshape(b, n),
            scene=functional.normalize(scene, dim=-1),
        )

    def approaches(
        self, known: Candidates, chosen: Tensor, centres: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores directions.

        Args:
            known: The candidates.
            chosen: Indices of the seeds. (b, s)
            centres: Where their grasps are, at or near the seeds. (b, s, 3)

        Returns:
            Groups around seeds (b, s, k), seeds' features (b, s, c), view scores (b, s, 300)
        """
        seeds = take(known.points, chosen)
        group = choose_group(seeds, known.points, known.views, self.config.group, TOKEN_HANDICAP_M)
        own, scores = self.approach(
            known.features, known.points, chosen, centres, group, known.views
        )
        return group, own, scores

    def grade(
        self, known: Candidates, centres: Tensor, group: Tensor, own: Tensor, frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Judges grasps.

        Args:
            known: The candidates.
            centres: Where grasps are, at or near the seeds. (b, s, 3)
            group: As `approaches` gives it. (b, s, k)
            own: The same. (b, s, c)
            frames: Axes as columns. (b, s, t, 3, 3)

        Returns:
            Scores, and widths in units of 10 cm. (b, s, t, a, d) twice
        """
        around = Surroundings(known.views, known.points, known.features, known.forms)
        scores, widths = self.grasp(around, own, centres, group, frames)
        return scores, widths

    def find(self, points: Tensor) -> Found:
        """Grasps of scenes. (b, v, N, 3)"""
        known = self.describe(points)
        objectness = known.logits.softmax(-1)[..., 1]
        chosen = choose_seeds(objectness, known.graspness, known.views, self.config)
        seeds = take(known.points, chosen)
        group, own, view_scores = self.approaches(known, chosen, seeds)
        views = self.approach.best(view_scores)
        flat, sizes = views.reshape(-1), views.shape
        frames = self.approach.frames.index_select(0, flat).reshape(*sizes, 3, 3)
        score, width = self.grade(known, seeds, group, own, frames)
        return Found(known, objectness, chosen, views, score, width)

    def forward(self, points: Tensor) -> tuple[Tensor, ...]:
        """Grasps of one scene: the graph that is exported.

        Args:
            points: float32 metres, as `limpet.contracts.clouds` prepares them. (v, N, 3)

        Returns:
            embedding (e), seeds (s, 3), seed_embedding (s, e), objectness (s), graspness (s),
            approach (s, t, 3), score (s, t, a, d), width in metres (s, t, a, d)
        """
        found = self.find(points[None])
        known, chosen, views = found.known, found.chosen, found.views
        directions = self.approach.directions.index_select(0, views.reshape(-1))
        outputs = (
            known.scene,
            take(known.points, chosen),
            take(known.embedded, chosen),
            take(found.objectness[..., None], chosen)[..., 0],
            take(known.graspness[..., None], chosen)[..., 0].clamp(0.0, 1.0),
            directions.reshape(*views.shape, 3),
            found.score.clamp(0.0, 1.0),
            (found.width * WIDTH_UNIT_M).clamp(0.0, WIDTH_UNIT_M),
        )
        return tuple(each[0] for each in outputs)


def load_grasp_run(run: Path | str) -> tuple[GraspEncoder, RunRecord]:
    """Loads a finished run's encoder, in evaluation mode on the CPU, and the run's record.

    Raises:
        DataError: No finished RUN of a grasp encoder, or damaged weights.
    """
    folder = RunFolder(Path(run))
    record = folder.read_complete()
    if record.kind != "grasp" or not isinstance(record.preprocessing, CloudPreprocessing):
        raise DataError(f"{folder.path} is a run of kind {record.kind!r}, wanted 'grasp'")
    weights = folder.path / WEIGHTS
    try:
        encoder = GraspEncoder(msgspec.convert(record.config, GraspConfig))
        encoder.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, KeyError, RuntimeError, msgspec.ValidationError) as error:
        raise DataError(f"{weights} does not fit its run: {error}", "train again") from error
    return encoder.eval(), record
