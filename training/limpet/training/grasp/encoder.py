"""The grasp encoder: one or two views → embeddings, seeds, approaches, scores and widths.

Dimension legend: b scenes, v views, N points of a view, m candidates of a view, n = v m, s seeds,
t approaches of a seed, a angles, d depths, c channels, e embedding.

One graph from points to graded grasps, all sizes fixed but the number of views. Training goes
through the same parts with a leading axis of scenes, and with seeds and frames of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from limpet.training.grasp.backbone import Backbone
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.fusion import SimilarityAlignment
from limpet.training.grasp.grouping import QUADRATIC, take
from limpet.training.grasp.heads import (
    WIDTH_UNIT_M,
    ApproachHead,
    CandidateHead,
    GraspHead,
    choose_groups,
    choose_seeds,
)


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
            self.backbone = Backbone(CANDIDATES, c)
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

    def approaches(self, known: Candidates, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Groups around seeds (b, s, k), seeds' features (b, s, c), view scores (b, s, 300)."""
        seeds = take(known.points, chosen)
        group = choose_groups(seeds, known.points, known.views, self.config.group)
        own, scores = self.approach(known.features, known.points, chosen, group)
        return group, own, scores

    def grade(
        self, known: Candidates, chosen: Tensor, group: Tensor, own: Tensor, frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores and widths (in 10 cm) in given frames. (b, s, t, 3, 3) → (b, s, t, a, d) twice"""
        seeds = take(known.points, chosen)
        scores, widths = self.grasp(
            known.features, known.points, known.forms, own, seeds, group, frames
        )
        return scores, widths

    def forward(self, points: Tensor) -> tuple[Tensor, ...]:
        """Grasps of one scene: the graph that is exported.

        Args:
            points: float32 metres, as `limpet.contracts.clouds` prepares them. (v, N, 3)

        Returns:
            embedding (e), seeds (s, 3), seed_embedding (s, e), objectness (s), graspness (s),
            approach (s, t, 3), score (s, t, a, d), width in metres (s, t, a, d)
        """
        known = self.describe(points[None])
        objectness = known.logits.softmax(-1)[..., 1]
        chosen = choose_seeds(objectness, known.graspness, known.views, self.config)
        group, own, view_scores = self.approaches(known, chosen)
        best = self.approach.best(view_scores)  # (1, s, t)
        flat, sizes = best.reshape(-1), best.shape
        frames = self.approach.frames.index_select(0, flat).reshape(*sizes, 3, 3)
        directions = self.approach.directions.index_select(0, flat).reshape(*sizes, 3)
        score, width = self.grade(known, chosen, group, own, frames)
        outputs = (
            known.scene,
            take(known.points, chosen),
            take(known.embedded, chosen),
            take(objectness[..., None], chosen)[..., 0],
            take(known.graspness[..., None], chosen)[..., 0].clamp(0.0, 1.0),
            directions,
            score.clamp(0.0, 1.0),
            (width * WIDTH_UNIT_M).clamp(0.0, WIDTH_UNIT_M),
        )
        return tuple(each[0] for each in outputs)


CANDIDATES = 1024
