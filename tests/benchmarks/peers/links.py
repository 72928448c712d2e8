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
        count: Answers, each compared with what was sent.
        seconds: The time that they took.
    """

    count: int
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
    count, from_s = 0, time.perf_counter() + warm_s
    until_s = from_s + seconds
    while (now_s := time.perf_counter()) < until_s:
        ready = poller.poll(POLL_MS)
        if not ready:
            raise TimeoutError(f"no answer within {POLL_MS / 1000:g} s")
        for key, _ in ready:
            number = numbers[key]
            link = links[number]
            y = link.receive()
            if y is None:
                continue
            if bytes(y) != expected[number]:
                check(inputs[number], y)
            count += now_s >= from_s
            link.send(inputs[number])
    return Answered(count, seconds)
