"""What can be chosen when training a navigation encoder."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from limpet.contracts.images import ImagePreprocessing
from limpet.training.encoder_config import Count, EncoderConfig, NotNegative, Part, Positive


class NavigationConfig(EncoderConfig, frozen=True, kw_only=True):
    """Configuration of `limpet train navigation`; `--config FILE` takes these keys, and
    those of `EncoderConfig`, as TOML.
    """

    width: Count = 16
    """Channels of the encoder's first layer; the later ones have multiples of it."""
    embedding: Count = 128
    """Size of an embedding."""
    image: ImagePreprocessing = ImagePreprocessing()
    """How a camera's image becomes the encoder's input."""

    objective: Literal["ranked", "multi_positive", "simclr", "autoencoder"] = "ranked"
    """What is descended: a contrast of every frame with those that are farther away in geometry;
    the paper's, which pulls what is similar enough and pushes the rest; or a control that knows no
    privileged sensor: two augmentations of one image, or an image's reconstruction."""
    similarity: Literal["lidar", "goal", "product"] = "lidar"
    """What makes two frames alike: their scans, where the goal is, or the product of both."""
    near_m: Positive = 3.0
    """Ranges beyond this count as this: where obstacles within reach are matters, how far away
    a distant wall is does not. Nine in ten beams of an indoor scene are shorter."""
    field_of_view_deg: Positive = 90.0
    """Of the camera, horizontally: beams outside do not count, since it cannot see them."""
    edge_deg: Positive = 3.0
    """Width of the sigmoid with which beams cease to count at the edge of the field of view."""
    far_goal_m: Positive = 10.0
    """With the similarity of goals, difference of distances that makes them wholly unlike."""

    positive_similarity: Part = 0.8
    """With the paper's objective, frames at least so similar are positives, however they look."""
    negative_similarity: Part = 1.0
    """With the paper's objective, frames at most so similar are negatives, unless they are
    positives; 1 takes the batch."""
    temperature: Literal["distance", "similarity", "fixed"] = "distance"
    """With the paper's objective, what a pair's temperature grows with, from `coldest` to
    `warmest`: its geometric distance, as in the paper; its similarity; or nothing, when all have
    `coldest`."""
    coldest: Positive = 0.1
    """Smallest temperature, and that of the other objectives."""
    warmest: Positive = 1.0
    """Largest temperature."""

    steps: Count = 2000
    batch: Annotated[int, msgspec.Meta(ge=2)] = 64
    """Poses in a step, each seen in two appearances."""
    brightened: Part = 0.5
    """Share of the views that are made 1.5 to 2 times as bright."""
    color_jitter: NotNegative = 0.2
    """Spread of each view's contrast, colour balance and saturation."""
    crop: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.4
    """With SimCLR, smallest share of an image that a view shows."""
    attack_steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Steps of gradient ascent on the loss by which every second view is made harder (HSAT)."""
    attack_size: NotNegative = 4 / 255
    """Largest change of a pixel in such an attack, in units of full scale."""

    def __post_init__(self) -> None:
        if self.coldest > self.warmest:
            raise ValueError(f"coldest {self.coldest} is above warmest {self.warmest}")
