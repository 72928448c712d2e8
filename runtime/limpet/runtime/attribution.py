"""Which channels made a window anomalous, by occlusion: works with any model that scores.

Each channel in turn is replaced by its normal level (0 after preprocessing); its part is how much
the score falls (Zeiler and Fergus 2014, section 4.2, along channels instead of image patches).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from limpet.contracts.messages import ChannelShare
from limpet.contracts.signals import Float32

LARGEST = 8
"""Channels that an alert names at most."""
_AT_ONCE = 64
"""Channels occluded in one call: a window of thousands is large, and each channel takes a copy."""


def attribute_channels(
    window: Float32, channels: Sequence[str], score_windows: Callable[[Float32], Float32]
) -> list[ChannelShare]:
    """Ranks channels by their part in a window's score.

    Args:
        window: A prepared window. (w, c)
        channels: Their names. (c,)
        score_windows: Scores of prepared windows (m, w, c) → (m,).

    Returns:
        The `LARGEST` channels, largest share first. Where no channel's removal lowers the score,
        shares follow the channels' mean distance from normal instead.
    """
    whole = score_windows(window[None])  # (1,)
    parts = np.empty(len(channels), np.float32)
    for start in range(0, len(channels), _AT_ONCE):
        some = np.arange(start, min(start + _AT_ONCE, len(channels)))  # (k,)
        occluded = np.repeat(window[None], len(some), axis=0)  # (k, w, c)
        occluded[some - start, :, some] = 0.0
        parts[some] = np.maximum(whole - score_windows(occluded), 0.0)
    if not parts.sum() > 0.0:
        parts = np.abs(window).mean(axis=0)
    total = float(parts.sum())
    order = np.argsort(-parts, kind="stable")[:LARGEST]
    return [
        ChannelShare(channels[i], float(parts[i]) / total if total > 0 else 1 / len(channels))
        for i in order
    ]
