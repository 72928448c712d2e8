"""What can be chosen when training a grasp encoder."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from limpet.contracts.clouds import CloudPreprocessing
from limpet.training.encoder_config import Count, EncoderConfig, NotNegative, Part, Positive


class GraspConfig(EncoderConfig, frozen=True, kw_only=True):
    """Configuration of `limpet train grasp`; `--config FILE` takes these keys, and
    those of `EncoderConfig`, as TOML.
    """

    input: Literal["two", "one", "prefused"] = "two"
    """What the encoder sees: two views, fused after the backbone; one view alone; or the clouds of
    both merged into one before it, the control."""
    single_share: Part = 0.3
    """With two views, share of the samples whose auxiliary view is left out, so that the same
    weights serve one camera."""

    cloud: CloudPreprocessing = CloudPreprocessing()
    """How depth becomes points; candidates are divisible by 16."""
    pairs: Count = 8
    """Samples of each scene, as many different choices of views."""
    roll_deg: Annotated[float, msgspec.Meta(ge=0, le=180)] = 30.0
    """Most that a sample is turned about the optical axis."""
    tilt_deg: Annotated[float, msgspec.Meta(ge=0, le=90)] = 15.0
    """Most that it is turned about another."""
    noise_m: NotNegative = 0.0005
    """Standard deviation of the noise added to points."""
    pose_noise_m: NotNegative = 0.001
    """The same of the auxiliary camera's position along each axis."""
    pose_noise_deg: NotNegative = 0.3
    """The same of its turn."""

    channels: Count = 128
    """Features of a candidate."""
    embedding: Count = 128
    """Size of an embedding, of the scene and of each seed."""
    seeds: Count = 256
    """Points that get grasps."""
    approaches: Annotated[int, msgspec.Meta(ge=1, le=8)] = 4
    """Approach directions that each seed is graded for."""
    approach_spacing_deg: NotNegative = 25.0
    """Least angle between two approach directions of one seed."""
    seed_spread: NotNegative = 0.5
    """How much graspness a seed may lack against one that is nearer to seeds already taken: weight
    of the place in the farthest-point order. 0 takes the highest graspness alone."""
    group: Count = 32
    """Points around a seed that its grasps are judged by."""
    group_channels: Count = 64
    """Features of such a point."""
    attention_rounds: Annotated[int, msgspec.Meta(ge=0)] = 1
    """With `alt_att`, how often attention within groups alternates with that among seeds."""

    sim_ali: bool = True
    """Average features of like points of the two views (SimAli)."""
    cyl_reg: bool = True
    """Tell a seed's neighbours by rotation, radius and depth in the gripper's frame (CylReg)."""
    alt_att: bool = True
    """Attend within a seed's group and among seeds (AltAtt)."""
    contrast: bool = True
    """Pull together the features of one location in two views (L_con)."""
    dissimilar: bool = True
    """Push apart those of one object that ask for other approaches (L_dis)."""
    alignment: Positive = 1.0
    """SimAli's λ, weight of the features' cosine against the squared distance."""
    alignment_scale_m: Positive = 0.01
    """Unit of that distance."""
    alignment_threshold: float = 0.5
    """Similarity above which two points are averaged."""

    contrast_weight: NotNegative = 0.2
    """Weight of L_con + L_dis."""
    match_m: Positive = 0.006
    """Two points of two views at most so far apart are one location."""
    unlike_deg: Annotated[float, msgspec.Meta(ge=0, le=180)] = 30.0
    """Best approaches at least so far apart make a non-match."""
    objectness_weight: NotNegative = 1.0
    """Weight of the cross-entropy of points on objects."""
    graspness_weight: NotNegative = 10.0
    """Weight of the graspness."""
    view_weight: NotNegative = 100.0
    """Weight of the approach directions' scores."""
    score_weight: NotNegative = 15.0
    """Weight of the grasps' scores."""
    width_weight: NotNegative = 10.0
    """Weight of the grasps' widths, in units of 10 cm."""

    steps: Count = 3000
    batch: Count = 2
    """Scenes in a step."""
    weight_decay: NotNegative = 1e-2

    def __post_init__(self) -> None:
        if self.cloud.merge_views:
            raise ValueError('cloud.merge_views follows from `input`: say input = "prefused"')
        if self.cloud.candidates % 16 or self.cloud.candidates > self.cloud.points:
            raise ValueError(
                f"{self.cloud.candidates} candidates of {self.cloud.points} points, wanted fewer, "
                "and divisible by 16"
            )
        if max(self.seeds, self.group) > self.cloud.candidates:
            raise ValueError(
                f"seeds {self.seeds} and group {self.group} are taken from "
                f"{self.cloud.candidates} candidates"
            )
