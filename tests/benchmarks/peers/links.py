"""Connections of a client whose answers come in their own time: 16 of them keep a server busy from
one thread, whatever they speak, so that no peer pays for threads that fight over one interpreter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import zmq

from tests.benchmarks.peers.model import Array

Buffer = bytes | bytearray | memoryview
POLL_MS = 10_000
"""Longest silence of a server under load."""


class Link(Protocol):
    """One connection with at most one request under way."""

    waited_for: Any
    """Socket or file descriptor that a `zmq.Poller` takes."""

    def send(self, x: Array) -> None:
        """Sends a request."""

    def receive(self) -> Buffer | None:
        """Bytes of the answer's tensor; None where more of it has to come. Waits for something."""


class Answered(NamedTuple):
    """What a closed loop did.

    Attributes:
        count: Answers, each compared with what was sent; one that was under way when time began or
            ended counts by the part of it within.
        seconds: The time that they took.
    """

    count: float
    seconds: float


class WrongAnswerError(Exception):
    """A server answered something else than the model gives."""


def check(x: Array, y: Buffer) -> None:
    """Raises `WrongAnswerError` unless `y` holds the values of `x`, which every model here gives
    back.
    """
    if bytes(y) != x.tobytes():
        raise WrongAnswerError(f"{len(y)} bytes that are not the {x.nbytes} sent")


def asking(link: Link) -> Callable[[Array], Array]:
    """A function that sends a request and waits for its answer."""

    def infer(x: Array) -> Array:
        link.send(x)
        while (y := link.receive()) is None:
            pass
        return np.frombuffer(y, np.float32).reshape(x.shape)

    return infer


def closed_loop(
    links: Sequence[Link], inputs: Sequence[Array], warm_s: float, seconds: float
) -> Answered:
    """Each link sends its next request when its last one is answered.

    Args:
        links: The connections.
        inputs: What each of them sends, every one something else.
        warm_s: Time before answers count.
        seconds: Time in which they do.

    Raises:
        WrongAnswerError: An answer is not that to its request.
        TimeoutError: Nothing came for `POLL_MS`.
    """
    poller = zmq.Poller()
    expected = [x.tobytes() for x in inputs]
    # A poller gives a socket back as it is and a descriptor as a number: both are keys.
    numbers = {link.waited_for: number for number, link in enumerate(links)}
    for link in links:
        poller.register(link.waited_for, zmq.POLLIN)
    for link, x in zip(links, inputs, strict=True):
        link.send(x)
    from_s = time.perf_counter() + warm_s
    until_s = from_s + seconds
    begun_s = [time.perf_counter()] * len(links)
    count, going = 0.0, set(range(len(links)))
    while going:  # until each has the answer that it waits for when time ends
        ready = poller.poll(POLL_MS)
        if not ready:
            raise TimeoutError(f"no answer within {POLL_MS / 1000:g} s")
        for key, _ in ready:
            number = numbers[key]
            link = links[number]
            y = link.receive()
            if y is None:
                continue
            now_s = time.perf_counter()
            if bytes(y) != expected[number]:
                check(inputs[number], y)
            count += part_within(begun_s[number], now_s, from_s, until_s)
            begun_s[number] = now_s
            if now_s >= until_s:
                going.discard(number)
            link.send(inputs[number])  # the others see the same load until the end
    return Answered(count, seconds)


def part_within(begun_s: float, ended_s: float, from_s: float, until_s: float) -> float:
    """The part of one interval that lies within another.

    A server that answers 16 at once would otherwise seem quicker or slower by 16, as it falls.
    """
    return max(0.0, min(ended_s, until_s) - max(begun_s, from_s)) / (ended_s - begun_s)
