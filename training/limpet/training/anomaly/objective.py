"""Stage 2, the contrastive objective: normal attracts normal, anomalies repel.

Dimension legend: b sequences, t frames, f features, e embedding, p pairs, n negatives.

Other normal frames are no negatives: pushing apart what is equally normal would spend the
embedding on telling normal states from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from limpet.contracts.signals import Float32
from limpet.training.anomaly.config import AnomalyConfig, look_back_frames
from limpet.training.anomaly.data import Stretch
from limpet.training.anomaly.encoder import CausalEncoder, History
from limpet.training.anomaly.injection import inject
from limpet.training.anomaly.pseudo import PseudoAnomalies
from limpet.training.distributed import gather, shard

SPAN_FRAMES = 64
"""Frames of a sequence behind those that its first embedding looks back on."""
PAIRS = 8
"""Anchors of a sequence."""
NEGATIVES = 12
"""Frames that are taken from each sequence with an anomaly."""
UNSEEN_FRAMES = 2
"""First frames of an anomaly, which nothing could tell yet."""


def contrast(anchor: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each anchor with its positive against all negatives, by cosine.

    Args:
        anchor: (p, e)
        positive: (p, e)
        negatives: Shared by all anchors. (n, e)
        temperature: Divides the cosines.

    Returns:
        Mean loss, at least 0.
    """
    anchor, positive, negatives = (_unit(x.float()) for x in (anchor, positive, negatives))
    attract = (anchor * positive).sum(1, keepdim=True) / temperature  # (p, 1)
    repel = anchor @ negatives.transpose(0, 1) / temperature  # (p, n)
    return (torch.logsumexp(torch.cat([attract, repel], 1), 1) - attract[:, 0]).mean()


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def diversity(anchor: Tensor, positive: Tensor) -> Tensor:
    """How many directions positives differ from their anchors in, as a share of all: 1/e to 1.

    The participation ratio of the covariance of their differences. Positives that differ in few
    directions support few, and a map may collapse the others at no loss ("The Loss Is Not Enough",
    arXiv 2606.04280). 0 where none differs.
    """
    difference = _unit(positive.detach().float()) - _unit(anchor.detach().float())
    # Of any size: fourth powers of small differences would be lost below.
    difference = difference / difference.abs().amax().clamp_min(1e-12)
    covariance = difference.transpose(0, 1) @ difference
    share = covariance.diagonal().sum().square() / covariance.square().sum().clamp_min(1e-12)
    return share / anchor.shape[1]


@dataclass(frozen=True)
class Draw:
    """A global batch.

    Attributes:
        normal: Normal sequences. (b, t, f)
        anomalous: Normal sequences that end in an anomaly. (b, t, f)
        present: 1 where measured, of a normal sequence, of its second view, of an anomalous one.
            (3, b, t, f)
        anchors: Frames of the anchors. (b, PAIRS)
        positives: Frames of their positives, in the second view. (b, PAIRS)
        negatives: Frames within the anomalies. (b, NEGATIVES)
        on_target: Share of stage 1's errors that met their target; NaN without stage 1.
    """

    normal: Float32
    anomalous: Float32
    present: Float32
    anchors: NDArray[np.intp]
    positives: NDArray[np.intp]
    negatives: NDArray[np.intp]
    on_target: float


class Batches:
    """Draws batches from normal stretches, and gives their loss.

    Args:
        stretches: Normal frames; only those to fit are used.
        discrete: Values of the features that take few, by number.
        config: What can be chosen.
        blocks: Blocks of the encoder.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        discrete: dict[int, Float32],
        config: AnomalyConfig,
        blocks: int,
    ) -> None:
        self._config, self._discrete = config, discrete
        fit = [int(stretch.fit.sum()) for stretch in stretches]
        context = look_back_frames(blocks) - 1
        # Half of the stretches are long enough at least; longer sequences would leave too many out.
        self.frames = min(context + SPAN_FRAMES, int(np.median([n for n in fit if n])))
        self._first = min(context, self.frames // 2)
        self._anomaly_frames = max(1, min(self.frames - self._first // 2, 96))
        self._samples = np.concatenate([s.samples[:n] for s, n in zip(stretches, fit, strict=True)])
        self._present = np.concatenate([s.present[:n] for s, n in zip(stretches, fit, strict=True)])
        offsets = np.concatenate([[0], np.cumsum(fit)])[:-1]
        self._starts = np.concatenate(
            [o + np.arange(max(0, n - self.frames + 1)) for o, n in zip(offsets, fit, strict=True)]
        )
        window = min(2 ** (blocks - 1), self.frames)
        starts = np.concatenate(
            [o + np.arange(max(0, n - window + 1)) for o, n in zip(offsets, fit, strict=True)]
        )
        self._window, self._window_starts = window, starts

    @cached_property
    def pseudo(self) -> PseudoAnomalies:
        """Stage 1, fitted when it is first needed."""
        most = 8192
        starts = self._window_starts[:: max(1, len(self._window_starts) // most)]
        windows = self._samples[starts[:, None] + np.arange(self._window)]
        return PseudoAnomalies(windows, self._discrete, self._config.clip, self._config.seed)

    def draw(self, rng: np.random.Generator) -> Draw:
        """One global batch."""
        b, t = self._config.batch, self.frames
        at = self._starts[rng.integers(0, len(self._starts), 2 * b)][:, None] + np.arange(t)
        samples, present = self._samples[at], self._present[at]
        normal, anomalous = samples[:b], samples[b:].copy()
        on_target = self._corrupt(anomalous, normal, rng)
        changed = (anomalous != samples[b:]).any(axis=2)  # (b, t)
        views = np.stack([present[:b], present[:b], present[b:]])
        views[1:] *= self._alive(2, b, samples.shape[2], rng)
        anchors = rng.integers(self._first, t, (b, PAIRS))
        if self._config.positives == "near":
            near = rng.integers(1, self._config.near_frames + 1, anchors.shape)
            near *= rng.choice([-1, 1], anchors.shape)
            positives = np.clip(anchors + near, 0, t - 1)
        else:
            positives = anchors
        return Draw(normal, anomalous, views, anchors, positives, _within(changed, rng), on_target)

    def _corrupt(self, anomalous: Float32, pool: Float32, rng: np.random.Generator) -> float:
        """Puts an anomaly at the end of each sequence, in place; stage 1's share on target."""
        config, b = self._config, len(anomalous)
        near = {"pseudo": b, "random": 0, "both": b // 2}[config.negatives]
        on_target = float("nan")
        if near:
            tail = slice(-self._window, None)
            windows, achieved = self.pseudo.make(
                anomalous[:near, tail], rng, config.nearest, config.farthest
            )
            anomalous[:near, tail] = windows
            on_target = achieved.on_target
        if near < b:
            tail = slice(-self._anomaly_frames, None)
            anomalous[near:, tail] = inject(
                anomalous[near:, tail],
                pool[:, tail],
                rng,
                weakest=config.weakest,
                strongest=config.strongest,
            ).clip(-config.clip, config.clip)
        return on_target

    def _alive(self, views: int, b: int, features: int, rng: np.random.Generator) -> Float32:
        """0 for a feature that is declared absent throughout a sequence: one, since most would
        leave nothing to learn from, and a graph that knows one dead sensor copes with two.
        """
        alive = np.ones((views, b, 1, features), np.float32)
        if features > 1:
            dead = rng.integers(0, features, (views, b, 1, 1))
            some = rng.random((views, b, 1, 1)) < self._config.dead_channels
            alive[(np.arange(features) == dead) & some] = 0.0
        return alive

    def loss(
        self, encoder: CausalEncoder, rng: np.random.Generator, device: str
    ) -> dict[str, Tensor]:
        """Loss of one step, and what there is to know about its positives and stage 1.

        Args:
            encoder: On `device`.
            rng: Of this step, the same on every rank.
            device: Where the loss is computed.

        Returns:
            Scalars; `loss` is the one to descend.
        """
        draw = self.draw(rng)
        own = shard(len(draw.normal))
        present = torch.from_numpy(draw.present[:, own]).to(device)
        normal = torch.from_numpy(draw.normal[own]).to(device)
        anomalous = torch.from_numpy(draw.anomalous[own]).to(device)
        samples = torch.cat([normal, normal, anomalous]) * present.flatten(0, 1)
        if self._config.positives == "near":
            first, second, bad = self._encode(encoder, samples, present.flatten(0, 1)).chunk(3)
        else:
            b = len(normal)
            others = torch.cat([present[0], present[2]])
            first, bad = self._encode(
                encoder, torch.cat([samples[:b], samples[2 * b :]]), others
            ).chunk(2)
            second = self._perturbed(encoder, samples[b : 2 * b], present[1], rng)
        anchor, positive = _take(first, draw.anchors[own]), _take(second, draw.positives[own])
        negatives = gather(_take(bad, draw.negatives[own]))
        figures = {
            "loss": contrast(anchor, positive, negatives, self._config.temperature),
            "positive_cosine": (_unit(anchor.float()) * _unit(positive.float())).sum(1).mean(),
            "positive_diversity": diversity(anchor, positive),
        }
        if self._config.negatives != "random":
            figures["pseudo_on_target"] = torch.tensor(draw.on_target)
        return figures

    def _encode(self, encoder: CausalEncoder, samples: Tensor, present: Tensor) -> Tensor:
        return torch.as_tensor(encoder(samples, present, _nothing(encoder, samples)))

    def _perturbed(
        self, encoder: CausalEncoder, samples: Tensor, present: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Embeddings under noisy weights: the same input seen a little differently, for signals
        that augmentation would corrupt ("Implicit Data Synthesis", arXiv 2606.07498).
        """
        noisy = {}
        for name, weight in encoder.named_parameters():
            noise = torch.from_numpy(rng.standard_normal(tuple(weight.shape), np.float32))
            scale = self._config.perturbation * weight.detach().std(correction=0)
            noisy[name] = weight + scale * noise.to(weight.device)
        history = _nothing(encoder, samples)
        return torch.as_tensor(functional_call(encoder, noisy, (samples, present, history)))


def _nothing(encoder: CausalEncoder, samples: Tensor) -> History:
    """The state in which a stream begins."""
    return History(samples.new_zeros(len(samples), encoder.state_size))


def _take(embeddings: Tensor, frames: NDArray[np.intp]) -> Tensor:
    """Embeddings (b, t, e) at frames (b, p) → (b · p, e)"""
    index = torch.from_numpy(frames).to(embeddings.device)[:, :, None]
    return embeddings.gather(1, index.expand(-1, -1, embeddings.shape[2])).flatten(0, 1)


def _within(changed: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Frames of each anomaly, drawn anew where it is short. (b, t) → (b, NEGATIVES)

    An anomaly lasts from its first changed frame to the sequence's last one.
    """
    b, t = changed.shape
    first = np.where(changed.any(axis=1), changed.argmax(axis=1), t - 1)
    first = np.minimum(first + UNSEEN_FRAMES, t - 1)
    share = rng.random((b, NEGATIVES))
    return np.asarray(first[:, None] + np.floor(share * (t - first)[:, None]), np.intp)
