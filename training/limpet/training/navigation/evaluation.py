"""What embeddings are worth: whether they are as alike as the geometry, in whatever appearance.

Dimension legend: n poses, k views of each, p poses that are judged, e embedding, B beams.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from limpet.contracts.errors import DataError
from limpet.contracts.images import resize_area
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.frames import Frames, Uint8
from limpet.training.navigation.similarity import Float32, Float64, beam_weights, lidar_similarity

Embed = Callable[[Uint8], Float32]
"""Embeds images, uint8 (n, H, W, 3) → rows of unit length, (n, e)."""

MOST_POSES = 1024
"""Poses that are judged, evenly taken; all pairs of them count."""
AT_ONCE = 64
RIDGE = 1e-3
"""Penalty of the linear probe, as a share of the embeddings' mean square."""
AHEAD_DEG = 20.0
"""Beams this near to straight ahead tell what the robot would drive into."""


class EmbeddingFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How one embedding does.

    Attributes:
        spearman: Rank correlation of embedding with geometric similarity, over all pairs of
            different poses, each pose in another appearance.
        spearman_whole_range: The same with the paper's similarity, where ranges count in full up to
            the LiDAR's largest.
        recall_at_1: Share of the frames whose nearest neighbour among those of another appearance
            is the same pose.
        neighbour_similarity: Mean geometric similarity of that neighbour.
        probe_error_m: Mean absolute error of the ranges in view, cut at `near_m`, as a linear map
            of the embedding tells them, fitted on half of the layouts and judged on the others.
        probe_r2_ahead: Share of the variance of the shortest range ahead that this map explains.
    """

    spearman: float
    spearman_whole_range: float
    recall_at_1: float
    neighbour_similarity: float
    probe_error_m: float
    probe_r2_ahead: float


def embed_frames(embed: Embed, frames: Frames) -> tuple[Float32, NDArray[np.intp]]:
    """Embeddings of the poses that are judged in all views, and which poses those are.

    Returns:
        (p, k, e), (p,)
    """
    number = min(MOST_POSES, len(frames))
    poses = np.linspace(0, len(frames) - 1, number).astype(np.intp)
    embedded = []
    for start in range(0, number, AT_ONCE):
        part = poses[start : start + AT_ONCE]
        for view in range(frames.views):
            embedded.append(embed(frames.take(part, np.full_like(part, view))))
    rows = [np.stack(embedded[i : i + frames.views], axis=1)
            for i in range(0, len(embedded), frames.views)]  # fmt: skip
    return np.concatenate(rows), poses


def figures(
    embedded: Float32, poses: NDArray[np.intp], frames: Frames, config: NavigationConfig
) -> EmbeddingFigures:
    """Judges embeddings.

    Args:
        embedded: Rows of unit length. (p, k, e)
        poses: Which poses they are of. (p,)
        frames: Where those come from.
        config: Of the similarity.

    Raises:
        DataError: There are fewer than four poses.
    """
    if len(poses) < 4:
        raise DataError(f"{frames.name} has {len(poses)} poses, wanted at least 4 to compare")
    scans, weights = frames.lidar[poses], beam_weights(frames.sensor, config)
    near, whole = (
        lidar_similarity(scans, scans, weights, most)
        for most in (config.near_m, frames.sensor.range_m)
    )
    # In a layout every pose has the same appearances in the same order, so two different views
    # never share one; with one view, as recordings have, frames meet in the appearance they have.
    views = [(view, (view + 1) % frames.views) for view in range(frames.views)]
    other = ~np.eye(len(poses), dtype=bool)
    correlations, recalls, neighbours = [], [], []
    for first, second in views:
        cosines = embedded[:, first] @ embedded[:, second].T
        correlations.append(
            [float(spearmanr(cosines[other], truth[other]).statistic) for truth in (near, whole)]
        )
        if frames.views > 1:
            nearest = cosines.argmax(axis=1)
            recalls.append(float((nearest == np.arange(len(poses))).mean()))
        else:
            nearest = np.where(other, cosines, -np.inf).argmax(axis=1)
        neighbours.append(float(near[np.arange(len(poses)), nearest].mean()))
    spearman, spearman_whole = np.mean(correlations, axis=0)
    error, r2 = _probe(embedded, frames.layouts[poses], scans, weights, frames, config)
    return EmbeddingFigures(
        spearman=float(spearman),
        spearman_whole_range=float(spearman_whole),
        recall_at_1=float(np.mean(recalls)) if recalls else float("nan"),
        neighbour_similarity=float(np.mean(neighbours)),
        probe_error_m=error,
        probe_r2_ahead=r2,
    )


def _probe(
    embedded: Float32,
    layouts: NDArray[np.intp],
    scans: Float32,
    weights: Float64,
    frames: Frames,
    config: NavigationConfig,
) -> tuple[float, float]:
    """Error of the ranges in view (m) and R² of the shortest one ahead, by ridge regression."""
    k, e = embedded.shape[1:]
    kept = np.isfinite(scans[:, weights > 0.5]).all(axis=1)
    inside, outside = (np.flatnonzero(kept & (layouts % 2 == odd)) for odd in (0, 1))
    if min(len(inside), len(outside)) == 0:
        return float("nan"), float("nan")
    bearing = np.abs((frames.sensor.angles + np.pi) % (2 * np.pi) - np.pi)
    ranges = np.minimum(scans, config.near_m).astype(np.float64)
    ahead = ranges[:, bearing <= np.radians(AHEAD_DEG)].min(axis=1, keepdims=True)
    wanted = np.concatenate([ranges[:, weights > 0.5], ahead], axis=1)

    def rows(chosen: NDArray[np.intp]) -> tuple[Float64, Float64]:
        x = embedded[chosen].reshape(-1, e).astype(np.float64)
        return np.concatenate([x, np.ones((len(x), 1))], axis=1), wanted[chosen].repeat(k, axis=0)

    x, y = rows(inside)
    penalty = RIDGE * len(x) / e * np.eye(e + 1)
    solution = np.linalg.solve(x.T @ x + penalty, x.T @ y)
    x, y = rows(outside)
    residual = x @ solution - y
    unexplained = float((residual[:, -1] ** 2).mean() / max(y[:, -1].var(), 1e-12))
    return float(np.abs(residual[:, :-1]).mean()), 1.0 - unexplained


def raw_pixels(images: Uint8, side: int = 16) -> Float32:
    """A baseline: small images, each without its mean, as rows of unit length. (n, 3 side²)

    Args:
        images: sRGB. uint8 (n, H, W, 3)
        side: Pixels along each side of a small image.
    """
    small = np.stack([resize_area(image, side, side) for image in images]).reshape(len(images), -1)
    small = small - small.mean(axis=1, keepdims=True)
    length = np.linalg.norm(small, axis=1, keepdims=True)
    return np.asarray(small / np.maximum(length, 1e-6), np.float32)
