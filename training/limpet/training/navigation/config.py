"""What can be chosen when training a navigation encoder."""

from __future__ import annotations

from typing import Annotated

import msgspec

from limpet.contracts.images import ImagePreprocessing

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Part = Annotated[float, msgspec.Meta(ge=0, le=1)]


class NavigationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of `limpet train navigation`; `--config FILE` takes these keys as TOML."""

    width: Count = 16
    """Channels of the encoder's first layer; the later ones have multiples of it."""
    embedding: Count = 128
    """Size of an embedding."""
    image: ImagePreprocessing = ImagePreprocessing()
    """How a camera's image becomes the encoder's input."""

    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Seed of weights, batches and augmentations."""
