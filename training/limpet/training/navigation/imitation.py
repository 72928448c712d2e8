"""A policy with a memory learns from its teacher: by demonstration, then on its own drives.

The teacher answers at every command, whoever drives (Ross et al. 2011, "A Reduction of Imitation
Learning and Structured Prediction to No-Regret Online Learning"). Beside the teacher's action the
memory learns to tell what the LiDAR reads all around and where the teacher means to go: privileged
sensors guide what it keeps, and are absent on the robot.

Dimension legend: D inputs, M memory, K numbers of the teacher's knowledge, T commands of a trip,
N commands of all trips, L commands of a window, B windows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limpet.training.navigation.fleet import Fleet
from limpet.training.navigation.policy import Actor
from limpet.training.navigation.policy_config import PolicyConfig
from limpet.training.navigation.teacher import KNOWN

Float32 = NDArray[np.float32]
TRIPS_AT_ONCE = 64
"""Trips whose memories are computed together."""

Choose = Callable[[Float32, NDArray[np.bool_]], Float32]
"""Actions for states (n, S), where it is said which trips have just begun (n,). → (n, 2)"""


@dataclass(frozen=True)
class Trip:
    """What was recorded of one trip, or of its part in a round.

    Attributes:
        inputs: The policy's, before each command and after the last. (T + 1, D)
        actions: Those driven. (T, 2)
        taught: The teacher's. (T, 2)
        known: The teacher's knowledge. (T, K)
        rewards: Of each command. (T,)
        terminated: Whether it came to the goal.
    """

    inputs: Tensor
    actions: Tensor
    taught: Tensor
    known: Tensor
    rewards: Tensor
    terminated: bool


def record(fleet: Fleet, commands: int, choose: Choose) -> list[Trip]:
    """Drives new trips, and keeps them; those that have not ended are cut.

    Args:
        fleet: Where.
        commands: How many, over all environments.
        choose: Who drives.
    """
    number = fleet.num_envs
    states, begun = fleet.reset(), np.ones(number, bool)
    parts: list[list[tuple[Tensor, ...]]] = [[] for _ in range(number)]
    trips: list[Trip] = []
    for _ in range(-(-commands // number)):
        seen, known = fleet.seen, torch.from_numpy(fleet.teacher.knowledge())
        actions = choose(states, begun)
        fleet.step_async(actions)
        states, rewards, begun, infos = fleet.step_wait()
        rows = torch.from_numpy(actions), torch.from_numpy(fleet.taught), known
        for i, part in enumerate(parts):
            part.append((seen[i], *(row[i] for row in rows), torch.tensor(rewards[i])))
            if begun[i]:
                arrived = not infos[i]["TimeLimit.truncated"]
                trips.append(_trip(part, fleet.ended[i], arrived))
                part.clear()
    left = [(part, fleet.seen[i]) for i, part in enumerate(parts) if part]
    return trips + [_trip(part, last, False) for part, last in left]


def _trip(part: Sequence[tuple[Tensor, ...]], last: Tensor, arrived: bool) -> Trip:
    inputs, actions, taught, known, rewards = map(torch.stack, zip(*part, strict=True))
    return Trip(torch.cat([inputs, last[None]]), actions, taught, known, rewards, arrived)


class Imitator:
    """Descends towards the teacher.

    The distance to its action is absolute, not squared: of two ways around an obstacle the median
    is one of them, while the mean runs into it.

    Args:
        actor: Who learns.
        config: How.
    """

    def __init__(self, actor: Actor, config: PolicyConfig) -> None:
        self._actor, self._config = actor, config
        self.tell = nn.Linear(actor.memory, KNOWN) if actor.memory else None
        told = [] if self.tell is None else [*self.tell.parameters()]
        self.optimizer = torch.optim.Adam([*actor.parameters(), *told], fused=True)

    def learn_stage(
        self, trips: Sequence[Trip], stage: int, rng: np.random.Generator
    ) -> dict[str, float]:
        """Learns from all trips up to a stage of training, longest after the last; as `learn`.

        Args:
            trips: What to learn from.
            stage: 0 for the demonstration, then the rounds.
            rng: Order, cuts and lapses of memory.
        """
        config, last = self._config, stage == self._config.rounds
        rate = config.learning_rate
        return self.learn(
            trips,
            config.last_epochs if last else config.epochs,
            rng,
            (rate, rate * config.last_rate if last else rate),
        )

    def learn(
        self,
        trips: Sequence[Trip],
        epochs: int,
        rng: np.random.Generator,
        rates: tuple[float, float],
    ) -> dict[str, float]:
        """Goes over all trips several times.

        Args:
            trips: What to learn from.
            epochs: How often.
            rng: Order, cuts and lapses of memory.
            rates: Adam's rate at the beginning and at the end.

        Returns:
            Mean distances of the last time: of the action, and of what the memory tells.
        """
        config = self._config
        inputs = torch.cat([trip.inputs[:-1] for trip in trips])  # (N, D)
        taught = torch.cat([trip.taught for trip in trips])
        known = torch.cat([trip.known for trip in trips])
        lengths = np.array([len(trip.taught) for trip in trips])
        figures = np.zeros(2)
        for epoch in range(epochs):
            share = epoch / max(1, epochs - 1)
            for group in self.optimizer.param_groups:
                group["lr"] = rates[0] + (rates[1] - rates[0]) * share
            memories = remembered(self._actor, inputs, lengths)
            starts, stops = windows(lengths, config.window, rng)
            order = rng.permutation(len(starts))
            sums, total = np.zeros(2), 0
            for first in range(0, len(order), config.windows_per_batch):
                batch = order[first : first + config.windows_per_batch]
                place = starts[batch] + np.arange(config.window)[:, None]  # (L, B)
                there = torch.from_numpy(place < stops[batch])
                rows = torch.from_numpy(np.minimum(place, stops[batch] - 1))
                memory = memories[starts[batch]]
                memory[rng.random(len(batch)) < config.lapses] = 0.0
                states = self._actor.states(inputs[rows], memory)
                action = (self._actor.act(states) - taught[rows]).abs().mean(dim=2)[there].mean()
                loss = action
                told = torch.zeros(())
                if self.tell is not None:
                    answers = self.tell(self._actor.memory_of(states))
                    told = (answers - known[rows]).abs().mean(dim=2)[there].mean()
                    loss = loss + config.knowledge_weight * told
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                sums += len(batch) * np.array([action.item(), told.item()])
                total += len(batch)
            figures = sums / total
        return {"action_error": float(figures[0]), "knowledge_error": float(figures[1])}

    def state(self) -> dict[str, Tensor]:
        """Everything that learning changes: the policy, what it tells by, the optimiser."""
        tensors = {name: value.detach().contiguous() for name, value in self._networks().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes back what `state` gave.

        Raises:
            KeyError, RuntimeError, ValueError: It is another policy's.
        """
        with torch.no_grad():
            for name, value in self._networks().items():
                value.copy_(tensors[name])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, index, slot = key.split("/")
                state.setdefault(int(index), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _networks(self) -> dict[str, Tensor]:
        told = {} if self.tell is None else self.tell.state_dict(prefix="tell.")
        return {**self._actor.state_dict(prefix="actor."), **told}


@torch.no_grad()
def remembered(actor: Actor, inputs_ND: Tensor, lengths: NDArray[np.int_]) -> Tensor:
    """What is remembered before each command of trips that lie one after the other. (N, M)"""
    result = torch.zeros(len(inputs_ND), actor.memory)
    if actor.memory == 0:
        return result
    begins = np.cumsum(lengths) - lengths
    order = np.argsort(lengths)
    for first in range(0, len(order), TRIPS_AT_ONCE):
        chosen = order[first : first + TRIPS_AT_ONCE]
        place = np.arange(lengths[chosen].max())[:, None]
        there = place < lengths[chosen]
        rows = begins[chosen] + np.minimum(place, lengths[chosen] - 1)
        states = actor.states(inputs_ND[rows], torch.zeros(len(chosen), actor.memory))
        memory = actor.memory_of(states)[:-1]
        result[rows[1:][there[1:]]] = memory[there[1:]]
    return result


def windows(
    lengths: NDArray[np.int_], size: int, rng: np.random.Generator
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Cuts trips that lie one after the other into windows of a size, at places that change.

    Args:
        lengths: Commands of each trip. (n,)
        size: Commands of a window; the first and the last of a trip may be shorter.
        rng: Draws where the first window of each trip ends.

    Returns:
        First command, and one after the last, of each window. (k,) each
    """
    starts, stops, begin = [], [], 0
    for length in lengths:
        cuts = [0, *range(int(rng.integers(1, size + 1)), int(length), size), int(length)]
        starts += [begin + cut for cut in cuts[:-1]]
        stops += [begin + cut for cut in cuts[1:]]
        begin += int(length)
    return np.array(starts), np.array(stops)
