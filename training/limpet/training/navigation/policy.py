"""The policy's network: what it takes, how it drives, and encoder and policy as one graph.

    features ─┐
    goal ─────┼─ conditioned to about unit size ─ two hidden layers ─ tanh ─ v, ω
    motion ───┘

The features are an encoder's embedding of the camera's image; for comparison a LiDAR scan, or
nothing. Soft Actor-Critic trains the network (`sac`); here is what drives afterwards, without
PyTorch's neighbours.

Dimension legend: n observations, F features, D inputs of the network.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from limpet.contracts.errors import DataError
from limpet.training.navigation.robot import Robot
from limpet.training.run import write_whole

EMBEDDING = 128
"""Length of an encoder's embedding."""
CONDITIONED = 6
"""Inputs beside the features: four of the goal, two of the motion."""


class Eyes(nn.Module):
    """An image encoder that is trained with the policy, end to end: the control.

    It takes and gives whole rows of inputs: the features are `SIDE` × `SIDE` pixels, which become
    `EMBEDDING` features; goal and motion pass. (n, 3 SIDE² + 6) → (n, 128 + 6)
    """

    SIDE = 64

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (self.SIDE // 8) ** 2, EMBEDDING),
            nn.ReLU(),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of the image beside what the rest of the row says."""
        image = inputs[:, :-CONDITIONED].reshape(-1, 3, self.SIDE, self.SIDE)
        return torch.cat([self.layers(image), inputs[:, -CONDITIONED:]], dim=1)


class Actor(nn.Module):
    """A two-layer perceptron that drives: the mean of a squashed Gaussian policy, in SI units.

    Args:
        features: F.
        width: Units of each hidden layer.
        robot: Whose largest speeds an action is a share of.
        eyes: What the features go through first, where they are pixels.
    """

    speeds: Tensor

    def __init__(self, features: int, width: int, robot: Robot, eyes: Eyes | None = None) -> None:
        super().__init__()
        self.features, self.eyes = features, eyes
        self.layers = nn.Sequential(
            nn.Linear((features if eyes is None else EMBEDDING) + CONDITIONED, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 2),
        )
        self.register_buffer("speeds", torch.tensor([robot.speed, robot.turn_rate]))

    @property
    def inputs_size(self) -> int:
        """D."""
        return self.features + CONDITIONED

    def forward(self, features: Tensor, goal: Tensor, proprioception: Tensor) -> Tensor:
        """Forward speed (m/s, from 0) and turn rate (rad/s). (n, 2)

        Args:
            features: Of about unit size each. (n, F)
            goal: Distance (m), cosine and sine of the bearing in the robot's frame. (n, 3)
            proprioception: Forward speed (m/s) and turn rate (rad/s) driven last. (n, 2)
        """
        a = self.act(self.inputs(features, goal, proprioception))
        return torch.stack([(a[:, 0] + 1) / 2, a[:, 1]], dim=1) * self.speeds

    def inputs(self, features: Tensor, goal: Tensor, proprioception: Tensor) -> Tensor:
        """What the first layer takes. (n, D)"""
        distance = goal[:, :1]
        near = [distance.clamp(max=8.0) / 4, torch.exp(-distance), goal[:, 1:]]
        return torch.cat([features, *near, proprioception / self.speeds], dim=1)

    def act(self, inputs: Tensor) -> Tensor:
        """The environment's action, each within ±1. (n, D) → (n, 2)"""
        seen = inputs if self.eyes is None else self.eyes(inputs)
        a: Tensor = torch.tanh(self.layers(seen))
        return a


class NavigationModel(nn.Module):
    """Encoder and policy in one graph, as a robot runs it.

    Args:
        encoder: Images (n, 3, H, W), normalised → embeddings of unit length (n, 128).
        actor: The policy trained on them.
    """

    def __init__(self, encoder: nn.Module, actor: Actor) -> None:
        super().__init__()
        self.encoder, self.actor = encoder, actor

    def forward(self, image: Tensor, goal: Tensor, proprioception: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (n, 128), and action (n, 2): forward speed (m/s) and turn rate (rad/s)."""
        embedding = self.encoder(image)
        return embedding, self.actor(unit_size(embedding), goal, proprioception)


def unit_size(embedding: Tensor) -> Tensor:
    """An embedding of unit length with values of about unit size. (n, 128)"""
    return embedding * math.sqrt(EMBEDDING)


def closeness(ranges: Tensor) -> Tensor:
    """A LiDAR scan (m) as features: near 1 in front of an obstacle, near 0 far from any. (n, B)"""
    return torch.exp(-ranges)


def write_actor(path: Path, actor: Actor) -> None:
    """Writes an actor's weights as safetensors."""
    write_whole(path, save(actor.state_dict()))


def read_actor(path: Path) -> Actor:
    """Reads what `write_actor` wrote; its sizes follow from the weights.

    Raises:
        DataError: No such file, or not an actor's.
    """
    try:
        weights = load(path.read_bytes())
        width, inputs = weights["layers.0.weight"].shape
        speed, turn_rate = weights["speeds"].tolist()
        robot = Robot(speed=speed, turn_rate=turn_rate)
        if any(name.startswith("eyes.") for name in weights):
            actor = Actor(3 * Eyes.SIDE**2, width, robot, Eyes())
        else:
            actor = Actor(inputs - CONDITIONED, width, robot)
        actor.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} holds no policy: {error}", "train the policy again") from error
    return actor.eval()
