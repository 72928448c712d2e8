"""Stage 1: windows just beyond normal, by per-feature control of a reconstruction error.

Dimension legend: b windows, w frames of a window, f features.

A reconstruction model learns normal windows; q_j is the error of feature j that few normal windows
exceed. A pseudo-anomaly is a normal window moved in an anomalous direction, and then drawn towards
or away from its own reconstruction until each feature's error reaches its target q_j (1 + δ) with a
small δ: a negative near the boundary of normal, where random ones are rarely found. Discrete
features have no such direction: a chosen share of their values is flipped to others of the same
feature. Source: TPA-AD (arXiv 2606.04073, abstract); search and flips are our re-implementation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limpet.contracts.signals import Float32
from limpet.training.anomaly.injection import inject

NORMAL_QUANTILE = 0.99
"""Share of normal windows whose error of a feature is below q_j."""
LEAST_ERROR = 0.02
"""q_j is at least so large, in standard deviations: a feature that never moves has no errors."""
SEARCH_STEPS = 16
TOLERANCE = 0.1
"""Achieved error counts as on target within this share of it."""
FIT_STEPS, FIT_BATCH, FIT_RATE = 300, 64, 3e-3
HELD_BACK = 0.2
"""Last part of the windows to fit that only measures q_j."""


class Reconstructor(nn.Module):
    """A small autoencoder of whole windows.

    Args:
        frames: Frames w of a window.
        features: Features f.
        hidden: Hidden units.
        bottleneck: Numbers that a window has to pass through.
    """

    def __init__(self, frames: int, features: int, hidden: int = 96, bottleneck: int = 12) -> None:
        super().__init__()
        size = frames * features
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(size, hidden),
            nn.GELU(),
            nn.Linear(hidden, min(bottleneck, max(1, size // 2))),
            nn.Linear(min(bottleneck, max(1, size // 2)), hidden),
            nn.GELU(),
            nn.Linear(hidden, size),
            nn.Unflatten(1, (frames, features)),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Reconstructs windows. (b, w, f)"""
        return torch.as_tensor(self.layers(windows))

    def errors(self, windows: Tensor) -> Tensor:
        """Mean absolute error of each feature. (b, w, f) → (b, f)"""
        return torch.as_tensor((self(windows) - windows).abs().mean(1))


@dataclass(frozen=True)
class Achieved:
    """Targets of one batch and what came of them, over moved features.

    Attributes:
        targets: q_j (1 + δ). (n,)
        errors: What the moved windows have. (n,)
    """

    targets: NDArray[np.float32]
    errors: NDArray[np.float32]

    @property
    def on_target(self) -> float:
        """Share within `TOLERANCE` of its target."""
        if not len(self.targets):
            return float("nan")
        return float((np.abs(self.errors / self.targets - 1.0) <= TOLERANCE).mean())


class PseudoAnomalies:
    """Makes pseudo-anomalous windows.

    Args:
        windows: Normal windows in order of time, to fit the reconstruction on. (m, w, f)
        discrete: Values of the features that take few, by number.
        clip: Limit of prepared values.
        seed: Of weights and batches.
    """

    def __init__(
        self, windows: Float32, discrete: dict[int, Float32], clip: float, seed: int
    ) -> None:
        self._windows, self._discrete, self._clip = windows, discrete, clip
        _, w, f = windows.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = Reconstructor(w, f)
        cut = max(1, round(len(windows) * (1.0 - HELD_BACK)))
        self._fit(windows[:cut], seed)
        with torch.no_grad():
            errors = self._model.errors(torch.from_numpy(windows[min(cut, len(windows) - 1) :]))
            self.normal_errors = torch.quantile(errors, NORMAL_QUANTILE, dim=0).clamp_min(
                LEAST_ERROR
            )
            """q_j. (f,)"""
        self._continuous = torch.tensor([j not in discrete for j in range(f)])

    def _fit(self, windows: Float32, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=FIT_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FIT_STEPS)
        for _ in range(FIT_STEPS):
            batch = torch.from_numpy(windows[rng.integers(0, len(windows), FIT_BATCH)])
            loss = nn.functional.smooth_l1_loss(self._model(batch), batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        self._model.eval()

    def make(
        self, normal: Float32, rng: np.random.Generator, nearest: float, farthest: float
    ) -> tuple[Float32, Achieved]:
        """Moves normal windows just beyond normal.

        Args:
            normal: Windows. (b, w, f)
            rng: All randomness comes from here.
            nearest: Smallest δ.
            farthest: Largest δ, drawn log-uniformly for each window.

        Returns:
            New windows (b, w, f), and how well targets were met.
        """
        b = len(normal)
        moved = inject(normal, self._windows, rng, weakest=2.0, strongest=4.0)
        delta = np.exp(rng.uniform(np.log(nearest), np.log(farthest), (b, 1)))
        target = self.normal_errors * (1.0 + torch.from_numpy(delta).float())  # (b, f)
        touched = np.abs(moved - normal) > 1e-6
        continuous = self._continuous.numpy()
        start = np.where(continuous, moved, self._flip(normal, touched, rng))
        moves = torch.from_numpy(touched.any(axis=1) & continuous)  # (b, f)
        windows, errors = self._search(torch.from_numpy(start), target, moves)
        return windows.numpy(), Achieved(target[moves].numpy(), errors[moves].numpy())

    @torch.no_grad()
    def _search(self, windows: Tensor, target: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
        """Windows whose moving features' errors meet their targets, and these errors (b, f).

        A feature's residual, the part that the reconstruction does not explain, is scaled by target
        over error. The reconstruction follows a little, so this is repeated; of each window the
        step with the most features on target is kept.
        """
        best, best_errors = windows, target
        most = torch.full((len(windows), 1), -1.0)
        for _ in range(SEARCH_STEPS):
            windows = windows.clamp(-self._clip, self._clip)
            reconstructed = self._model(windows)
            errors = (reconstructed - windows).abs().mean(1)
            gaps = (errors / target - 1.0).abs()
            count = ((gaps <= TOLERANCE) & moves).sum(1, keepdim=True).float()
            better = count > most
            best = torch.where(better[:, None], windows, best)
            best_errors = torch.where(better, errors, best_errors)
            most = torch.where(better, count, most)
            share = (target / errors.clamp_min(1e-6)).clamp(0.5, 2.0)[:, None]
            scaled = reconstructed + share * (windows - reconstructed)
            windows = torch.where(moves[:, None], scaled, windows)
        return best, best_errors

    def _flip(
        self, normal: Float32, touched: NDArray[np.bool_], rng: np.random.Generator
    ) -> Float32:
        """Sets values of touched discrete features to others of theirs, one row at least."""
        flipped: Float32 = normal.copy()
        for feature, values in self._discrete.items():
            for window in np.flatnonzero(touched[:, :, feature].any(axis=1)):
                rows = np.flatnonzero(touched[window, :, feature])
                first = rows[0]
                count = int(rng.integers(1, len(normal[window]) - first + 1))
                current = normal[window, first : first + count, feature]
                shift = rng.integers(1, len(values))
                index = (np.abs(values[:, None] - current).argmin(0) + shift) % len(values)
                flipped[window, first : first + count, feature] = values[index]
        return flipped
