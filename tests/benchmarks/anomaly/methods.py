"""Ours with its ablations, and what anybody would try first. Each fits on normal rows alone.

Dimension legend: n rows, c channels, w rows of a window, d features, g segments.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from limpet.contracts.manifest import SignalPreprocessing
from limpet.contracts.signal_preprocessor import SignalPreprocessor
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.model import AnomalyScorer, load_scorer
from limpet.training.anomaly.pseudo import Reconstructor
from limpet.training.anomaly.train import train_anomaly

Values = NDArray[np.float64]
Scores = NDArray[np.float32]

WINDOW = 32
NEIGHBOURS = 3
MOST_WINDOWS = 8192
CALL_FRAMES = 1024
QUANTILE = 0.99
CONSTANT_SCALE = 1e-5
"""Unit of a channel that is constant in training: its first move is as strange as can be, which is
what makes the raw-window kNN strongest on SMAP (0.34 instead of 0.28 with a unit of 1)."""

TRAINED = {
    "ours": AnomalyConfig(),
    "ours, random injection instead of stage 1": AnomalyConfig(negatives="random"),
    "ours, untrained encoder": AnomalyConfig(steps=1, learning_rate=1e-12),
    "ours, positives by perturbed weights": AnomalyConfig(positives="weights"),
    "ours, stage 1 alone": AnomalyConfig(negatives="pseudo"),
}
"""What is trained: ours and its ablations."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What one fit says of the parts that it was asked to score.

    Attributes:
        scores: By name of a variant, the scores of each part; NaN while warming up. (n,) each
        threshold: The calibrated one; NaN where there is none.
        seconds: Time to fit and score.
        on_target: Share of stage 1's errors within 10 % of their target; NaN without stage 1.
    """

    scores: dict[str, list[Scores]]
    threshold: float
    seconds: float
    on_target: float = float("nan")


def train_and_score(
    train: Values | list[Values], rate_hz: float, parts: list[Values], config: AnomalyConfig
) -> Fit:
    """Trains as `limpet train anomaly` does, and scores each part as a stream of its own.

    Beside the whole score come those of the encoder's bank and of the moments' banks alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "train.npz"
        # One segment, or several of equal length in three dimensions.
        np.savez(data, x=np.asarray(train))
        report = train_anomaly(data, Path(folder) / "run", config, key="x", rate_hz=rate_hz)
        scorer, record = load_scorer(Path(folder) / "run")
        figures = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    assert isinstance(record.preprocessing, SignalPreprocessing)
    scores: dict[str, list[Scores]] = {"": [], ", encoder alone": [], ", without encoder": []}
    for part in parts:
        preprocessor = SignalPreprocessor(record.preprocessing.steps, part.shape[1])
        views = _views(scorer, preprocessor, part)
        scores[""].append(views.sum(0))
        scores[", encoder alone"].append(views[0])
        scores[", without encoder"].append(views[1:].sum(0))
    shares = [json.loads(line).get("pseudo_on_target") for line in figures]
    known = [share for share in shares if share is not None and np.isfinite(share)]
    return Fit(
        scores,
        report.calibration.threshold,
        report.seconds,
        float(np.mean(known)) if known else float("nan"),
    )


@torch.no_grad()
def _views(
    scorer: AnomalyScorer, preprocessor: SignalPreprocessor, values: Values
) -> NDArray[np.float32]:
    """What each bank says of each row, NaN while warming up. (3, n)"""
    prepared = preprocessor.push(values)
    state, found = torch.zeros(1, scorer.state_size), []
    for start in range(0, len(prepared.frames), CALL_FRAMES):
        here = slice(start, start + CALL_FRAMES)
        samples = torch.from_numpy(prepared.frames[here])[None]
        present = torch.from_numpy(prepared.present[here])[None]
        views, state = scorer.views(samples, present, state)
        found.append(scorer.strangeness(views)[:, 0].numpy())
    frames = np.concatenate(found, axis=1)
    return np.stack([prepared.row_scores(frame, float("nan")) for frame in frames])


def windows_of(values: Values, mean: Values, scale: Values, w: int) -> NDArray[np.float32]:
    """Standardised windows that end with each row from the w-th on. (n - w + 1, w · c)"""
    x = ((values - mean) / scale).astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(x, w, axis=0)  # (n - w + 1, c, w)
    return np.ascontiguousarray(views.transpose(0, 2, 1)).reshape(len(views), -1)


Scorer = Callable[[NDArray[np.float32]], NDArray[np.floating]]


def raw_knn(windows: NDArray[np.float32], seed: int) -> Scorer:
    """Mean distance to the nearest training windows."""
    model = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(windows)
    return lambda x: np.concatenate(
        [model.kneighbors(part)[0].mean(1) for part in np.array_split(x, len(x) // 2048 + 1)]
    )


def pca(windows: NDArray[np.float32], seed: int) -> Scorer:
    """T² within the main components (90 % of the variance) and Q outside, each by its quantile."""
    model = PCA(0.9, svd_solver="full").fit(windows)

    def parts(x: NDArray[np.float32]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        z = model.transform(x)
        t2 = (z**2 / np.maximum(model.explained_variance_, 1e-9)).sum(1)
        return t2, ((x - model.inverse_transform(z)) ** 2).sum(1)

    t2_limit, q_limit = (max(float(np.quantile(p, QUANTILE)), 1e-9) for p in parts(windows))

    def score(x: NDArray[np.float32]) -> NDArray[np.floating]:
        t2, q = parts(x)
        return t2 / t2_limit + q / q_limit

    return score


def isolation_forest(windows: NDArray[np.float32], seed: int) -> Scorer:
    """100 trees on the windows."""
    model = IsolationForest(random_state=seed).fit(windows)
    return lambda x: -model.score_samples(x)


def reconstruction(windows: NDArray[np.float32], seed: int) -> Scorer:
    """Mean absolute error of an autoencoder of stage 1's size, fitted as long as it."""
    torch.manual_seed(seed)
    model = Reconstructor(1, windows.shape[1])
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        batch = torch.from_numpy(windows[rng.integers(0, len(windows), 64)])[:, None]
        loss = torch.nn.functional.smooth_l1_loss(model(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    @torch.no_grad()
    def score(x: NDArray[np.float32]) -> NDArray[np.floating]:
        parts = torch.split(torch.from_numpy(x)[:, None], 4096)
        return np.concatenate([(model(p) - p).abs().mean((1, 2)).numpy() for p in parts])

    return score


BASELINES: dict[str, Callable[[NDArray[np.float32], int], Scorer]] = {
    "raw-window kNN": raw_knn,
    "PCA, T² + Q": pca,
    "reconstruction error": reconstruction,
    "isolation forest": isolation_forest,
}


def fit_baseline(
    name: str, train: Values | list[Values], parts: list[Values], seed: int, w: int = WINDOW
) -> Fit:
    """Fits a baseline on standardised windows; its threshold is a quantile of what it was fitted on
    last, a quarter of the training rows.
    """
    pieces = list(train) if not isinstance(train, np.ndarray) or train.ndim == 3 else [train]
    rows = np.concatenate(pieces)
    mean, scale = rows.mean(0), rows.std(0)
    constant = scale <= 1e-9 * np.maximum(np.abs(mean), 1.0)
    scale = np.where(constant, CONSTANT_SCALE, scale)
    w = min(w, min(map(len, pieces)))
    windows = np.concatenate([windows_of(piece, mean, scale, w) for piece in pieces])
    cut = round(0.75 * len(windows))
    step = max(1, len(windows) // MOST_WINDOWS)
    score = BASELINES[name](windows[::step], seed)
    threshold = float(
        np.quantile(BASELINES[name](windows[:cut:step], seed)(windows[cut:]), QUANTILE)
    )
    found = []
    for part in parts:
        scores = score(windows_of(part, mean, scale, w))
        found.append(np.concatenate([np.full(w - 1, np.nan), scores]).astype(np.float32))
    return Fit({"": found}, threshold, float("nan"))
