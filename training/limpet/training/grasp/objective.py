"""The objective: supervision of seeds, approaches, scores and widths, and cross-view contrast.

L = L_sup + 0.2 (L_con + L_dis) with L_sup = CE(objectness) + 10 graspness + 100 view + 15 score
+ 10 width, all of them smooth L1 but the first. Source: GSNet (Wang et al., ICCV 2021) and "A
Cross-view Fusion Framework for Robust 6-DoF Grasp Pose Estimation" (arXiv 2606.06878).

A step takes some scenes and descends the mean of their losses; nothing connects one scene with
another, so ranks share a step's scenes and exchange gradients alone.

Dimension legend: v views, m candidates of a view, n = v m, s seeds, t approaches, V directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from limpet.contracts.errors import DataError
from limpet.contracts.grasp_frames import VIEWS
from limpet.training.distributed import shard
from limpet.training.grasp.augmentations import Seen, augment
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.contrast import contrast, matches, non_matches
from limpet.training.grasp.encoder import Candidates, GraspEncoder
from limpet.training.grasp.heads import WIDTH_UNIT_M, choose_seeds
from limpet.training.grasp.matching import NO_OBJECT
from limpet.training.grasp.samples import Sample
from limpet.training.grasp.targets import SceneLabels

Indices = NDArray[np.intp]

NON_MATCHES = 1024
"""Pairs that are drawn of a scene for L_dis."""


class Objective:
    """Draws scenes and gives their loss.

    Args:
        samples: What to learn from.
        labels: Of each sample's scene, by its number.
        config: What can be chosen.

    Raises:
        DataError: There are fewer samples than a batch has.
    """

    def __init__(
        self, samples: Sequence[Sample], labels: dict[int, SceneLabels], config: GraspConfig
    ) -> None:
        if len(samples) < config.batch:
            raise DataError(
                f"found {len(samples)} samples, a batch takes {config.batch}",
                "give more scenes, or set a smaller `batch`",
            )
        self._samples, self._labels, self._config = samples, labels, config

    def loss(self, encoder: GraspEncoder, rng: np.random.Generator) -> dict[str, Tensor]:
        """Loss of one step, the mean of `batch` scenes drawn without repeats.

        Args:
            encoder: Computes on the device where it is.
            rng: Of this step, the same on every rank.

        Returns:
            Scalars: `loss`, and its parts before they are weighed.
        """
        config = self._config
        drawn = rng.choice(len(self._samples), config.batch, replace=False)
        # A generator for each scene, whichever rank it goes to.
        seeds = rng.integers(0, 2**63, config.batch)
        own = shard(config.batch)
        each = [
            self.of(encoder, self._samples[index], np.random.default_rng(seed))
            for index, seed in zip(drawn[own].tolist(), seeds[own].tolist(), strict=True)
        ]
        return {name: torch.stack([one[name] for one in each]).mean() for name in each[0]}

    def of(
        self, encoder: GraspEncoder, sample: Sample, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Loss of one scene, as `loss`; `rng` augments it and chooses seeds and views."""
        config, labels = self._config, self._labels[sample.scene]
        seen = augment(sample, config, rng)
        v = seen.views
        owner = sample.owner[:v].reshape(-1)
        grasp_point = sample.grasp_point[:v].reshape(-1)
        graspness = sample.graspness[:v].reshape(-1)
        device = next(encoder.parameters()).device
        known = encoder.describe(torch.from_numpy(seen.points)[None].to(device))
        with torch.autocast(device.type, enabled=False):
            parts = self._candidate_losses(known, owner, graspness)
            parts |= self._contrast(known, seen, labels, owner, grasp_point, rng)

        chosen = self._choose(known, owner, graspness, rng)
        s_owner, s_point = owner[chosen], grasp_point[chosen]
        index = torch.from_numpy(chosen).to(device)[None]
        centres = self._centres(seen, labels, chosen, owner, grasp_point).to(device)[None]
        group, own, view_scores = encoder.approaches(known, index, centres)
        sources = labels.sources(seen.rotations)
        wanted = labels.view_scores(s_owner, s_point, sources)
        views = self._choose_views(encoder, view_scores, wanted, rng)
        graded = labels.grade(s_owner, s_point, views, sources, seen.rotations)
        frames = torch.from_numpy(graded.frames).to(device)[None]
        score, width = encoder.grade(known, centres, group, own, frames)
        with torch.autocast(device.type, enabled=False):
            on_object = torch.from_numpy(s_owner != NO_OBJECT).to(device)
            goal = torch.from_numpy(wanted).to(device)
            parts["view"] = _mean(_smooth(view_scores[0], goal).mean(-1), on_object)
            goal = torch.from_numpy(graded.score).to(device)
            parts["score"] = _smooth(score[0], goal).mean()
            opening = torch.from_numpy(graded.width_m / WIDTH_UNIT_M).to(device)
            parts["width"] = _mean(_smooth(width[0], opening), goal > 0)
            parts["loss"] = (
                config.objectness_weight * parts["objectness"]
                + config.graspness_weight * parts["graspness"]
                + config.view_weight * parts["view"]
                + config.score_weight * parts["score"]
                + config.width_weight * parts["width"]
                + config.contrast_weight * (parts["con"] + parts["dis"])
            )
        return parts

    def _candidate_losses(
        self, known: Candidates, owner: Indices, graspness: NDArray[np.float32]
    ) -> dict[str, Tensor]:
        device = known.logits.device
        on_object = torch.from_numpy(owner != NO_OBJECT).to(device)
        goal = torch.from_numpy(graspness).to(device)
        return {
            "objectness": functional.cross_entropy(known.logits[0].float(), on_object.long()),
            "graspness": _mean(_smooth(known.graspness[0], goal), on_object),
        }

    def _contrast(
        self,
        known: Candidates,
        seen: Seen,
        labels: SceneLabels,
        owner: Indices,
        grasp_point: Indices,
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        config = self._config
        embedded = known.embedded[0].float()
        con = dis = embedded.new_zeros(())
        if config.contrast:
            pairs = matches(seen.true.reshape(-1, 3), owner, seen.views, config.match_m)
            con = contrast(embedded, *pairs)
        if config.dissimilar:
            rows = labels.rows(owner, grasp_point)
            # Where nothing holds there is no best approach, and none to differ from.
            held = np.where(labels.shares[rows].any(1), owner, NO_OBJECT)
            unlike = non_matches(held, labels.best[rows], config.unlike_deg, NON_MATCHES, rng)
            dis = contrast(embedded, *unlike)
        return {"con": con, "dis": dis}

    def _centres(
        self,
        seen: Seen,
        labels: SceneLabels,
        chosen: Indices,
        owner: Indices,
        grasp_point: Indices,
    ) -> Tensor:
        """Where the labelled grasps are: grasp points, some millimetres from the seeds. (s, 3)

        A robot grasps at the seed itself. What is learnt is how good a grasp is *there*, given the
        points around it, so the label's own place is the right one to learn from.
        """
        s_owner = owner[chosen]
        places = labels.places(s_owner, grasp_point[chosen], seen.rotations, seen.origins)
        m = len(owner) // seen.views
        seeds = seen.points[:, :m].reshape(-1, 3)[chosen]
        return torch.from_numpy(np.where((s_owner == NO_OBJECT)[:, None], seeds, places))

    def _choose(
        self,
        known: Candidates,
        owner: Indices,
        graspness: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> Indices:
        """Seeds to learn from: half as they will be chosen, half anywhere on objects. (s,)

        The network's own choice is what it will be judged by; early on it is no good one, and later
        it leaves out what the network wrongly thinks little of.
        """
        config = self._config
        own = choose_seeds(
            known.logits.detach().float().softmax(-1)[..., 1],
            known.graspness.detach().float(),
            known.views,
            config,
        )[0, : config.seeds // 2]
        count = config.seeds - len(own)
        chance = (owner != NO_OBJECT) * (0.1 + graspness.astype(np.float64)) + 1e-9
        other = rng.choice(len(owner), count, replace=True, p=chance / chance.sum())
        return np.concatenate([own.cpu().numpy(), other])

    def _choose_views(
        self,
        encoder: GraspEncoder,
        view_scores: Tensor,
        wanted: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> Indices:
        """Two directions for each seed: one the label likes, one the network likes. (s, 2)"""
        predicted = encoder.approach.best(view_scores.detach().float())[0].cpu().numpy()
        s, t = predicted.shape
        mine = predicted[np.arange(s), rng.integers(0, t, s)]
        # Gumbel's trick draws in proportion to the squared score; anywhere where all are 0.
        chance = np.log(np.square(wanted.astype(np.float64)) + 1e-6)
        liked = np.argmax(chance + rng.gumbel(size=(s, VIEWS)), axis=1)
        return np.stack([liked, mine], 1)


def _smooth(found: Tensor, wanted: Tensor) -> Tensor:
    return functional.smooth_l1_loss(found.float(), wanted, reduction="none")


def _mean(each: Tensor, counted: Tensor) -> Tensor:
    """Mean of those that count, 0 where none does."""
    counted = counted.to(each.dtype)
    return (each * counted).sum() / counted.sum().clamp_min(1.0)
