"""What can be chosen when training a policy."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from limpet.training.encoder_config import Count, NotNegative, Part, Positive
from limpet.training.navigation.environment import PointGoalConfig

SenseName = Literal["embedding", "lidar", "nothing", "pixels"]
"""What a policy drives by beside goal and motion: the frozen encoder's embedding; for comparison a
LiDAR scan, nothing at all, or the image through a network that is trained along (end to end)."""


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy is trained: by imitation in rounds (DAgger, Ross et al. 2011), and by Soft
    Actor-Critic (Haarnoja et al. 2018, automatic temperature) where `steps` asks for it.
    """

    sense: SenseName = "embedding"
    """What it drives by."""
    task: PointGoalConfig = PointGoalConfig(layouts=(1000, 3900), contact_reward=-0.3)
    """Where it trains: layouts, appearances, rewards. What is observed follows from `sense`."""
    steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Commands of Soft Actor-Critic after the rounds, over all environments; what the policy
    remembers then stays as it is."""
    demonstrated_steps: Count = 30_000
    """Commands of the hand-written LiDAR driver that training begins with."""
    demonstration_noise: NotNegative = 0.3
    """Disturbance of every second demonstrated episode: standard deviation of the steps of a walk
    that forgets a tenth at each command, in units of the action."""
    memory: Annotated[int, msgspec.Meta(ge=0)] = 128
    """Size of what it remembers; 0 for a policy that knows the moment alone."""
    rounds: Annotated[int, msgspec.Meta(ge=0)] = 8
    """Rounds of learning in which the policy drives and the teacher says what it would do."""
    round_steps: Count = 12_000
    """Commands of each round."""
    epochs: Count = 4
    """How often the policy goes over all that was recorded, after each round."""
    last_epochs: Count = 20
    """The same after the last round."""
    last_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.02
    """Part of the learning rate that is left at their end."""
    window: Count = 32
    """Commands through which a gradient goes back."""
    windows_per_batch: Count = 16
    """Windows of a gradient step."""
    lapses: Part = 0.05
    """Share of windows that begin with an empty memory, as after an outage on the robot."""
    knowledge_weight: NotNegative = 1.0
    """Weight of what the memory shall tell: the scan all around, the teacher's heading."""
    critic_steps: Annotated[int, msgspec.Meta(ge=0)] = 2_000
    """Gradient steps of the critics on the demonstrations, before the policy follows them."""
    guided_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.15
    """Share of training in which the driver guides the policy less and less."""
    least_guidance: Part = 0.0
    """Weight of its guidance from then on; it begins with 1."""
    environments: Count = 16
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
    discount: Part = 0.97
    """Worth of a reward one command later."""
    first_temperature: Positive = 0.003
    """Worth of a nat of entropy at the beginning, in units of reward."""
    first_spread: Positive = 0.1
    """Standard deviation of an action at the beginning, before it is squashed."""
    target_entropy: tuple[float, float] = (-2.0, -5.0)
    """Entropy that the temperature keeps, nats, at the beginning and at the end: towards the end
    the policy has to do without noise, as on a robot."""
    checkpoint_steps: Count = 5_000
    """Commands from one checkpoint to the next. Environments begin new episodes at each."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Seed of weights, scenes, episodes and exploration."""
