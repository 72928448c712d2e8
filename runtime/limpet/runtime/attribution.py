"""Which channels made a row anomalous, by occlusion: works with any model that scores.

Each channel in turn is declared absent, as if its sensor were dead; its part is how much the score
falls (Zeiler and Fergus 2014, section 4.2, along channels instead of image patches).

Dimension legend: l frames that a score looks back on, f features, c channels, k at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from limpet.contracts.messages import ChannelShare
from limpet.contracts.signals import Float32

LARGEST = 8
"""Channels that an alert names at most."""
_AT_ONCE = 64
"""Channels occluded in one call: a long look-back of thousands is large, each takes a copy."""


def attribute_channels(
    frames: Float32,
    present: Float32,
    channels: Sequence[str],
    score: Callable[[Float32, Float32], Float32],
) -> list[ChannelShare]:
    """Ranks channels by their part in the score of the last frame.

    Args:
        frames: What the score looks back on; features are ordered by channel. (l, f)
        present: 1 where a feature was measured. (l, f)
        channels: Their names. (c,)
        score: Scores of the last of frames (k, l, f) and present (k, l, f) → (k,).

    Returns:
        The `LARGEST` channels, largest share first. Where no channel's removal lowers the score,
        shares follow the channels' mean distance from normal instead.
    """
    whole = score(frames[None], present[None])  # (1,)
    channel_of = np.arange(frames.shape[1]) * len(channels) // frames.shape[1]  # (f,)
    parts = np.empty(len(channels), np.float32)
    for start in range(0, len(channels), _AT_ONCE):
        some = np.arange(start, min(start + _AT_ONCE, len(channels)))  # (k,)
        kept = channel_of[None, :] != some[:, None]  # (k, f)
        kept_frames = np.where(kept[:, None, :], frames, np.float32(0.0))
        kept_present = np.where(kept[:, None, :], present, np.float32(0.0))
        parts[some] = np.maximum(whole - score(kept_frames, kept_present), 0.0)
    if not parts.sum() > 0.0:
        distance = np.abs(frames).mean(axis=0)  # (f,)
        parts = np.bincount(channel_of, distance, len(channels)).astype(np.float32)
    total = float(parts.sum())
    order = np.argsort(-parts, kind="stable")[:LARGEST]
    return [
        ChannelShare(channels[i], float(parts[i]) / total if total > 0 else 1 / len(channels))
        for i in order
    ]
