"""Running moments against those computed directly."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from limpet.training.anomaly.encoder import History
from limpet.training.anomaly.moments import Moments
from tests.training.anomaly.streams import (
    FEATURES,
    absences,
    frames,
)


def moments_directly(
    samples: NDArray[np.float64], present: NDArray[np.float64], w: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of what was measured in the last w frames, times √w, and their weight."""
    views, weights = [], []
    for t in range(len(samples)):
        here = slice(max(0, t - w + 1), t + 1)
        means, deviations, enough = [], [], []
        for feature in range(samples.shape[1]):
            values = samples[here, feature][present[here, feature] > 0]
            means.append(values.mean() if len(values) else 0.0)
            spread = values.std() if len(values) else 0.0
            deviations.append(np.sqrt(spread**2 + 1e-6))
            enough.append(float(2 * len(values) >= w))
        views.append(np.array([*means, *deviations]) * np.sqrt(w))
        weights.append([*enough, *enough])
    return np.array(views), np.array(weights)


@given(seed=st.integers(0, 2**16), size=st.integers(1, 30))
@settings(max_examples=20)
@torch.no_grad()
def test_moments_are_those_of_the_measured_values_of_the_last_frames(seed: int, size: int) -> None:
    moments = Moments(FEATURES, (2, 4))
    samples, present = absences(frames(2, 60, seed), seed)
    state, found = torch.zeros(2, moments.state_size), []
    for start in range(0, 60, size):
        here, history = slice(start, start + size), History(state)
        found.append(moments(samples[:, here], present[:, here], history))
        state = history.next()
    for scale, w in enumerate((4, 16)):
        view, weight = (torch.cat([part[i][scale] for part in found], 1) for i in range(2))
        for stream in range(2):
            wanted = moments_directly(
                samples[stream].double().numpy(), present[stream].double().numpy(), w
            )
            np.testing.assert_allclose(view[stream], wanted[0], atol=1e-3)
            np.testing.assert_array_equal(weight[stream], wanted[1])
