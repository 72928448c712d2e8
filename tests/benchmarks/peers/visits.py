"""One visit to a peer: its server starts, serves one model to one client, then to many, and ends.

Servers are up one at a time, since some of them poll when idle, and rounds of visits take turns, so
that a change of the machine's speed meets every peer.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.bundle import MODEL
from limpet.runtime.bench.identity import write_identity_bundle
from limpet.runtime.bench.work import steps_for, write_work_bundle
from tests.benchmarks.peers.catalogue import IN_PROCESS, PEERS, Peer
from tests.benchmarks.peers.environments import PeerError
from tests.benchmarks.peers.processes import Process, ask, client, ended, server

IDENTITY = "identity"
MODELS_MS = {IDENTITY: 0.0, "1 ms": 1.0, "10 ms": 10.0}
SIZES = {"4 KB": 1024, "150 KB": 37_632, "602 KB": 150_528}
"""float32 of a request: a window; RGB images of 224 x 224, in bytes and in float32."""
LOAD_VALUES = SIZES["4 KB"]
CLIENTS = 16
BATCHES = [1, 2, 4, 8, 16]
READY_S = 60.0
"""Longest wait for a server's first answer; LitServe and BentoML take 5 s on two busy cores."""
GRACE_S = 60.0
"""Beyond what a measurement should take, after which it counts as failed."""
SLOWEST_S = 0.05
"""A request of one client should not take longer on the average."""


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Attributes:
        rounds: Visits to each peer with each model.
        requests: Of one client, of each size, in one visit.
        warm: Before them.
        seconds: Of many clients, in one visit.
        warm_s: Before them.
    """

    rounds: int
    requests: int
    warm: int
    seconds: float
    warm_s: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One client of an identity model in one visit. Microseconds.

    Attributes:
        round: From 0.
        row: Whom it asked.
        size: Of request and answer.
        p50_us: Request to answer.
        p99_us: The same.
    """

    round: int
    row: str
    size: str
    p50_us: float
    p99_us: float


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Answers per second in one visit.

    Attributes:
        round: From 0.
        row: Whom the clients asked.
        model: Which.
        per_s: Answers to 16 clients per second; in process: items of the best batch.
        batch: In process: its size.
    """

    round: int
    row: str
    model: str
    per_s: float
    batch: int | None = None


class Visit(msgspec.Struct, kw_only=True):
    """What came of one.

    Attributes:
        latency: Of each row and size.
        rates: Of each row.
        errors: Of rows that failed.
    """

    latency: list[Latency] = []
    rates: list[Rate] = []
    errors: dict[str, str] = {}


def write_models(folder: Path) -> dict[str, Path]:
    """The ONNX files of the models, each in a bundle of its own."""
    models = {}
    for number, (label, milliseconds) in enumerate(MODELS_MS.items()):
        place = folder / f"model{number}"
        if milliseconds:
            write_work_bundle(place, f"work{number}", steps_for(milliseconds))
        else:
            write_identity_bundle(place)
        models[label] = place / MODEL
    return models


def visit(python: str, peer: Peer, label: str, model: Path, turn: int, effort: Effort) -> Visit:
    """Measures every row of a peer.

    Raises:
        PeerError: Its server does not start.
    """
    own = not peer.packages
    came = Visit()
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(ended(server(python, peer, model, own=own)))
        while not (line := served.line(READY_S)).startswith("ready "):
            pass  # Triton's log
        endpoints = line.split()[1:]
        for number, row in enumerate(peer.rows):
            endpoint = endpoints[min(number, len(endpoints) - 1)]
            with ended(client(python, peer, row, endpoint, own=own)) as asking:
                try:
                    ask(asking, READY_S + GRACE_S, [served], do="ready", ready_s=READY_S)
                    if label == IDENTITY:
                        came.latency += one_client(asking, [served], row, turn, effort)
                    came.rates.append(many_clients(asking, served, row, label, turn, effort))
                except PeerError as error:
                    came.errors[row] = str(error)
    return came


def one_client(
    asking: Process, servers: list[Process], row: str, turn: int, effort: Effort
) -> list[Latency]:
    """Its times at every size."""
    found = []
    for size, values in SIZES.items():
        what = {"values": values, "requests": effort.requests, "warm": effort.warm}
        allowed_s = GRACE_S + SLOWEST_S * (effort.requests + effort.warm)
        took = ask(asking, allowed_s, servers, do="one_after_another", **what)["ns"]
        p50, p99 = np.percentile(took, [50, 99]) / 1e3
        found.append(Latency(round=turn, row=row, size=size, p50_us=float(p50), p99_us=float(p99)))
    return found


def many_clients(
    asking: Process, served: Process, row: str, label: str, turn: int, effort: Effort
) -> Rate:
    """Their answers per second."""
    what = {"values": LOAD_VALUES, "clients": CLIENTS}
    seconds, warm_s = effort.seconds, effort.warm_s
    allowed_s = GRACE_S + seconds + warm_s
    done = ask(asking, allowed_s, [served], do="at_a_time", seconds=seconds, warm_s=warm_s, **what)
    return Rate(round=turn, row=row, model=label, per_s=done["count"] / done["seconds"])


def visit_in_process(python: str, label: str, model: Path, turn: int, effort: Effort) -> Visit:
    """The floor: the model in the client's process, its times and its best batch.

    Raises:
        PeerError: It failed.
    """
    floors = next(peer for peer in PEERS if peer.module == "floors")
    came = Visit()
    with ended(client(python, floors, IN_PROCESS, str(model), own=True)) as asking:
        ask(asking, READY_S, do="ready", ready_s=READY_S)
        if label == IDENTITY:
            came.latency += one_client(asking, [], IN_PROCESS, turn, effort)
        what = {"values": LOAD_VALUES, "batches": BATCHES, "seconds": effort.seconds}
        per_s = ask(asking, GRACE_S + effort.seconds, do="batches", **what)["per_s"]
    best = max(per_s, key=per_s.__getitem__)
    came.rates.append(
        Rate(round=turn, row=IN_PROCESS, model=label, per_s=per_s[best], batch=int(best))
    )
    return came
