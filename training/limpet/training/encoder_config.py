"""What can be chosen when training any encoder, and the ranges that choices are in."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Part = Annotated[float, msgspec.Meta(ge=0, le=1)]
Precision = Literal["fp32", "bf16", "fp16"]


class EncoderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The training of an encoder, whatever it encodes; each encoder has defaults of its own."""

    steps: Count
    """Training steps."""
    learning_rate: Positive = 1e-3
    """Peak of AdamW's learning rate, which falls to zero as a cosine."""
    weight_decay: NotNegative = 1e-4
    """Weight decay of AdamW."""
    precision: Precision = "fp32"
    """Arithmetic of the network while it trains; weights stay fp32."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Seed of weights, batches and all that is drawn."""
