"""The policy's network: what it takes, how it drives, and encoder and policy as one graph.

    features ─┐                                    ┌──────────┐
    goal ─────┼─ conditioned to about unit size ─┬─┴─ memory ─┴─┬─ two hidden layers ─ tanh ─ v, ω
    motion ───┘                                  └──────────────┘

The features are an encoder's embedding of the camera's image; for comparison a LiDAR scan, or
nothing. How it is trained is in `imitation` and `sac`; here is what drives afterwards, without
PyTorch's neighbours.

Dimension legend: n observations, F features, D inputs, M memory, S state = what is seen + memory,
L commands one after the other, B sequences.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from limpet.contracts.errors import DataError
from limpet.contracts.whole_files import write_whole
from limpet.training.navigation.robot import Robot

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
    """What drives: a memory of what was seen, and a two-layer perceptron, in SI units.

    The memory is a gated recurrent unit (Cho et al. 2014) whose state the caller keeps, zeros where
    a trip begins: a camera forgets the obstacle beside the robot, the robot must not.

    Args:
        features: F.
        width: Units of each hidden layer.
        robot: Whose largest speeds an action is a share of.
        eyes: What the features go through first, where they are pixels.
        memory: M; 0 for a policy that knows the moment alone.
    """

    speeds: Tensor

    def __init__(
        self,
        features: int,
        width: int,
        robot: Robot,
        eyes: Eyes | None = None,
        memory: int = 0,
    ) -> None:
        super().__init__()
        self.features, self.eyes, self.memory = features, eyes, memory
        seen = (features if eyes is None else EMBEDDING) + CONDITIONED
        self.recall = nn.GRU(seen, memory) if memory else None
        self.layers = nn.Sequential(
            nn.Linear(seen + memory, width),
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

    @property
    def state_size(self) -> int:
        """S: what is seen now, and the memory of it and of what was before."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        return first.in_features

    def forward(
        self, features: Tensor, goal: Tensor, proprioception: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Forward speed (m/s, from 0) and turn rate (rad/s), and what to remember.

        Args:
            features: Of about unit size each. (n, F)
            goal: Distance (m), cosine and sine of the bearing in the robot's frame. (n, 3)
            proprioception: Forward speed (m/s) and turn rate (rad/s) driven last. (n, 2)
            memory: What was returned a command before, zeros at first. (n, M)

        Returns:
            (n, 2), (n, M)
        """
        state = self.state(self.inputs(features, goal, proprioception), memory)
        a = self.act(state)
        speeds = torch.stack([(a[:, 0] + 1) / 2, a[:, 1]], dim=1) * self.speeds
        return speeds, self.memory_of(state)

    def inputs(self, features: Tensor, goal: Tensor, proprioception: Tensor) -> Tensor:
        """What is perceived, as the network takes it. (n, D)"""
        distance = goal[:, :1]
        near = [distance.clamp(max=8.0) / 4, torch.exp(-distance), goal[:, 1:]]
        return torch.cat([features, *near, proprioception / self.speeds], dim=1)

    def state(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """What is seen, beside the memory that has taken it in. (n, D), (n, M) → (n, S)"""
        seen = inputs if self.eyes is None else self.eyes(inputs)
        if self.recall is None:
            return seen
        # The unit written out, since as a loop of one step it would cost an engine more.
        to_seen, to_memory, seen_bias, memory_bias = self.recall.all_weights[0]
        of_seen = functional.linear(seen, to_seen, seen_bias).chunk(3, dim=1)
        of_memory = functional.linear(memory, to_memory, memory_bias).chunk(3, dim=1)
        reset = torch.sigmoid(of_seen[0] + of_memory[0])
        keep = torch.sigmoid(of_seen[1] + of_memory[1])
        new = torch.tanh(of_seen[2] + reset * of_memory[2])
        return torch.cat([seen, new + keep * (memory - new)], dim=1)

    def states(self, inputs_LBD: Tensor, memory: Tensor) -> Tensor:
        """The states of B sequences, L commands each. (L, B, D), (B, M) → (L, B, S)"""
        seen = inputs_LBD
        if self.eyes is not None:
            seen = self.eyes(inputs_LBD.flatten(0, 1)).unflatten(0, inputs_LBD.shape[:2])
        if self.recall is None:
            return seen
        return torch.cat([seen, self.recall(seen, memory[None])[0]], dim=2)

    def memory_of(self, state: Tensor) -> Tensor:
        """The memory in a state. (…, S) → (…, M)"""
        return state[..., state.shape[-1] - self.memory :]

    def act(self, state: Tensor) -> Tensor:
        """The environment's action, each within ±1. (…, S) → (…, 2)"""
        a: Tensor = torch.tanh(self.layers(state))
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

    def forward(
        self, image: Tensor, goal: Tensor, proprioception: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Embedding (n, 128); action (n, 2): forward speed (m/s) and turn rate (rad/s); and the
        next command's memory (n, M), where there is one.
        """
        embedding = self.encoder(image)
        if memory is None:
            memory = embedding[:, :0]
        action, kept = self.actor(unit_size(embedding), goal, proprioception, memory)
        return (embedding, action, kept) if self.actor.memory else (embedding, action)


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
        width, state = weights["layers.0.weight"].shape
        memory = weights["recall.weight_hh_l0"].shape[1] if "recall.weight_hh_l0" in weights else 0
        speed, turn_rate = weights["speeds"].tolist()
        robot = Robot(speed=speed, turn_rate=turn_rate)
        if any(name.startswith("eyes.") for name in weights):
            actor = Actor(3 * Eyes.SIDE**2, width, robot, Eyes(), memory)
        else:
            actor = Actor(state - memory - CONDITIONED, width, robot, None, memory)
        actor.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} holds no policy: {error}", "train the policy again") from error
    return actor.eval()
