"""The anomaly model: encoder, moments, and kNN against normal frames of both, in one graph.

Dimension legend: b streams, t frames of a call, f features, d dimensions of a view, e embedding,
s state, k bank frames, n scales.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from limpet.contracts.errors import DataError
from limpet.contracts.manifest import SignalPreprocessing
from limpet.training.anomaly.config import AnomalyConfig, look_back_frames
from limpet.training.anomaly.encoder import CausalEncoder, History
from limpet.training.anomaly.moments import Moments, Relations, Whitening, whitened
from limpet.training.run import WEIGHTS, RunFolder, RunRecord

LEAST_SCALE = 1e-4
"""Normal distances count as at least so large: on a perfectly regular stream, rounding is not."""

_ROWS = 8
"""Rows of the table in `smallest`: more make its first step shorter and its second longer."""


def smallest(x: Tensor, count: int) -> Tensor:
    """The `count` smallest values along the last axis, ascending. (…, k) → (…, count)

    They lie in the columns with the smallest minima, if the values are put into a table: minima are
    quick to find, and of the rest a selection sees little.
    """
    columns = -(-x.shape[-1] // _ROWS)
    if columns <= count:
        return x.topk(count, largest=False).values
    if padding := columns * _ROWS - x.shape[-1]:
        x = functional.pad(x, (0, padding), value=torch.inf)
    table = x.reshape(*x.shape[:-1], _ROWS, columns)
    best = table.amin(-2).topk(count, largest=False).indices  # (…, count)
    few = table.gather(-1, best.unsqueeze(-2).expand(*best.shape[:-1], _ROWS, count))
    return torch.as_tensor(few.flatten(-2).topk(count, largest=False).values)


class Bank(nn.Module):
    """Normal frames in one view, and how far a new frame lies from them.

    Args:
        size: Number k of frames.
        width: Dimensions d of the view.
        neighbours: Nearest frames to average.
        whitens: Whether frames are compared once whitened.
    """

    members: Tensor
    scale: Tensor

    def __init__(self, size: int, width: int, neighbours: int, *, whitens: bool) -> None:
        super().__init__()
        self.neighbours = min(neighbours, size)
        self.whitening = Whitening(width) if whitens else None
        self.register_buffer("members", torch.zeros(size, width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, view: Tensor, measured: Tensor) -> Tensor:
        """How strange frames are. (b, t, d), measured as in `Whitening`: at least 0. (b, t)"""
        return strangeness(self.distance(self.compared(view, measured)), self.scale)

    def compared(self, view: Tensor, measured: Tensor) -> Tensor:
        """What distances are taken of. (b, t, d)"""
        return view if self.whitening is None else self.whitening(view, measured)

    def distance(self, compared: Tensor) -> Tensor:
        """Mean over the nearest frames of the mean squared distance per dimension. (b, t)"""
        return nearest_distance(compared, self.members, self.neighbours)


def strangeness(distance: Tensor, scale: Tensor) -> Tensor:
    """log(1 + d / scale) of the mean squared distance d per dimension.

    Far from anything known the logarithm grows slowly, and no square root and no division by a
    small number makes it jump.
    """
    return torch.log1p(distance / scale)


def nearest_distance(compared: Tensor, members: Tensor, neighbours: int) -> Tensor:
    """Mean over the nearest members of the mean squared distance per dimension.

    Args:
        compared: (…, d); with several banks (n, m, d).
        members: (k, d), (n, k, d)
        neighbours: How many are nearest.

    Returns:
        (…), (n, m)
    """
    # Of |v - m|² = |v|² - 2 v·m + |m|² the first part is the same for all members: only the nearest
    # get it. A one behind v lets one product give the rest; (…, k) is by far the largest here.
    ones_behind = functional.pad(compared, (0, 1), value=1.0)
    squares = members.square().sum(-1)[..., None, :]
    rest = ones_behind @ torch.cat([-2.0 * members.transpose(-2, -1), squares], -2)
    nearest = smallest(rest, neighbours)  # (…, neighbours)
    squared = ((compared * compared).sum(-1, keepdim=True) + nearest).clamp_min(0.0)
    return squared.mean(-1) / compared.shape[-1]


View = tuple[Tensor, Tensor]
"""What a bank judges (b, t, d), and 1 for dimensions of it that were measured, else 0 (b, t, d)."""


class AnomalyScorer(nn.Module):
    """Encoder, memory and score in one graph.

    The score is the sum of what three banks of normal frames find strange in what each feature
    deviates from the others (`Relations`): in the embedding, which sees shapes, and in whitened
    `Moments` at two scales, which see levels, noise and how they go together.

    Args:
        features: Features f of a frame.
        blocks: Residual blocks of the encoder.
        width: Hidden channels.
        embedding: Size e of an embedding.
        bank_frames: Number k of frames in each bank.
        neighbours: Nearest of them to average.
    """

    def __init__(
        self,
        features: int,
        *,
        blocks: int,
        width: int,
        embedding: int,
        bank_frames: int,
        neighbours: int,
    ) -> None:
        super().__init__()
        self.encoder = CausalEncoder(features, blocks, width, embedding)
        self.relations = Relations(features)
        self.moments = Moments(features, (max(1, blocks - 1), blocks + 1))
        self.embedding_bank = Bank(bank_frames, embedding, neighbours, whitens=False)
        self.moment_banks = nn.ModuleList(
            Bank(bank_frames, 2 * features, neighbours, whitens=True)
            for _ in self.moments.doublings
        )
        self.look_back_frames = look_back_frames(blocks)
        self.state_size = self.encoder.state_size + self.moments.state_size

    def forward(
        self, samples: Tensor, present: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeds and scores the next frames of streams.

        Args:
            samples: Prepared frames, 0 where absent. (b, t, f)
            present: 1 where measured, else 0. (b, t, f)
            state: Zeros where a stream begins. (b, s)

        Returns:
            Embeddings (b, t, e), scores (b, t), at least 0, higher is stranger, and the new state
            (b, s).
        """
        embedding, moments, measured, state = self._look(samples, present, state)
        score = self.embedding_bank(embedding, torch.ones_like(embedding))
        return embedding, score + self._judge_moments(moments, measured).sum(0), state

    def views(self, samples: Tensor, present: Tensor, state: Tensor) -> tuple[list[View], Tensor]:
        """What each bank judges, in the order of `banks`, and the new state."""
        embedding, moments, measured, state = self._look(samples, present, state)
        of_moments = zip(moments, measured, strict=True)
        return [(embedding, torch.ones_like(embedding)), *of_moments], state

    def strangeness(self, views: list[View]) -> Tensor:
        """What each bank says of its view; their sum is the score. (banks, b, t)"""
        embedding, *of_moments = views
        moments, measured = (torch.stack(each) for each in zip(*of_moments, strict=True))
        judged = self._judge_moments(moments, measured)
        return torch.cat([self.embedding_bank(*embedding)[None], judged])

    def _look(
        self, samples: Tensor, present: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embeddings (b, t, e), what `Moments` gives, and the new state."""
        history = History(state)
        apart = self.relations(samples, present)
        embedding = self.encoder(apart, present, history)
        moments, measured = self.moments(apart, present, history)
        return embedding, moments, measured, history.next()

    def _judge_moments(self, moments: Tensor, measured: Tensor) -> Tensor:
        """What the banks of the moments say, together: products of one size side by side.

        Args:
            moments: (n, b, t, 2f)
            measured: (n, b, t, 2f)

        Returns:
            (n, b, t)
        """
        banks = self.banks[1:]
        whitenings = [bank.whitening for bank in banks if bank.whitening is not None]
        compared = whitened(
            moments.flatten(1, 2),  # (n, b · t, 2f)
            measured.flatten(1, 2),
            torch.stack([each.mean for each in whitenings])[:, None],
            torch.stack([each.estimate for each in whitenings]),
            torch.stack([each.matrix for each in whitenings]),
        )
        members = torch.stack([bank.members for bank in banks])
        distance = nearest_distance(compared, members, banks[0].neighbours)  # (n, b · t)
        scales = torch.stack([bank.scale for bank in banks])[:, None]
        return strangeness(distance, scales).reshape(moments.shape[:3])

    @property
    def banks(self) -> list[Bank]:
        """All banks, the embedding's first."""
        return [
            self.embedding_bank,
            *(bank for bank in self.moment_banks if isinstance(bank, Bank)),
        ]


def build_scorer(config: AnomalyConfig, features: int, blocks: int, bank: int) -> AnomalyScorer:
    """A scorer with fresh weights, drawn from the configuration's seed, and empty banks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return AnomalyScorer(
            features,
            blocks=blocks,
            width=config.width,
            embedding=config.embedding,
            bank_frames=bank,
            neighbours=config.neighbours,
        )


def load_scorer(run_folder: Path | str) -> tuple[AnomalyScorer, RunRecord]:
    """Loads a finished run's scorer, in evaluation mode on the CPU, and its record.

    Raises:
        DataError: No finished RUN of an anomaly encoder, or damaged weights.
    """
    folder = RunFolder(Path(run_folder))
    record = folder.read_complete()
    if record.kind != "anomaly" or not isinstance(record.preprocessing, SignalPreprocessing):
        raise DataError(f"{folder.path} is a run of kind {record.kind!r}, wanted 'anomaly'")
    weights = folder.path / WEIGHTS
    try:
        config = msgspec.convert(record.config, AnomalyConfig)
        tensors = load_file(weights)
        blocks = sum(name.endswith("convolve.weight") for name in tensors)
        features = tensors["encoder.stem.weight"].shape[1] // 2
        bank = len(tensors["embedding_bank.members"])
        scorer = build_scorer(config, features, blocks, bank)
        scorer.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, RuntimeError, msgspec.ValidationError) as error:
        raise DataError(f"{weights} does not fit its run: {error}", "train again") from error
    return scorer.eval(), record
