"""Self-attention as plain products and a softmax, which every engine knows.

Dimension legend: b groups, n tokens, h heads, c channels.
"""

from __future__ import annotations

from torch import Tensor, nn


class Attention(nn.Module):
    """x + attention of x to itself ("Attention Is All You Need", arXiv 1706.03762), normed before.

    Args:
        channels: Of a token.
        heads: Divides `channels`.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.norm = nn.LayerNorm(channels)
        self.joint = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attends.

        Args:
            tokens: (b, n, c)
            bias: Added to what a token gets as a key, before the softmax. (b, 1, 1, n)
        """
        b, n, c = tokens.shape
        split = self.joint(self.norm(tokens)).reshape(b, n, 3, self.heads, c // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # (b, h, n, c / h)
        weights = (query * self.scale) @ key.transpose(-1, -2)
        if bias is not None:
            weights = weights + bias
        mixed = (weights.softmax(-1) @ value).transpose(1, 2).reshape(b, n, c)
        out: Tensor = tokens + self.out(mixed)
        return out
