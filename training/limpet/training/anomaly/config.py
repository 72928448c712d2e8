"""What can be chosen when training an anomaly encoder."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class AnomalyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of `limpet train anomaly`; `--config FILE` takes these keys as TOML."""

    window_rows: Annotated[int, msgspec.Meta(ge=8, le=128)] = 32
    """Rows that the encoder looks back on."""
    baseline: Literal["stream", "training"] = "stream"
    """What a value is compared with: its own stream's recent level and spread, so that another
    operating point than in training raises no alarm; or the training rows' level and spread, so
    that a lasting deviation from them keeps its score (vibration, fixed set points, segments
    too short for a baseline of their own)."""
    baseline_rows: Positive = 256.0
    """With `baseline = "stream"`, time constant of level and spread: after so many rows, a new
    level is 63 % the normal one, were it not for `baseline_influence`."""
    baseline_restart_rows: Annotated[int, msgspec.Meta(ge=256)] = 512
    """With `baseline = "stream"`, training rows count as streams of about so many rows, each with a
    start of its own: the encoder and the threshold must know what young baselines do to normal
    rows, since every restart of a sensor or a server makes one."""
    baseline_settling_rows: Annotated[int, msgspec.Meta(ge=1, le=129)] = 96
    """With `baseline = "stream"`, rows of a stream that teach its level and spread before it has a
    score. Fewer leave the spread unsure and raise false alarms in a stream's first minutes."""
    baseline_influence: Positive = 3.0
    """With `baseline = "stream"`, largest deviation, in spreads, that a row counts with in level
    and spread, so that a fault is not soon taken for normal."""
    baseline_floor: Positive = 0.1
    """With `baseline = "stream"`, smallest spread to divide by, relative to training's: keeps
    faults visible where a stream is quieter than training was."""
    hold_rows: Count = 8
    """Longest run of missing values that is bridged with the last measured one."""
    clip: Positive = 10.0
    """Prepared values are limited to ± this many standard deviations."""

    width: Count = 32
    """Channels of the encoder's hidden layers."""
    embedding: Count = 64
    """Size of an embedding."""
    bank_windows: Count = 1024
    """Normal windows to compare with, at most."""
    neighbours: Count = 3
    """Nearest normal windows whose mean distance is the score."""

    steps: Count = 1000
    """Training steps."""
    batch: Annotated[int, msgspec.Meta(ge=2)] = 64
    """Anchors in a step, with as many positives and as many negatives."""
    near_rows: Count = 8
    """A positive ends at most so many rows before or after its anchor."""
    temperature: Positive = 0.1
    """Temperature of the contrastive loss."""
    weakest: Positive = 0.75
    """Smallest injected deviation, in standard deviations of a channel."""
    strongest: Positive = 8.0
    """Largest injected deviation."""
    learning_rate: Positive = 2e-3
    """Peak of AdamW's learning rate, which falls to zero as a cosine."""
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 1e-4
    """Weight decay of AdamW."""

    held_out: Share = 0.25
    """Last part of the training rows, kept from all fitting, which sets the threshold."""
    false_alarm_rate: Share = 0.05
    """Share of normal rows that may reach the threshold. Windows overlap, so exceedances come in
    clusters: of a few thousand held-out rows, the highest 1 % are often a single event."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Seed of weights, batches, injections and bank."""

    def __post_init__(self) -> None:
        if self.weakest > self.strongest:
            raise ValueError(f"weakest {self.weakest} is above strongest {self.strongest}")
        if self.neighbours > self.bank_windows:
            raise ValueError(
                f"neighbours {self.neighbours} is more than bank_windows {self.bank_windows}"
            )

    @property
    def first_score_rows(self) -> int:
        """Rows of a stream up to its first score, that row included."""
        settling = self.baseline_settling_rows if self.baseline == "stream" else 1
        return max(self.window_rows, settling)
