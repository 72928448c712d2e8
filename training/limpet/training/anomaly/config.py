"""What can be chosen when training an anomaly encoder."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from limpet.training.encoder_config import Count, EncoderConfig, Part, Positive, Share


class AnomalyConfig(EncoderConfig, frozen=True, kw_only=True):
    """Configuration of `limpet train anomaly`; `--config FILE` takes these keys, and those of
    `EncoderConfig`, as TOML.

    Choices called `auto` follow a fixed rule on the training rows alone
    (`limpet.training.anomaly.chain`).
    """

    front_end: Literal["auto", "rows", "bands"] = "auto"
    """What the encoder takes: the rows themselves, or band energies of frames of them, for
    vibration; `auto` takes bands from 4 kHz on."""
    frame_rows: Annotated[int, msgspec.Meta(ge=16)] = 512
    """With bands, rows of a frame."""
    hop_rows: Count = 128
    """With bands, rows from one frame to the next."""
    bands: Count = 16
    """With bands, bands of each channel."""
    blocks: Annotated[int, msgspec.Meta(ge=0, le=6)] = 0
    """Residual blocks of the encoder; a score looks back on 2 ** (blocks + 1) + 1 frames. 0 takes
    as many as segments are long enough for, 6 at most."""

    baseline: Literal["auto", "stream", "training"] = "auto"
    """What a value is compared with: its own stream's slow level, so that another operating point
    than in training raises no alarm; or the training rows' level, so that a lasting deviation from
    it keeps its score. `auto` takes the training's for short segments, such as snapshots."""
    baseline_frames: Positive = 1024.0
    """With `baseline = "stream"`, time constant of the level."""
    baseline_settling_frames: Annotated[int, msgspec.Meta(ge=1, le=129)] = 96
    """With `baseline = "stream"`, frames of a stream that teach its level in full."""
    baseline_influence: Positive = 1.0
    """With `baseline = "stream"`, largest deviation, in spreads, that a later value counts with in
    the level, so that a fault is not soon taken for normal."""
    hold_rows: Count = 8
    """Longest run of missing values that is bridged with the last measured one."""
    clip: Positive = 10.0
    """Prepared values are limited to ± this many standard deviations."""

    width: Count = 32
    """Channels of the encoder's hidden layers."""
    embedding: Count = 64
    """Size of an embedding."""
    bank_frames: Count = 512
    """Normal frames to compare with, at most."""
    neighbours: Count = 3
    """Nearest normal frames whose mean distance is the score."""

    steps: Count = 200
    batch: Annotated[int, msgspec.Meta(ge=2)] = 12
    """Sequences in a step, with as many that hold an anomaly."""
    negatives: Literal["pseudo", "random", "both"] = "both"
    """What normal is contrasted with: windows that a reconstruction model finds just beyond normal
    (stage 1), anomalies of random strength, or half of each."""
    nearest: Positive = 0.05
    """Smallest excess of a pseudo-anomaly's reconstruction error over the normal quantile."""
    farthest: Positive = 1.0
    """Largest excess."""
    weakest: Positive = 0.75
    """Smallest deviation of random strength, in standard deviations of a channel."""
    strongest: Positive = 8.0
    """Largest deviation of random strength."""
    positives: Literal["near", "weights"] = "near"
    """What a normal frame is pulled to: one near in time, or itself under perturbed weights."""
    near_frames: Count = 8
    """A positive near in time lies at most so many frames before or after."""
    perturbation: Positive = 0.05
    """Noise on perturbed weights, in standard deviations of each tensor."""
    dead_channels: Part = 0.2
    """Share of the sequences in which a channel is declared absent."""
    temperature: Positive = 0.1
    """Temperature of the contrastive loss."""
    learning_rate: Positive = 2e-3

    held_out: Share = 0.25
    """Last part of the training rows, kept from the encoder. Where rows are few, it alone sets the
    threshold; else every row does, each half scored by what was learnt of the other."""
    false_alarm_rate: Share = 0.01
    """Share of normal rows that may reach the threshold, as far as what was held out can tell."""
    false_alarms_per_day: Positive | None = None
    """Incidents that normal operation may open in a day; where given, it sets the threshold instead
    of `false_alarm_rate`."""

    def __post_init__(self) -> None:
        for low, high in (("weakest", "strongest"), ("nearest", "farthest")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} {getattr(self, low)} is above {high} {getattr(self, high)}"
                )
        for low, high in (("neighbours", "bank_frames"), ("hop_rows", "frame_rows")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} {getattr(self, low)} is more than {high} {getattr(self, high)}"
                )


def look_back_frames(blocks: int) -> int:
    """Frames that a score of an encoder with so many blocks depends on."""
    return int(2 ** (blocks + 1)) + 1
