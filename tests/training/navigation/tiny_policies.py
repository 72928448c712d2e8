"""A training of a policy that takes a second, and how its weights are compared."""

from __future__ import annotations

from limpet.training.navigation.environment import PointGoalConfig
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.policy_config import PolicyConfig

IMITATION = PolicyConfig(
    task=PointGoalConfig(layouts=(3, 4), appearances=1, steps=12),
    demonstrated_steps=48,
    rounds=1,
    round_steps=24,
    memory=6,
    epochs=1,
    last_epochs=2,
    window=5,
    windows_per_batch=4,
    environments=2,
    width=8,
)


def weights(actor: Actor) -> list[list[float]]:
    return [value.flatten().tolist() for value in actor.state_dict().values()]
