"""The anomaly model: a causal convolutional encoder, and kNN against normal windows in the graph.

Dimension legend: b batch, w rows of a window, c channels, h hidden channels, t rows inside the
encoder, e embedding, k bank windows.
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
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.run import WEIGHTS, RunFolder, RunRecord


class CausalEncoder(nn.Module):
    """Residual stack of causal convolutions of dilation 1, 2, 4, …, read out at the last row.

    Only the last row's output is wanted, so each block computes just the rows which that one
    depends on: every second of the block before, counted from the end. This is the dilated
    network's value at the last row, at a cost that halves from block to block.

    Args:
        channels: Channels c of a window.
        window_rows: Rows w of a window; the blocks see all of it.
        width: Hidden channels h.
        embedding: Size e of the output.
    """

    def __init__(self, channels: int, window_rows: int, width: int, embedding: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(channels, width, 3)
        blocks = max(1, (window_rows - 1).bit_length())
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, embedding)

    def forward(self, window: Tensor) -> Tensor:
        """Embeds windows.

        Args:
            window: Oldest row first. (b, w, c)

        Returns:
            Unit vectors. (b, e)
        """
        x = self.stem(functional.pad(window.transpose(1, 2), (2, 0)))  # (b, h, w)
        for block in self.blocks:
            x = block(x)
        x = self.head(functional.gelu(x[:, :, -1]))  # (b, e)
        # Not functional.normalize: its 1e-12 is zero in half precision.
        return torch.as_tensor(x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-6))


class _Block(nn.Module):
    """One residual convolution, at every second row counted from the last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(width, width, 3, stride=2)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x_bht: Tensor) -> Tensor:
        odd = x_bht.shape[2] % 2
        past = functional.pad(x_bht, (1 + odd, 0))  # odd length: the last row is a kernel's last
        return torch.as_tensor(
            x_bht[:, :, 1 - odd :: 2] + self.mix(functional.gelu(self.convolve(past)))
        )


VIEWS = ("embedding", "window", "moments")
"""What of a window is compared with the bank: see `AnomalyScorer`."""
LEAST_SCALE = 1e-4
"""Normal distances count as at least so large: on a perfectly regular stream, rounding is not."""


class AnomalyScorer(nn.Module):
    """Encoder and score in one graph.

    score = sum over three views of log(1 + d / s), where d is the mean squared distance to the
    nearest bank members and s what normal windows reach in nine cases of ten.

    - `embedding` sees shape and what channels do together. On the unit sphere distance is bounded.
    - `window` is the window itself, so that a large deviation's score keeps growing.
    - `moments` are each channel's mean and standard deviation over the window. A small lasting
      shift drowns in the other views: by one standard deviation in one of eight channels it
      changes the windows' distance by less than noise does.

    Far from anything known, no square root and no division by a small number makes the score jump.

    Args:
        encoder: The encoder, e outputs.
        bank_windows: Number k of windows in the bank.
        window_rows: Rows w of a window.
        channels: Channels c.
        embedding: Size e of an embedding.
        neighbours: Nearest bank members to average.
    """

    def __init__(
        self,
        encoder: CausalEncoder,
        *,
        bank_windows: int,
        window_rows: int,
        channels: int,
        embedding: int,
        neighbours: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.neighbours = min(neighbours, bank_windows)
        sizes = {"embedding": embedding, "window": window_rows * channels, "moments": 2 * channels}
        for view in VIEWS:
            self.register_buffer(f"bank_{view}", torch.zeros(bank_windows, sizes[view]))
            self.register_buffer(f"scale_{view}", torch.ones(()))

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds and scores windows.

        Args:
            window: Prepared windows, oldest row first. (b, w, c)

        Returns:
            Unit embeddings (b, e) and scores (b,), at least 0; higher is stranger.
        """
        views = self.views(window)
        scores = [
            torch.log1p(self.distance(view, values) / self.get_buffer(f"scale_{view}"))
            for view, values in views.items()
        ]
        return views["embedding"], torch.stack(scores).sum(0)

    def views(self, window: Tensor) -> dict[str, Tensor]:
        """What of windows is compared, by the names of `VIEWS`. (b, w, c) → (b, …)"""
        mean = window.mean(1)  # (b, c)
        deviation = (window - mean[:, None]).square().mean(1).add(1e-6).sqrt()  # (b, c)
        # Averaged over w rows noise shrinks by their root: so it has unit size again.
        root = float(window.shape[1]) ** 0.5
        return {
            "embedding": self.encoder(window),
            "window": window.flatten(1),
            "moments": torch.cat([mean, deviation], 1) * root,
        }

    def distance(self, view: str, values: Tensor) -> Tensor:
        """Mean squared distance to the nearest of the bank in one view, per dimension. (b,)"""
        bank = self.get_buffer(f"bank_{view}")
        return _nearest(squared_distances(values, bank), self.neighbours) / bank.shape[1]

    @torch.no_grad()
    def fill_bank(
        self, bank: Tensor, probes: Tensor, near: Tensor, scale_quantile: float = 0.9
    ) -> None:
        """Sets the bank and the scales of the score.

        Args:
            bank: Normal windows. (k, w, c)
            probes: Other normal windows. (p, w, c)
            near: Which bank members a probe overlaps in time: those tell nothing about how far
                a new normal window is. (p, k)
            scale_quantile: Share of the probes that lie within one scale.
        """
        probed = self.views(probes)
        for view, members in self.views(bank).items():
            self.get_buffer(f"bank_{view}").copy_(members)
            distances = squared_distances(probed[view], members)
            apart = distances.masked_fill(near, float("inf"))
            usable = torch.isfinite(apart).sum(1) >= self.neighbours
            distances = apart[usable] if bool(usable.any()) else distances
            reached = _nearest(distances, self.neighbours).quantile(scale_quantile)
            least = (reached / members.shape[1]).clamp_min(LEAST_SCALE)
            self.get_buffer(f"scale_{view}").copy_(least)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs, (n, d) and (m, d) → (n, m)."""
    product = a @ b.transpose(0, 1)
    lengths = a.square().sum(1, keepdim=True) + b.square().sum(1)
    return (lengths - 2.0 * product).clamp_min(0.0)


def _nearest(distances: Tensor, neighbours: int) -> Tensor:
    return distances.topk(neighbours, dim=1, largest=False).values.mean(1)


def build_scorer(config: AnomalyConfig, channels: int, bank_windows: int) -> AnomalyScorer:
    """A scorer with fresh weights, drawn from the configuration's seed, and an empty bank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = CausalEncoder(channels, config.window_rows, config.width, config.embedding)
    return AnomalyScorer(
        encoder,
        bank_windows=bank_windows,
        window_rows=config.window_rows,
        channels=channels,
        embedding=config.embedding,
        neighbours=config.neighbours,
    )


def load_scorer(run_folder: Path | str) -> tuple[AnomalyScorer, RunRecord]:
    """Loads a finished run's scorer, in evaluation mode on the CPU, and its record.

    Raises:
        DataError: No finished RUN of an anomaly encoder, or damaged weights.
    """
    folder = RunFolder(Path(run_folder))
    record = folder.read_complete()
    if record.kind != "anomaly" or record.preprocessing is None:
        raise DataError(f"{folder.path} is a run of kind {record.kind!r}, wanted 'anomaly'")
    weights = folder.path / WEIGHTS
    try:
        config = msgspec.convert(record.config, AnomalyConfig)
        tensors = load_file(weights)
        scorer = build_scorer(
            config, len(record.preprocessing.channels), len(tensors["bank_window"])
        )
        scorer.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, RuntimeError, msgspec.ValidationError) as error:
        raise DataError(f"{weights} does not fit its run: {error}", "train again") from error
    return scorer.eval(), record
