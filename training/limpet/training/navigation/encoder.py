"""The image encoder: a small residual ConvNet and the projection that is deployed with it.

Dimension legend: n images, h rows and w columns of the input, c channels, e embedding.

Where something stands matters as much as what it is, so the last feature map is read out cell by
cell instead of being averaged. Plain 3×3 convolutions with batch normalisation become one
convolution each in ONNX Runtime, which at these widths is faster on a CPU than depthwise ones.
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
from limpet.contracts.images import ImagePreprocessing
from limpet.training.navigation.config import NavigationConfig
from limpet.training.run import WEIGHTS, RunFolder, RunRecord

STRIDE = 16
"""Pixels of the input, along each side, that a cell of the last feature map stands for."""
CELL_CHANNELS = 16
"""Channels that are read out of each cell."""
HIDDEN = 192
"""Width of the projection's hidden layer."""


class Encoder(nn.Module):
    """Images → embeddings of unit length.

    Args:
        config: Its sizes, and the seed of its fresh weights: as it is made, this is the control
            called *random encoder*.
    """

    def __init__(self, config: NavigationConfig) -> None:
        super().__init__()
        image, width = config.image, config.width
        cells = (image.height // STRIDE) * (image.width // STRIDE)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.features = nn.Sequential(
                _layer(3, width, stride=2),
                _layer(width, 2 * width, stride=2),
                _layer(2 * width, 4 * width, stride=2),
                _Residual(4 * width),
                _layer(4 * width, 6 * width, stride=2),
                _Residual(6 * width),
                _layer(6 * width, CELL_CHANNELS, size=1),
            )
            self.projection = nn.Sequential(
                nn.Flatten(),
                nn.Linear(CELL_CHANNELS * cells, HIDDEN, bias=False),
                nn.BatchNorm1d(HIDDEN),
                nn.ReLU(),
                nn.Linear(HIDDEN, config.embedding),
            )
        self.config = config

    def forward(self, images: Tensor) -> Tensor:
        """Embeds images.

        Args:
            images: float32, as `limpet.contracts.images.normalize` makes them. (n, 3, h, w)

        Returns:
            Rows of unit length. (n, e)
        """
        return functional.normalize(self.projection(self.features(images)).float(), dim=1)


class _Residual(nn.Module):
    """x + f(x), two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _layer(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


def _layer(channels: int, out: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )


def load_encoder(run: Path | str) -> Encoder:
    """Loads a finished run's encoder, in evaluation mode on the CPU.

    Raises:
        DataError: No finished RUN of a navigation encoder, or damaged weights.
    """
    return load_encoder_run(run)[0]


def load_encoder_run(run: Path | str) -> tuple[Encoder, RunRecord]:
    """The same, and the run's record.

    Raises:
        DataError: As `load_encoder`.
    """
    folder = RunFolder(Path(run))
    record = folder.read_complete()
    if record.kind != "navigation" or not isinstance(record.preprocessing, ImagePreprocessing):
        raise DataError(f"{folder.path} is a run of kind {record.kind!r}, wanted 'navigation'")
    weights = folder.path / WEIGHTS
    try:
        encoder = Encoder(msgspec.convert(record.config, NavigationConfig))
        encoder.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, KeyError, RuntimeError, msgspec.ValidationError) as error:
        raise DataError(f"{weights} does not fit its run: {error}", "train again") from error
    return encoder.eval(), record
