"""What can be chosen when training a policy."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from limpet.training.navigation.config import Count, NotNegative, Part, Positive
from limpet.training.navigation.environment import PointGoalConfig

SenseName = Literal["embedding", "lidar", "nothing", "pixels"]
"""What a policy drives by beside goal and motion: the frozen encoder's embedding; for comparison a
LiDAR scan, nothing at all, or the image through a network that is trained along (end to end)."""


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy is trained: Soft Actor-Critic (Haarnoja et al. 2018), automatic temperature."""

    sense: SenseName = "embedding"
    """What it drives by."""
    task: PointGoalConfig = PointGoalConfig(layouts=(1000, 1400))
    """Where it trains: layouts, appearances, rewards. What is observed follows from `sense`."""
    steps: Annotated[int, msgspec.Meta(ge=0)] = 40_000
    """Commands that the policy gives while it learns, over all environments; 0 trains none."""
    demonstrated_steps: Annotated[int, msgspec.Meta(ge=0)] = 20_000
    """Commands of the hand-written LiDAR driver that fill the replay buffer before."""
    demonstration_noise: NotNegative = 0.3
    """Disturbance of every second demonstrated episode: standard deviation of the steps of a walk
    that forgets a tenth at each command, in units of the action."""
    imitation_steps: Annotated[int, msgspec.Meta(ge=0)] = 2_500
    """Gradient steps of the policy towards the driver, on its demonstrations, before it learns."""
    critic_steps: Annotated[int, msgspec.Meta(ge=0)] = 2_000
    """Gradient steps of the critics on the demonstrations, before the policy follows them."""
    guided_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6
    """Share of training in which the driver guides the policy less and less."""
    least_guidance: Part = 0.1
    """Weight of its guidance from then on; it begins with 1."""
    environments: Count = 8
    """Environments that are stepped together."""
    episodes_per_scene: Count = 6
    """Episodes before an environment goes on to another layout and appearance."""
    updates_per_step: Positive = 0.5
    """Gradient steps for each command."""
    batch_size: Count = 128
    """Transitions of a gradient step."""
    width: Count = 128
    """Units of each hidden layer, of the policy and of its two critics."""
    learning_rate: Positive = 1e-3
    """Adam's rate."""
    discount: Part = 0.95
    """Worth of a reward one command later."""
    first_temperature: Positive = 0.003
    """Worth of a nat of entropy at the beginning, in units of reward."""
    target_entropy: tuple[float, float] = (-3.0, -6.0)
    """Entropy that the temperature keeps, nats, at the beginning and at the end: towards the end
    the policy has to do without noise, as on a robot."""
    checkpoint_steps: Count = 5_000
    """Commands from one checkpoint to the next. Environments begin new episodes at each."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Seed of weights, scenes, episodes and exploration."""
