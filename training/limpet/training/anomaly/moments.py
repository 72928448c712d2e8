"""What running means and deviations say of frames, and what features usually do together.

Dimension legend: b streams, t frames of a call, f features, d dimensions of a view, n scales.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limpet.training.anomaly.encoder import History


class Whitening(nn.Module):
    """Makes normal deviations of a view equally large in every direction, and uncorrelated.

    What features usually do together is no deviation, and a small one against it is a large one, as
    Mahalanobis' distance has it. Absent dimensions are estimated from the measured ones, so that a
    dead sensor breaks no correlation.

    Args:
        width: Dimensions d of the view.
    """

    mean: Tensor
    estimate: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("estimate", torch.zeros(width, width))
        self.register_buffer("matrix", torch.eye(width))

    def forward(self, view: Tensor, measured: Tensor) -> Tensor:
        """Whitens frames.

        Args:
            view: (b, t, d)
            measured: 1 for dimensions that were measured, else 0. (b, t, d)

        Returns:
            (b, t, d)
        """
        return whitened(view, measured, self.mean, self.estimate, self.matrix)


def whitened(
    view: Tensor, measured: Tensor, mean: Tensor, estimate: Tensor, matrix: Tensor
) -> Tensor:
    """What `Whitening` makes of frames; of several views with an axis before all others."""
    known, absent = measured * (view - mean), 1.0 - measured
    x = known
    for _ in range(2):  # the second round is for sensors that died together
        x = known + absent * (x @ estimate)
    return x @ matrix


class Relations(Whitening):
    """What each feature deviates from what the others say of it, in units of normal deviations.

    Where few rows train, windows are few, but single rows tell how features go together. What
    breaks such a relation is large in its own unit, however small beside what all features do
    together, and a correlation that is lost shows in the spread of one of these deviations. Until
    they are fitted, features pass unchanged.
    """

    def forward(self, view: Tensor, measured: Tensor) -> Tensor:
        """As `Whitening`, but 0 where the feature itself is absent. (…, f), (…, f) → (…, f)"""
        return measured * super().forward(view, measured)


class Moments(nn.Module):
    """Mean and standard deviation of each feature over the last frames, at two scales.

    Sums over 2, 4, 8, … frames come from one another by a single addition each, so a long window
    costs no more than its logarithm. They see a small lasting shift, which drowns in single frames:
    averaged over w frames noise shrinks by their root, so both are multiplied by it.

    Args:
        features: Features f of a frame.
        doublings: Logarithms to base 2 of the numbers of frames, ascending.
    """

    def __init__(self, features: int, doublings: tuple[int, ...]) -> None:
        super().__init__()
        self.features, self.doublings = features, doublings
        self.state_size = 3 * features * (2 ** doublings[-1] - 1)

    def forward(self, samples: Tensor, present: Tensor, history: History) -> tuple[Tensor, Tensor]:
        """Moments at each scale.

        Returns:
            Mean and deviation (n, b, t, 2f), and 1 where at least half of the frames were measured,
            else 0 (n, b, t, 2f).
        """
        sums = torch.cat([samples, samples * samples, present], 2)  # (b, t, 3f)
        found = []
        for doubling in range(self.doublings[-1]):
            step = 2**doubling
            sums = sums + history.join(sums, step)[:, :-step]
            if doubling + 1 in self.doublings:
                found.append(sums)
        frames = sums.new_tensor([2**doubling for doubling in self.doublings])[:, None, None, None]
        total, squares, count = torch.split(torch.stack(found), self.features, 3)
        measured = count.clamp_min(1.0)
        mean = total / measured
        deviation = (squares / measured - mean * mean).clamp_min(0.0).add(1e-6).sqrt()
        enough = (count >= 0.5 * frames).to(sums.dtype)
        return torch.cat([mean, deviation], 3) * frames.sqrt(), torch.cat([enough, enough], 3)
