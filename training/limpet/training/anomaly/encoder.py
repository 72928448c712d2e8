"""A causal convolutional encoder that remembers.

Dimension legend: b streams, t frames of a call, f features, h hidden channels, e embedding,
s state.

Each layer keeps just the past that it needs, so a frame costs the same however far the model looks
back, and any chunking of a stream gives the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class History:
    """The model's state, taken apart and put together: what each layer saw last.

    Args:
        state: Zeros where a stream begins. (b, s)
    """

    def __init__(self, state: Tensor) -> None:
        self._state, self._taken = state, 0
        self._next: list[Tensor] = []

    def join(self, x: Tensor, frames: int) -> Tensor:
        """Puts the layer's last frames before these, and keeps the newest for the next call.

        Args:
            x: New frames. (b, t, h)
            frames: How many frames of the past the layer needs.

        Returns:
            (b, frames + t, h)
        """
        size = x.shape[2] * frames
        past = self._state[:, self._taken : self._taken + size]
        self._taken += size
        joined = torch.cat([past.reshape(-1, frames, x.shape[2]), x], 1)
        self._next.append(joined[:, -frames:].flatten(1))
        return joined

    def next(self) -> Tensor:
        """The state after these frames. (b, s)"""
        return torch.cat(self._next, 1)


class CausalEncoder(nn.Module):
    """Residual stack of causal convolutions of dilation 1, 2, 4, …; every scale is read out.

    Args:
        features: Features f of a frame.
        blocks: Residual blocks; block i looks back 2 · 2 ** i frames.
        width: Hidden channels h.
        embedding: Size e of the output.
    """

    def __init__(self, features: int, blocks: int, width: int, embedding: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2 * features, width, 3)
        self.blocks = nn.ModuleList(_Block(width, 2**i) for i in range(blocks))
        self.head = nn.Linear(width * (blocks + 1), embedding)
        self.state_size = 2 * 2 * features + sum(2 * 2**i * width for i in range(blocks))

    def forward(self, samples: Tensor, present: Tensor, history: History) -> Tensor:
        """Embeds frames.

        Args:
            samples: Prepared frames, 0 where absent. (b, t, f)
            present: 1 where measured. (b, t, f)
            history: What came before.

        Returns:
            Embeddings, not of unit length: distances say how far from normal. (b, t, e)
        """
        b, t = samples.shape[:2]
        x = history.join(torch.cat([samples, present], 2), 2)  # (b, 2 + t, 2f)
        x = convolve(self.stem, x, t)  # (b · t, h)
        scales = [x]
        for block in self.blocks:
            x = block(x, b, t, history)
            scales.append(x)
        embedding = self.head(functional.gelu(torch.cat(scales, 1)))
        return torch.as_tensor(embedding.reshape(b, t, -1))


def convolve(layer: nn.Conv1d, seen: Tensor, t: int) -> Tensor:
    """What a causal convolution of three taps makes of the last t frames.

    One product for the frames of all streams, whose taps are gathered: a convolution makes one for
    each stream, and the few frames of a hop are little work for one.

    Args:
        layer: (h, channels, 3)
        seen: Those frames and the ones before that the layer looks back on. (b, past + t, channels)
        t: Frames to compute.

    Returns:
        (b · t, h)
    """
    dilation = layer.dilation[0]
    frames = torch.arange(t, device=seen.device)[:, None]
    taps = frames + torch.arange(0, 3 * dilation, dilation, device=seen.device)  # (t, 3)
    gathered = torch.index_select(seen, 1, taps.flatten()).reshape(-1, 3 * seen.shape[2])
    assert layer.bias is not None
    return torch.addmm(layer.bias, gathered, layer.weight.permute(2, 1, 0).flatten(0, 1))


class _Block(nn.Module):
    """One residual dilated convolution."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(width, width, 3, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)
        self.past = 2 * dilation

    def forward(self, x: Tensor, b: int, t: int, history: History) -> Tensor:
        """New frames of b streams after those before, all of (b · t, h)."""
        seen = history.join(x.reshape(b, t, -1), self.past)
        convolved = functional.gelu(convolve(self.convolve, seen, t))
        return x + functional.linear(convolved, self.mix.weight[:, :, 0], self.mix.bias)
